"""Processes that begin as copies of one that has everything imported already.

Importing takes most of a daemon's start. A suite that starts a daemon hundreds of times lets a nursery import
once and fork each of them. What is forked has nothing of the others' but the code: no threads, no open files,
no random numbers (Python seeds its generator anew after a fork, and keys and nonces come from the system's).

    python -m tests.support.nursery PROGRAM    imports what PROGRAM names, and forks it for each line it reads
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support.processes import Process

_PR_SET_PDEATHSIG = 1


class Nursery:
    """A process that forks one program again and again.

    program: a module with `main()`, and `IMPORTS`: names of modules that it imports sooner or later.
    """

    def __init__(self, program: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def fork(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start the program with these arguments; its process id."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        request = {"argv": list(argv), "env": dict(env), "log": str(log)}
        self._popen.stdin.write(json.dumps(request).encode() + b"\n")
        self._popen.stdin.flush()
        answer = self._popen.stdout.readline()
        if not answer:
            raise AssertionError(f"the nursery ended: {self._popen.wait()}")
        return int(answer)

    def close(self) -> None:
        """What it forked dies with it."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait()
        self._popen.stdout.close()


class ForkedProcess(Process):
    """A process out of a nursery. command: the arguments of the program."""

    def __init__(
        self, nursery: Nursery, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(command, log, env)
        self._nursery = nursery
        self._extra_env = env or {}
        self._pidfd: int | None = None
        self._pid: int | None = None

    def launch(self) -> None:
        self._forget()
        self._pid = self._nursery.fork(self.command, self._extra_env, self.log)
        self._pidfd = os.pidfd_open(self._pid)

    @property
    def running(self) -> bool:
        return self._pidfd is not None and not self._ends_within(0)

    @property
    def pid(self) -> int:
        assert self._pid is not None
        return self._pid

    def kill(self) -> None:
        if self._pidfd is not None:
            self._send(signal.SIGKILL)
            self._ends_within(None)
            self._forget()

    def terminate(self, within_secs: float = 60.0) -> int:
        raise NotImplementedError("its exit code is the nursery's to see")

    def _send(self, signal_number: int) -> None:
        assert self._pidfd is not None
        try:
            signal.pidfd_send_signal(self._pidfd, signal_number)
        except ProcessLookupError:
            return

    def _ends_within(self, secs: float | None) -> bool:
        assert self._pidfd is not None
        readable, _, _ = select.select([self._pidfd], [], [], secs)
        return bool(readable)

    def _forget(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _serve(program: Any) -> None:
    """Fork for each line of standard input; the process ids go to standard output."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ended is gone at once
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(program, request)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(program: Any, request: Mapping[str, Any]) -> NoReturn:
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.environ.update(request["env"])
        sys.argv[:] = ["barkd", *request["argv"]]
        program.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    program = importlib.import_module(sys.argv[1])
    for name in program.IMPORTS:
        importlib.import_module(name)
    _serve(program)


if __name__ == "__main__":
    main()
