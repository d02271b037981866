"""The watchman on a node that validates: which outputs it takes and when, and that the chain lets it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.ark_server.chain import NodeChain
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.watch.watchman import PROGRESS_DEPTH, Patrol
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.errors import ChainError
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.rounds.client import LockedCoins, RoundClient
from tests.devnet.ark_server.rounds.conftest import ON_DEMAND
from tests.devnet.purse import COIN_SAT, SCRIPT, Purse, pay, spend
from tests.fakes.server_chain import FakeServerChain

BOARD_SAT = 40_000
LIFETIME = 60
SETTINGS = replace(ON_DEMAND, vtxo_lifetime=LIFETIME)


class NodeForClient:
    """What a client asks of a chain when it prepares a board, by a real node."""

    def __init__(self, node: LocalNode, purse: Purse) -> None:
        self.node = node
        self.purse = purse

    async def tip(self) -> BlockRef:
        return self.node.index.tip.ref

    def funding_tx(self, *outputs: TxOut) -> Tx:
        change_sat = COIN_SAT - sum(output.value_sat for output in outputs) - 1_000
        return spend([self.purse.coin()], [*outputs, pay(change_sat)])


class PickyChain(NodeChain):
    """Refuses transactions that spend one output."""

    def __init__(self, node: LocalNode) -> None:
        super().__init__(node)
        self.refused: OutPoint | None = None

    async def broadcast(self, tx: Tx) -> None:
        if any(tx_in.prevout == self.refused for tx_in in tx.inputs):
            raise ChainError("refused")
        await super().broadcast(tx)


class World:
    """A node, a server, a user and the watchman."""

    def __init__(self, node: LocalNode, chain: PickyChain, server: ArkServer, user: RoundClient) -> None:
        self.node = node
        self.chain = chain
        self.server = server
        self.user = user

    async def board(self) -> Vtxo:
        vtxo, funding_tx = await self.user.signed_board(BOARD_SAT, lifetime=LIFETIME)
        await self.node.broadcast(funding_tx.serialize().hex())
        await self.mine()
        await self.user.call(self.user.ark.RegisterBoardVtxo, pb.BoardVtxoRequest(board_vtxo=vtxo.encode()))
        return vtxo

    async def exit(self, *txs: Tx) -> None:
        """Bring exit transactions onto the chain, one block each."""
        for tx in txs:
            await faucet.pay_for(self.node, tx)
            await self.mine()

    async def mine(self, blocks: int = 1) -> None:
        await self.node.mine(blocks)
        await self.server.follower.catch_up()

    async def mine_to(self, height: int) -> None:
        await self.mine(height - self.node.index.tip_height)

    async def patrol(self) -> Patrol:
        return await self.server.watchman(lambda tx: faucet.pay_for(self.node, tx)).patrol()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    node = LocalNode(tmp_path / "chain")
    await node.mine(110)
    purse = Purse(node)
    await purse.fill(6)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(node.close)
        chain = PickyChain(node)
        server = await ArkServer.start(tmp_path / "ark", chain, settings=SETTINGS)
        stack.push_async_callback(server.stop)
        await faucet.pay(node, [TxOut(1_000_000, await server.treasury.new_script()) for _ in range(3)])
        await node.mine()
        await server.follower.catch_up()
        funds = cast(FakeServerChain, NodeForClient(node, purse))
        user = await stack.enter_async_context(RoundClient(server, funds))
        yield World(node, chain, server, user)


async def test_a_vtxo_that_its_owner_exits_is_left_alone(world: World) -> None:
    vtxo = await world.board()
    await world.exit(*vtxo.exit_transactions())
    await world.mine_to(vtxo.expiry_height + 20)
    assert await world.patrol() == Patrol((), ())


async def test_an_expired_board_is_swept_at_its_expiry_and_not_before(world: World) -> None:
    vtxo = await world.board()
    await world.mine_to(vtxo.expiry_height - 1)
    assert await world.patrol() == Patrol((), ())
    await world.mine()
    (reaction,) = (await world.patrol()).reactions
    assert not reaction.progress
    (sweep,) = [entry.tx for entry in world.node.pool]
    assert sweep.txid == reaction.txid
    assert [tx_in.prevout for tx_in in sweep.inputs] == [vtxo.anchor_point]
    # It waits in the pool: nothing more to do.
    assert await world.patrol() == Patrol((), ())
    await world.mine()
    assert world.node.index.tx(sweep.txid) is not None
    assert await world.patrol() == Patrol((), ())


async def test_several_expired_outputs_go_in_one_transaction(world: World) -> None:
    vtxos = [await world.board() for _ in range(3)]
    await world.mine_to(max(vtxo.expiry_height for vtxo in vtxos))
    (reaction,) = (await world.patrol()).reactions
    assert len(reaction.outputs) == 3
    await world.mine()
    for vtxo in vtxos:
        assert world.node.index.spend(vtxo.anchor_point) is not None


async def test_one_output_that_cannot_be_swept_does_not_hold_up_the_others(world: World) -> None:
    first, second, third = [await world.board() for _ in range(3)]
    await world.mine_to(third.expiry_height)
    world.chain.refused = second.anchor_point
    patrol = await world.patrol()
    assert [problem.error for problem in patrol.problems] == ["refused"]
    swept = {output.outpoint for reaction in patrol.reactions for output in reaction.outputs}
    assert swept == {first.anchor_point, third.anchor_point}


async def test_an_exit_of_a_vtxo_that_was_paid_away_meets_its_checkpoint(world: World) -> None:
    vtxo = await world.board()
    paid, change = await world.user.pay(
        [vtxo],
        (10_000, PubkeyPolicy(SecretKey.generate().public_key)),
        (vtxo.amount_sat - 10_000, world.user.policy),
    )
    await world.exit(*vtxo.exit_transactions())
    await world.mine(PROGRESS_DEPTH - 1)
    assert await world.patrol() == Patrol((), ())
    await world.mine()
    (reaction,) = (await world.patrol()).reactions
    assert reaction.progress
    assert reaction.outputs == (vtxo.id,)
    checkpoint = paid.exit_transactions()[1]
    assert reaction.txid == checkpoint.txid
    assert checkpoint.txid in world.node.pool
    await world.mine()
    # The leaves are not the server's to publish, and stay good.
    assert await world.patrol() == Patrol((), ())
    await world.exit(change.exit_transactions()[2])
    assert world.node.index.spend(change.exit_transactions()[2].inputs[0].prevout) is not None


async def test_the_checkpoint_of_an_expired_payment_is_swept(world: World) -> None:
    vtxo = await world.board()
    (paid,) = await world.user.pay([vtxo], (vtxo.amount_sat, world.user.policy))
    exit_tx, checkpoint, _ = paid.exit_transactions()
    await world.exit(exit_tx, checkpoint)
    await world.mine_to(vtxo.expiry_height - 1)
    assert await world.patrol() == Patrol((), ())
    await world.mine()
    (reaction,) = (await world.patrol()).reactions
    assert [output.outpoint for output in reaction.outputs] == [checkpoint.outpoint(0)]
    await world.mine()
    assert world.node.index.tx(reaction.txid) is not None


# --- rounds and offboards


async def _round(world: World, *inputs: Vtxo) -> LockedCoins:
    """A round whose transaction is confirmed."""
    coins = await world.user.hold_round(*inputs)
    await world.server.treasury.broadcast_unconfirmed()
    await world.mine()
    assert world.node.index.tx(coins.funding_tx.txid) is not None
    return coins


async def test_an_exit_of_a_forfeited_vtxo_is_lost_to_the_forfeit(world: World) -> None:
    old = await world.board()
    coins = await _round(world, old)
    (new,) = await world.user.swap(coins)
    await world.exit(*old.exit_transactions())
    await world.mine(PROGRESS_DEPTH)
    (forfeit,) = (await world.patrol()).reactions
    assert forfeit.progress
    assert forfeit.outputs == (old.id,)
    await world.mine()
    spent = world.node.index.spend(old.point)
    assert spent is not None
    assert spent.txid == forfeit.txid
    # The forfeit's output is the server's with the preimage, at once.
    (claim,) = (await world.patrol()).reactions
    assert not claim.progress
    assert [output.txid for output in (each.outpoint for each in claim.outputs)] == [forfeit.txid]
    await world.mine()
    assert world.node.index.tx(claim.txid) is not None
    assert await world.patrol() == Patrol((), ())
    # What the user got for it is there.
    await world.exit(*new.exit_transactions())
    assert world.node.index.output(new.point) == new.output


async def test_an_exit_before_the_forfeit_is_left_alone(world: World) -> None:
    old = await world.board()
    await _round(world, old)
    await world.exit(*old.exit_transactions())
    await world.mine(PROGRESS_DEPTH + 10)
    assert await world.patrol() == Patrol((), ())
    assert world.node.index.spend(old.point) is None


async def test_an_expired_tree_is_swept_at_its_root(world: World) -> None:
    coins = await _round(world, await world.board())
    (vtxo,) = coins.vtxos
    assert vtxo.expiry_height > world.node.index.tip_height
    await world.mine_to(vtxo.expiry_height)
    swept = {output.outpoint for each in (await world.patrol()).reactions for output in each.outputs}
    assert vtxo.anchor_point in swept


@pytest.mark.parametrize("inputs", [1, 2])
async def test_an_exit_of_an_offboarded_vtxo_meets_its_forfeit(world: World, inputs: int) -> None:
    vtxos = [await world.board() for _ in range(inputs)]
    request = await world.user.offboard_request(vtxos, SCRIPT)
    offboard = await world.user.finish_offboard(await world.user.prepare_offboard(vtxos, request))
    await world.server.treasury.broadcast_unconfirmed()
    await world.mine()
    assert world.node.index.tx(offboard.txid) is not None
    old = vtxos[-1]
    await world.exit(*old.exit_transactions())
    await world.mine(PROGRESS_DEPTH)
    if inputs > 1:
        # Their connectors have to be made first.
        (fan_out,) = (await world.patrol()).reactions
        await world.mine()
        made = world.node.index.tx(fan_out.txid)
        assert made is not None
        assert made.tx.inputs[0].prevout.txid == offboard.txid
    (forfeit,) = (await world.patrol()).reactions
    await world.mine()
    spent = world.node.index.spend(old.point)
    assert spent is not None
    assert spent.txid == forfeit.txid
