"""The rows of VTXOs and virtual transactions: looking them up, and changing them under guards.

Every function runs inside a transaction of `Store`; a failure rolls all of it back. A guard is a
compare-and-set: it names the states that a change may come from, and being in the target state already is
success, so that a client may repeat a request.

Source: sheet 10 §3.2, §3.3.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.clause import HashLock
from barkd_py.ark.policy import Policy, PubkeyPolicy, ServerHtlcReceivePolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import ServerVtxo, Vtxo, VtxoId
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Missing
from barkd_py.devnet.ark_server.states import SPENDABLE_BY_TX, SpendState
from barkd_py.devnet.ark_server.store import participation_rows
from barkd_py.devnet.ark_server.store.tables import virtual_tx, vtxo

_USER_POLICIES = (PubkeyPolicy, ServerHtlcSendPolicy, ServerHtlcReceivePolicy)


@dataclass(frozen=True, slots=True)
class VtxoRow:
    """What the server knows of an output. encoded: the full encoding of `vtxo`."""

    encoded: bytes
    vtxo: ServerVtxo
    state: SpendState
    spent_by: Txid | None
    spent_in_round: Txid | None
    offboarded_in: Txid | None
    banned_until_height: int | None
    confirmed_height: int | None

    @property
    def id(self) -> VtxoId:
        return self.vtxo.id

    @property
    def is_user_vtxo(self) -> bool:
        """Whether users can hold it; the others are outputs inside exit chains."""
        return isinstance(self.vtxo.policy, _USER_POLICIES)

    @property
    def has_exited(self) -> bool:
        """Whether the transaction that makes it is in the chain."""
        return self.confirmed_height is not None

    def user_vtxo(self) -> Vtxo:
        """The VTXO with its type narrowed. Raises Failure if it is not a user's."""
        try:
            return Vtxo.decode(self.encoded)
        except DecodeError as error:
            raise Failure(f"vtxo {self.id} is not a user vtxo") from error


def _row(row: Row[tuple[object, ...]]) -> VtxoRow:
    fields = row._mapping
    return VtxoRow(
        encoded=fields["vtxo"],
        vtxo=ServerVtxo.decode(fields["vtxo"]),
        state=SpendState(fields["spend_state"]),
        spent_by=_txid(fields["spent_by"]),
        spent_in_round=_txid(fields["spent_in_round"]),
        offboarded_in=_txid(fields["offboarded_in"]),
        banned_until_height=fields["banned_until_height"],
        confirmed_height=fields["confirmed_height"],
    )


def _txid(data: bytes | None) -> Txid | None:
    return None if data is None else Txid(data)


# --- looking up


def find(connection: Connection, vtxo_id: VtxoId) -> VtxoRow | None:
    found = connection.execute(select(vtxo).where(vtxo.c.id == bytes(vtxo_id))).one_or_none()
    return None if found is None else _row(found)


def get(connection: Connection, vtxo_id: VtxoId) -> VtxoRow:
    """Raises Missing."""
    row = find(connection, vtxo_id)
    if row is None:
        raise Missing("VTXO not found", [vtxo_id])
    return row


def find_all(connection: Connection, vtxo_ids: Iterable[VtxoId]) -> dict[VtxoId, VtxoRow]:
    """The known ones among the ids."""
    wanted = list({bytes(vtxo_id) for vtxo_id in vtxo_ids})
    rows: dict[VtxoId, VtxoRow] = {}
    # SQLite takes a limited number of variables per statement.
    for start in range(0, len(wanted), 500):
        query = select(vtxo).where(vtxo.c.id.in_(wanted[start : start + 500]))
        for found in connection.execute(query):
            row = _row(found)
            rows[row.id] = row
    return rows


def get_all(connection: Connection, vtxo_ids: Sequence[VtxoId]) -> list[VtxoRow]:
    """All of the ids, in their order. Raises Missing with the unknown ones, or with none if an id repeats."""
    rows = find_all(connection, vtxo_ids)
    unknown = [vtxo_id for vtxo_id in vtxo_ids if vtxo_id not in rows]
    if unknown or len(rows) != len(vtxo_ids):
        raise Missing("vtxo does not exist", unknown)
    return [rows[vtxo_id] for vtxo_id in vtxo_ids]


def get_seq(connection: Connection, vtxo_id: VtxoId) -> int:
    """The number of a row, in the order in which rows were made. Raises Missing."""
    seq = connection.execute(select(vtxo.c.seq).where(vtxo.c.id == bytes(vtxo_id))).scalar_one_or_none()
    if seq is None:
        raise Missing("VTXO not found", [vtxo_id])
    return int(seq)


def user_vtxos_of(
    connection: Connection, user_pubkeys: Collection[PublicKey], *, after_seq: int, limit: int
) -> list[VtxoRow]:
    """The rows that name one of the keys, in the order in which they were made."""
    wanted = [key.data for key in user_pubkeys]
    found: list[Row[tuple[object, ...]]] = []
    # SQLite takes a limited number of variables per statement.
    for start in range(0, len(wanted), 500):
        query = (
            select(vtxo)
            .where(vtxo.c.user_pubkey.in_(wanted[start : start + 500]), vtxo.c.seq > after_seq)
            .order_by(vtxo.c.seq)
            .limit(limit)
        )
        found.extend(connection.execute(query))
    found.sort(key=lambda row: row._mapping["seq"])
    return [_row(row) for row in found[:limit]]


# --- virtual transactions


@dataclass(frozen=True, slots=True)
class VirtualTx:
    """A transaction that the server knows by id. signed: as it can be broadcast, once that is known."""

    txid: Txid
    signed: Tx | None
    is_funding: bool


def find_virtual_tx(connection: Connection, txid: Txid) -> VirtualTx | None:
    query = select(virtual_tx).where(virtual_tx.c.txid == bytes(txid))
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    signed = None if found.signed_tx is None else Tx.parse(found.signed_tx)
    return VirtualTx(txid, signed, found.is_funding)


def put_virtual_txs(
    connection: Connection, txids: Iterable[Txid], *, signed: Collection[Tx] = (), is_funding: bool = False
) -> None:
    """Remember transactions; known ones are filled in where they were not signed yet."""
    signed_by_id = {tx.txid: tx.serialize() for tx in signed}
    rows = [
        {"txid": bytes(txid), "signed_tx": signed_by_id.get(txid), "is_funding": is_funding}
        for txid in dict.fromkeys((*txids, *signed_by_id))
    ]
    if not rows:
        return
    statement = insert(virtual_tx)
    statement = statement.on_conflict_do_update(
        index_elements=["txid"],
        set_={"signed_tx": statement.excluded.signed_tx},
        where=virtual_tx.c.signed_tx.is_(None),
    )
    connection.execute(statement, rows)


# --- inserting


def insert_new(connection: Connection, vtxos: Iterable[ServerVtxo], state: SpendState) -> None:
    """Add VTXOs; those that are known already stay as they are."""
    rows = [{**_columns(each), "spend_state": state.value} for each in vtxos]
    if rows:
        connection.execute(insert(vtxo).on_conflict_do_nothing(index_elements=["id"]), rows)


def insert_spent(connection: Connection, output: ServerVtxo, spent_by: Txid, **columns: object) -> None:
    """Add an output inside an exit chain with the transaction that spends it; the same again is success.

    Raises Failure if another transaction spends it already. For a checkpoint's output this is the only guard
    against one payment being cosigned to two destinations: the checkpoint itself commits to amounts only.
    """
    values = {
        **_columns(output),
        "spend_state": SpendState.SPENT.value,
        "spent_by": bytes(spent_by),
        **columns,
    }
    inserted = connection.execute(insert(vtxo).values(values).on_conflict_do_nothing(index_elements=["id"]))
    if inserted.rowcount:
        return
    row = get(connection, output.id)
    if row.spent_by != spent_by:
        raise Failure(f"vtxo {output.id} is already spent")


def _columns(each: ServerVtxo) -> dict[str, object]:
    user_pubkey = each.user_pubkey
    return {
        "id": bytes(each.id),
        "created_by": bytes(each.point.txid),
        "vtxo": each.encode(),
        "amount_sat": each.amount_sat,
        "expiry_height": each.expiry_height,
        "policy_kind": each.policy.kind,
        "user_pubkey": None if user_pubkey is None else user_pubkey.data,
    }


# --- guarded changes


def spend(connection: Connection, spends: Iterable[tuple[VtxoId, Txid]]) -> None:
    """Mark VTXOs spent by virtual transactions. Raises BadArgument if one cannot be."""
    for vtxo_id, txid in spends:
        row = find(connection, vtxo_id)
        if row is not None and row.spent_by == txid:
            continue
        if row is None or row.state not in SPENDABLE_BY_TX:
            raise _unspendable(vtxo_id)
        _mark_spent(connection, row, spent_by=bytes(txid))


def spend_in_round(connection: Connection, vtxo_ids: Iterable[VtxoId], funding_txid: Txid) -> None:
    """Mark VTXOs swapped in a round; their forfeits are still to come. Raises BadArgument."""
    for vtxo_id in vtxo_ids:
        row = find(connection, vtxo_id)
        if row is not None and row.spent_in_round == funding_txid:
            continue
        if row is None or row.state is not SpendState.SPENDABLE or not _is_final(row):
            raise _unspendable(vtxo_id)
        _mark_spent(connection, row, spent_in_round=bytes(funding_txid))


def spend_in_offboard(
    connection: Connection, spends: Iterable[tuple[VtxoId, Txid]], offboard_txid: Txid
) -> None:
    """Mark VTXOs given up for an offboard, each with its forfeit. Raises BadArgument."""
    for vtxo_id, forfeit_txid in spends:
        row = find(connection, vtxo_id)
        if row is not None and (row.spent_by, row.offboarded_in) == (forfeit_txid, offboard_txid):
            continue
        if row is None or row.state is not SpendState.SPENDABLE or not _is_final(row):
            raise _unspendable(vtxo_id)
        _mark_spent(connection, row, spent_by=bytes(forfeit_txid), offboarded_in=bytes(offboard_txid))


def _is_final(row: VtxoRow) -> bool:
    return isinstance(row.vtxo.policy, PubkeyPolicy)


def _unspendable(vtxo_id: VtxoId) -> BadArgument:
    return BadArgument(f"vtxo doesn't exist or is unspendable: {vtxo_id}")


def _mark_spent(connection: Connection, row: VtxoRow, **columns: bytes) -> None:
    """Raises BadArgument if it was spent or has exited."""
    if row.spent_by is not None or row.spent_in_round is not None:
        raise _unspendable(row.id)
    if row.has_exited:
        raise BadArgument(f"vtxo {row.id} has exited onchain")
    this = vtxo.c.id == bytes(row.id)
    connection.execute(update(vtxo).where(this).values(spend_state=SpendState.SPENT.value, **columns))
    participation_rows.delete_pending_with(connection, [row.id])


def record_forfeits(connection: Connection, forfeits: Iterable[tuple[VtxoId, Txid]]) -> None:
    """Note the forfeits of VTXOs that were swapped in a round. Raises BadArgument."""
    for vtxo_id, txid in forfeits:
        row = find(connection, vtxo_id)
        is_swapped = row is not None and row.state is SpendState.SPENT and row.spent_in_round is not None
        if row is None or not is_swapped or row.spent_by not in (None, txid):
            raise BadArgument(f"vtxo not round-spent or already forfeited differently: {vtxo_id}")
        this = vtxo.c.id == bytes(vtxo_id)
        connection.execute(update(vtxo).where(this).values(spent_by=bytes(txid)))


def claim(connection: Connection, vtxo_ids: Iterable[VtxoId]) -> None:
    """Make outputs of a round spendable: their inputs are forfeited."""
    for vtxo_id in vtxo_ids:
        this = vtxo.c.id == bytes(vtxo_id)
        unclaimed = vtxo.c.spend_state == SpendState.UNCLAIMED.value
        connection.execute(update(vtxo).where(this, unclaimed).values(spend_state=SpendState.SPENDABLE.value))


def register(connection: Connection, vtxos: Iterable[Vtxo]) -> None:
    """Replace stored bytes by fully signed ones; unregistered VTXOs become spendable, others keep their
    state.
    """
    for each in vtxos:
        of_this = vtxo.c.id == bytes(each.id)
        connection.execute(update(vtxo).where(of_this).values(vtxo=each.encode()))
        connection.execute(
            update(vtxo)
            .where(of_this, vtxo.c.spend_state == SpendState.UNREGISTERED.value)
            .values(spend_state=SpendState.SPENDABLE.value)
        )


def settle_htlcs(connection: Connection, vtxo_ids: Iterable[VtxoId]) -> None:
    """The payment that these pay for has reached its payee: they are the server's now."""
    for vtxo_id in vtxo_ids:
        of_this = vtxo.c.id == bytes(vtxo_id)
        spendable = vtxo.c.spend_state == SpendState.SPENDABLE.value
        connection.execute(
            update(vtxo).where(of_this, spendable).values(spend_state=SpendState.LN_SPENT.value)
        )


def ban(connection: Connection, vtxo_id: VtxoId, until_height: int | None) -> None:
    """Forbid spending below a height, or allow it again. Raises Missing."""
    get(connection, vtxo_id)
    of_this = vtxo.c.id == bytes(vtxo_id)
    connection.execute(update(vtxo).where(of_this).values(banned_until_height=until_height))


def set_state(connection: Connection, vtxo_id: VtxoId, state: SpendState) -> None:
    """Overwrite the state, for tests that need a server which lies. Raises Missing."""
    get(connection, vtxo_id)
    connection.execute(update(vtxo).where(vtxo.c.id == bytes(vtxo_id)).values(spend_state=state.value))


def set_exited(connection: Connection, vtxo_id: VtxoId, height: int | None) -> None:
    """Overwrite where a VTXO's transaction is in the chain, as `set_state` does. Raises Missing."""
    get(connection, vtxo_id)
    connection.execute(update(vtxo).where(vtxo.c.id == bytes(vtxo_id)).values(confirmed_height=height))


# --- checks before a change


def check_spendable(row: VtxoRow, *, tip_height: int, by: Txid | None = None) -> None:
    """Whether a VTXO can be the input of a payment, a round or an offboard. Raises BadArgument.

    by: a transaction that may have spent it already, when a request is repeated. The expiry does not matter.
    """
    if by is not None and row.spent_by == by:
        return
    policy: Policy | object = row.vtxo.policy
    if not isinstance(policy, PubkeyPolicy):
        raise BadArgument(
            f"vtxo {row.id} is not spendable as a round, offboard or arkoor input "
            f"(policy: {row.vtxo.policy.kind})"
        )
    if row.has_exited:
        raise BadArgument(f"vtxo {row.id} has exited onchain")
    if row.state is not SpendState.SPENDABLE:
        raise BadArgument(f"vtxo {row.id} is not spendable (state: {row.state.value})")
    check_not_banned(row, tip_height=tip_height)


def check_htlc_spendable(row: VtxoRow, *, tip_height: int) -> None:
    """Whether a VTXO can pay for a Lightning payment. Raises BadArgument."""
    policy = row.vtxo.policy
    if not isinstance(policy, ServerHtlcSendPolicy) or policy.lock is not HashLock.V1:
        raise BadArgument(f"vtxo {row.id} is not an htlc-send vtxo (policy: {policy.kind})")
    if row.has_exited:
        raise BadArgument(f"vtxo {row.id} has exited onchain")
    if row.state is not SpendState.SPENDABLE:
        raise BadArgument(f"vtxo {row.id} is not spendable (state: {row.state.value})")
    check_not_banned(row, tip_height=tip_height)


def check_shows_money(row: VtxoRow, *, tip_height: int) -> None:
    """Whether a VTXO proves that somebody is no stranger, when they want to be paid. Raises BadArgument."""
    if row.has_exited:
        raise BadArgument(f"vtxo {row.id} has exited onchain")
    if row.state not in (SpendState.SPENDABLE, SpendState.UNREGISTERED):
        raise BadArgument(f"vtxo {row.id} is not a valid anti-dos proof (state: {row.state.value})")
    check_not_banned(row, tip_height=tip_height)


def check_not_banned(row: VtxoRow, *, tip_height: int) -> None:
    """Raises BadArgument."""
    until = row.banned_until_height
    if until is not None and tip_height < until:
        raise BadArgument(f"vtxo {row.id} is banned until block {until}")
