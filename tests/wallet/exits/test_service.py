"""Starting, canceling, claiming, estimating: what users ask for, and what they are told."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.policy import ServerHtlcReceivePolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import Txid, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.chain.bitcoind import BitcoindSource
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, TxStatus
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.errors import ChainUnavailable, chain_text
from barkd_py.onchain.cpfp import FeeRateTooLow, package_fee_sat
from barkd_py.wallet.balance import BalanceReader
from barkd_py.wallet.exits.claim_tx import ClaimPaths, build_claim, secrets_of
from barkd_py.wallet.exits.errors import (
    CannotCancelExit,
    ClaimFeeExceedsOutput,
    ClaimMissingInputs,
    DustLimit,
    ExitTxAlreadyBroadcast,
    InvalidFeeMargin,
    InvalidWalletState,
    NonStandardExit,
    NotExiting,
    SpentVtxo,
    UnknownExitVtxo,
    VtxoAlreadyExited,
    VtxoNotClaimable,
)
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitFilter,
    Start,
)
from barkd_py.wallet.movements import (
    EXIT_START,
    ROUND_REFRESH,
    MovementStatus,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import (
    Exited,
    Locked,
    MovementHolder,
    Spendable,
    Spent,
    StateKind,
    UnknownVtxo,
    VtxoState,
)
from tests.fakes.chains import Clock
from tests.wallet.exits.coins import EXIT_DELTA
from tests.wallet.exits.conftest import World, source
from tests.wallet.exits.gates import Ask, When
from tests.wallet.samples import note_swept

PAYEE = p2tr_script(bytes(31) + b"\x01")
RATE = FeeRate(1_000)
CLAIM_WEIGHT_WU = {1: 516, 2: 818}
"""Of a claim of so many board VTXOs with an exit delta of 12, to one taproot output."""


async def claimable(world: World, *vtxos: Vtxo) -> tuple[VtxoId, ...]:
    await world.fund(*[50_000] * (len(vtxos) + 1))
    ids = await world.hold(*vtxos)
    await world.exits.start(ids)
    await world.until_claimable(*ids)
    return ids


async def finish(world: World) -> None:
    await world.mine()
    await world.exits.tick()


# --- start


async def test_a_start_is_stored_with_its_movement(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    assert await world.state(vtxo_id) == Start(world.node.index.tip_height)
    (movement,) = await world.movements()
    assert (movement.subsystem, movement.status) == (EXIT_START, MovementStatus.PENDING)
    assert (movement.intended_balance_sat, movement.effective_balance_sat) == (-100_000, -100_000)
    assert movement.input_vtxos == (vtxo_id,)
    (sent,) = movement.sent_to
    assert sent.method.kind is PaymentMethodKind.BITCOIN
    assert sent.amount_sat == 100_000
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(vtxo_id)).state == Spendable()  # it may still be spent off-chain


@pytest.mark.parametrize("by", ["a user", "itself"])
async def test_what_was_no_income_does_not_leave_with_its_exit(world: World, by: str) -> None:
    """It had expired, and was swept, before it came."""
    received, board = await world.mint.board(100_000), await world.mint.board(50_000)
    await world.hold(received, board)
    async with world.store.transaction() as tx:
        await note_swept(tx, [received])
    if by == "a user":
        await world.exits.start_all()
    else:
        await world.exits.start_found([received.id, board.id])
    left = {
        each.input_vtxos: (each.intended_balance_sat, each.effective_balance_sat)
        for each in await world.movements()
        if each.subsystem == EXIT_START
    }
    assert left == {(received.id,): (-100_000, 0), (board.id,): (-50_000, -50_000)}


async def test_starting_twice_is_starting_once(world: World) -> None:
    (vtxo_id,) = await world.hold(await world.mint.board(100_000))
    for _ in range(2):
        await world.exits.start([vtxo_id, vtxo_id])
    assert len(await world.movements()) == 1


async def test_an_unknown_vtxo_starts_nothing(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    await world.hold(vtxo)
    stranger = await world.mint.board(50_000)
    with pytest.raises(UnknownVtxo):
        await world.exits.start([vtxo.id, stranger.id])
    assert await world.exits.statuses(ExitFilter.ALL) == []


async def test_vtxos_that_are_in_use_are_passed_over(world: World) -> None:
    vtxos = [await world.mint.board(50_000) for _ in range(5)]
    async with world.store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
    held = Locked(MovementHolder(movement.id))
    states: list[VtxoState] = [Spent(), Exited(), Locked(None), held, held]
    for vtxo, state in zip(vtxos, states, strict=True):
        await world.hold(vtxo, state=state)
    async with world.store.transaction() as tx:
        await tx.rounds.insert("{}", [vtxos[-1].id], movement_id=movement.id)
    await world.exits.start([vtxo.id for vtxo in vtxos])
    started = {status.vtxo_id for status in await world.exits.statuses(ExitFilter.ALL)}
    assert started == {vtxos[2].id, vtxos[-1].id}  # what nobody holds, and what a round does

    await world.exits.start_all()  # takes what others hold as well
    started = {status.vtxo_id for status in await world.exits.statuses(ExitFilter.ALL)}
    assert started == {vtxo.id for vtxo in vtxos[2:]}


async def with_dust_sibling(world: World) -> Vtxo:
    """No node relays the transactions that lead to it."""
    board = await world.mint.board(550)
    good, _dust = await world.mint.pay(board, [350, 200])
    return good


async def test_an_error_leaves_the_earlier_ones_started(world: World) -> None:
    first, odd, last = (
        await world.mint.board(50_000),
        await with_dust_sibling(world),
        await world.mint.board(50_000),
    )
    await world.hold(first, odd, last)
    with pytest.raises(NonStandardExit) as caught:
        await world.exits.start([first.id, odd.id, last.id])
    assert str(caught.value) == (
        f"Non-Standard VTXO {odd.id}: exit chain is not relayable: "
        "dust sibling output at genesis item 1/3, output 0"
    )
    assert [status.vtxo_id for status in await world.exits.statuses(ExitFilter.ALL)] == [first.id]
    await world.exits.start_all()
    started = {status.vtxo_id for status in await world.exits.statuses(ExitFilter.ALL)}
    assert started == {first.id, last.id}


async def test_dust_does_not_start(world: World) -> None:
    board = await world.mint.board(329 + 330)
    dust, _ = await world.mint.pay(board, [329, 330])
    await world.hold(dust)
    with pytest.raises(DustLimit) as caught:
        await world.exits.start([dust.id])
    assert str(caught.value) == (
        "Dust Limit Error: The dust limit for a VTXO is 0.00000330 BTC "
        f"but vtxo {dust.id} is only 0.00000329 BTC"
    )


async def test_a_chain_that_cannot_be_broadcast_does_not_start(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    (item,) = vtxo.genesis
    unsigned = replace(vtxo, genesis=(replace(item, transition=replace(item.transition, signature=None)),))
    await world.hold(unsigned)
    with pytest.raises(InvalidWalletState):
        await world.exits.start([unsigned.id])


# --- cancel


async def test_cancel_before_anything_is_done(world: World) -> None:
    (vtxo_id,) = await world.hold(await world.mint.board(100_000))
    await world.exits.start([vtxo_id])
    for _ in range(2):
        await world.exits.cancel(vtxo_id)
    assert isinstance(await world.state(vtxo_id), Canceled)
    assert await world.history(vtxo_id) == ["start", "canceled"]
    (movement,) = await world.movements()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.CANCELED, 0)
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Canceled)


async def test_a_canceled_exit_can_be_started_again(world: World) -> None:
    await world.fund(50_000)
    (vtxo_id,) = await world.hold(await world.mint.board(100_000))
    await world.exits.start([vtxo_id])
    await world.exits.cancel(vtxo_id)
    await world.exits.start([vtxo_id])
    await world.until_claimable(vtxo_id)
    assert len(await world.movements()) == 2


async def test_cancel_while_ancestors_are_on_the_chain(world: World) -> None:
    await world.fund(50_000, 50_000)
    (vtxo_id,) = await world.hold(await world.mint.deep(100_000, payments=1))
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    await finish(world)
    assert await world.tx_statuses(vtxo_id) == [
        "confirmed",
        "awaiting-confirmation",
        "awaiting-input-confirmation",
    ]
    await world.exits.cancel(vtxo_id)
    assert isinstance(await world.state(vtxo_id), Canceled)


async def test_no_cancel_once_the_last_transaction_is_out(world: World) -> None:
    await world.fund(50_000)
    (vtxo_id,) = await world.hold(await world.mint.board(100_000))
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    with pytest.raises(CannotCancelExit) as caught:
        await world.exits.cancel(vtxo_id)
    assert caught.value.state == "processing"
    await world.until_claimable(vtxo_id)
    with pytest.raises(CannotCancelExit) as caught:
        await world.exits.cancel(vtxo_id)
    assert caught.value.state == "claimable"
    await world.exits.claim(None, PAYEE)
    await finish(world)
    with pytest.raises(CannotCancelExit, match="state: claimed"):
        await world.exits.cancel(vtxo_id)


async def test_no_cancel_if_the_chain_knows_better(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.node.mine_exactly(vtxo.exit_transactions())
    with pytest.raises(ExitTxAlreadyBroadcast) as caught:
        await world.exits.cancel(vtxo_id)
    assert caught.value.txid == vtxo_id.outpoint.txid


async def test_cancel_of_what_never_was(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    await world.hold(vtxo)
    with pytest.raises(NotExiting):
        await world.exits.cancel(vtxo.id)


# --- claim


async def test_a_claim_of_several_goes_to_one_output(world: World) -> None:
    ids = await claimable(world, await world.mint.board(60_000), await world.mint.board(40_000))
    txid = await world.exits.claim(list(reversed(ids)), PAYEE, RATE)
    tx = world.mempool[txid]
    assert tx.weight_wu == CLAIM_WEIGHT_WU[2]
    assert (tx.version, tx.locktime) == (2, world.node.index.tip_height)
    assert [tx_in.prevout for tx_in in tx.inputs] == [vtxo_id.outpoint for vtxo_id in reversed(ids)]
    assert {tx_in.sequence for tx_in in tx.inputs} == {EXIT_DELTA}
    assert tx.outputs == (TxOut(100_000 - RATE.fee_wu(CLAIM_WEIGHT_WU[2]), PAYEE),)
    for vtxo_id in ids:
        state = await world.state(vtxo_id)
        assert isinstance(state, ClaimInProgress)
        assert state.claim_txid == txid


async def test_a_claim_of_one_leaves_the_other(world: World) -> None:
    first, second = await claimable(world, await world.mint.board(60_000), await world.mint.board(40_000))
    await world.exits.claim([second], PAYEE)
    await finish(world)
    assert isinstance(await world.state(first), Claimable)
    assert isinstance(await world.state(second), Claimed)


async def test_claiming_all_takes_only_what_is_claimable(world: World) -> None:
    (first,) = await claimable(world, await world.mint.board(60_000))
    (second,) = await world.hold(await world.mint.board(40_000))
    await world.exits.start([second])
    await world.exits.tick()
    txid = await world.exits.claim(None, PAYEE)
    assert [tx_in.prevout for tx_in in world.mempool[txid].inputs] == [first.outpoint]
    with pytest.raises(VtxoNotClaimable) as caught:
        await world.exits.claim([second], PAYEE)
    assert caught.value.vtxo == second
    with pytest.raises(VtxoNotClaimable):
        await world.exits.claim([first], PAYEE)  # it is under way
    with pytest.raises(ClaimMissingInputs):
        await world.exits.claim(None, PAYEE)
    with pytest.raises(NotExiting):
        await world.exits.claim([(await world.mint.board(50_000)).id], PAYEE)


@pytest.mark.parametrize("left_sat", [DUST_SAT, DUST_SAT - 1])
async def test_a_claim_leaves_no_dust(world: World, left_sat: int) -> None:
    fee_sat = RATE.fee_wu(CLAIM_WEIGHT_WU[1])
    (vtxo_id,) = await claimable(world, await world.mint.board(fee_sat + left_sat))
    if left_sat >= DUST_SAT:
        txid = await world.exits.claim([vtxo_id], PAYEE, RATE)
        assert world.mempool[txid].outputs == (TxOut(left_sat, PAYEE),)
        return
    with pytest.raises(ClaimFeeExceedsOutput) as caught:
        await world.exits.claim([vtxo_id], PAYEE, RATE)
    assert (caught.value.needed_sat, caught.value.output_sat) == (fee_sat + DUST_SAT, fee_sat + left_sat)
    assert isinstance(await world.state(vtxo_id), Claimable)


async def test_the_output_keeps_to_the_limit_of_its_own_type(world: World) -> None:
    """Upstream asks for 330 sat whatever the destination, and the node then refuses."""
    p2pkh = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
    (vtxo_id,) = await claimable(world, await world.mint.board(1_000))
    with pytest.raises(ClaimFeeExceedsOutput):
        await world.exits.claim([vtxo_id], p2pkh, RATE)


async def test_a_claim_that_no_node_relays_is_not_made(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    with pytest.raises(FeeRateTooLow):
        await world.exits.claim([vtxo_id], PAYEE, FeeRate(0))


async def test_a_claim_to_ourselves_counts_at_once(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    before_sat = await world.onchain_sat()
    (coin, *_) = await world.onchain.utxos()
    txid = await world.exits.claim([vtxo_id], coin.output.script_pubkey, RATE)
    fee_sat = RATE.fee_wu(CLAIM_WEIGHT_WU[1])
    assert (await world.onchain.balance()).total_sat == before_sat + 100_000 - fee_sat
    (entry,) = [entry for entry in await world.onchain.transactions() if entry.tx.txid == txid]
    assert entry.onchain_fee_sat == fee_sat


async def test_a_refused_claim_changes_nothing(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    before = await world.status(vtxo_id)

    def refuse(name: str, when: When) -> None:
        if (name, when) == ("broadcast", "before"):
            raise BroadcastError(BroadcastErrorKind.OTHER, "min relay fee not met")

    world.chain.gate = refuse
    with pytest.raises(BroadcastError):
        await world.exits.claim(None, PAYEE)
    world.chain.gate = None
    assert await world.status(vtxo_id) == before
    await world.exits.claim(None, PAYEE)


async def test_an_unanswered_claim_is_broadcast_until_it_is_there(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))

    def lose(name: str, when: When) -> None:
        if (name, when) == ("broadcast", "before"):
            raise ChainUnavailable("the line is dead")

    world.chain.gate = lose
    with pytest.raises(ChainUnavailable):
        await world.exits.claim(None, PAYEE)
    state = await world.state(vtxo_id)
    assert isinstance(state, ClaimInProgress)
    await world.exits.tick()
    assert await world.state(vtxo_id) == state
    world.chain.gate = None
    await world.exits.tick()
    assert list(world.mempool) == [state.claim_txid]
    await finish(world)
    assert isinstance(await world.state(vtxo_id), Claimed)


async def test_an_evicted_claim_is_broadcast_again(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    txid = await world.exits.claim(None, PAYEE)
    for _ in range(2):
        world.evict(txid)
        await world.exits.tick()
        assert txid in world.mempool
    assert (await world.history(vtxo_id)).count("claim-in-progress") == 1


async def test_an_evicted_claim_that_is_refused_can_be_made_anew(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    txid = await world.exits.claim(None, PAYEE)
    world.evict(txid)

    def refuse(name: str, when: When) -> None:
        if (name, when) == ("broadcast", "before"):
            raise BroadcastError(BroadcastErrorKind.OTHER, "mempool min fee not met")

    world.chain.gate = refuse
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimable)
    world.chain.gate = None
    again = await world.exits.claim(None, PAYEE, FeeRate(5_000))
    assert again != txid
    await finish(world)
    state = await world.state(vtxo_id)
    assert isinstance(state, Claimed)
    assert state.txid == again


async def test_a_claim_that_another_wallet_of_ours_has_replaced_is_found(either_world: World) -> None:
    """The same seed elsewhere: whoever spends the output, the exit is claimed."""
    world = either_world
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    first = await world.exits.claim(None, PAYEE, FeeRate(500))
    other = p2tr_script(bytes(31) + b"\x05")
    world.evict(first)
    second = await replacement(world, vtxo_id, other)
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, ClaimInProgress)
    assert state.claim_txid == second
    await finish(world)
    state = await world.state(vtxo_id)
    assert isinstance(state, Claimed)
    assert state.txid == second


async def replacement(world: World, vtxo_id: VtxoId, script: bytes) -> Txid:
    """A claim that the wallet does not know of."""
    async with world.store.read() as tx:
        vtxo = await tx.vtxos.body(vtxo_id)
    (path,) = await ClaimPaths(world.store).find([vtxo])
    assert path is not None
    claim = build_claim(
        [path],
        script,
        FeeRate(2_000),
        tip_height=world.node.index.tip_height,
        find_secret=await secrets_of(world.keychain, [path]),
    )
    return await world.node.broadcast(claim.tx.serialize().hex())


# --- HTLCs


async def test_an_outgoing_htlc_is_claimable_after_its_timeout(world: World) -> None:
    """Upstream shows it as claimable before, and the claim is refused."""
    board = await world.mint.board(100_000)
    key = await world.keychain.reserve()
    timeout = world.node.index.tip_height + 60
    policy = ServerHtlcSendPolicy(key.public_key, sha256(bytes(32)), timeout)
    (htlc,) = await world.mint.pay_to(board, [(100_000, policy)])
    await world.fund(50_000, 50_000, 50_000)
    (vtxo_id,) = await world.hold(htlc)
    await world.exits.start([vtxo_id])
    await world.until_claimable(vtxo_id)
    assert world.node.index.tip_height == timeout
    txid = await world.exits.claim([vtxo_id], PAYEE)
    (tx_in,) = world.mempool[txid].inputs
    assert tx_in.sequence == 2 * EXIT_DELTA
    assert world.mempool[txid].locktime >= timeout
    await finish(world)
    assert isinstance(await world.state(vtxo_id), Claimed)


async def test_an_incoming_htlc_needs_its_preimage(world: World) -> None:
    board = await world.mint.board(100_000)
    key = await world.keychain.reserve()
    preimage = sha256(b"preimage")
    expiry_delta = 20
    policy = ServerHtlcReceivePolicy(
        key.public_key, sha256(preimage), world.node.index.tip_height + 100, expiry_delta
    )
    (htlc,) = await world.mint.pay_to(board, [(100_000, policy)])
    await world.fund(50_000, 50_000, 50_000)
    (vtxo_id,) = await world.hold(htlc)
    await world.exits.start([vtxo_id])
    for _ in range(5):
        await world.exits.tick()
        await world.mine()
    progress = await world.exits.progress()
    (entry,) = progress.exits
    assert entry.error is not None
    assert entry.error.tag == "claim-missing-signable-clause"
    assert await world.tx_statuses(vtxo_id) == ["confirmed"] * 3

    async with world.store.transaction() as tx:
        await tx.lightning.record_settled(sha256(preimage), preimage, "lnbcrt1", 100_000)
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, AwaitingDelta)
    assert state.claimable_height == state.confirmed_block.height + expiry_delta + EXIT_DELTA
    await world.until_claimable(vtxo_id)
    txid = await world.exits.claim([vtxo_id], PAYEE)
    assert preimage in world.mempool[txid].inputs[0].witness
    await finish(world)
    assert isinstance(await world.state(vtxo_id), Claimed)


# --- what is shown


async def test_lists(world: World) -> None:
    vtxos = [await world.mint.board(50_000) for _ in range(3)]
    ids = await world.hold(*vtxos)
    await world.exits.start(ids)
    await world.exits.cancel(ids[1])
    shown = {which: [status.vtxo_id for status in await world.exits.statuses(which)] for which in ExitFilter}
    assert shown[ExitFilter.ALL] == sorted(ids, key=str)
    assert shown[ExitFilter.LIVE] == sorted([ids[0], ids[2]], key=str)
    assert shown[ExitFilter.FINISHED] == [ids[1]]
    with pytest.raises(NotExiting):
        await world.exits.status((await world.mint.board(50_000)).id)


async def test_history_and_packages_are_there_when_asked_for(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.exits.progress(RATE)
    bare = await world.exits.status(vtxo_id)
    assert (bare.history, bare.packages) == ((), ())
    full = await world.exits.status(vtxo_id, with_history=True, with_packages=True)
    assert [state.type for state in full.history] == ["start", "processing", "processing"]
    (package,) = full.packages
    assert package.tx == vtxo.exit_transactions()[0]
    assert package.child is not None
    assert package.child.tx == world.child_of(package.tx)
    assert package.child.fee is not None
    assert package.child.fee.fee_sat == package_fee_sat(RATE, 496, 609)
    async with world.store.transaction() as tx:
        await tx.vtxos.remove([vtxo_id])
    pruned = await world.exits.status(vtxo_id, with_packages=True)
    assert pruned.packages == ()


async def test_progress_reports_what_is_left(world: World) -> None:
    first, second = await claimable(world, await world.mint.board(60_000), await world.mint.board(40_000))
    progress = await world.exits.progress()
    assert progress.is_done
    state = await world.state(first)
    assert isinstance(state, Claimable)
    assert progress.claimable_height == state.claimable_since.height
    await world.exits.claim([first], PAYEE)
    await world.mine()
    progress = await world.exits.progress()
    assert [entry.vtxo_id for entry in progress.exits] == [second]


async def test_reading_does_not_wait_for_a_run(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    seen: list[str] = []

    async def look_meanwhile(txid: Txid, ask: Ask) -> TxStatus:
        seen.append((await world.state(vtxo_id)).type)
        return await ask()

    world.chain.answer_status = look_meanwhile
    await world.exits.tick()
    assert "start" in seen


# --- estimates


async def test_an_estimate_counts_each_transaction_once(world: World) -> None:
    board = await world.mint.board(100_000)
    vtxos = await world.mint.pay(board, [60_000, 40_000])
    await world.hold(*vtxos)
    estimate = await world.exits.estimate_fee(None, fee_rate=RATE, margin=1.0)
    txs = {tx.txid: tx for vtxo in vtxos for tx in vtxo.exit_transactions()}
    expected = sum(package_fee_sat(RATE, tx.weight_wu, 609) for tx in txs.values())
    assert (estimate.broadcast_fee_sat, estimate.txs_to_broadcast) == (expected, len(txs))
    assert estimate.claim_fee_sat == RATE.fee_wu(CLAIM_WEIGHT_WU[2])
    assert not estimate.is_fundable
    await world.fund(50_000)
    assert (await world.exits.estimate_fee(None, fee_rate=RATE)).is_fundable
    twice = await world.exits.estimate_fee([vtxos[0].id, vtxos[0].id], fee_rate=RATE, margin=1.0)
    assert twice.claim_fee_sat == RATE.fee_wu(CLAIM_WEIGHT_WU[1])


async def test_an_estimate_falls_as_the_exit_goes_on(world: World) -> None:
    await world.fund(50_000, 50_000)
    vtxo = await world.mint.deep(100_000, payments=1)
    (vtxo_id,) = await world.hold(vtxo)

    async def count() -> int:
        estimate = await world.exits.estimate_fee([vtxo_id], fee_rate=RATE, margin=1.0)
        return estimate.txs_to_broadcast

    assert await count() == 3
    await world.exits.start([vtxo_id])
    counts = []
    for _ in range(4):
        await world.exits.progress(RATE)
        counts.append(await count())
        await world.mine()
    assert counts == [2, 1, 0, 0]  # a child that pays enough is paid for
    higher = FeeRate(2_000)
    await world.node.reorg(2)
    await world.exits.progress(RATE)
    estimate = await world.exits.estimate_fee([vtxo_id], fee_rate=higher, margin=1.0)
    assert estimate.txs_to_broadcast == 1
    last = vtxo.exit_transactions()[-1]
    paid = package_fee_sat(RATE, last.weight_wu, 609)
    assert estimate.broadcast_fee_sat == package_fee_sat(higher, last.weight_wu, 609, replaces_fee_sat=paid)


async def test_an_estimate_knows_what_others_have_confirmed(world: World) -> None:
    vtxo = await world.mint.deep(100_000, payments=1)
    await world.hold(vtxo)
    await world.node.mine_exactly(vtxo.exit_transactions()[:2])
    estimate = await world.exits.estimate_fee([vtxo.id], fee_rate=RATE)
    assert estimate.txs_to_broadcast == 1


async def test_estimates_of_what_cannot_be_exited(world: World) -> None:
    spent, exited, odd, fine = (
        await world.mint.board(50_000),
        await world.mint.board(50_000),
        await with_dust_sibling(world),
        await world.mint.board(50_000),
    )
    await world.hold(spent, state=Spent())
    await world.hold(exited, state=Exited())
    await world.hold(odd, fine)
    unknown = await world.mint.board(50_000)
    for vtxo, error in [
        (unknown, UnknownExitVtxo),
        (spent, SpentVtxo),
        (exited, VtxoAlreadyExited),
        (odd, NonStandardExit),
    ]:
        with pytest.raises(error) as caught:
            await world.exits.estimate_fee([vtxo.id])
        assert chain_text(caught.value) == str(caught.value), "the reason is said once"
    estimate = await world.exits.estimate_fee(None)
    assert estimate.skipped == (odd.id,)
    assert estimate.txs_to_broadcast == 1
    assert (await world.exits.estimate_fee([])).total_fee_sat == 0


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), -1.0, 1e308])
async def test_margins_that_make_no_sense(world: World, margin: float) -> None:
    vtxo = await world.mint.board(100_000)
    await world.hold(vtxo)
    with pytest.raises(InvalidFeeMargin):
        await world.exits.estimate_fee([vtxo.id], margin=margin)


async def test_exited_vtxos_count_in_no_other_balance(world: World) -> None:
    (vtxo_id,) = await claimable(world, await world.mint.board(100_000))
    reader = BalanceReader(world.store)
    balance = await reader.balance(world.node.index.tip_height, None)
    assert (balance.pending_exit_sat, balance.total_sat) == (100_000, 100_000)
    await world.exits.claim(None, PAYEE)
    await finish(world)
    balance = await reader.balance(world.node.index.tip_height, None)
    assert balance.total_sat == 0
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(vtxo_id)).state.kind is StateKind.EXITED


async def test_exits_go_on_while_a_node_looks_for_coins(
    node: LocalNode, clock: Clock, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take it an hour."""
    chain = source("bitcoind", node, clock)
    assert isinstance(chain, BitcoindSource)
    world = await World.create(node, chain, clock, store)
    await world.fund(50_000, 50_000)
    (vtxo_id,) = await world.hold(await world.mint.board(100_000))
    begun, ends = asyncio.Event(), asyncio.Event()
    real = chain._scan_unspent

    async def slow(scripts: Iterable[bytes]) -> list[dict[str, Any]]:
        begun.set()
        await ends.wait()
        return await real(scripts)

    monkeypatch.setattr(chain, "_scan_unspent", slow)
    rescan = asyncio.create_task(world.onchain.rescan())
    await asyncio.wait_for(begun.wait(), 30)
    await world.exits.start([vtxo_id])
    async with asyncio.timeout(60):
        await world.until_claimable(vtxo_id)
    assert not rescan.done()
    await world.onchain.sync()
    before = await world.onchain.transactions()
    ends.set()
    await rescan
    assert await world.onchain.transactions() == before
    await chain.close()
