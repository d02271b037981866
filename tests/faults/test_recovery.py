"""A wallet that lost its files: words alone, or a backup; and the process is killed on the way.

Everything happens as a person does it: over REST, with the `barkd` command, and with kill -9.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.faults.conftest import Owner
from tests.support.postgres import Cluster, require_binaries, run_cluster
from tests.support.processes import Daemon, Devnet, esplora, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def words_of(daemon: Daemon) -> str:
    return (daemon.datadir / "mnemonic").read_text()


async def barkd(*arguments: str, fails: bool = False, env: Mapping[str, str] | None = None) -> str:
    """Run the command; its output."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "barkd_py.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


async def report_of(daemon: Daemon) -> Any:
    async def ask() -> Any:
        return (await daemon.http.get("/wallet/recovery")).json()  # without a state before it has begun

    return await eventually(ask, lambda got: got.get("state") == "finished", within_secs=120)


async def test_a_kill_in_the_middle_of_a_recovery(
    alice: Owner, bob: Owner, devnet: Devnet, tmp_path: Path
) -> None:
    await alice.send(await bob.address(), 10_000)
    await alice.daemon.post("/wallet/sync")
    had_sat = await alice.spendable_sat()
    assert (await alice.daemon.http.get("/wallet/recovery")).status_code == 404
    again = Daemon(tmp_path / "again")
    await again.start()
    try:
        # The answer to a look into the mailbox never comes, to whomever: others look as well.
        await devnet.pull(
            "/faults", target="ark-server", rpc="ReadMailbox", kind="delay", seconds=600, count=None
        )
        body = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": esplora(devnet.esplora_url),
            "mnemonic": words_of(alice.daemon),
        }
        creation = asyncio.create_task(again.http.post("/wallet/create", json=body, timeout=300))
        await eventually(
            lambda: again.http.get("/wallet/recovery"),
            lambda got: got.status_code == 200 and got.json()["state"] == "running",
        )
        again.process.kill()
        with pytest.raises(httpx.TransportError):
            await creation
        await devnet.clear_faults()
        await again.start()
        report = await report_of(again)
        assert report["complete"]
        balance = await eventually(
            lambda: again.get("/wallet/balance"), lambda got: got["spendable_sat"] == had_sat
        )
        assert sum(balance.values()) == had_sat
        assert (await again.post("/wallet/recovery"))["counts"]["recovered"] == 0  # all of it is here
    finally:
        await again.close()


async def test_a_backup_is_made_while_the_daemon_runs_and_put_back_after_it_died(
    alice: Owner, bob: Owner, devnet: Devnet, tmp_path: Path
) -> None:
    datadir, words = alice.daemon.datadir, tmp_path / "words"
    words.write_text(words_of(alice.daemon))
    old, new = tmp_path / "old", tmp_path / "new"
    await alice.daemon.post("/wallet/sync")
    said = await barkd("--datadir", str(datadir), "backup", str(old))
    assert "Backup number 1" in said
    assert "The mnemonic is not in it" in said
    await alice.send(await bob.address(), 10_000)
    await alice.daemon.post("/wallet/sync")
    await barkd("--datadir", str(datadir), "backup", str(new))
    had = await alice.daemon.get("/wallet/balance")
    history = await alice.daemon.get("/history")
    alice.daemon.process.kill()

    home = tmp_path / "home"
    said = await barkd("--datadir", str(home), "restore", str(old), "--mnemonic-file", str(words), fails=True)
    assert "THIS BACKUP IS STALE" in said
    assert not (home / "mnemonic").exists()
    said = await barkd("--datadir", str(home), "restore", str(new), "--mnemonic-file", str(words))
    assert "is back, as it was at" in said
    assert words.read_text() not in said
    again = Daemon(home)
    await again.start()
    try:
        await report_of(again)
        assert await again.get("/wallet/balance") == had
        assert await again.get("/history") == history
        await again.post("/wallet/send", {"destination": await bob.address(), "amount_sat": 5_000})
    finally:
        await again.close()
        await alice.daemon.start()


PASSWORD = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with run_cluster(require_binaries()) as running:
        yield running


async def new_database(cluster: Cluster, name: str) -> str:
    """Its URL, with a password in it."""
    connection = await asyncpg.connect(cluster.url("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return cluster.url(name).replace("postgres@", f"postgres:{PASSWORD}@")


@pytest.mark.timeout(900)
async def test_a_wallet_moves_to_postgresql_by_a_backup_and_is_backed_up_there(
    carol: Owner, bob: Owner, devnet: Devnet, cluster: Cluster, tmp_path: Path
) -> None:
    """What is stale is refused there as well, and nothing shows the password of the database."""
    words = tmp_path / "words"
    words.write_text(words_of(carol.daemon))
    first, second, home = tmp_path / "first", tmp_path / "second", tmp_path / "home"
    await carol.daemon.post("/wallet/sync")
    await barkd("--datadir", str(carol.daemon.datadir), "backup", str(first))
    had = await carol.daemon.get("/wallet/balance")
    history = await carol.daemon.get("/history")
    carol.daemon.process.kill()

    env = {"BARKD_DATABASE_URL": await new_database(cluster, "moved")}
    put_back = ("--datadir", str(home), "restore", str(first), "--mnemonic-file", str(words))
    said = await barkd(*put_back, env=env)
    assert "is back, as it was at" in said
    assert not (home / "db.sqlite").exists()
    moved = Daemon(home, env=env)
    await moved.start()
    try:
        await report_of(moved)
        assert await moved.get("/wallet/balance") == had
        assert await moved.get("/history") == history
        said += await barkd("--datadir", str(home), "backup", str(second), env=env)
        await moved.post("/wallet/send", {"destination": await bob.address(), "amount_sat": 5_000})
        await moved.post("/wallet/sync")
    finally:
        moved.process.kill()
        await moved.close()
    stale_home = tmp_path / "stale"
    stale = ("--datadir", str(stale_home), "restore", str(second), "--mnemonic-file", str(words))
    refused = await barkd(
        *stale, env={"BARKD_DATABASE_URL": await new_database(cluster, "stale")}, fails=True
    )
    assert "THIS BACKUP IS STALE" in refused
    assert not (stale_home / "mnemonic").exists()
    said += refused + moved.process.log.read_text()
    assert PASSWORD not in said
    assert words.read_text() not in said
    # Back to a file, and to the daemon that the other tests use.
    for path in (*carol.daemon.datadir.glob("db.sqlite*"),):
        path.unlink()
    await barkd("--datadir", str(carol.daemon.datadir), "restore", str(second), "--accept-stale")
    await carol.daemon.start()
    await report_of(carol.daemon)
    assert await carol.spendable_sat() == had["spendable_sat"] - 5_000
