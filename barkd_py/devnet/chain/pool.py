"""The unconfirmed transactions, found by id, by the outputs they spend and by the scripts they touch.

This is a container without rules. `mempool` decides what enters it when devnet validates by
itself; a real bitcoind decides when devnet runs one, and the container mirrors its mempool.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from barkd_py.devnet.chain.index import Spend, script_hash


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """An unconfirmed transaction. spent: the outputs that it spends, in the order of its inputs."""

    tx: Tx
    wtxid: Txid
    spent: tuple[TxOut, ...]
    weight_wu: int

    @classmethod
    def of(cls, tx: Tx, spent: Iterable[TxOut]) -> "PoolEntry":
        return cls(tx, tx.wtxid, tuple(spent), tx.weight_wu)

    @property
    def txid(self) -> Txid:
        return self.tx.txid

    @property
    def vsize(self) -> int:
        return -(-self.weight_wu // 4)

    @property
    def fee_sat(self) -> int:
        return sum(output.value_sat for output in self.spent) - sum(
            output.value_sat for output in self.tx.outputs
        )


class TxPool:
    """Entries in the order in which they came, and three ways to find them."""

    def __init__(self) -> None:
        self._entries: dict[Txid, PoolEntry] = {}
        self._spends: dict[OutPoint, Spend] = {}
        self._script_txids: dict[str, dict[Txid, None]] = {}

    # -- changes ---------------------------------------------------------------------------------------

    def add(self, entry: PoolEntry) -> None:
        """Put a transaction in; it conflicts with none that is there."""
        self._entries[entry.txid] = entry
        for vin, tx_in in enumerate(entry.tx.inputs):
            self._spends[tx_in.prevout] = Spend(entry.txid, vin)
        for key in _script_hashes(entry):
            self._script_txids.setdefault(key, {})[entry.txid] = None

    def remove(self, txid: Txid) -> PoolEntry:
        """Take one transaction out, and only that one."""
        entry = self._entries.pop(txid)
        for tx_in in entry.tx.inputs:
            del self._spends[tx_in.prevout]
        for key in _script_hashes(entry):
            del self._script_txids[key][txid]
            if not self._script_txids[key]:
                del self._script_txids[key]
        return entry

    # -- questions -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, txid: object) -> bool:
        return txid in self._entries

    def __iter__(self) -> Iterator[PoolEntry]:
        return iter(tuple(self._entries.values()))

    def get(self, txid: Txid) -> PoolEntry | None:
        return self._entries.get(txid)

    def output(self, outpoint: OutPoint) -> TxOut | None:
        """An output that an unconfirmed transaction makes, spent or not."""
        entry = self._entries.get(outpoint.txid)
        if entry is None or outpoint.vout >= len(entry.tx.outputs):
            return None
        return entry.tx.outputs[outpoint.vout]

    def spend(self, outpoint: OutPoint) -> Spend | None:
        """The unconfirmed input that spends an output."""
        return self._spends.get(outpoint)

    def script_txids(self, key: str) -> tuple[Txid, ...]:
        """The unconfirmed transactions of a script (by its hash in hex), newest first."""
        return tuple(reversed(self._script_txids.get(key, {})))

    def parents(self, tx: Tx) -> set[Txid]:
        """The unconfirmed transactions whose outputs a transaction spends."""
        return {tx_in.prevout.txid for tx_in in tx.inputs if tx_in.prevout.txid in self._entries}

    def children(self, tx: Tx) -> set[Txid]:
        """The unconfirmed transactions that spend outputs of a transaction."""
        spends = (self._spends.get(OutPoint(tx.txid, vout)) for vout in range(len(tx.outputs)))
        return {spend.txid for spend in spends if spend is not None}

    def ancestors(self, tx: Tx) -> set[Txid]:
        """The parents, their parents, and so on; without the transaction itself."""
        return self._closure(tx, self.parents)

    def descendants(self, tx: Tx) -> set[Txid]:
        """The children, their children, and so on; without the transaction itself."""
        return self._closure(tx, self.children)

    def _closure(self, tx: Tx, relatives: Callable[[Tx], set[Txid]]) -> set[Txid]:
        found: set[Txid] = set()
        todo = [tx]
        while todo:
            for txid in relatives(todo.pop()) - found:
                found.add(txid)
                todo.append(self._entries[txid].tx)
        return found

    def topological(self) -> tuple[PoolEntry, ...]:
        """All entries, parents before children, else in the order in which they came."""
        done: dict[Txid, PoolEntry] = {}

        def place(entry: PoolEntry) -> None:
            if entry.txid in done:
                return
            for tx_in in entry.tx.inputs:
                parent = self._entries.get(tx_in.prevout.txid)
                if parent is not None:
                    place(parent)
            done[entry.txid] = entry

        for entry in self._entries.values():
            place(entry)
        return tuple(done.values())


def _script_hashes(entry: PoolEntry) -> set[str]:
    outputs = (*entry.tx.outputs, *entry.spent)
    return {script_hash(output.script_pubkey) for output in outputs}
