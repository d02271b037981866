"""Our daemon on a real bitcoind, over RPC and over our Esplora face: fund, send on chain, board, pay."""

from pathlib import Path
from typing import Any

import pytest

from barkd_py.bitcoin.bip32 import generate_mnemonic
from tests.support.processes import Daemon, Devnet, bitcoind_with_cookie, esplora, eventually

pytestmark = pytest.mark.interop


def _source(kind: str, devnet: Devnet) -> dict[str, Any]:
    if kind == "esplora":
        return esplora(devnet.esplora_url)
    assert devnet.bitcoind_url is not None
    assert devnet.bitcoind_cookie is not None
    return bitcoind_with_cookie(devnet.bitcoind_url, devnet.bitcoind_cookie)


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_fund_send_board_and_pay(
    kind: str, daemon: Daemon, devnet_on_bitcoind: Devnet, tmp_path: Path
) -> None:
    devnet = devnet_on_bitcoind
    await daemon.create_wallet(devnet.ark_server_url, _source(kind, devnet))
    await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], 300_000)
    await daemon.post("/onchain/sync")
    assert (await daemon.get("/onchain/balance"))["confirmed_sat"] == 300_000

    # On chain, to ourselves: only the fee is gone.
    own = (await daemon.post("/onchain/addresses/next"))["address"]
    txid = (await daemon.post("/onchain/send", {"destination": own, "amount_sat": 50_000}))["txid"]
    await devnet.mine()
    await daemon.post("/onchain/sync")
    sent = next(tx for tx in await daemon.get("/onchain/transactions") if tx["txid"] == txid)
    fee_sat = sent["onchain_fee_sat"]
    assert fee_sat > 0
    assert (await daemon.get("/onchain/balance"))["confirmed_sat"] == 300_000 - fee_sat

    board = await daemon.post("/boards/board-amount", {"amount_sat": 100_000})
    await devnet.mine()
    balance = await eventually(
        lambda: _synced_balance(daemon), lambda got: got["spendable_sat"] == board["amount_sat"]
    )
    assert balance["pending_board_sat"] == 0

    receiver = Daemon(tmp_path / "receiver")
    await receiver.start()
    try:
        await receiver.create_wallet(devnet.ark_server_url, _source(kind, devnet))
        address = (await receiver.post("/wallet/addresses/next"))["address"]
        await daemon.post("/wallet/send", {"destination": address, "amount_sat": 40_000})
        await eventually(lambda: receiver.get("/wallet/balance"), lambda got: got["spendable_sat"] == 40_000)
    finally:
        await receiver.close()


async def test_a_recovery_finds_coins_from_before_the_birthday(
    daemon: Daemon, devnet_on_bitcoind: Devnet, tmp_path: Path
) -> None:
    """The node is asked for all unspent outputs of the wallet, whatever block they are of."""
    devnet = devnet_on_bitcoind
    source = _source("bitcoind", devnet)
    await daemon.create_wallet(devnet.ark_server_url, source)
    for _ in range(30):
        await daemon.post("/onchain/addresses/next")
    for amount_sat in (300_000, 200_000):
        await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], amount_sat)
    await devnet.mine(5)
    tip = (await daemon.get("/bitcoin/tip"))["tip_height"]
    words = (daemon.datadir / "mnemonic").read_text().strip()
    again = Daemon(tmp_path / "again")
    await again.start()
    try:
        body = {"network": "regtest", "ark_server": devnet.ark_server_url, "chain_source": source}
        await again.post("/wallet/create", {**body, "mnemonic": words, "birthday_height": tip})
        recovery = await eventually(
            lambda: again.get("/wallet/recovery"), lambda got: got["state"] == "finished"
        )
        assert recovery["complete"]
        assert (await again.get("/onchain/balance"))["confirmed_sat"] == 500_000
    finally:
        await again.close()


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_a_deleted_wallet_comes_back_from_its_words_and_its_birthday(
    kind: str, daemon: Daemon, devnet_on_bitcoind: Devnet
) -> None:
    """Everything through REST, on one daemon: coins and their history are as they were, no address is given
    out twice, and the coins can be spent.
    """
    devnet = devnet_on_bitcoind
    body = {
        "network": "regtest",
        "ark_server": devnet.ark_server_url,
        "chain_source": _source(kind, devnet),
        "mnemonic": str(generate_mnemonic().words),
    }
    await daemon.post("/wallet/create", body)
    birthday_height = (await daemon.get("/bitcoin/tip"))["tip_height"]
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

    await daemon.post("/wallet/create", {**body, "birthday_height": birthday_height})

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


async def _synced_balance(daemon: Daemon) -> Any:
    await daemon.post("/wallet/sync")
    return await daemon.get("/wallet/balance")
