"""The daemon, as a program that a file can make kill itself around one of its commits.

The file that the environment variable names says ``before 3`` or ``after 3``: three commits pass, and around
the next one the process dies by SIGKILL, before or after the database has it. ``count 0`` counts instead.
Without the file, nothing happens. Another file says by how many seconds the clock is wrong.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

DOOM_FILE = "BARKD_TEST_DOOM_FILE"
CLOCK_FILE = "BARKD_TEST_CLOCK_FILE"


def _pass(file: Path, moment: str) -> None:
    try:
        wanted, number = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if wanted == "count" and moment == "after":
        file.write_text(f"count {int(number) + 1}")
    elif wanted == moment and number == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    elif wanted == moment:
        file.write_text(f"{wanted} {int(number) - 1}")


def _set_clock(file: Path) -> None:
    right = time.time

    def wrong() -> float:
        try:
            return right() + float(file.read_text())
        except (FileNotFoundError, ValueError):
            return right()

    time.time = wrong


def main() -> None:
    _set_clock(Path(os.environ[CLOCK_FILE]))
    # Only now: what is imported may keep the clock that it finds.
    from barkd_py.wallet.store.transaction import Store

    file = Path(os.environ[DOOM_FILE])
    commit = Store._commit

    async def commit_or_die(store: Store, *args: Any) -> None:
        _pass(file, "before")
        await commit(store, *args)
        _pass(file, "after")

    Store._commit = commit_or_die  # type: ignore[method-assign, assignment]
    from barkd_py.cli import main as run

    sys.argv[0] = "barkd"
    run()


if __name__ == "__main__":
    main()
