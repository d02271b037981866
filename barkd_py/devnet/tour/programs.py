"""The programs of a tour: devnet and two daemons, started, asked and stopped."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from barkd_py.errors import BarkdError

_BARKD = (sys.executable, "-m", "barkd_py.devnet.child")

#: How long a part may take to start, and a payment to arrive, on a slow machine.
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_STOP_TIMEOUT_SECONDS = 20.0

#: The daemons of a run that was killed need a moment to end.
_LAST_RUN_SECONDS = 15.0

_LOCK_FILE = "tour.lock"


class TourFailed(BarkdError):
    """A step did not work out. details: the end of the log of the program that failed, or nothing."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True)
class Program:
    """A started program. log: what it prints."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(
        cls, name: str, arguments: list[str], log: Path, lock: int, settings: Mapping[str, str] | None = None
    ) -> "Program":
        """Start ``barkd`` with arguments, in a session of its own: Ctrl-C is for us alone.

        lock: an open file that it holds for as long as it lives. settings: environment variables.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603
                [*_BARKD, *arguments],
                stdin=subprocess.PIPE,  # never written to: its end is the sign that we are gone
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env={**os.environ, **(settings or {})},
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raises TourFailed if it has ended."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").splitlines()
            raise TourFailed(f"{self.name} ended with code {code}", "\n".join(lines[-15:]))

    def stop(self) -> None:
        """Ask it to end and wait."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def wait_for(what: str, ready: Callable[[], bool], *programs: Program) -> None:
    """Poll until something is so. Raises TourFailed if it takes too long or a program ends meanwhile."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise TourFailed(f"waited {_PATIENCE_SECONDS:.0f} s for {what}")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def lock_of(directory: Path, console: Console) -> Iterator[int]:
    """The open lock of a directory, once no program of an earlier run is left. Raises TourFailed."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK_FILE).open("a") as file:

        def is_ours() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not is_ours():
            with console.status("Waiting for the last run to end …"):
                deadline = time.monotonic() + _LAST_RUN_SECONDS
                while not is_ours():
                    if time.monotonic() > deadline:
                        raise TourFailed(f"another tour is up in {directory}; stop it with Ctrl-C")
                    time.sleep(_POLL_SECONDS)
        yield file.fileno()


def port_for(memory: Path) -> int:
    """The port that a file remembers if it is still free, else another, which is remembered."""
    with contextlib.suppress(FileNotFoundError, ValueError, OSError):
        return _bindable(int(memory.read_text()))
    port = _bindable(0)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(f"{port}\n")
    return port


def _bindable(port: int) -> int:
    """A port that is free now: this one, or any if it is 0. Raises OSError."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return int(listener.getsockname()[1])


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        with contextlib.suppress(ValueError):
            body = response.json()
            raise TourFailed(str(body.get("message") or body.get("error")))
        raise TourFailed(f"{response.request.url} answered {response.status_code}")
    return response.json() if response.content else None


@dataclass(frozen=True, slots=True)
class Devnet:
    """The running devnet, by its levers."""

    program: Program
    esplora_url: str
    ark_server_url: str
    control_url: str
    http: httpx.Client

    @classmethod
    def start(cls, directory: Path, logs: Path, lock: int) -> Program:
        # Blocks come by themselves, so that whatever one tries out afterwards confirms.
        arguments = ["devnet", "--dir", str(directory), "--mine-on-tx", "--json"]
        return Program.start("barkd devnet", arguments, logs / "devnet.log", lock)

    @classmethod
    def connect(cls, program: Program, http: httpx.Client) -> "Devnet":
        """Wait for the line in which it says where its parts are."""
        urls: dict[str, Any] = {}

        def has_said() -> bool:
            first, newline, _ = program.log.read_text(errors="replace").partition("\n")
            if newline:
                with contextlib.suppress(ValueError):  # a warning came first: the program says what is wrong
                    urls.update(json.loads(first))
            return bool(urls)

        wait_for("devnet to start", has_said, program)
        return cls(program, urls["esplora_url"], urls["ark_server_url"], urls["control_url"], http)

    def pull(self, lever: str, **body: object) -> Any:
        """Pull a lever. Raises TourFailed."""
        return _answer(self.http.post(self.control_url + lever, json=body))

    def height(self) -> int:
        return int(_answer(self.http.get(self.control_url + "/status"))["height"])


@dataclass(frozen=True, slots=True)
class Daemon:
    """A wallet daemon, by its REST API."""

    name: str
    datadir: Path
    url: str
    program: Program
    http: httpx.Client

    @classmethod
    def start(cls, name: str, directory: Path, logs: Path, lock: int, devnet: Devnet) -> "Daemon":
        datadir, port = directory / name, port_for(directory / f"{name}.port")
        arguments = ["--datadir", str(datadir), "--port", str(port)]
        # Devnet may have moved to other ports since the wallet was made.
        settings = {"BARK_SERVER_ADDRESS": devnet.ark_server_url, "BARK_ESPLORA_ADDRESS": devnet.esplora_url}
        program = Program.start(f"barkd of {name}", arguments, logs / f"{name}.log", lock, settings)
        return cls(name, datadir, f"http://127.0.0.1:{port}", program, devnet.http)

    @property
    def token_file(self) -> Path:
        return self.datadir / "auth_token"

    def wait_until_up(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.http.get(self.url + "/ping").is_success
            return False

        wait_for(f"{self.name}'s daemon", answers, self.program)

    def get(self, path: str) -> Any:
        """GET a path of the API. Raises TourFailed."""
        return _answer(self.http.get(f"{self.url}/api/v1/{path}", headers=self._headers()))

    def post(self, path: str, body: object = None) -> Any:
        """POST to a path of the API. Raises TourFailed."""
        return _answer(self.http.post(f"{self.url}/api/v1/{path}", json=body, headers=self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}

    def ensure_wallet(self, devnet: Devnet) -> bool:
        """Make a wallet unless there is one; whether it is new."""
        if self.get("wallet").get("fingerprint"):
            return False
        self.post(
            "wallet/create",
            {
                "network": "regtest",
                "ark_server": devnet.ark_server_url,
                "chain_source": {"esplora": {"url": devnet.esplora_url}},
            },
        )
        return True

    def spendable_sat(self) -> int:
        return int(self.get("wallet/balance")["spendable_sat"])
