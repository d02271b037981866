"""The daemon, as a program that a file can make kill itself around one of its commits.

The file that the environment variable names says ``before 3`` or ``after 3``: three commits pass, and around
the next one the process dies by SIGKILL, before or after the database has it. ``count 0`` counts instead.
``full 3`` lets three pass; then it is ``full now``, and no file of the process may grow until somebody
removes this one and lifts the limit. Without the file, nothing happens. Another file says by how many seconds
the clock is wrong.

`tests.support.nursery` forks it; without the two variables it is a daemon like any other.
"""

import os
import resource
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DOOM_FILE = "BARKD_TEST_DOOM_FILE"
CLOCK_FILE = "BARKD_TEST_CLOCK_FILE"

FULL = "full now"

_right_time = time.time


def _wrong_time() -> float:
    try:
        return _right_time() + float(Path(os.environ[CLOCK_FILE]).read_text())
    except (KeyError, FileNotFoundError, ValueError):
        return _right_time()


time.time = _wrong_time

# Only from here on: what is imported may keep the clock that it finds.
IMPORTS = (
    "barkd_py.cli",
    "barkd_py.api.app",
    "barkd_py.api.server",
    "barkd_py.daemon.backend",
    "barkd_py.daemon.runtime",
    "uvloop",
)


def _pass(file: Path, moment: str) -> None:
    try:
        wanted, number = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if wanted == "count" and moment == "after":
        _write(file, f"count {int(number) + 1}")
    elif wanted == "full" and moment == "before":
        if number not in ("0", "now"):
            _write(file, f"full {int(number) - 1}")
            return
        if number == "0":
            _write(file, FULL)
        _fill_disk(file)
    elif wanted == moment and number == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    elif wanted == moment:
        _write(file, f"{wanted} {int(number) - 1}")


def _fill_disk(file: Path) -> None:
    """Whoever removes the file lifts the limit then: if it is gone by now, that may have been too early."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    if not file.exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _write(file: Path, text: str) -> None:
    """At once: somebody may be reading it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def _let_grpc_have_one_clock() -> None:
    """Its Python half says until when a call may last, and its C half, which knows the right time only, when
    that is: with two clocks, all calls would be late.
    """
    from grpc.aio import _utils

    _utils.time = SimpleNamespace(time=_right_time)


def main() -> None:
    from barkd_py.wallet.store.transaction import Store

    _let_grpc_have_one_clock()

    commit = Store._commit

    async def commit_or_die(store: Store, *args: Any) -> None:
        file = Path(os.environ[DOOM_FILE])
        _pass(file, "before")
        await commit(store, *args)
        _pass(file, "after")

    if DOOM_FILE in os.environ:
        Store._commit = commit_or_die  # type: ignore[method-assign, assignment]
    from barkd_py.cli import main as run

    run()
