"""Formats and levels of the log."""

import io
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from barkd_py import logs


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    names = ("barkd_py.test", "uvicorn")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def _line(formatter: logging.Formatter, level: int = logging.INFO) -> str:
    record = logging.LogRecord("barkd_py.cli", level, "/x/cli.py", 7, "said %s", ("so",), None)
    record.created = 1_750_000_000.5
    return formatter.format(record)


def test_terminal_lines() -> None:
    line = _line(logs.TerminalFormatter(verbose=False), logging.WARNING)
    assert re.fullmatch(r"\[2025-06-1\d \d\d:\d\d:40\.500 [+-]\d\d:\d\d  WARN\] said so", line)
    verbose = _line(logs.TerminalFormatter(verbose=True), logging.CRITICAL)
    assert verbose.endswith(" ERROR barkd_py.cli cli.py:7] said so")


def test_file_lines() -> None:
    assert _line(logs.FileFormatter()) == "[2025-06-15T15:06:40.500Z INFO  barkd_py.cli cli.py:7] said so"


def test_the_file_is_private_and_appended_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "debug.log"
    for message in ("first", "second"):
        logs.set_up(verbose=False, quiet=True, log_file=path, environment={})
        logging.getLogger("barkd_py.test").info("%s", message)
        logging.getLogger("barkd_py.test").debug("too fine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert re.findall(r"\] (.*)", text) == ["first", "second"]
    assert text.startswith("\n\n[")
    assert text.count("\n\n[") == 2
    assert capsys.readouterr().err == ""


def test_the_log_goes_on_in_a_new_file_when_the_old_one_is_removed(tmp_path: Path) -> None:
    """As it is with the wallet, while the daemon runs."""
    path = tmp_path / "debug.log"
    logs.set_up(verbose=False, quiet=True, log_file=path, environment={})
    logger = logging.getLogger("barkd_py.test")
    for message in ("first", "second"):
        logger.info("%s", message)
        assert re.findall(r"\] (.*)", path.read_text()) == [message]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.unlink()
    path.mkdir()
    logger.info("lost")  # and nothing worse
    path.rmdir()
    logger.info("third")
    assert re.findall(r"\] (.*)", path.read_text()) == ["third"]


@pytest.mark.parametrize(
    ("verbose", "directives", "level"),
    [
        (False, "", logging.INFO),
        (True, "", logs.TRACE),
        (False, "debug", logging.DEBUG),
        (False, "warn,barkd_py.test=trace", logs.TRACE),
        (False, "barkd_py::test=error", logging.ERROR),
        (False, "nonsense,=,barkd_py.test=loud", logging.INFO),
        (False, "off", logs.OFF),
    ],
)
def test_levels(verbose: bool, directives: str, level: int) -> None:
    logs.set_up(verbose=verbose, quiet=True, log_file=None, environment={"BARK_LOG": directives})
    assert logging.getLogger("barkd_py.test").getEffectiveLevel() == level


def test_chatty_libraries_are_capped() -> None:
    logs.set_up(verbose=True, quiet=True, log_file=None, environment={})
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.WARNING


def test_a_trace_follows_its_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.FileFormatter())
    logger = logging.getLogger("barkd_py.test.trace")
    logger.addHandler(handler)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it")
    assert "] it\nTraceback" in stream.getvalue()
    assert stream.getvalue().endswith("ValueError: broken\n")
