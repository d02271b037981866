"""The real bark wallet and our daemon, on our devnet: they pay each other, and both tell the same story."""

from typing import Any

import pytest

from tests.support.processes import Bark, Daemon, Devnet, esplora, eventually

pytestmark = pytest.mark.interop

BOARD_SAT = 100_000
ONCHAIN_SAT = 300_000


async def _create_bark(bark: Bark, devnet: Devnet) -> None:
    """A bark wallet with a confirmed board."""
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    await devnet.fund(bark.run("onchain", "address")["address"], ONCHAIN_SAT)
    bark.run("onchain", "balance")
    bark.run("board", f"{BOARD_SAT} sat")
    await devnet.mine()


async def _create_funded(daemon: Daemon, devnet: Devnet) -> None:
    """A wallet of ours with a confirmed board."""
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], ONCHAIN_SAT)
    await daemon.post("/onchain/sync")
    await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    await devnet.mine()
    await daemon.post("/wallet/sync")


def _board_fee_sat(movements: list[dict[str, Any]]) -> int:
    (board,) = [movement for movement in movements if movement["subsystem"]["kind"] == "board"]
    fee: int = board["offchain_fee_sat"]
    return fee


async def test_bark_pays_our_daemon(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    await _create_bark(bark, devnet)
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    address = (await daemon.post("/wallet/addresses/next"))["address"]

    bark.run("send", address, "12345 sat")

    # Unasked: nobody calls sync.
    balance = await eventually(lambda: daemon.get("/wallet/balance"), lambda got: got["spendable_sat"] > 0)
    assert balance["spendable_sat"] == 12_345
    (received,) = await daemon.get("/history")
    assert received["subsystem"] == {"name": "bark.arkoor", "kind": "receive"}
    assert received["status"] == "successful"
    assert received["received_on"] == [
        {"destination": {"type": "ark", "value": address}, "amount_sat": 12_345}
    ]
    sent = next(movement for movement in bark.run("history") if movement["subsystem"]["kind"] == "send")
    assert sent["sent_to"] == received["received_on"]
    fee_sat = _board_fee_sat(bark.run("history"))
    assert bark.run("balance")["spendable_sat"] == BOARD_SAT - fee_sat - 12_345


async def test_our_daemon_pays_bark(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    await _create_funded(daemon, devnet)
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    address = bark.run("address")
    before = (await daemon.get("/wallet/balance"))["spendable_sat"]
    assert before == BOARD_SAT - _board_fee_sat(await daemon.get("/history"))

    await daemon.post("/wallet/send", {"destination": address, "amount_sat": 54_321})

    assert bark.run("balance")["spendable_sat"] == 54_321
    (received,) = bark.run("history")
    assert received["status"] == "successful"
    sent = (await daemon.get("/history"))[0]
    assert sent["status"] == "successful"
    assert sent["sent_to"] == received["received_on"]
    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == before - 54_321


async def test_coins_go_back_and_forth_through_a_deep_chain(
    bark: Bark, daemon: Daemon, devnet: Devnet
) -> None:
    """Each hop spends what the other side made: scripts and signatures of one are the other's input."""
    await _create_bark(bark, devnet)
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    ours = (await daemon.post("/wallet/addresses/next"))["address"]
    theirs = bark.run("address")
    total_sat = bark.run("balance")["spendable_sat"]

    bark.run("send", ours, f"{total_sat} sat")
    await eventually(lambda: daemon.get("/wallet/balance"), lambda got: got["spendable_sat"] == total_sat)
    for _ in range(3):
        await daemon.post("/wallet/send", {"destination": theirs, "amount_sat": total_sat})
        assert bark.run("balance")["spendable_sat"] == total_sat
        bark.run("send", ours, f"{total_sat} sat")
        await eventually(lambda: daemon.get("/wallet/balance"), lambda got: got["spendable_sat"] == total_sat)

    (vtxo,) = await daemon.get("/wallet/vtxos")
    assert vtxo["exit_depth"] == 1 + 7 * 2


async def test_dust_change_and_many_inputs(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    """Dust isolation and packages of several inputs, as the other implementation builds and reads them."""
    await _create_bark(bark, devnet)
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    ours = (await daemon.post("/wallet/addresses/next"))["address"]
    for amount_sat in (1_000, 150, 700, 2_000):
        bark.run("send", ours, f"{amount_sat} sat")
    await eventually(lambda: daemon.get("/wallet/balance"), lambda got: got["spendable_sat"] == 3_850)

    before_sat = bark.run("balance")["spendable_sat"]
    await daemon.post("/wallet/send", {"destination": bark.run("address"), "amount_sat": 3_700})

    assert bark.run("balance")["spendable_sat"] == before_sat + 3_700
    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == 150


async def test_our_vtxos_are_what_bark_reads_after_import(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    """A VTXO that bark made is listed by both with the same fields."""
    await _create_bark(bark, devnet)
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    ours = (await daemon.post("/wallet/addresses/next"))["address"]
    bark.run("send", ours, "30000 sat")
    await eventually(lambda: daemon.get("/wallet/balance"), lambda got: got["spendable_sat"] == 30_000)
    (mine,) = await daemon.get("/wallet/vtxos")
    (change, *_) = bark.run("vtxos")
    for field in (
        "server_pubkey",
        "exit_delta",
        "expiry_height",
        "chain_anchor",
        "policy_type",
        "exit_depth",
    ):
        assert mine[field] == change[field], field
