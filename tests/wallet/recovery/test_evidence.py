"""What a recovery asks of the chain, and how much of it at once."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import Confirmed, Mempool, TxStatus
from barkd_py.wallet.recovery.evidence import PROOFS_AT_ONCE, Evidence
from barkd_py.wallet.recovery.judgement import Proven, Unproven
from tests.wallet.samples import make_vtxo

TIP = BlockRef(1, BlockHash(bytes(32)))


@dataclass
class Chain:
    """Gives others their turn before it answers. at_once: the most that were being asked."""

    unconfirmed: Txid
    at_once: int = 0
    asked: Counter[Txid] = field(default_factory=Counter)
    _asking: int = 0

    async def tip(self) -> BlockRef:
        return TIP

    async def tx_status(self, txid: Txid) -> TxStatus:
        self.asked[txid] += 1
        self._asking += 1
        self.at_once = max(self.at_once, self._asking)
        for _ in range(5):
            await asyncio.sleep(0)
        self._asking -= 1
        return Mempool() if txid == self.unconfirmed else Confirmed(TIP)

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        return False


async def test_anchors_are_looked_at_some_at_once_and_each_is_asked_for_once() -> None:
    anchors = [OutPoint(Txid(bytes([number]) * 32), 0) for number in range(3 * PROOFS_AT_ONCE)]
    vtxos = [
        replace(make_vtxo(1 + number), anchor_point=anchors[number % len(anchors)])
        for number in range(2 * len(anchors))
    ]
    chain = Chain(unconfirmed=anchors[5].txid)
    evidence: Any = Evidence(None, None, chain, None, gap_limit=0)  # type: ignore[arg-type]
    proofs = await evidence.look_at_anchors(vtxos)
    assert chain.at_once == PROOFS_AT_ONCE
    assert chain.asked == Counter(point.txid for point in anchors)
    unproven = {vtxo.id for vtxo in vtxos if vtxo.anchor_point == anchors[5]}
    assert {vtxo_id for vtxo_id, proof in proofs.items() if isinstance(proof, Unproven)} == unproven
    assert {vtxo_id for vtxo_id, proof in proofs.items() if proof == Proven()} == (
        {vtxo.id for vtxo in vtxos} - unproven
    )
