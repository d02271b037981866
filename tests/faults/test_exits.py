"""Exits of a whole daemon while the world is against it: restarts, strangers, lost packages, no server.

Nobody calls `exits/progress` here: the daemon's own loop does the work, block after block.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from barkd_py.ark.vtxo import Vtxo
from tests.faults.conftest import Owner
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

LIFETIME = 60
BOARD_SAT = 100_000
COIN_SAT = 100_000

# How often the daemon looks for new blocks.
EVERY_SECOND = {"BARK_DAEMON_SYNC_INTERVAL_SECS": "1"}


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Devnet]:
    """A devnet for one test, whose server will not stay."""
    running = start_devnet(tmp_path / "devnet", "--vtxo-lifetime", str(LIFETIME), "--round-interval", "3600")
    yield running
    running.process.kill()


async def _owner(directory: Path, devnet: Devnet) -> Owner:
    daemon = Daemon(directory, env=EVERY_SECOND)
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    return Owner(daemon, devnet)


@pytest.fixture
async def carol(tmp_path: Path, doomed: Devnet) -> AsyncIterator[Owner]:
    """Has boarded, and has coins for the fees of exits."""
    owner = await _owner(tmp_path / "carol", doomed)
    await owner.board(BOARD_SAT)
    for _ in range(4):
        await owner.fund_onchain(COIN_SAT)
    yield owner
    await owner.daemon.close()


async def _exits(owner: Owner) -> dict[str, dict[str, Any]]:
    """All exits, in the words of 0.8.0, by VTXO."""
    listed = await owner.daemon.get("/exits/status/all?transactions=true")
    return {exit_["vtxo_id"]: exit_ for exit_ in listed}


async def _state(owner: Owner, vtxo_id: str) -> dict[str, Any]:
    exits = await _exits(owner)
    state: dict[str, Any] = exits[vtxo_id]["state"] if vtxo_id in exits else {"type": "none"}
    return state


async def _until(owner: Owner, vtxo_id: str, *kinds: str) -> dict[str, Any]:
    """Wait for a state, without mining."""
    return await eventually(lambda: _state(owner, vtxo_id), lambda state: state["type"] in kinds)


async def _until_broadcast(owner: Owner, vtxo_id: str) -> str:
    """Wait until an exit transaction is in the mempool; the id of its child."""

    def child(state: dict[str, Any]) -> str | None:
        statuses = [tx["status"] for tx in state.get("transactions", ())]
        found = [status["child_txid"] for status in statuses if status["type"] == "awaiting-confirmation"]
        return found[0] if found else None

    state = await eventually(lambda: _state(owner, vtxo_id), lambda state: child(state) is not None)
    txid = child(state)
    assert txid is not None
    return txid


async def _mempool(devnet: Devnet) -> list[str]:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60) as http:
        pool: list[str] = (await http.get("/status")).json()["mempool"]
        return pool


async def _vtxo(owner: Owner) -> Vtxo:
    """The only VTXO of the wallet."""
    (listed,) = await owner.daemon.get("/wallet/vtxos")
    return Vtxo.decode_hex((await owner.daemon.get(f"/wallet/vtxos/{listed['id']}/encoded"))["encoded"])


async def _onchain_sat(owner: Owner) -> int:
    await owner.daemon.post("/onchain/sync")
    return int((await owner.daemon.get("/onchain/balance"))["total_sat"])


async def _claim_and_account(owner: Owner, before_sat: int, foreign: frozenset[str] = frozenset()) -> None:
    """Claim all exits, and compare what there was, on chain and in VTXOs, with what there is now.

    foreign: children that strangers paid for.
    """
    devnet, daemon = owner.devnet, owner.daemon
    await daemon.post(
        "/exits/claim/all", {"destination": (await daemon.post("/onchain/addresses/next"))["address"]}
    )
    await devnet.mine()
    for vtxo_id in await _exits(owner):
        await _until(owner, vtxo_id, "claimed", "canceled")
    txids = set()
    anchors_sat = fees_sat = 0
    async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as chain:
        for exit_ in (await _exits(owner)).values():
            for package in exit_["transactions"]:
                parent = (await chain.get(f"/tx/{package['exit']['txid']}")).json()
                child_txid = package["child"]["info"]["txid"]
                if child_txid not in txids and child_txid not in foreign:
                    txids.add(child_txid)
                    anchors_sat += parent["vout"][-1]["value"]
            txids.add(exit_["state"]["txid"])
        for txid in txids:
            tx = (await chain.get(f"/tx/{txid}")).json()
            assert tx["status"]["confirmed"]
            fees_sat += tx["fee"]
    assert await _onchain_sat(owner) == before_sat + anchors_sat - fees_sat
    assert await owner.total_sat() == 0


async def _mature(owner: Owner, *vtxo_ids: str) -> None:
    """Mine until the exits can be claimed, whatever waits."""
    await owner.devnet.pull("/auto-mine", on_transaction=True)
    await owner.devnet.mine()  # what waits already is not news
    for vtxo_id in vtxo_ids:
        await _until(owner, vtxo_id, "awaiting-delta", "claimable")
    await owner.devnet.pull("/auto-mine", on_transaction=False)
    await owner.devnet.mine(12)
    for vtxo_id in vtxo_ids:
        await _until(owner, vtxo_id, "claimable")


async def test_an_exit_goes_on_by_itself_without_the_server_and_over_restarts(carol: Owner) -> None:
    daemon, devnet = carol.daemon, carol.devnet
    before_sat = await _onchain_sat(carol) + await carol.spendable_sat()
    await carol.send(await carol.address(), 30_000)
    # What was paid, and the change in two pieces.
    vtxos = await eventually(lambda: daemon.get("/wallet/vtxos"), lambda got: len(got) == 3)
    vtxo_ids = [vtxo["id"] for vtxo in vtxos]
    await devnet.pull("/ark-server/stop")
    await daemon.post("/exits/start/all")

    await _until_broadcast(carol, vtxo_ids[0])
    daemon.process.kill()
    await devnet.mine()
    await daemon.start()
    await _mature(carol, *vtxo_ids)
    daemon.process.kill()
    await daemon.start()

    await _claim_and_account(carol, before_sat)
    exits = [
        movement
        for movement in await daemon.get("/history")
        if movement["subsystem"] == {"name": "bark.exit", "kind": "start"}
    ]
    assert [movement["status"] for movement in exits] == ["successful"] * 3


async def test_packages_that_are_lost_replaced_and_reorganised_away(carol: Owner) -> None:
    daemon, devnet = carol.daemon, carol.devnet
    before_sat = await _onchain_sat(carol) + await carol.spendable_sat()
    vtxo = await _vtxo(carol)
    (exit_tx,) = vtxo.exit_transactions()
    vtxo_id = str(vtxo.id)
    await daemon.post("/exits/start/all")
    own = await _until_broadcast(carol, vtxo_id)

    # Full mempools forget it; the daemon does not.
    await devnet.pull("/evict", txid=str(exit_tx.txid))
    pool = await eventually(lambda: _mempool(devnet), lambda txids: str(exit_tx.txid) in txids)
    assert own in pool

    # A stranger pays more for our transaction: welcome.
    foreign = (await devnet.pull("/cpfp", txid=str(exit_tx.txid), sat_per_vb=50))["txid"]

    async def child() -> Any:
        return (await _exits(carol))[vtxo_id]["transactions"][0]["child"]

    adopted = await eventually(child, lambda got: got["info"]["txid"] == foreign)
    assert adopted["origin"]["type"] == "mempool"
    await devnet.mine()
    await _until(carol, vtxo_id, "awaiting-delta")
    assert (await child())["origin"]["type"] == "block"

    # The block goes, and comes again.
    await devnet.pull("/reorg", depth=1)
    await _until(carol, vtxo_id, "processing")
    await _mature(carol, vtxo_id)
    await _claim_and_account(carol, before_sat, frozenset({foreign}))


async def test_a_vtxo_that_a_stranger_puts_on_the_chain_is_exited(carol: Owner) -> None:
    before_sat = await _onchain_sat(carol) + await carol.spendable_sat()
    vtxo = await _vtxo(carol)
    (exit_tx,) = vtxo.exit_transactions()
    foreign = (await carol.devnet.pull("/cpfp", transaction=exit_tx.serialize().hex()))["txid"]
    await carol.devnet.mine()
    await _until(carol, str(vtxo.id), "awaiting-delta")
    await _mature(carol, str(vtxo.id))
    await _claim_and_account(carol, before_sat, frozenset({foreign}))


async def test_an_exit_that_comes_too_late_ends_as_swept(carol: Owner) -> None:
    """The server takes an expired board before its owner is back."""
    daemon, devnet = carol.daemon, carol.devnet
    vtxo = await _vtxo(carol)
    daemon.process.kill()
    await devnet.mine(LIFETIME)
    (sweep,) = (await devnet.pull("/sweep"))["transactions"]
    assert sweep["kind"] == "claim"
    await devnet.mine(8)
    await devnet.pull("/ark-server/stop")
    await daemon.start()
    await daemon.post("/exits/start/vtxos", {"vtxos": [str(vtxo.id)]})

    async def finished_a_block_later() -> Any:
        """It has to be seen at two tips."""
        await devnet.mine()
        return await daemon.get("/exits/status/finished")

    # Whoever does not say a version gets the words of 0.1.4, which has none for this.
    swept = await eventually(finished_a_block_later, lambda got: [exit_["vtxo_id"] for exit_ in got] != [])
    assert [exit_["state"]["type"] for exit_ in swept] == ["vtxo-swept"]
    assert swept[0]["state"]["spent_inputs"] == [str(vtxo.anchor_point)]
    assert (await daemon.http.get(f"/exits/status/{vtxo.id}")).status_code == 404
    (movement,) = [each for each in await daemon.get("/history") if each["subsystem"]["name"] == "bark.exit"]
    assert movement["status"] in ("failed", "canceled")


async def test_an_exit_of_what_was_paid_away_does_not_hurt_the_receiver(carol: Owner, tmp_path: Path) -> None:
    """The payer's old transaction gets onto the chain; the watchman answers with the payment's checkpoint."""
    devnet = carol.devnet
    vtxo = await _vtxo(carol)
    (exit_tx,) = vtxo.exit_transactions()
    dave = await _owner(tmp_path / "dave", devnet)
    try:
        for _ in range(2):
            await dave.fund_onchain(COIN_SAT)
        await carol.send(await dave.address(), vtxo.amount_sat)
        await eventually(dave.spendable_sat, lambda got: got == vtxo.amount_sat)
        before_sat = await _onchain_sat(dave) + vtxo.amount_sat
        first = (await devnet.pull("/cpfp", transaction=exit_tx.serialize().hex()))["txid"]
        await devnet.mine(3)
        # The server has the signed checkpoint when one of the two wallets has registered it.
        patrol = await eventually(lambda: devnet.pull("/sweep"), lambda got: got["transactions"] != [])
        (checkpoint,) = patrol["transactions"]
        assert (checkpoint["kind"], checkpoint["outputs"]) == ("progress", [str(vtxo.id)])
        await devnet.mine()

        # Two of the three transactions are there already.
        received = await _vtxo(dave)
        assert received.exit_depth == 3
        fee = await dave.daemon.get("/exits/fee")
        assert fee["txs_to_broadcast"] == 1
        await dave.daemon.post("/exits/start/all")
        await _mature(dave, str(received.id))
        packages = (await _exits(dave))[str(received.id)]["transactions"]
        assert packages[0]["child"]["info"]["txid"] == first
        foreign = frozenset(package["child"]["info"]["txid"] for package in packages[:2])
        await _claim_and_account(dave, before_sat, foreign)
    finally:
        await dave.daemon.close()
