"""What VTXOs hang off, and whether it is there to be had. Source: sheet 01 §16.11."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoInvalid
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import Confirmed, Mempool, TxStatus
from barkd_py.wallet.vtxos.anchors import MAX_KEPT_BYTES, AnchorLook, Anchors, AnchorSpent, AnchorUnconfirmed
from tests.wallet.samples import user_vtxos

VTXO = next(vtxo for vtxo in user_vtxos() if len(vtxo.genesis) >= 3)
STEPS = VTXO.exit_transactions()
OUTPUTS = [tx.inputs[0].prevout for tx in STEPS]
"""What each of them spends; the anchor is the first."""


@dataclass
class Chain:
    """confirmed: with the transactions before them. spent: in a block. calls: how often it was asked."""

    confirmed: set[Txid] = field(default_factory=lambda: {VTXO.anchor_point.txid})
    spent: set[OutPoint] = field(default_factory=set)
    height: int = VTXO.expiry_height - 1
    calls: Counter[object] = field(default_factory=Counter)

    async def tip(self) -> BlockRef:
        return BlockRef(self.height, BlockHash(bytes(32)))

    async def tx_status(self, txid: Txid) -> TxStatus:
        self.calls[txid] += 1
        return Confirmed(await self.tip()) if txid in self.confirmed else Mempool()

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        assert outpoint.txid in self.confirmed, "a node has no answer to that"
        self.calls[outpoint] += 1
        return outpoint in self.spent


async def check(chain: Chain, vtxo: Vtxo = VTXO) -> bool:
    asked: Any = chain
    return await AnchorLook(asked).check(vtxo)


async def test_an_anchor_in_a_block_is_there() -> None:
    assert not await check(Chain())


async def test_an_anchor_in_the_mempool_is_not_there_yet() -> None:
    with pytest.raises(AnchorUnconfirmed):
        await check(Chain(confirmed=set()))


@pytest.mark.parametrize("published", range(len(STEPS)))
async def test_what_was_published_of_our_way_is_no_harm(published: int) -> None:
    chain = Chain()
    chain.confirmed |= {tx.txid for tx in STEPS[:published]}
    chain.spent |= set(OUTPUTS[:published])
    await check(chain)
    chain.spent.add(OUTPUTS[published])  # by somebody else
    with pytest.raises(AnchorSpent) as taken:
        await check(chain)
    assert taken.value.outpoint == OUTPUTS[published]


async def test_a_vtxo_that_is_on_the_chain_is_there() -> None:
    await check(Chain({VTXO.anchor_point.txid, *(tx.txid for tx in STEPS)}, set(OUTPUTS)))


async def test_what_has_expired_may_have_been_swept() -> None:
    """The server may still give a new one for it; but nobody pays with it."""
    assert await check(Chain(spent={VTXO.anchor_point}, height=VTXO.expiry_height))
    assert not await check(Chain(height=VTXO.expiry_height))
    with pytest.raises(AnchorSpent):
        await check(Chain(spent={VTXO.anchor_point}, height=VTXO.expiry_height - 1))


async def test_one_look_asks_for_everything_once() -> None:
    chain: Any = Chain()
    look = AnchorLook(chain)
    for _ in range(3):
        await look.check(VTXO)
    assert chain.calls == {VTXO.anchor_point.txid: 1, VTXO.anchor_point: 1}


async def test_large_anchors_of_strangers_are_not_all_kept() -> None:
    """Whatever transaction somebody names is fetched; it is the proof that fails."""

    class Large:
        def __init__(self) -> None:
            self.calls: list[Txid] = []

        async def get_tx(self, txid: Txid) -> Tx:
            self.calls.append(txid)
            return Tx(2, (), (TxOut(1, bytes(MAX_KEPT_BYTES // 2 - 100)),), 0)

    asked: Any = Large()
    anchors = Anchors(asked)
    for number in (1, 2, 2, 1, 3, 3, 1):
        point = OutPoint(Txid(bytes([number]) * 32), 0)
        with pytest.raises(VtxoInvalid):
            await anchors.validate([replace(VTXO, anchor_point=point)])
    assert [bytes(txid)[0] for txid in asked.calls] == [1, 2, 3, 1]  # the oldest has made room
