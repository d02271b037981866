"""Devnet's directory: one user at a time, and the same ports after a restart.

``devnet.json`` holds which node made the chain, the ports, and where the parts of the running (or last)
devnet answer, so that other programs find them.
"""

import contextlib
import fcntl
import json
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barkd_py.errors import InvalidInput, StateConflict

STATE_FILE = "devnet.json"
_LOCK_FILE = "lock"
_PORTS = range(20_000, 32_000)
"""Out of which a part gets one. Systems give higher ones to outgoing connections, for as long as these live:
what stops and comes back might not find such a port free.
"""
_TRIES = 100


class DirectoryInUse(StateConflict):
    """Another devnet has the directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"another devnet is running in {directory}")
        self.directory = directory


class PortInUse(StateConflict):
    """A port is taken."""

    def __init__(self, host: str, port: int, part: str) -> None:
        super().__init__(f"port {port} of {host} is in use: stop what uses it, or give another --{part}-port")
        self.port = port


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the lock dies with it. Raises DirectoryInUse."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DirectoryInUse(directory) from None
        yield


@dataclass(slots=True)
class DirectoryState:
    """What `devnet.json` remembers. ports: by part of devnet."""

    node: str
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path, node: str) -> "DirectoryState":
        """The state of a directory, a fresh one for a new directory. Raises InvalidInput.

        node: the kind that is to run now; the chain of another kind cannot be continued.
        """
        value = read_state(directory)
        if value is None:
            return cls(node)
        state = cls(str(value["node"]), {str(part): int(port) for part, port in value["ports"].items()})
        if state.node != node:
            raise InvalidInput(f"the chain in {directory} was made by the {state.node} node, not {node}")
        return state

    def save(self, directory: Path, urls: dict[str, Any]) -> None:
        """Write everything in one step."""
        new = directory / (STATE_FILE + ".new")
        new.write_text(json.dumps({"node": self.node, "ports": self.ports, "urls": urls}, indent=1) + "\n")
        new.replace(directory / STATE_FILE)

    def listen(self, host: str, part: str, asked: int | None) -> socket.socket:
        """A listening socket on the port asked for, else that of last time, else any. Raises PortInUse."""
        wanted = asked or self.ports.get(part)
        candidates = [wanted] if wanted else random.SystemRandom().sample(_PORTS, _TRIES)
        for port in candidates:
            with contextlib.suppress(OSError):
                listener = _bound(host, port)
                self.ports[part] = port
                return listener
        raise PortInUse(host, candidates[-1], part)

    def claim_port(self, host: str, part: str, asked: int | None) -> int:
        """The same for a part that binds the port itself: a port that is free now."""
        with self.listen(host, part, asked):
            return self.ports[part]

    def forget_port(self, part: str) -> None:
        """Another will be taken."""
        del self.ports[part]


def _bound(host: str, port: int) -> socket.socket:
    """It listens, so that nobody else can have the port. Raises OSError if somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Unless the protocol is named, asyncio leaves Nagle's algorithm on, and every answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def read_state(directory: Path) -> dict[str, Any] | None:
    """The JSON of a directory's `devnet.json`; None if there is none."""
    path = directory / STATE_FILE
    if not path.exists():
        return None
    value: dict[str, Any] = json.loads(path.read_text())
    return value
