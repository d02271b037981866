"""The rows of rounds: a funding transaction and the signed tree on it.

Source: sheet 10 §3.1.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.tree import SignedTreeSpec
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.devnet.ark_server.store.tables import round_, round_clock


@dataclass(frozen=True, slots=True)
class StoredRound:
    """A round. funding_tx: without witnesses until it is signed."""

    seq: int
    funding_tx: Tx
    is_signed: bool
    tree: SignedTreeSpec


def put(connection: Connection, seq: int, funding_tx: Tx, tree: SignedTreeSpec) -> None:
    """Store a round whose funding transaction is not signed yet."""
    values = {
        "funding_txid": bytes(funding_tx.txid),
        "seq": seq,
        "funding_tx": funding_tx.serialize(),
        "is_signed": False,
        "tree": tree.encode(),
    }
    connection.execute(insert(round_).values(values))


def put_signature(connection: Connection, funding_tx: Tx) -> None:
    """Store the signed funding transaction of a round."""
    this = round_.c.funding_txid == bytes(funding_tx.txid)
    connection.execute(update(round_).where(this).values(funding_tx=funding_tx.serialize(), is_signed=True))


def find(connection: Connection, funding_txid: Txid) -> StoredRound | None:
    query = select(round_).where(round_.c.funding_txid == bytes(funding_txid))
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return StoredRound(row.seq, Tx.parse(row.funding_tx), row.is_signed, SignedTreeSpec.decode(row.tree))


def unsigned(connection: Connection) -> list[Tx]:
    """The funding transactions of rounds that were booked but not signed."""
    query = select(round_.c.funding_tx).where(~round_.c.is_signed)
    return [Tx.parse(data) for data in connection.execute(query).scalars()]


def begin(connection: Connection, at_least: int) -> int:
    """The number of the next round: greater than those of all that were begun, held or not, and at_least."""
    begun = connection.execute(select(round_clock.c.seq)).scalar_one_or_none()
    booked = connection.execute(select(func.max(round_.c.seq))).scalar_one_or_none()
    seq = max(begun or 0, booked or 0, at_least - 1) + 1
    row = insert(round_clock).values(id=1, seq=seq)
    connection.execute(row.on_conflict_do_update(index_elements=[round_clock.c.id], set_={"seq": seq}))
    return seq
