"""Our daemon in rounds and offboards beside the real bark wallet, on our devnet or on the real Ark server.

Where a test needs both wallets in one round, it starts them while the server sleeps between two rounds.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from barkd_py.ark.fees import FeeSchedule, VtxoFeeInfo, refresh_fee
from barkd_py.devnet.ark_server.settings import DEFAULT_FEES
from tests.support.processes import Bark, Daemon, Devnet, esplora, eventually

pytestmark = pytest.mark.interop

# Both servers have the same fees.
FEES: FeeSchedule = DEFAULT_FEES
ROUND_SECS = 90.0
QUIET_SECS = (4.5, 7.0)
"""How far away the next round is when the windows of the last one are over and there is time before it."""


async def create(daemon: Daemon, devnet: Devnet, *boards_sat: int) -> None:
    """A wallet of ours with confirmed boards."""
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    for amount_sat in boards_sat:
        address = (await daemon.post("/onchain/addresses/next"))["address"]
        await devnet.fund(address, amount_sat + 20_000)
        await daemon.post("/onchain/sync")
        await daemon.post("/boards/board-amount", {"amount_sat": amount_sat})
        await devnet.mine()
    await eventually(lambda: synced(daemon), lambda got: got["pending_board_sat"] == 0)
    assert len(await daemon.get("/wallet/vtxos")) == len(boards_sat)


async def create_bark(bark: Bark, devnet: Devnet, amount_sat: int) -> None:
    """A bark wallet with a confirmed board."""
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    await devnet.fund(bark.run("onchain", "address")["address"], amount_sat + 20_000)
    bark.run("onchain", "balance")
    bark.run("board", f"{amount_sat} sat")
    await devnet.mine()
    await eventually(lambda: asyncio.to_thread(_spendable, bark), lambda got: len(got) == 1)


def _spendable(bark: Bark) -> list[dict[str, Any]]:
    bark.run("maintain")
    return [vtxo for vtxo in bark.run("vtxos") if vtxo["state"] == {"type": "spendable"}]


async def synced(daemon: Daemon) -> dict[str, int]:
    await daemon.post("/wallet/sync")
    balance: dict[str, int] = await daemon.get("/wallet/balance")
    return balance


async def between_rounds(daemon: Daemon) -> None:
    """Return while the server sleeps, and will for some seconds more."""

    async def seconds_left() -> float:
        start = datetime.fromisoformat((await daemon.get("/wallet/next-round"))["start_time"])
        return (start - datetime.now(UTC)).total_seconds()

    await eventually(seconds_left, lambda got: QUIET_SECS[0] < got < QUIET_SECS[1], within_secs=ROUND_SECS)


async def held(daemon: Daemon, round_id: int) -> str:
    """The funding transaction of our participation, once the round was held."""

    async def status() -> Any:
        infos = [info for info in await daemon.get("/wallet/rounds") if info["id"] == round_id]
        return infos[0]["status"] if infos else {"status": "gone"}

    found = await eventually(
        status, lambda got: got["status"] in ("unconfirmed", "confirmed", "gone"), within_secs=ROUND_SECS
    )
    assert found["status"] != "gone", daemon.process.tail()
    funding_txid: str = found["funding_txid"]
    return funding_txid


async def confirm(devnet: Devnet, daemon: Daemon) -> None:
    """Mine until nothing of ours is in a round."""

    async def mined() -> Any:
        await devnet.mine()
        await daemon.post("/wallet/sync")
        return await daemon.get("/wallet/rounds")

    await eventually(mined, lambda got: got == [], within_secs=ROUND_SECS)


async def fee_sat(daemon: Daemon, vtxos: list[dict[str, Any]], height: int | None = None) -> int:
    tip_height = height or (await daemon.get("/bitcoin/tip"))["tip_height"]
    infos = [
        VtxoFeeInfo.at_tip(
            amount_sat=vtxo["amount_sat"], expiry_height=vtxo["expiry_height"], tip_height=tip_height
        )
        for vtxo in vtxos
    ]
    return refresh_fee(FEES, infos)


def total_sat(vtxos: list[dict[str, Any]]) -> int:
    return sum(vtxo["amount_sat"] for vtxo in vtxos)


async def last_movement(daemon: Daemon, kind: str) -> dict[str, Any]:
    history: list[dict[str, Any]] = await daemon.get("/history")
    return next(movement for movement in history if movement["subsystem"]["kind"] == kind)


async def onchain_sat(daemon: Daemon) -> int:
    """What the on-chain wallet of ours holds; the offboards of these tests pay to it."""
    await daemon.post("/onchain/sync")
    return int((await daemon.get("/onchain/balance"))["total_sat"])


# --- rounds


async def test_our_daemon_and_bark_in_the_same_round(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet, 100_000, 50_000)
    await create_bark(bark, devnet, 70_000)
    old = await daemon.get("/wallet/vtxos")
    fee = await fee_sat(daemon, old)

    await between_rounds(daemon)
    theirs = asyncio.create_task(asyncio.to_thread(bark.run, "refresh", "--all"))
    ours = await daemon.post("/wallet/refresh/all")
    funding_txid = await held(daemon, ours["id"])
    assert (await theirs)["funding_txid"] == funding_txid

    await confirm(devnet, daemon)
    (new,) = await daemon.get("/wallet/vtxos")
    assert new["amount_sat"] == total_sat(old) - fee
    assert new["chain_anchor"] == f"{funding_txid}:0"
    assert new["state"] == {"type": "spendable"}
    movement = await last_movement(daemon, "refresh")
    assert movement["status"] == "successful"
    assert movement["offchain_fee_sat"] == fee
    assert movement["metadata"] == {"funding_txid": funding_txid}
    (their_new,) = await eventually(lambda: asyncio.to_thread(_spendable, bark), lambda got: len(got) == 1)
    assert their_new["chain_anchor"] == f"{funding_txid}:0"

    # What the round made is money to the other.
    await daemon.post("/wallet/send", {"destination": bark.run("address"), "amount_sat": 12_345})
    assert bark.run("balance")["spendable_sat"] == their_new["amount_sat"] + 12_345


async def test_a_delegated_refresh(daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet, 100_000, 50_000)
    old = await daemon.get("/wallet/vtxos")
    fee = await fee_sat(daemon, old)
    info = await daemon.post("/wallet/refresh/delegated/vtxos", {"vtxos": [vtxo["id"] for vtxo in old]})
    assert (info["state"], info["status"]) == ("delegated-pending", {"status": "pending"})
    assert len(info["unlock_hash"]) == 64
    funding_txid = await held(daemon, info["id"])
    await confirm(devnet, daemon)
    (new,) = await daemon.get("/wallet/vtxos")
    assert new["amount_sat"] == total_sat(old) - fee
    assert new["chain_anchor"] == f"{funding_txid}:0"
    assert (await last_movement(daemon, "refresh"))["status"] == "successful"


async def test_a_scheduled_refresh_waits_for_its_height(daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet, 100_000)
    (old,) = await daemon.get("/wallet/vtxos")
    height = (await daemon.get("/bitcoin/tip"))["tip_height"] + 3
    fee = await fee_sat(daemon, [old], height)
    info = await daemon.post("/wallet/refresh/delegated/vtxos", {"vtxos": [old["id"]], "height": height})
    assert info["scheduled_height"] == height
    await devnet.mine(3)
    await held(daemon, info["id"])
    await confirm(devnet, daemon)
    (new,) = await daemon.get("/wallet/vtxos")
    assert new["amount_sat"] == old["amount_sat"] - fee


async def test_a_received_coin_is_made_safe(bark: Bark, daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet)
    await create_bark(bark, devnet, 60_000)
    bark.run("send", (await daemon.post("/wallet/addresses/next"))["address"], "30000 sat")
    await eventually(lambda: synced(daemon), lambda got: got["spendable_sat"] == 30_000)
    info = await daemon.post("/wallet/refresh/counterparty")
    await held(daemon, info["id"])
    await confirm(devnet, daemon)
    (new,) = await daemon.get("/wallet/vtxos")
    assert new["exit_depth"] == 2
    refused = await daemon.http.post("/wallet/refresh/counterparty")
    assert (refused.status_code, refused.json()["message"]) == (404, "No VTXO to refresh")


async def test_a_round_is_completed_by_a_daemon_that_was_killed(daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet, 100_000)
    info = await daemon.post("/wallet/refresh/all")
    funding_txid = await held(daemon, info["id"])
    daemon.process.kill()
    await devnet.mine()
    await daemon.start()
    await confirm(devnet, daemon)
    (new,) = await daemon.get("/wallet/vtxos")
    assert new["chain_anchor"] == f"{funding_txid}:0"


# --- offboards


async def test_vtxos_leave_at_the_estimated_fee(daemon: Daemon, devnet: Devnet) -> None:
    await create(daemon, devnet, 100_000, 50_000)
    vtxos = await daemon.get("/wallet/vtxos")
    address = (await daemon.post("/onchain/addresses/next"))["address"]
    estimate = await daemon.post(
        "/fees/offboard", {"address": address, "vtxos": [vtxo["id"] for vtxo in vtxos]}
    )
    before_sat = await onchain_sat(daemon)
    body = {"vtxos": [vtxo["id"] for vtxo in vtxos], "address": address}
    done = await daemon.post("/wallet/offboard/vtxos", body)
    await devnet.mine()
    await eventually(lambda: synced(daemon), lambda got: sum(got.values()) == 0)
    assert await onchain_sat(daemon) - before_sat == estimate["net_amount_sat"]
    movement = await last_movement(daemon, "offboard")
    assert (movement["id"], movement["status"]) == (done["movement_id"], "successful")
    assert movement["offchain_fee_sat"] == estimate["fee_sat"]
    assert await daemon.get("/wallet/vtxos") == []


@pytest.mark.parametrize("amount_sat", [10_000, 120_000])
async def test_an_amount_is_sent_on_chain(daemon: Daemon, devnet: Devnet, amount_sat: int) -> None:
    await create(daemon, devnet, 100_000, 50_000)
    before_sat = (await daemon.get("/wallet/balance"))["spendable_sat"]
    address = (await daemon.post("/onchain/addresses/next"))["address"]
    onchain_before_sat = await onchain_sat(daemon)
    query = f"amount_sat={amount_sat}&address={address}"
    estimate = await daemon.get(f"/fees/send-onchain?{query}")
    await daemon.post("/wallet/send-onchain", {"destination": address, "amount_sat": amount_sat})
    await devnet.mine()
    await eventually(lambda: synced(daemon), lambda got: got["pending_offboard_sat"] == 0)
    assert await onchain_sat(daemon) - onchain_before_sat == amount_sat
    left_sat = before_sat - amount_sat - estimate["fee_sat"]
    balance = await eventually(lambda: synced(daemon), lambda got: got["spendable_sat"] == left_sat)
    assert sum(balance.values()) == left_sat
    assert (await last_movement(daemon, "send_onchain"))["status"] == "successful"
