"""Which transactions concern the wallet: those that pay to its scripts or spend its outputs.

Pure. Blocks are searched as raw bytes first, and parsed only when something of ours is in them: parsing a
full block in Python takes half a second, searching it takes milliseconds.
"""

from collections.abc import Iterable

from barkd_py.bitcoin.tx import OutPoint, Tx
from barkd_py.chain.source import ScriptWatch

_TAPROOT_OUTPUT = b"\x22\x51\x20"
"""How a taproot script starts inside a serialised output: its length, OP_1, and the length of the key."""

_MAX_SEARCHED_OUTPOINTS = 200
"""With more outputs than this, parsing the block is faster than searching it for each."""


class WalletMatcher:
    """Collects the wallet's transactions, in the order in which they are offered.

    Only taproot scripts are recognised; the wallet has no others. It learns as it goes: the outputs of a
    matching transaction are watched for spends, and the script window grows (`ScriptWatch.found`).
    """

    def __init__(self, scripts: ScriptWatch, outpoints: Iterable[OutPoint]) -> None:
        self._scripts = scripts
        self._outpoints = set(outpoints)

    def select(self, txs: Iterable[Tx]) -> list[Tx]:
        """The wallet's own among these, whatever their order: repeated until nothing new is learnt."""
        rest = list(txs)
        found: list[Tx] = []
        while True:
            others: list[Tx] = []
            for tx in rest:
                (found if self._matches(tx) else others).append(tx)
            if len(others) == len(rest):
                return found
            rest = others

    def _matches(self, tx: Tx) -> bool:
        ours = False
        for vout, output in enumerate(tx.outputs):
            index = self._scripts.index_of(output.script_pubkey)
            if index is not None:
                self._scripts.found(index)
                self._outpoints.add(tx.outpoint(vout))
                ours = True
        return ours or any(tx_in.prevout in self._outpoints for tx_in in tx.inputs)

    def may_concern(self, raw: bytes) -> bool:
        """Whether a raw block may hold a transaction of ours; True may be wrong, False is not."""
        if len(self._outpoints) > _MAX_SEARCHED_OUTPOINTS:
            return True
        if any(outpoint.to_bytes() in raw for outpoint in self._outpoints):
            return True
        position = raw.find(_TAPROOT_OUTPUT)
        while position >= 0:
            if self._scripts.index_of(raw[position + 1 : position + 35]) is not None:
                return True
            position = raw.find(_TAPROOT_OUTPUT, position + 1)
        return False
