"""Logging: lines for the terminal (stderr) and for `debug.log`, in the formats of barkd.

    [2026-06-01 12:00:00.000 +02:00  INFO] message                     terminal
    [2026-06-01 12:00:00.000 +02:00  INFO barkd_py.cli cli.py:7] …     terminal, verbose
    [2026-06-01T10:00:00.000Z INFO  barkd_py.cli cli.py:7] message     debug.log

`BARK_LOG` sets levels in env_logger's syntax: `debug`, or `info,barkd_py.api=trace`. Chatty libraries are
capped at warnings. Nothing that is secret may be logged; what this module cannot know about it cannot hide.

Source: protocol sheet 07 §9.4.
"""

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from barkd_py.datadir import os_error_text

TRACE: Final = 5
OFF: Final = logging.CRITICAL + 10

_LEVELS: Final = {
    "off": OFF,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
_CHATTY: Final = (
    "aiosqlite",
    "alembic",
    "asyncio",
    "grpc",
    "h2",
    "hpack",
    "httpcore",
    "httpx",
    "sqlalchemy",
    "uvicorn",
    "websockets",
)


def set_up(
    *,
    verbose: bool,
    quiet: bool,
    log_file: Path | None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Send the log to the terminal (unless quiet) and to a file (unless None).

    A file that cannot be opened is reported on the terminal; the daemon runs without it.
    """
    environment = os.environ if environment is None else environment
    logging.addLevelName(TRACE, "TRACE")
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    _set_levels(TRACE if verbose else logging.INFO, environment.get("BARK_LOG", ""))
    logging.raiseExceptions = False  # a full disk must not take the daemon's stderr with it
    if not quiet:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(TerminalFormatter(verbose=verbose))
        root.addHandler(terminal)
    if log_file is not None:
        try:
            root.addHandler(_FileHandler(log_file))
        except OSError as error:
            print(f"Failed to open debug log file {log_file}: {os_error_text(error)}", file=sys.stderr)


def _set_levels(default: int, directives: str) -> None:
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(default, logging.WARNING))
    logging.getLogger().setLevel(default)
    for directive in directives.split(","):
        target, equals, level = directive.strip().rpartition("=")
        number = _LEVELS.get(level.strip().lower())
        if number is not None:
            logging.getLogger(target.strip().replace("::", ".") if equals else None).setLevel(number)


def _open_log_file(path: Path) -> TextIO:
    """Append to a file that only the owner may read. Two newlines set one start apart from the last."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    stream = os.fdopen(fd, "a", encoding="utf-8")
    stream.write("\n\n")
    stream.flush()
    return stream


class _FileHandler(logging.StreamHandler[TextIO]):
    """Writes to a file, and to a new one if that was removed: deleting a wallet removes the log as well."""

    def __init__(self, path: Path) -> None:
        super().__init__(_open_log_file(path))
        self._path = path
        self.setFormatter(FileFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if os.fstat(self.stream.fileno()).st_nlink == 0:
                removed, self.stream = self.stream, _open_log_file(self._path)
                removed.close()
        except (OSError, ValueError):
            pass  # it goes where it went before, if anywhere
        super().emit(record)

    def close(self) -> None:
        self.stream.close()
        super().close()


class TerminalFormatter(logging.Formatter):
    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        offset = moment.strftime("%z")
        stamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} {offset[:3]}:{offset[3:5]}"
        place = f" {_place(record)}" if self._verbose else ""
        return f"[{stamp} {_level(record):>5}{place}] {_text(self, record)}"


class FileFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
        return f"[{stamp} {_level(record):<5} {_place(record)}] {_text(self, record)}"


def _level(record: logging.LogRecord) -> str:
    if record.levelno >= logging.ERROR:
        return "ERROR"
    return "WARN" if record.levelno >= logging.WARNING else record.levelname


def _place(record: logging.LogRecord) -> str:
    return f"{record.name} {record.filename}:{record.lineno}"


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{formatter.formatException(record.exc_info)}"
    return text
