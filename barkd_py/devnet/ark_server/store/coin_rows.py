"""The rows of the server's own coins, kept in step with the chain.

Coins that others pay are seen when a block confirms them. Those that the server's own transactions make are
known at once, and trusted: nobody else can spend what their inputs spend. If a block does spend an input
differently, the transaction and what was built on it are forgotten.

Source: sheet 10 §5 (wallet).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.devnet.ark_server.chain import ChainBlock
from barkd_py.devnet.ark_server.store.tables import coin, treasury_keys, treasury_tx


@dataclass(frozen=True, slots=True)
class Coin:
    """An output of the server's. script_index: of the key that spends it."""

    outpoint: OutPoint
    value_sat: int
    script_index: int
    confirmed_height: int | None

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed_height is not None


# --- keys


def keys_used(connection: Connection) -> int:
    """How many keys were handed out."""
    return int(connection.execute(select(treasury_keys.c.used)).scalar_one_or_none() or 0)


def take_key(connection: Connection) -> int:
    """The index of a key that nobody has seen."""
    index = keys_used(connection)
    statement = insert(treasury_keys).values(id=1, used=index + 1)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"used": index + 1}))
    return index


# --- coins


def spendable(connection: Connection) -> list[Coin]:
    """The coins that can be spent now: confirmed ones, largest first, then the server's own change."""
    ours = select(treasury_tx.c.txid)
    query = select(coin).where(
        coin.c.spent_by.is_(None), or_(coin.c.confirmed_height.is_not(None), coin.c.created_by.in_(ours))
    )
    coins = [_coin(row) for row in connection.execute(query)]
    return sorted(coins, key=lambda each: (not each.is_confirmed, -each.value_sat, each.outpoint))


def find(connection: Connection, outpoints: Iterable[OutPoint]) -> list[Coin]:
    """The coins at these places, spent or not, in their order. Raises KeyError."""
    wanted = [outpoint.to_bytes() for outpoint in outpoints]
    found = {
        row.outpoint: _coin(row)
        for row in connection.execute(select(coin).where(coin.c.outpoint.in_(wanted)))
    }
    return [found[outpoint] for outpoint in wanted]


def _coin(row: Row[Any]) -> Coin:
    return Coin(OutPoint.from_bytes(row.outpoint), row.value_sat, row.script_index, row.confirmed_height)


# --- transactions of the server's own


def record(connection: Connection, tx: Tx, change: Mapping[int, int], *, is_signed: bool) -> None:
    """Book a transaction: its inputs are spent, its change can be spent on.

    change: the index of the key by output. Safe to repeat; a signed transaction stays signed.
    """
    signed = tx.serialize() if is_signed else None
    statement = insert(treasury_tx).values(txid=bytes(tx.txid), tx=signed)
    if is_signed:
        statement = statement.on_conflict_do_update(index_elements=["txid"], set_={"tx": signed})
    else:
        statement = statement.on_conflict_do_nothing()
    connection.execute(statement)
    spent = [tx_in.prevout.to_bytes() for tx_in in tx.inputs]
    connection.execute(update(coin).where(coin.c.outpoint.in_(spent)).values(spent_by=bytes(tx.txid)))
    for vout, script_index in change.items():
        _insert(connection, tx, vout, script_index, confirmed_height=None)


def unconfirmed(connection: Connection) -> list[Tx]:
    """The signed transactions that no block has, oldest first."""
    query = select(treasury_tx.c.tx).where(
        treasury_tx.c.tx.is_not(None), treasury_tx.c.confirmed_height.is_(None)
    )
    return [Tx.parse(data) for data in connection.execute(query).scalars()]


def _insert(
    connection: Connection, tx: Tx, vout: int, script_index: int, *, confirmed_height: int | None
) -> None:
    values = {
        "outpoint": tx.outpoint(vout).to_bytes(),
        "created_by": bytes(tx.txid),
        "value_sat": tx.outputs[vout].value_sat,
        "script_index": script_index,
        "confirmed_height": confirmed_height,
    }
    statement = insert(coin).values(values)
    if confirmed_height is None:
        connection.execute(statement.on_conflict_do_nothing())
    else:
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["outpoint"], set_={"confirmed_height": confirmed_height}
            )
        )


# --- following the chain


def process(connection: Connection, scripts: Mapping[bytes, int], block: ChainBlock) -> None:
    """Take a block into account. scripts: the server's, with the indices of their keys."""
    height = block.ref.height
    watched = set(connection.execute(select(coin.c.outpoint).where(coin.c.spent_height.is_(None))).scalars())
    ours = set(connection.execute(select(treasury_tx.c.txid)).scalars())
    for tx in block.transactions:
        for outpoint in watched.intersection(tx_in.prevout.to_bytes() for tx_in in tx.inputs):
            _spend(connection, outpoint, tx.txid, height)
        for vout, output in enumerate(tx.outputs):
            if output.script_pubkey in scripts:
                _insert(connection, tx, vout, scripts[output.script_pubkey], confirmed_height=height)
                watched.add(tx.outpoint(vout).to_bytes())
        if bytes(tx.txid) in ours:
            this = treasury_tx.c.txid == bytes(tx.txid)
            connection.execute(update(treasury_tx).where(this).values(confirmed_height=height))


def _spend(connection: Connection, outpoint: bytes, txid: Txid, height: int) -> None:
    this = coin.c.outpoint == outpoint
    spent_by = connection.execute(select(coin.c.spent_by).where(this)).scalar_one_or_none()
    if spent_by is not None and spent_by != bytes(txid):
        _forget(connection, [spent_by])
    connection.execute(update(coin).where(this).values(spent_by=bytes(txid), spent_height=height))


def _forget(connection: Connection, txids: Sequence[bytes]) -> None:
    """Forget transactions that cannot confirm any more, and what spends their change."""
    while txids:
        made = coin.c.created_by.in_(txids)
        query = select(coin.c.spent_by).where(made, coin.c.spent_by.is_not(None))
        children = list(connection.execute(query).scalars())
        connection.execute(delete(coin).where(made))
        connection.execute(update(coin).where(coin.c.spent_by.in_(txids)).values(spent_by=None))
        connection.execute(delete(treasury_tx).where(treasury_tx.c.txid.in_(txids)))
        txids = children


def roll_back(connection: Connection, height: int) -> None:
    """Take back what blocks above a height confirmed."""
    ours = select(treasury_tx.c.txid)
    lost = coin.c.spent_height > height
    connection.execute(update(coin).where(lost, coin.c.spent_by.not_in(ours)).values(spent_by=None))
    connection.execute(update(coin).where(lost).values(spent_height=None))
    connection.execute(update(coin).where(coin.c.confirmed_height > height).values(confirmed_height=None))
    unconfirmed_again = treasury_tx.c.confirmed_height > height
    connection.execute(update(treasury_tx).where(unconfirmed_again).values(confirmed_height=None))
