"""Nothing secret is written to the terminal or to a log file, however much is logged and whatever fails."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import parse_mnemonic
from tests.faults.conftest import Owner
from tests.support.processes import Daemon, Devnet, Process, esplora, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A phrase of its own, so that finding its words is no accident.
PHRASE = "zebra wrist vendor umbrella tornado skull rhythm quantum pyramid orbit nerve absorb"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
RPC_PASSWORD = "correct-horse-battery-staple"
ACCESS_TOKEN = "access-token-that-nobody-may-see"


class LoudDaemon(Daemon):
    """With authentication, and logging everything to the terminal and to the file."""

    def __init__(self, datadir: Path) -> None:
        super().__init__(datadir)
        self.log_file = datadir.with_name("debug.log")
        self.process = Process(
            [
                *(sys.executable, "-m", "barkd_py.cli", "--verbose"),
                # Not in the data directory: a creation that fails cleans that up.
                *("--datadir", str(datadir), "--port", str(self.port), "--logfile", str(self.log_file)),
            ],
            datadir.with_name(datadir.name + ".log"),
            {"BARK_LOG": "trace", "BARK_DAEMON_SYNC_INTERVAL_SECS": "1"},
        )

    async def start(self) -> None:
        await super().start()
        self.token = (self.datadir / "auth_token").read_text()
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def logged(self) -> str:
        return self.process.log.read_text() + self.log_file.read_text()


def secrets_of(daemon: LoudDaemon) -> Iterator[tuple[str, str]]:
    """What must not be found, and what it is."""
    words = PHRASE.split()
    for start in range(len(words) - 2):
        yield "three words of the mnemonic", " ".join(words[start : start + 3])
    yield "the token", daemon.token
    seed = parse_mnemonic(PHRASE)
    keys = WalletKeys(seed)
    for name, key in (
        ("mailbox key", keys.mailbox_key),
        ("recovery mailbox key", keys.recovery_mailbox_key),
        *((f"VTXO key {index}", keys.vtxo_key(index)) for index in range(6)),
    ):
        yield name, key.secret_bytes.hex()
    yield "an extended private key", "prv"
    yield "an authorization of the mailbox", keys.mailbox_key.public_key.data.hex() + "00"
    yield "a password", RPC_PASSWORD
    yield "the access token", ACCESS_TOKEN
    yield "a header", "Bearer "


async def test_a_whole_life_is_logged_without_a_secret(
    devnet: Devnet, bob: Owner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemon = LoudDaemon(tmp_path_factory.mktemp("loud") / "datadir")
    await daemon.start()
    try:
        await _live(daemon, devnet, bob)
    finally:
        await daemon.http.aclose()
        assert daemon.process.terminate() == 0
    logged = daemon.logged()
    assert " INFO barkd_py.cli" in logged, "it is not verbose"
    assert "Invalid mnemonic" not in logged, "a refusal of a request is nobody's business"
    assert "failed with 500" in logged
    found = [what for what, secret in secrets_of(daemon) if secret.lower() in logged.lower()]
    assert found == []


async def test_files_are_their_owner_s_alone(
    devnet: Devnet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the umask says, and while the daemon runs: the log of the database comes and goes."""
    daemon = Daemon(tmp_path_factory.mktemp("private") / "datadir")
    before = os.umask(0)
    try:
        await daemon.start()
    finally:
        os.umask(before)
    try:
        await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
        await daemon.post("/wallet/addresses/next")
        assert stat.S_IMODE(daemon.datadir.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in daemon.datadir.rglob("*")}
        assert {"mnemonic", "config.toml", "db.sqlite", "db.sqlite-wal"} <= set(modes)
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    finally:
        await daemon.close()


async def _live(daemon: LoudDaemon, devnet: Devnet, bob: Owner) -> None:
    """Create, board, pay, be paid, restart; and everything that can go wrong with a secret in it."""
    create: dict[str, Any] = {
        "network": "regtest",
        "ark_server": devnet.ark_server_url,
        "ark_server_access_token": ACCESS_TOKEN,
        "chain_source": esplora(devnet.esplora_url),
        "mnemonic": PHRASE,
    }
    owner = Owner(daemon, devnet)
    user_pass = {"user-pass": {"user": "user", "pass": RPC_PASSWORD}}
    bitcoind = {"bitcoind": {"bitcoind": "http://127.0.0.1:1", "bitcoind_auth": user_pass}}
    for change in (
        {"mnemonic": PHRASE.rsplit(" ", 1)[0] + " zoo"},  # wrong checksum
        {"mnemonic": PHRASE + " zoo"},
        {"chain_source": bitcoind, "birthday_height": 1},
        {"chain_source": bitcoind},  # no birthday
        {"ark_server": "http://127.0.0.1:1"},
    ):
        await owner.refused("POST", "/wallet/create", {**create, **change})
    # Bodies that cannot be read, with the words in them.
    for body in (f'{{"mnemonic": "{PHRASE}"', f'{{"network": "regtest", "mnemonic": ["{PHRASE}"]}}'):
        answer = await daemon.http.post(
            "/wallet/create", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
    for header in (f"Bearer {daemon.token}x", f"bearer {daemon.token}", f"Basic {daemon.token}"):
        wrong = await daemon.http.get("/wallet", headers={"Authorization": header})
        assert wrong.status_code == 401

    await daemon.post("/wallet/create", create)
    await owner.board(100_000)
    await owner.send(await bob.address(), 10_000)
    await bob.daemon.post("/wallet/sync/mailbox")
    before_sat = await owner.spendable_sat()
    await bob.send(await owner.address(), 4_000)
    await eventually(owner.spendable_sat, lambda sat: sat == before_sat + 4_000)
    ticket = (await daemon.http.get("/notifications/ws/ticket")).json()
    await daemon.post("/onchain/addresses/next")
    await daemon.post(
        "/onchain/drain", {"destination": (await daemon.post("/onchain/addresses/next"))["address"]}
    )
    mnemonic = await daemon.http.get("/wallet/mnemonic")
    assert mnemonic.status_code == 404
    # Trouble with the server, and a start that fails because of the file with the words.
    await devnet.pull("/faults", target="ark-server", rpc="*", kind="error", code="INTERNAL", count=3)
    await daemon.post("/wallet/sync")
    await daemon.http.post("/wallet/sync/mailbox")
    await devnet.clear_faults()
    assert daemon.process.terminate() == 0
    assert ticket not in daemon.logged()
    (daemon.datadir / "mnemonic").write_text(PHRASE.replace(PHRASE.split()[4], "notaword"))
    with pytest.raises(AssertionError, match="the daemon ended"):
        await Daemon.start(daemon)
    (daemon.datadir / "mnemonic").write_text(OTHER_WORDS)
    with pytest.raises(AssertionError, match="the daemon ended"):
        await Daemon.start(daemon)
    (daemon.datadir / "mnemonic").write_text(PHRASE)
    config = daemon.datadir / "config.toml"
    settings = config.read_text()
    config.write_text(f'{settings}\nbitcoind_pass = "{RPC_PASSWORD}" x\n')
    with pytest.raises(AssertionError, match="the daemon ended"):
        await Daemon.start(daemon)
    config.write_text(settings)
    await daemon.start()
