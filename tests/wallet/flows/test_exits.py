"""Emergency exits of VTXOs that a real Ark server has cosigned, with and without that server."""

from contextlib import AsyncExitStack

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.daemon.loops import Daemon
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError, chain_text
from barkd_py.server_rpc.api import RoundFinished
from barkd_py.wallet.exits.errors import InsufficientConfirmedFundsForExit
from barkd_py.wallet.exits.states import Claimable, Claimed, ExitFilter, Start, WalletOrigin
from barkd_py.wallet.movements import BOARD, EXIT_START, MovementStatus
from barkd_py.wallet.notifications import MovementCreated, MovementUpdated
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.wallet import Wallet
from tests.support.processes import until
from tests.wallet.flows.conftest import ALICE, Net, Owner
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, settle

NOBODY = "http://127.0.0.1:1"
"""Where no server is."""
RATE = FeeRate(1_000)


async def total_sat(owner: Owner) -> int:
    """What somebody has, on chain and off."""
    assert owner.wallet.onchain is not None
    await owner.wallet.onchain.sync()
    balance = await owner.wallet.balance()
    return balance.total_sat + (await owner.wallet.onchain.balance()).total_sat


async def exit_ids(wallet: Wallet, which: ExitFilter = ExitFilter.ALL) -> list[VtxoId]:
    return [status.vtxo_id for status in await wallet.exits.statuses(which)]


async def exit_all(net: Net, owner: Owner) -> tuple[VtxoId, ...]:
    """Exit everything and claim it to the owner's own on-chain wallet."""
    wallet = owner.wallet
    assert wallet.onchain is not None
    await wallet.exits.start_all()
    ids = await exit_ids(wallet)
    while not (progress := await wallet.exits.progress(RATE)).is_done:
        # with more transactions in one block than coins, some wait for change
        errors = {type(entry.error) for entry in progress.exits}
        assert errors <= {type(None), InsufficientConfirmedFundsForExit}, progress
        await net.mine()
    await wallet.exits.claim(None, parse_address(await wallet.onchain.next_address(), Network.REGTEST), RATE)
    await net.mine()
    await wallet.exits.progress(RATE)
    for vtxo_id in ids:
        assert isinstance((await wallet.exits.status(vtxo_id)).state, Claimed)
    return tuple(ids)


async def test_a_server_that_has_become_another_does_not_stop_exits(net: Net, alice: Owner) -> None:
    """Its answers are refused; the scripts are built from the key in the VTXO, not from what it says now."""
    await alice.fund_onchain(100_000)
    other = SecretKey(bytes([9]) * 32).public_key
    net.fault(
        "GetArkInfo",
        stage="reply",
        kind="mutate",
        path="server_pubkey",
        mutation="set",
        value=other.data.hex(),
        count=None,
    )
    before_sat = await total_sat(alice)
    await alice.restart()
    with pytest.raises(BarkdError) as refused:
        await alice.wallet.send_arkoor(await alice.wallet.new_address(), 1_000)
    assert "Server public key has changed" in chain_text(refused.value)
    await exit_all(net, alice)
    assert (await alice.wallet.balance()).total_sat == 0
    assert before_sat - 2_000 < await total_sat(alice) < before_sat, "all but the miners' fees"


async def fees_sat(net: Net, wallet: Wallet, ids: tuple[VtxoId, ...]) -> int:
    """What the chain says was paid for exits and claim: inputs less outputs of everything that was mined."""
    children: set[Txid] = set()
    claims: set[Txid] = set()
    for vtxo_id in ids:
        status = await wallet.exits.status(vtxo_id, with_packages=True)
        assert isinstance(status.state, Claimed)
        claims.add(status.state.txid)
        for package in status.packages:
            assert package.child is not None
            children.add(package.child.tx.txid)
    return sum(mined_fee_sat(net, txid) for txid in children | claims)


def mined_fee_sat(net: Net, txid: Txid) -> int:
    tx = mined(net, txid)
    spent_sat = sum(
        mined(net, tx_in.prevout.txid).outputs[tx_in.prevout.vout].value_sat for tx_in in tx.inputs
    )
    return spent_sat - sum(output.value_sat for output in tx.outputs)


def mined(net: Net, txid: Txid) -> Tx:
    found = net.devnet.node.index.tx(txid)
    assert found is not None
    return found.tx


async def deliver(net: Net, payer: Owner, payee: Owner, amount_sat: int) -> None:
    await payer.wallet.send_arkoor(await payee.wallet.new_address(), amount_sat)
    await payee.wallet.sync_mailbox()


# --- whole exits, with every satoshi accounted for


async def test_a_board(net: Net, alice: Owner) -> None:
    """Its board fee is parked in the anchor: it comes to whoever pays for the exit."""
    await alice.fund_onchain(50_000)
    parked_sat = 500_000 - await alice.spendable_sat()
    before_sat = await total_sat(alice)
    told = alice.wallet.notifications.subscribe()
    ids = await exit_all(net, alice)
    assert len(ids) == 1
    # As upstream does, a creation with details announces those first.
    events = [await anext(told) for _ in range(3)]
    assert [type(event) for event in events] == [MovementUpdated, MovementCreated, MovementUpdated]
    movements = [each.movement for each in events if isinstance(each, MovementUpdated | MovementCreated)]
    assert {movement.subsystem for movement in movements} == {EXIT_START}
    assert [movement.status.value for movement in movements] == ["pending", "pending", "successful"]
    assert await total_sat(alice) == before_sat + parked_sat - await fees_sat(net, alice.wallet, ids)
    assert (await alice.wallet.balance()).total_sat == 0


async def test_a_coin_that_has_been_paid_on_many_times(net: Net, alice: Owner, bob: Owner) -> None:
    amount_sat = await alice.spendable_sat()
    owners = [alice, bob]
    for hop in range(5):
        await deliver(net, owners[hop % 2], owners[(hop + 1) % 2], amount_sat)
    (vtxo,) = await bob.wallet.list_vtxos(include_all=False)
    assert vtxo.exit_depth == 11
    parked_sat = 500_000 - amount_sat
    await bob.fund_onchain(50_000)
    before_sat = await total_sat(bob)
    ids = await exit_all(net, bob)
    assert ids == (vtxo.id,)
    assert await total_sat(bob) == before_sat + parked_sat - await fees_sat(net, bob.wallet, ids)


async def test_twenty_coins_with_common_ancestors(net: Net, alice: Owner, bob: Owner) -> None:
    """All are cut from one coin and its change; what they share is confirmed and paid for once."""
    parked_sat = 500_000 - await alice.spendable_sat()
    while len(vtxos := await bob.wallet.list_vtxos(include_all=False)) < 20:
        await deliver(net, alice, bob, 5_000 + len(vtxos))
    txids = set()
    for vtxo in vtxos:
        async with bob.wallet.store.read() as tx:
            txids |= {tx.txid for tx in (await tx.vtxos.body(vtxo.id)).exit_transactions()}
    assert len(txids) < sum(vtxo.exit_depth for vtxo in vtxos) / 2
    for _ in range(4):
        await bob.fund_onchain(60_000)
    before_sat = await total_sat(bob)
    ids = await exit_all(net, bob)
    assert set(ids) == {vtxo.id for vtxo in vtxos}
    assert await total_sat(bob) == before_sat + parked_sat - await fees_sat(net, bob.wallet, ids)
    history = await bob.wallet.list_movements()
    exits = [movement for movement in history if movement.subsystem == EXIT_START]
    assert {movement.status for movement in exits} == {MovementStatus.SUCCESSFUL}
    assert sum(movement.effective_balance_sat for movement in history) == 0


# --- what rounds have made


class TestRounds:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)

    async def test_leaves_of_one_tree(self, net: Net, alice: Owner, bob: Owner) -> None:
        """Five owners, so that the tree has an inner transaction; its root and that are paid for once.

        Of two who share them, one pays; the other's exit takes them as it finds them.
        """
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(net.wallet(f"owner {number}")) for number in range(3)]
            owners = [alice, bob, *others]
            for owner in owners[1:]:
                await owner.board(100_000)
            await refreshed(net, *owners)
            # The order of the leaves is the server's; one of five hangs directly from the root.
            first, second = [owner for owner in owners if len(await exit_txids(owner)) == 3][:2]
            exiting = (first, second)
            shared = set(await exit_txids(first)) & set(await exit_txids(second))
            assert len(shared) == 2
            for owner in exiting:
                await owner.fund_onchain(50_000)
                await owner.fund_onchain(50_000)
            before_sat = [await total_sat(owner) for owner in exiting]
            await net.devnet.ark_server.stop()

            ids = [await exit_all(net, owner) for owner in exiting]
            for owner, had_sat, exited in zip(exiting, before_sat, ids, strict=True):
                paid_sat = await own_fees_sat(net, owner.wallet, exited)
                assert await total_sat(owner) == had_sat - paid_sat
                assert (await owner.wallet.balance()).total_sat == 0
            assert len(await own_children(first.wallet, ids[0])) == 3
            assert len(await own_children(second.wallet, ids[1])) == 1

    async def test_a_payment_out_of_a_leaf(self, net: Net, alice: Owner, bob: Owner) -> None:
        """What was paid, and its change: both rest on the leaf, which the payment has spent."""
        await refreshed(net, alice)
        await deliver(net, alice, bob, 123_456)
        for owner in (alice, bob):
            for _ in range(3):
                await owner.fund_onchain(50_000)
        await net.devnet.ark_server.stop()
        for owner in (bob, alice):
            before_sat = await total_sat(owner)
            ids = await exit_all(net, owner)
            assert await total_sat(owner) == before_sat - await own_fees_sat(net, owner.wallet, ids)
        (bobs,) = await exit_ids(bob.wallet)
        assert (await bob.wallet.get_vtxo(bobs)).exit_depth == 4

    async def test_a_vtxo_that_waits_for_its_round(self, net: Net, alice: Owner) -> None:
        """It was promised to a round that never comes; its owner leaves with it."""
        (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
        await alice.wallet.rounds.refresh([vtxo.id])
        await alice.fund_onchain(50_000)
        parked_sat = 500_000 - vtxo.amount_sat
        before_sat = await total_sat(alice)
        await net.devnet.ark_server.stop()
        ids = await exit_all(net, alice)
        assert ids == (vtxo.id,)
        fee_sat = await own_fees_sat(net, alice.wallet, ids)
        assert await total_sat(alice) == before_sat + parked_sat - fee_sat


async def refreshed(net: Net, *owners: Owner) -> None:
    """All that these have becomes leaves of one round."""
    for owner in owners:
        await owner.wallet.rounds.refresh_all()
    assert isinstance(await hold_round(net, *owners), RoundFinished)
    await settle(net, *owners)
    for owner in owners:
        await assert_nothing_stuck(owner)


async def exit_txids(owner: Owner) -> list[Txid]:
    """The exit transactions of somebody's only VTXO."""
    (vtxo,) = await owner.wallet.list_vtxos(include_all=False)
    async with owner.wallet.store.read() as tx:
        return [each.txid for each in (await tx.vtxos.body(vtxo.id)).exit_transactions()]


async def own_children(wallet: Wallet, ids: tuple[VtxoId, ...]) -> set[Txid]:
    """The children that the wallet itself has paid for."""
    statuses = [await wallet.exits.status(vtxo_id, with_packages=True) for vtxo_id in ids]
    children = [package.child for status in statuses for package in status.packages]  # None: mined without
    return {child.tx.txid for child in children if child and isinstance(child.origin, WalletOrigin)}


async def own_fees_sat(net: Net, wallet: Wallet, ids: tuple[VtxoId, ...]) -> int:
    """What the wallet has paid: `fees_sat` without what strangers did."""
    states = [(await wallet.exits.status(vtxo_id)).state for vtxo_id in ids]
    claims = {state.txid for state in states if isinstance(state, Claimed)}
    return sum(mined_fee_sat(net, txid) for txid in claims | await own_children(wallet, ids))


# --- without the server


async def test_the_daemon_exits_by_itself_after_the_server_is_gone(net: Net) -> None:
    """It is never reached again, the daemon is restarted in the middle, and blocks are all it needs."""
    changes: dict[str, object] = {"server_address": NOBODY, "daemon_sync_interval_secs": 3600}
    async with net.owner("alice", ALICE, **changes) as alice:
        await alice.fund_onchain(50_000)
        (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
        await alice.wallet.exits.start([vtxo.id])

        async def is_in(kind: str) -> bool:
            return (await alice.wallet.exits.status(vtxo.id)).state.type == kind

        async def has_child() -> bool:
            return len(net.devnet.node.pool) == 2

        daemon = start_daemon(alice)
        await daemon.start()
        await until(has_child)
        await daemon.stop()
        await alice.restart()
        daemon = start_daemon(alice)
        await daemon.start()
        await net.mine()
        await until(lambda: is_in("awaiting-delta"))
        await net.mine(12)
        await until(lambda: is_in("claimable"))
        assert (await alice.wallet.balance()).pending_exit_sat == vtxo.amount_sat
        assert alice.wallet.onchain is not None
        script = parse_address(await alice.wallet.onchain.next_address(), Network.REGTEST)
        await alice.wallet.exits.claim(None, script)
        await net.mine()
        await until(lambda: is_in("claimed"))
        await daemon.stop()


def start_daemon(owner: Owner) -> Daemon:
    """Its interval is an hour: whatever happens sooner, happens because of a block."""
    return Daemon(owner.wallet, tip_interval_secs=0.05)


# --- boards that the server does not take


class TestSalvage:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(vtxo_lifetime=40)

    async def test_a_board_that_is_never_registered_is_exited(self, net: Net) -> None:
        async with net.wallet("carol", vtxo_exit_margin=12) as carol:
            await carol.fund_onchain(100_000)
            await carol.fund_onchain(50_000)
            net.fault("RegisterBoardVtxo", kind="error", code="UNAVAILABLE", count=None)
            pending = await carol.wallet.board_amount(80_000)
            (vtxo_id,) = pending.vtxo_ids

            async def exits() -> list[VtxoId]:
                await net.mine()
                await carol.wallet.chain.fetch_tip()
                await carol.wallet.boards.drive_all()
                return await exit_ids(carol.wallet)

            for _ in range(60):
                if await exits():
                    break
            vtxo = await carol.wallet.get_vtxo(vtxo_id)
            one_transaction = 1
            assert vtxo.expiry_height == net.devnet.node.index.tip_height + 12 + one_transaction
            assert isinstance((await carol.wallet.exits.status(vtxo_id)).state, Start)
            (board,) = [m for m in await carol.wallet.list_movements() if m.subsystem == BOARD]
            assert board.exited_vtxos == (vtxo_id,)

            while not isinstance((await carol.wallet.exits.status(vtxo_id)).state, Claimable):
                await carol.wallet.exits.progress()
                await exits()
            assert (await carol.wallet.get_vtxo(vtxo_id)).state.kind is StateKind.EXITED
            (board,) = [m for m in await carol.wallet.list_movements() if m.subsystem == BOARD]
            assert board.status is MovementStatus.FAILED
            assert (await carol.wallet.balance()).pending_board_sat == 0
            assert (await carol.wallet.balance()).pending_exit_sat == vtxo.amount_sat


# --- somebody else


async def test_a_coin_is_exited_if_somebody_else_puts_it_on_the_chain(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await deliver(net, alice, bob, 100_000)
    (bobs,) = await bob.wallet.list_vtxos(include_all=False)
    async with bob.wallet.store.read() as tx:
        body = await tx.vtxos.body(bobs.id)
    await net.devnet.node.mine_exactly(body.exit_transactions())
    await bob.wallet.sync()
    assert await exit_ids(bob.wallet) == [bobs.id]
    await bob.wallet.exits.progress()
    assert (await bob.wallet.get_vtxo(bobs.id)).state.kind is StateKind.EXITED
    assert (await bob.wallet.balance()).pending_exit_sat == bobs.amount_sat


async def test_a_coin_that_is_paid_away_ends_its_exit(net: Net, alice: Owner, bob: Owner) -> None:
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.exits.start([vtxo.id])
    await deliver(net, alice, bob, 100_000)
    progress = await alice.wallet.exits.progress()
    (entry,) = progress.exits
    assert entry.state.type == "vtxo-already-spent"
    history = await alice.wallet.list_movements()
    assert sum(movement.effective_balance_sat for movement in history) == await alice.spendable_sat()
