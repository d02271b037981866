"""One wallet, two programs: what the real bark wallet had is found by our daemon from its words alone, and
the other way round.

The words are all that moves: neither sees a file of the other's.
"""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from barkd_py.bitcoin.bip32 import generate_mnemonic
from tests.support.processes import Bark, Daemon, Devnet, bitcoind_with_cookie, esplora, eventually

pytestmark = pytest.mark.interop

BOARD_SAT = 100_000
ONCHAIN_SAT = 300_000


def source_of(kind: str, devnet: Devnet) -> dict[str, Any]:
    if kind == "esplora":
        return esplora(devnet.esplora_url)
    assert devnet.bitcoind_url is not None
    assert devnet.bitcoind_cookie is not None
    return bitcoind_with_cookie(devnet.bitcoind_url, devnet.bitcoind_cookie)


def words_of(datadir: Path) -> str:
    return (datadir / "mnemonic").read_text()


async def recovered(daemon: Daemon, devnet: Devnet, words: str) -> Any:
    """The report of a wallet of ours that was made from words."""
    body = {
        "network": "regtest",
        "ark_server": devnet.ark_server_url,
        "chain_source": esplora(devnet.esplora_url),
        "mnemonic": words,
    }
    await daemon.post("/wallet/create", body)
    report = await eventually(
        lambda: daemon.get("/wallet/recovery"), lambda got: got["state"] == "finished", within_secs=180
    )
    assert report["complete"], report
    return report


def spendable_ids(vtxos: list[dict[str, Any]]) -> set[str]:
    return {vtxo["id"] for vtxo in vtxos if vtxo["state"]["type"] == "spendable"}


async def test_our_daemon_finds_what_bark_had(
    bark: Bark, daemon: Daemon, devnet: Devnet, tmp_path: Path
) -> None:
    """A board, change of a payment, payments received; and the payment that it spent stays spent."""
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    await devnet.fund(bark.run("onchain", "address")["address"], ONCHAIN_SAT)
    bark.run("onchain", "balance")
    for _ in range(2):
        bark.run("board", f"{BOARD_SAT} sat")
        await devnet.mine()
    other = Bark(bark.executable, tmp_path / "other")
    other.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    bark.run("balance")
    bark.run("send", other.run("address"), "30000 sat")
    other.run("balance")
    other.run("send", bark.run("address"), "7000 sat")
    bark.run("send", other.run("address"), "1234 sat")
    before = bark.run("balance")["spendable_sat"]
    theirs = spendable_ids(bark.run("vtxos"))
    onchain = bark.run("onchain", "balance")["total_sat"]

    report = await recovered(daemon, devnet, words_of(bark.datadir))

    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == before
    assert spendable_ids(await daemon.get("/wallet/vtxos")) == theirs
    assert report["recovered_sat"] == before
    assert (await daemon.get("/onchain/balance"))["total_sat"] == onchain
    # The money is good: all of it goes to the other wallet.
    await daemon.post("/wallet/send", {"destination": other.run("address"), "amount_sat": before})
    assert other.run("balance")["spendable_sat"] == 30_000 - 7_000 + 1_234 + before
    again = await daemon.post("/wallet/recovery")
    assert again["counts"]["recovered"] == 0
    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == 0


@pytest.mark.skipif(
    "CAPTAIND_EXEC" in os.environ, reason="bark 0.8.0 recovers nothing from a server without its newer calls"
)
async def test_bark_finds_what_our_daemon_had(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], ONCHAIN_SAT)
    await daemon.post("/onchain/sync")
    await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    await devnet.mine()
    await eventually(lambda: _synced(daemon), lambda got: got["spendable_sat"] > 0)
    other = Bark(bark.executable, bark.datadir.with_name("other"))
    other.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    await daemon.post("/wallet/send", {"destination": other.run("address"), "amount_sat": 30_000})
    other.run("balance")
    ours = (await daemon.post("/wallet/addresses/next"))["address"]
    other.run("send", ours, "7000 sat")
    await eventually(lambda: daemon.get("/history"), lambda got: got[0]["subsystem"]["kind"] == "receive")
    balance = await _synced(daemon)
    mine = spendable_ids(await daemon.get("/wallet/vtxos"))
    await daemon.close()

    bark.run(
        "create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url,
        "--mnemonic", words_of(daemon.datadir),
    )  # fmt: skip

    assert bark.run("balance")["spendable_sat"] == balance["spendable_sat"]
    assert spendable_ids(bark.run("vtxos")) == mine
    bark.run("send", other.run("address"), "50000 sat")
    assert other.run("balance")["spendable_sat"] == 30_000 - 7_000 + 50_000


async def _synced(daemon: Daemon) -> Any:
    await daemon.post("/wallet/sync")
    return await daemon.get("/wallet/balance")


# --- on-chain coins, from a real bitcoind


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_a_deleted_wallet_comes_back_from_its_words_and_its_birthday(
    kind: str, daemon: Daemon, devnet_on_bitcoind: Devnet
) -> None:
    """Everything through REST, on one daemon: coins and their history are as they were, no address is given
    out twice, and the coins can be spent.
    """
    devnet = devnet_on_bitcoind
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60) as http:
        birthday_height = (await http.get("/status")).json()["height"]
    body = {
        "network": "regtest",
        "ark_server": devnet.ark_server_url,
        "chain_source": source_of(kind, devnet),
        "mnemonic": generate_mnemonic().words,
        "birthday_height": birthday_height,
    }
    await daemon.post("/wallet/create", body)
    given_out = set()
    for amount_sat in (300_000, 200_000):
        address = (await daemon.post("/onchain/addresses/next"))["address"]
        given_out.add(address)
        await devnet.fund(address, amount_sat)
    await daemon.post("/onchain/sync")
    away = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
    await daemon.post("/onchain/send", {"destination": away, "amount_sat": 40_000})
    await devnet.mine(3)
    await daemon.post("/onchain/sync")
    before = await _onchain(daemon)
    assert 0 < before["total_sat"] < 460_000
    fingerprint = (await daemon.get("/wallet"))["fingerprint"]
    deleted = await daemon.http.request(
        "DELETE", "/wallet", json={"fingerprint": fingerprint, "dangerous": True}
    )
    assert deleted.status_code == 200
    assert (await daemon.http.get("/onchain/balance")).status_code == 422
    assert not (daemon.datadir / "mnemonic").exists()

    await daemon.post("/wallet/create", body)

    await eventually(lambda: daemon.get("/wallet/recovery"), lambda got: got["state"] == "finished")
    assert (await daemon.get("/wallet"))["fingerprint"] == fingerprint
    assert await _onchain(daemon) == before
    assert (await daemon.post("/onchain/addresses/next"))["address"] not in given_out
    await daemon.post("/onchain/send", {"destination": away, "amount_sat": 400_000})
    await devnet.mine()
    await daemon.post("/onchain/sync")
    assert (await daemon.get("/onchain/balance"))["confirmed_sat"] < before["total_sat"] - 400_000


async def _onchain(daemon: Daemon) -> dict[str, Any]:
    """What is the same for whoever has the keys."""
    await daemon.post("/onchain/sync")
    utxos = await daemon.get("/onchain/utxos")
    return {
        "total_sat": (await daemon.get("/onchain/balance"))["total_sat"],
        "utxos": sorted(each["outpoint"] for each in utxos),
        "transactions": sorted(each["txid"] for each in await daemon.get("/onchain/transactions")),
    }
