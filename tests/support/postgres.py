"""A private PostgreSQL server for tests: its own data directory, a free port on the loopback interface.

Needs the server's binaries (Debian: ``apt-get install postgresql``), not a running server. PostgreSQL refuses
to run as root, so a test run by root starts it as the user ``postgres``.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import free_port


def find_binaries() -> Path | None:
    """The directory with ``initdb`` and ``pg_ctl``: on the path, or where Debian keeps the newest version."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest_last = sorted(installed, key=lambda path: float(path.parts[-3]))
    return newest_last[-1].parent if newest_last else None


def require_binaries() -> Path:
    """The binaries; without them the test is skipped, or fails where everything must be tested."""
    found = find_binaries()
    if found is None:
        reason = "NOT TESTED ON POSTGRESQL: no server binaries (apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Cluster:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


@contextmanager
def run_cluster(binaries: Path) -> Iterator[Cluster]:
    """Start a server, and stop it at the end; its data is thrown away, so nothing waits for the disk."""
    with tempfile.TemporaryDirectory(prefix="barkd-postgres-", ignore_cleanup_errors=True) as directory:
        data = Path(directory) / "data"
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        _run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
        port = free_port()
        settings = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory}"
            " -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=40"
        )
        _run([binaries / "pg_ctl", "-D", data, "-o", settings, "-l", f"{directory}/log", "-w", "start"])
        try:
            yield Cluster(port)
        finally:
            _run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])


def _run(command: list[str | Path]) -> None:
    as_postgres: list[str | Path] = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*as_postgres, *command], capture_output=True, text=True, cwd="/", timeout=60)
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout}{done.stderr}"
