"""Exits and reorgs: what the server knows of the chain. Source: sheet 10 §4, §10.1."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.devnet.ark_server.chain import NodeChain
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import Client, Refusal
from tests.devnet.ark_server.conftest import StartServer
from tests.fakes.server_chain import FakeServerChain


async def exit_height(client: Client, vtxo_id: VtxoId) -> int | None:
    await client.server.follower.catch_up()
    return (await client.server.vtxo_row(vtxo_id)).confirmed_height


async def spend_refusal(client: Client, vtxo: Vtxo) -> Refusal:
    payment = client.prepare_payment([vtxo], [(vtxo.amount_sat, client.policy)])
    return await client.refusal(client.ark.RequestArkoorCosign, payment.request)


async def test_confirmed_exit_forbids_spending(alice: Client) -> None:
    vtxo = await alice.board()
    block = alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) == block.height
    refusal = await spend_refusal(alice, vtxo)
    text = f"bad user input: vtxo {vtxo.id} has exited onchain"
    assert refusal == Refusal("INVALID_ARGUMENT", text, None)
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_funding_output_leaves_the_frontier_when_it_is_spent(alice: Client) -> None:
    vtxo = await alice.board()
    funding = VtxoId.of(vtxo.anchor_point)
    confirmed = await exit_height(alice, funding)
    alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, funding) == confirmed


async def test_exit_is_followed_step_by_step(alice: Client) -> None:
    vtxo = await alice.board()
    (paid,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    board_exit, checkpoint, arkoor = paid.exit_transactions()
    alice.chain.mine(board_exit)
    assert await exit_height(alice, paid.id) is None
    alice.chain.mine(checkpoint)
    checkpoint_output = VtxoId.of(checkpoint.outpoint(0))
    assert await exit_height(alice, checkpoint_output) is not None
    assert await exit_height(alice, paid.id) is None
    block = alice.chain.mine(arkoor)
    assert await exit_height(alice, paid.id) == block.height


async def test_exit_in_one_block_is_followed_to_its_end(alice: Client) -> None:
    vtxo = await alice.board()
    (paid,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    block = alice.chain.mine(*paid.exit_transactions())
    assert await exit_height(alice, paid.id) == block.height


async def test_payment_is_answered_again_after_its_input_exited(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    outputs = [(vtxo.amount_sat, bob.policy)]
    payment = alice.prepare_payment([vtxo], outputs)
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) is not None
    again = alice.prepare_payment([vtxo], outputs)
    answer = await alice.call(alice.ark.RequestArkoorCosign, again.request)
    assert len(alice.finish_payment(again, answer)) == 1


async def test_reorg_takes_an_exit_back(alice: Client) -> None:
    vtxo = await alice.board()
    alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) is not None
    alice.chain.lose(1)
    alice.chain.mine(count=2)
    assert await exit_height(alice, vtxo.id) is None
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    block = alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) == block.height


async def test_lower_tip_is_an_ordinary_reorg(alice: Client) -> None:
    vtxo = await alice.board()
    alice.chain.mine(count=3)
    alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) is not None
    alice.chain.lose(4)
    assert await exit_height(alice, vtxo.id) is None


async def test_registered_board_stays_registered_when_its_funding_is_reorganised(alice: Client) -> None:
    vtxo = await alice.board()
    funding = VtxoId.of(vtxo.anchor_point)
    funding_tx = await alice.chain.get_tx(vtxo.anchor_point.txid)
    assert funding_tx is not None
    alice.chain.lose(1)
    assert await exit_height(alice, funding) is None
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE
    block = alice.chain.mine(funding_tx)
    assert await exit_height(alice, funding) == block.height
    block = alice.chain.mine(*vtxo.exit_transactions())
    assert await exit_height(alice, vtxo.id) == block.height


async def test_what_was_mined_while_the_server_was_away_is_caught_up(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings())
    async with Client(server, chain) as alice:
        vtxo = await alice.board()
        await server.stop()
    block = chain.mine(*vtxo.exit_transactions())
    again = await start_server(ServerSettings())
    assert (await again.vtxo_row(vtxo.id)).confirmed_height == block.height


async def test_server_follows_by_itself(alice: Client) -> None:
    vtxo = await alice.board()
    alice.chain.mine(*vtxo.exit_transactions())
    for _ in range(200):
        if (await alice.server.vtxo_row(vtxo.id)).has_exited:
            return
    raise AssertionError("the server did not notice the block")


# --- a real node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[LocalNode]:
    node = LocalNode(tmp_path / "node")
    yield node
    await node.close()


async def test_devnets_node_is_a_chain_for_the_server(node: LocalNode, tmp_path: Path) -> None:
    await node.mine(101)
    chain = NodeChain(node)
    server = await ArkServer.start(tmp_path / "ark", chain)
    try:
        tip = await chain.tip()
        assert tip.height == 101
        assert await server.follower.catch_up() == tip
        block = await chain.block(101)
        assert block is not None
        assert (block.ref, block.previous) == (tip, await chain.block_hash(100))
        (coinbase,) = block.transactions
        assert await chain.get_tx(coinbase.txid) == coinbase
        assert await chain.confirmed_height(coinbase.txid) == 101
        assert not await chain.is_spent(coinbase.outpoint(0))
        assert await chain.block(102) is None
        await node.mine(2)
        assert (await server.follower.catch_up()).height == 103
    finally:
        await server.stop()
