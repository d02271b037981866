"""The programs under test as processes: our daemon, devnet, and the real bark wallet."""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx

T = TypeVar("T")

START_DEADLINE_SECS = 120.0

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of what is on this machine: reading all certificate authorities takes each of them 20 ms."""
_PORTS = (10_000, 20_000)
_reserved: list[int] = []
"""Open files, each locked: the ports that this process was given."""


def free_port() -> int:
    """A loopback port that nobody listens on now, and that no other test gets while this process lives.

    Not one of those that the system gives to outgoing connections, or devnet to its parts: who dies and comes
    back must find it free.
    """
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserve(port)
            return port


def _reserve(port: int) -> None:
    """Raises OSError if somebody has it."""
    directory = Path(tempfile.gettempdir(), f"barkd-py-test-ports-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    file = os.open(directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    _reserved.append(file)


async def eventually(
    check: Callable[[], Awaitable[T]], accept: Callable[[T], bool], *, within_secs: float = 90.0
) -> T:
    """Ask until the answer is accepted; fails with the last answer after the deadline."""
    deadline = time.monotonic() + within_secs
    while True:
        answer = await check()
        if accept(answer):
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not accepted within {within_secs} s; the last answer was {answer!r}")
        await asyncio.sleep(0.05)


async def until(check: Callable[[], Awaitable[bool]], *, within_secs: float = 120.0) -> None:
    """Ask until it is true."""
    async with asyncio.timeout(within_secs):
        while not await check():
            await asyncio.sleep(0.02)


class Process:
    """A child process with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = tuple(command)
        self.log = log
        self._env = {**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})}
        self._popen: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(self.command, stdout=output, stderr=output, env=self._env)

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def terminate(self, within_secs: float = 60.0) -> int:
        """SIGTERM; returns the exit code. Kills it and fails if it does not stop in time."""
        assert self._popen is not None
        self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(within_secs)
        except subprocess.TimeoutExpired:
            self._popen.send_signal(signal.SIGABRT)  # Python programs say where they are before they die
            self._popen.wait()
            raise AssertionError(
                f"{self.command[0]} did not stop within {within_secs} s\n{self.tail()}"
            ) from None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


@dataclass(frozen=True, slots=True)
class Devnet:
    """A running ``barkd devnet``: where its parts are, and its levers."""

    process: Process
    esplora_url: str
    ark_server_url: str
    control_url: str
    bitcoind_url: str | None
    bitcoind_cookie: str | None

    @property
    def ark_server_target(self) -> str:
        """``host:port``"""
        return self.ark_server_url.removeprefix("http://")

    async def pull(self, lever: str, **arguments: Any) -> Any:
        """POST to the control API; see `barkd_py.devnet.control`."""
        async with httpx.AsyncClient(base_url=self.control_url, timeout=60, verify=NO_TLS) as http:
            return _answer(await http.post(lever, json=arguments))

    async def mine(self, blocks: int = 1) -> None:
        await self.pull("/mine", blocks=blocks)

    async def fund(self, address: str, amount_sat: int) -> None:
        """Pay from the faucet, and confirm it."""
        await self.pull("/fund", address=address, amount_sat=amount_sat)

    async def clear_faults(self) -> None:
        async with httpx.AsyncClient(base_url=self.control_url, timeout=60, verify=NO_TLS) as http:
            _answer(await http.delete("/faults"))


def start_devnet(directory: Path, *options: str) -> Devnet:
    """Start ``barkd devnet`` and wait until it says where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "devnet.log"
    process = Process(
        [
            sys.executable,
            "-m",
            "barkd_py.cli",
            "devnet",
            "--dir",
            str(directory / "state"),
            "--json",
            *options,
        ],
        log,
    )
    process.launch()
    deadline = time.monotonic() + START_DEADLINE_SECS
    while True:
        for line in process.tail().splitlines():
            if line.startswith("{"):
                urls = json.loads(line)
                return Devnet(
                    process,
                    urls["esplora_url"],
                    urls["ark_server_url"],
                    urls["control_url"],
                    urls.get("bitcoind_url"),
                    urls.get("bitcoind_cookie"),
                )
        if not process.running or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"devnet did not start: {process.tail()}")
        time.sleep(0.02)


class Daemon:
    """One of our daemons on a port of its own, without authentication unless there is a token.

    started: the data directory and the terminal of each that has run in this process.
    """

    started: ClassVar[set[tuple[Path, Path]]] = set()

    def __init__(
        self, datadir: Path, *, env: Mapping[str, str] | None = None, token: str | None = None
    ) -> None:
        self.datadir = datadir
        self.port = free_port()
        self.process = Process(
            [
                *(sys.executable, "-m", "barkd_py.cli"),
                *("--datadir", str(datadir), "--port", str(self.port)),
                *(() if token else ("--no-auth",)),
            ],
            datadir.with_name(datadir.name + ".log"),
            env,
        )
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            timeout=60,
            verify=NO_TLS,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    async def start(self) -> None:
        """Launch it and wait until it answers."""
        self.started.add((self.datadir, self.process.log))
        self.process.launch()
        deadline = time.monotonic() + START_DEADLINE_SECS
        while True:
            try:
                if (await self.http.get(f"http://127.0.0.1:{self.port}/ping")).status_code == 200:
                    return
            except httpx.TransportError:
                if not self.process.running:
                    raise AssertionError(f"the daemon ended: {self.process.tail()}") from None
            if time.monotonic() > deadline:
                raise AssertionError(f"the daemon does not answer: {self.process.tail()}")
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.http.aclose()
        self.process.kill()

    async def get(self, path: str) -> Any:
        return _answer(await self.http.get(path))

    async def post(self, path: str, body: Any = None) -> Any:
        return _answer(await self.http.post(path, json=body if body is not None else {}))

    async def create_wallet(self, ark_server: str, chain_source: Mapping[str, Any]) -> str:
        """Create a regtest wallet; returns its fingerprint."""
        body = {"network": "regtest", "ark_server": ark_server, "chain_source": chain_source}
        fingerprint: str = (await self.post("/wallet/create", body))["fingerprint"]
        return fingerprint


def esplora(url: str) -> dict[str, Any]:
    """A chain source for `Daemon.create_wallet`."""
    return {"esplora": {"url": url}}


def bitcoind_with_cookie(url: str, cookie: str) -> dict[str, Any]:
    """A chain source for `Daemon.create_wallet`."""
    return {"bitcoind": {"bitcoind": url, "bitcoind_auth": {"cookie": {"cookie": cookie}}}}


def _answer(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise AssertionError(
            f"{response.request.method} {response.request.url}: {response.status_code} {response.text}"
        )
    return response.json() if response.content else None


@dataclass(frozen=True, slots=True)
class Bark:
    """The real bark wallet, from its published crate.

    Its commands print JSON on standard output.
    """

    executable: str
    datadir: Path

    def run(self, *arguments: str) -> Any:
        """Run one command; returns its JSON, or its text, or None if it printed nothing."""
        done = subprocess.run(
            [self.executable, "--datadir", str(self.datadir), "--quiet", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"bark {' '.join(arguments)}: {done.stderr or done.stdout}")
        text = done.stdout.strip()
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text
