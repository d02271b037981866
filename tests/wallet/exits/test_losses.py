"""What the books say when somebody else has taken the money."""

import pytest

from barkd_py.ark.claim import build_claim_tx, claim_input, sign_claim_tx
from barkd_py.ark.policy import ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.errors import ChainUnavailable
from barkd_py.wallet.balance import BalanceReader
from barkd_py.wallet.exits.errors import ExitTxAlreadyBroadcast
from barkd_py.wallet.exits.states import AwaitingDelta, Claimable, Claimed, Processing, VtxoSwept
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.vtxo_states import Locked
from tests.wallet.exits.coins import EXIT_DELTA, PREIMAGE, SERVER
from tests.wallet.exits.conftest import World
from tests.wallet.exits.test_reorgs import SWEEPER, sweep, swept_board

HTLC_EXPIRY_BLOCKS = 40


async def balance_sat(world: World) -> int:
    tip_height = world.node.index.tip_height
    return (await BalanceReader(world.store).balance(tip_height, None)).total_sat


async def history_sat(world: World) -> int:
    return sum(movement.effective_balance_sat for movement in await world.movements())


async def htlc(world: World) -> tuple[Vtxo, Vtxo]:
    """Of a Lightning payment that the wallet tries to make; and the board that it is made with."""
    key = await world.keychain.reserve()
    expiry_height = world.node.index.tip_height + HTLC_EXPIRY_BLOCKS
    policy = ServerHtlcSendPolicy(key.public_key, sha256(PREIMAGE), expiry_height)
    board = await world.mint.board(100_000)
    (vtxo,) = await world.mint.pay_to(board, [(100_000, policy)])
    return board, vtxo


async def take(world: World, vtxo: Vtxo) -> Tx:
    """What the server does that has the preimage."""
    claim = claim_input(vtxo, is_ours=lambda key: key == SERVER.public_key, find_preimage=lambda _: PREIMAGE)
    unsigned = build_claim_tx([claim], [TxOut(99_000, SWEEPER)], locktime=world.node.index.tip_height)
    tx = sign_claim_tx(unsigned, [claim], lambda _: SERVER)
    await world.node.broadcast(tx.serialize().hex())
    return tx


async def exited_htlc(world: World) -> tuple[Vtxo, VtxoId]:
    await world.fund(50_000, 50_000)
    _, vtxo = await htlc(world)
    (vtxo_id,) = await world.hold(vtxo, state=Locked(None))
    await world.exits.start_held(vtxo_id)
    return vtxo, vtxo_id


async def test_what_the_server_took_was_not_claimed_with_success(either_world: World) -> None:
    """The state says `claimed`, for that is its name whoever did it. The movement says what it came to."""
    world = either_world
    vtxo, vtxo_id = await exited_htlc(world)

    async def is_deep() -> bool:
        found = world.node.index.tx(vtxo.point.txid)
        return found is not None and world.node.index.tip_height >= found.height + EXIT_DELTA

    await world.until(is_deep, step=world.exits.tick)
    taken = await take(world, vtxo)

    async def is_claimed() -> bool:
        return isinstance(await world.state(vtxo_id), Claimed)

    await world.until(is_claimed, step=world.exits.tick)
    state = await world.state(vtxo_id)
    assert isinstance(state, Claimed)
    assert state.txid == taken.txid
    (movement,) = await world.movements()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, -100_000)
    assert str(taken.txid) in str(movement.metadata["error"])
    assert await balance_sat(world) == 0


async def test_what_we_took_ourselves_was(either_world: World) -> None:
    world = either_world
    _, vtxo_id = await exited_htlc(world)

    async def is_claimable() -> bool:
        return isinstance(await world.state(vtxo_id), Claimable)

    await world.until(is_claimable, step=world.exits.tick)
    await world.exits.claim(None, SWEEPER)
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimed)
    (movement,) = await world.movements()
    assert (movement.status, movement.metadata) == (MovementStatus.SUCCESSFUL, {})


@pytest.mark.parametrize("tries", [1, 2])
async def test_what_was_swept_is_in_the_balance_and_has_not_left_in_history(world: World, tries: int) -> None:
    """It never came to the chain, so it stays a VTXO, which the server may yet refresh."""
    vtxo, vtxo_id = await swept_board(world)
    await world.mine(8)
    for _ in range(tries):
        await world.exits.start([vtxo_id])
        await world.exits.tick()
        await world.mine()  # it has to be seen twice
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), VtxoSwept)
    movements = await world.movements()
    assert {movement.status for movement in movements} == {MovementStatus.FAILED}
    assert all(str(vtxo.anchor_point) in str(movement.metadata["error"]) for movement in movements)
    assert await history_sat(world) == 0
    assert await balance_sat(world) == vtxo.amount_sat


@pytest.mark.parametrize("tries", [1, 2])
async def test_a_payment_whose_htlc_was_swept_is_gone_from_both(world: World, tries: int) -> None:
    """The payment's own movement has left it to the exit to bring the money back."""
    world.mint.expiry_height = world.node.index.tip_height + 4
    board, vtxo = await htlc(world)
    (vtxo_id,) = await world.hold(vtxo, state=Locked(None))
    await world.exits.start_held(vtxo_id)
    await world.mine(5)
    await world.node.mine_exactly([await sweep(world, board)])
    await world.mine(8)
    for _ in range(tries):
        await world.exits.start_held(vtxo_id)
        await world.exits.tick()
        await world.mine()
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), VtxoSwept)
    assert await history_sat(world) == -100_000
    assert await balance_sat(world) == 0


def refuse_packages(name: str, when: str) -> None:
    if name == "broadcast_package":
        raise ChainUnavailable("no answer")


@pytest.mark.parametrize("is_called_off", [False, True])
async def test_what_a_reorganisation_takes_back_and_the_server_sweeps_is_gone_from_both(
    world: World, is_called_off: bool
) -> None:
    """It was on the chain, so it is no VTXO any more; nor is its exit called off, for none could follow."""
    world.mint.expiry_height = world.node.index.tip_height + 3
    vtxo = await world.mint.board(100_000)
    await world.hold(vtxo)
    await world.fund(50_000)
    await world.exits.start([vtxo.id])
    await world.exits.tick()
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo.id), AwaitingDelta)
    assert (await history_sat(world), await balance_sat(world)) == (-100_000, 100_000)
    await world.node.reorg(1)
    world.evict(*world.mempool)
    if is_called_off:
        world.chain.gate = refuse_packages
        await world.exits.tick()
        assert isinstance(await world.state(vtxo.id), Processing)
        with pytest.raises(ExitTxAlreadyBroadcast):
            await world.exits.cancel(vtxo.id)
        world.chain.gate = None
        await world.until_claimable(vtxo.id)
        return
    await world.node.mine_exactly([await sweep(world, vtxo)])
    await world.mine(8)
    await world.exits.tick()
    await world.mine()  # it has to be seen twice
    await world.exits.tick()
    assert isinstance(await world.state(vtxo.id), VtxoSwept)
    assert (await history_sat(world), await balance_sat(world)) == (-100_000, 0)
