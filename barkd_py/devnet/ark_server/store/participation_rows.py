"""The rows of participations: who swaps which inputs for which outputs, in which round.

A delegated participation is stored when it is submitted, and waits; one in person is stored when its round is
signed. Whatever else spends an input of a waiting one deletes it.

Source: sheet 10 §3.1, §6.7.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, or_, select, update

from barkd_py.ark.policy import Policy, decode_policy, encode_policy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Txid
from barkd_py.devnet.ark_server.store.tables import participation, participation_input, participation_output


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """A coin that somebody wants from a round."""

    amount_sat: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Swap:
    """What a participation is about. preimage: 32 bytes, the server's secret until the inputs are forfeited.

    mailbox_id: who is told when it is done. scheduled_height: when it may be taken into a round.
    """

    inputs: tuple[VtxoId, ...]
    outputs: tuple[WantedOutput, ...]
    preimage: bytes = field(repr=False)
    mailbox_id: PublicKey | None = None
    scheduled_height: int | None = None

    @property
    def unlock_hash(self) -> bytes:
        return sha256(self.preimage)


@dataclass(frozen=True, slots=True)
class Participation:
    """A stored swap. round: the funding transaction of its round, None while it waits.

    leaves: of its outputs in the round's tree; empty while it waits.
    """

    id: int
    swap: Swap
    round: Txid | None
    leaves: tuple[int, ...]
    is_forfeited: bool


def insert_pending(connection: Connection, swap: Swap) -> None:
    """Store a delegated swap; it takes the place of those that wait with one of its inputs."""
    delete_pending_with(connection, swap.inputs)
    _insert(connection, swap, None, [None] * len(swap.outputs))


def insert_issued(connection: Connection, swap: Swap, funding_txid: Txid, leaves: Sequence[int]) -> None:
    """Store a swap that is part of a signed round."""
    _insert(connection, swap, funding_txid, leaves)


def _insert(
    connection: Connection, swap: Swap, funding_txid: Txid | None, leaves: Sequence[int | None]
) -> None:
    values = {
        "unlock_hash": swap.unlock_hash,
        "preimage": swap.preimage,
        "round": None if funding_txid is None else bytes(funding_txid),
        "scheduled_height": swap.scheduled_height,
        "mailbox_id": None if swap.mailbox_id is None else swap.mailbox_id.data,
    }
    (number,) = connection.execute(participation.insert().values(values)).inserted_primary_key or (None,)
    inputs = [
        {"participation": number, "position": position, "vtxo_id": bytes(vtxo_id)}
        for position, vtxo_id in enumerate(swap.inputs)
    ]
    outputs = [
        {
            "participation": number,
            "position": position,
            "amount_sat": output.amount_sat,
            "policy": encode_policy(output.policy),
            "leaf": leaf,
        }
        for position, (output, leaf) in enumerate(zip(swap.outputs, leaves, strict=True))
    ]
    if inputs:
        connection.execute(participation_input.insert(), inputs)
    if outputs:
        connection.execute(participation_output.insert(), outputs)


def issue(connection: Connection, number: int, funding_txid: Txid, leaves: Sequence[int]) -> bool:
    """Note that a waiting swap is part of a signed round; False if it is gone."""
    this = participation.c.id == number
    waiting = participation.c.round.is_(None)
    result = connection.execute(update(participation).where(this, waiting).values(round=bytes(funding_txid)))
    for position, leaf in enumerate(leaves):
        of_this = participation_output.c.participation == number
        at = participation_output.c.position == position
        connection.execute(update(participation_output).where(of_this, at).values(leaf=leaf))
    return result.rowcount > 0


def find(connection: Connection, unlock_hash: bytes) -> Participation | None:
    query = select(participation.c.id).where(participation.c.unlock_hash == unlock_hash)
    number = connection.execute(query).scalar_one_or_none()
    return None if number is None else get(connection, number)


def get(connection: Connection, number: int) -> Participation:
    row = connection.execute(select(participation).where(participation.c.id == number)).one()
    of_this = participation_input.c.participation == number
    inputs = select(participation_input.c.vtxo_id).where(of_this).order_by(participation_input.c.position)
    outputs = (
        select(participation_output)
        .where(participation_output.c.participation == number)
        .order_by(participation_output.c.position)
    )
    wanted = connection.execute(outputs).all()
    swap = Swap(
        inputs=tuple(VtxoId(each) for each in connection.execute(inputs).scalars()),
        outputs=tuple(WantedOutput(each.amount_sat, decode_policy(each.policy)) for each in wanted),
        preimage=row.preimage,
        mailbox_id=None if row.mailbox_id is None else PublicKey(row.mailbox_id),
        scheduled_height=row.scheduled_height,
    )
    return Participation(
        id=row.id,
        swap=swap,
        round=None if row.round is None else Txid(row.round),
        leaves=tuple(each.leaf for each in wanted if each.leaf is not None),
        is_forfeited=row.is_forfeited,
    )


def due(connection: Connection, tip_height: int) -> list[Participation]:
    """The waiting swaps that a round may take now, oldest first."""
    schedule = participation.c.scheduled_height
    query = (
        select(participation.c.id)
        .where(participation.c.round.is_(None), or_(schedule.is_(None), schedule <= tip_height))
        .order_by(participation.c.id)
    )
    return [get(connection, number) for number in connection.execute(query).scalars()]


def everything(connection: Connection) -> list[Participation]:
    """All swaps, oldest first."""
    query = select(participation.c.id).order_by(participation.c.id)
    return [get(connection, number) for number in connection.execute(query).scalars()]


def remove(connection: Connection, number: int) -> None:
    """Delete a waiting swap."""
    of_this = participation.c.id == number
    connection.execute(delete(participation).where(of_this, participation.c.round.is_(None)))


def delete_pending_with(connection: Connection, vtxo_ids: Iterable[VtxoId]) -> None:
    """Delete the waiting swaps that want to spend one of these."""
    wanted: Collection[bytes] = [bytes(vtxo_id) for vtxo_id in vtxo_ids]
    using = select(participation_input.c.participation).where(participation_input.c.vtxo_id.in_(wanted))
    waiting = participation.c.round.is_(None)
    connection.execute(delete(participation).where(waiting, participation.c.id.in_(using)))


def record_forfeits(connection: Connection, number: int, forfeits: Iterable[tuple[VtxoId, Txid]]) -> None:
    """Note the forfeits of all inputs."""
    for vtxo_id, txid in forfeits:
        this = participation_input.c.participation == number
        of_input = participation_input.c.vtxo_id == bytes(vtxo_id)
        connection.execute(update(participation_input).where(this, of_input).values(forfeit_txid=bytes(txid)))
    connection.execute(update(participation).where(participation.c.id == number).values(is_forfeited=True))
