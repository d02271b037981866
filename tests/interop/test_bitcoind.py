"""Our daemon on a real bitcoind, over RPC and over our Esplora face: fund, send on chain, board, pay."""

from pathlib import Path
from typing import Any

import pytest

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


async def _synced_balance(daemon: Daemon) -> Any:
    await daemon.post("/wallet/sync")
    return await daemon.get("/wallet/balance")
