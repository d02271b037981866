"""The daemon is killed around every network call of a board and of a payment, and started again.

A first run, undisturbed, tells which calls a flow makes. Then the flow is run once for each of them and for
each side of it: killed when the call leaves, and killed when the answer is there but nobody has read it.
After the restart the flow must come to its end by itself, every satoshi must be accounted for, and the
history must tell what happened, once.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.executioner import Victim, running_victim
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

BOARD_SAT = 30_000
SEND_SAT = 1_234


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    running = start_devnet(tmp_path_factory.mktemp("devnet"))
    yield running
    running.process.kill()


@pytest_asyncio.fixture
async def victim(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Victim]:
    async with running_victim(tmp_path / "victim", devnet) as running:
        yield running


async def _synced_balance(daemon: Daemon) -> dict[str, int]:
    await daemon.post("/wallet/sync")
    await daemon.post("/onchain/sync")
    balance: dict[str, int] = await daemon.get("/wallet/balance")
    return balance


async def _wealth_sat(daemon: Daemon) -> int:
    """Everything this wallet owns, and everything it ever paid in fees."""
    offchain = await daemon.get("/wallet/balance")
    onchain = await daemon.get("/onchain/balance")
    history = await daemon.get("/history")
    fees = sum(
        movement["offchain_fee_sat"] + movement.get("metadata", {}).get("onchain_fee_sat", 0)
        for movement in history
    )
    return int(sum(offchain.values()) + onchain["total_sat"] + fees)


def _settled(balance: dict[str, int]) -> bool:
    return all(balance[name] == 0 for name in balance if name.startswith("pending_"))


async def test_a_board_survives_a_kill_around_each_call(victim: Victim) -> None:
    daemon, devnet = victim.daemon, victim.devnet
    wealth_sat = await _wealth_sat(daemon)

    async def board() -> None:
        await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
        await devnet.mine()
        await _synced_balance(daemon)

    async def finish() -> None:
        await _synced_balance(daemon)  # a killed broadcast is made up for here
        await devnet.mine()
        await eventually(lambda: _synced_balance(daemon), _settled)
        await eventually(lambda: daemon.get("/boards/pending"), lambda got: got == [])

    await victim.interrupted(None, board)
    points = victim.gate.points()
    names = {point.call.name for point in points}
    assert {"RequestBoardCosign", "RegisterBoardVtxo", "POST /txs"} <= names, names
    await finish()
    assert await _wealth_sat(daemon) == wealth_sat

    for point in points:
        boards_before = len(await daemon.get("/history"))
        await victim.interrupted(point, board)
        await finish()
        assert await _wealth_sat(daemon) == wealth_sat, point
        history = await daemon.get("/history")
        assert {movement["status"] for movement in history} == {"successful"}, point
        assert len(history) - boards_before <= 1, point
        assert {vtxo["state"]["type"] for vtxo in await daemon.get("/wallet/vtxos")} == {"spendable"}, point
    # A kill after the board was accepted never loses it.
    assert len(await daemon.get("/history")) > len(points) // 2


async def test_a_payment_survives_a_kill_around_each_call(victim: Victim, tmp_path: Path) -> None:
    daemon, devnet = victim.daemon, victim.devnet
    await daemon.post("/boards/board-amount", {"amount_sat": 1_000_000})
    await devnet.mine()
    await eventually(lambda: _synced_balance(daemon), lambda got: got["spendable_sat"] > 0 and _settled(got))
    receiver = Daemon(tmp_path / "receiver")
    await receiver.start()
    try:
        await receiver.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
        address = (await receiver.post("/wallet/addresses/next"))["address"]
        wealth_sat = await _wealth_sat(daemon)

        async def pay() -> None:
            await daemon.post("/wallet/send", {"destination": address, "amount_sat": SEND_SAT})

        async def received_sat() -> int:
            await receiver.post("/wallet/sync/mailbox")
            return int((await receiver.get("/wallet/balance"))["spendable_sat"])

        await victim.interrupted(None, pay)
        points = victim.gate.points()
        names = {point.call.name for point in points}
        assert {"RequestArkoorCosign", "RegisterVtxoTransactions", "PostArkoorMessage"} <= names, names
        assert await received_sat() == SEND_SAT

        for point in points:
            sends_before = await _sends(daemon)
            had_sat = await received_sat()
            await victim.interrupted(point, pay)
            await eventually(lambda: _synced_balance(daemon), _settled)
            new_sends = await _sends(daemon) - sends_before
            # Killed before anything was stored, it never happened; else it happened once, whatever was lost.
            assert new_sends in (0, 1), point
            assert await received_sat() == had_sat + new_sends * SEND_SAT, point
            if point.call.name in ("RequestArkoorCosign", "PostArkoorMessage"):
                assert new_sends == 1, point
            paid_sat = SEND_SAT * await _sends(daemon)
            assert await _wealth_sat(daemon) + paid_sat == wealth_sat, point
            history = await daemon.get("/history")
            assert {movement["status"] for movement in history} == {"successful"}, point
            assert {vtxo["state"]["type"] for vtxo in await daemon.get("/wallet/vtxos")} == {"spendable"}
    finally:
        await receiver.close()


async def _sends(daemon: Daemon) -> int:
    history = await daemon.get("/history")
    return sum(1 for movement in history if movement["subsystem"]["kind"] == "send")
