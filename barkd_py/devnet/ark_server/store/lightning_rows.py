"""The rows of Lightning: receives, payments, and what is settled.

Two machines, one per payment hash at a time:

    subscription  created ──▶ accepted ──▶ htlcs-ready ──▶ settled
                     └──────────┴───────────────┴────────▶ canceled
    attempt       requested ──▶ submitted ──▶ succeeded | failed

A subscription is a user's wish to be paid; an attempt is a try to pay for a user. The settlement table is the
only truth about what is paid: it is written before anything else says so, and every path that gives value
away asks it.

Every function runs inside a transaction of `Store`. Changes of state are compare-and-set.

Source: sheet 10 §9.1.
"""

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.store.database import inserted_id
from barkd_py.devnet.ark_server.store.tables import (
    ln_attempt,
    ln_attempt_vtxo,
    ln_grant,
    ln_settlement,
    ln_subscription,
)


class ReceiveStatus(enum.Enum):
    """How far a subscription is, by the name that error messages and the store use."""

    CREATED = "created"
    ACCEPTED = "accepted"
    HTLCS_READY = "htlcs-ready"
    SETTLED = "settled"
    CANCELED = "canceled"

    @property
    def wire_value(self) -> int:
        """The number in the protocol."""
        return list(ReceiveStatus).index(self)


class AttemptStatus(enum.Enum):
    """How far an attempt is."""

    REQUESTED = "requested"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        return self in (AttemptStatus.REQUESTED, AttemptStatus.SUBMITTED)


class FailureReason(enum.IntEnum):
    """Why a payment failed, by the protocol's number."""

    UNSPECIFIED = 0
    FEE_TOO_LOW = 1
    CLTV_TOO_LONG = 2
    NO_ROUTE = 3
    DESTINATION_REJECTED = 4
    SETUP_TIMEOUT = 5
    INVOICE_STATE = 6
    OTHER = 7
    RETRIES_EXHAUSTED = 8


@dataclass(frozen=True, slots=True)
class Subscription:
    """A receive. id: 0 before it is stored. expires_at, accepted_at: Unix seconds."""

    id: int
    payment_hash: bytes
    invoice: str
    amount_sat: int
    min_final_cltv_delta: int
    expires_at: int
    mailbox_id: PublicKey | None
    status: ReceiveStatus = ReceiveStatus.CREATED
    accepted_at: float | None = None
    lowest_expiry_height: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payment. subscription: the receive that it pays inside the server, if it does. created_at: Unix
    seconds.
    """

    id: int
    payment_hash: bytes
    invoice: str
    amount_sat: int
    mailbox_id: PublicKey | None
    subscription: int | None
    created_at: float
    status: AttemptStatus = AttemptStatus.REQUESTED
    reason: FailureReason = FailureReason.UNSPECIFIED


# --- settlements


def preimage_of(connection: Connection, payment_hash: bytes) -> bytes | None:
    """The preimage, if the hash is paid."""
    query = select(ln_settlement.c.preimage).where(ln_settlement.c.payment_hash == payment_hash)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def settle(connection: Connection, payment_hash: bytes, preimage: bytes) -> None:
    """Note that a hash is paid. Safe to repeat."""
    values = {"payment_hash": payment_hash, "preimage": preimage}
    connection.execute(insert(ln_settlement).values(values).on_conflict_do_nothing())


# --- subscriptions


def insert_subscription(connection: Connection, new: Subscription) -> int:
    """Store a receive; its id."""
    values = {
        "payment_hash": new.payment_hash,
        "invoice": new.invoice,
        "amount_sat": new.amount_sat,
        "min_final_cltv_delta": new.min_final_cltv_delta,
        "expires_at": new.expires_at,
        "mailbox_id": None if new.mailbox_id is None else new.mailbox_id.data,
        "status": new.status.value,
    }
    return inserted_id(connection, insert(ln_subscription).values(values))


def latest_subscription(connection: Connection, payment_hash: bytes) -> Subscription | None:
    found = subscriptions_of(connection, payment_hash)
    return found[-1] if found else None


def subscriptions_of(connection: Connection, payment_hash: bytes) -> list[Subscription]:
    """All with a hash, oldest first."""
    query = select(ln_subscription).where(ln_subscription.c.payment_hash == payment_hash)
    return [_subscription(row) for row in connection.execute(query.order_by(ln_subscription.c.id))]


def get_subscription(connection: Connection, number: int) -> Subscription:
    query = select(ln_subscription).where(ln_subscription.c.id == number)
    return _subscription(connection.execute(query).one())


def all_subscriptions(connection: Connection) -> list[Subscription]:
    query = select(ln_subscription).order_by(ln_subscription.c.id)
    return [_subscription(row) for row in connection.execute(query)]


def overdue_subscriptions(
    connection: Connection, *, now: float, accepted_before: float
) -> list[Subscription]:
    """Those whose invoice has expired before they were paid, or whose receiver did not come in time."""
    statuses = ln_subscription.c.status
    unpaid = [
        each.value for each in (ReceiveStatus.CREATED, ReceiveStatus.ACCEPTED, ReceiveStatus.HTLCS_READY)
    ]
    query = select(ln_subscription).where(
        or_(
            statuses.in_(unpaid) & (ln_subscription.c.expires_at < now),
            (statuses == ReceiveStatus.ACCEPTED.value) & (ln_subscription.c.accepted_at <= accepted_before),
        )
    )
    return [_subscription(row) for row in connection.execute(query)]


def settleable_hashes(connection: Connection) -> list[bytes]:
    """Of receives that were claimed, and whose payer is still to be told, oldest settlement first."""
    query = (
        select(ln_settlement.c.payment_hash)
        .join(ln_subscription, ln_subscription.c.payment_hash == ln_settlement.c.payment_hash)
        .where(ln_subscription.c.status == ReceiveStatus.HTLCS_READY.value)
        .order_by(ln_settlement.c.id)
    )
    return list(dict.fromkeys(connection.execute(query).scalars()))


def move_subscription(
    connection: Connection,
    number: int,
    *,
    allowed: Collection[ReceiveStatus],
    to: ReceiveStatus,
    **columns: object,
) -> bool:
    """Change a status; whether it was one of the allowed ones."""
    of_this = ln_subscription.c.id == number
    is_allowed = ln_subscription.c.status.in_([each.value for each in allowed])
    statement = update(ln_subscription).where(of_this, is_allowed).values(status=to.value, **columns)
    return bool(connection.execute(statement).rowcount)


def replace_grant(connection: Connection, number: int, vtxo_ids: Iterable[VtxoId]) -> None:
    """Note what a subscription is granted; a server that lies may grant twice."""
    connection.execute(delete(ln_grant).where(ln_grant.c.subscription == number))
    rows = [
        {"subscription": number, "position": position, "vtxo_id": bytes(vtxo_id)}
        for position, vtxo_id in enumerate(vtxo_ids)
    ]
    connection.execute(insert(ln_grant), rows)


def granted(connection: Connection, number: int) -> tuple[VtxoId, ...]:
    """The VTXOs of a subscription, as they were granted; none before."""
    query = select(ln_grant.c.vtxo_id).where(ln_grant.c.subscription == number).order_by(ln_grant.c.position)
    return tuple(VtxoId(found) for found in connection.execute(query).scalars())


def _subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        id=row.id,
        payment_hash=row.payment_hash,
        invoice=row.invoice,
        amount_sat=row.amount_sat,
        min_final_cltv_delta=row.min_final_cltv_delta,
        expires_at=row.expires_at,
        mailbox_id=_key(row.mailbox_id),
        status=ReceiveStatus(row.status),
        accepted_at=row.accepted_at,
        lowest_expiry_height=row.lowest_expiry_height,
    )


# --- attempts


def insert_attempt(connection: Connection, new: Attempt, vtxo_ids: Sequence[VtxoId]) -> Attempt:
    """Store an attempt and what pays for it; there must be no open one for the hash."""
    values = {
        "payment_hash": new.payment_hash,
        "invoice": new.invoice,
        "amount_sat": new.amount_sat,
        "mailbox_id": None if new.mailbox_id is None else new.mailbox_id.data,
        "subscription": new.subscription,
        "status": new.status.value,
        "reason": int(new.reason),
        "created_at": new.created_at,
    }
    number = inserted_id(connection, insert(ln_attempt).values(values))
    rows = [
        {"attempt": number, "position": position, "vtxo_id": bytes(vtxo_id)}
        for position, vtxo_id in enumerate(vtxo_ids)
    ]
    connection.execute(insert(ln_attempt_vtxo), rows)
    return get_attempt(connection, number)


def get_attempt(connection: Connection, number: int) -> Attempt:
    return _attempt(connection.execute(select(ln_attempt).where(ln_attempt.c.id == number)).one())


def latest_attempt(connection: Connection, payment_hash: bytes) -> Attempt | None:
    query = select(ln_attempt).where(ln_attempt.c.payment_hash == payment_hash)
    found = connection.execute(query.order_by(ln_attempt.c.id.desc()).limit(1)).one_or_none()
    return None if found is None else _attempt(found)


def open_attempt(connection: Connection, payment_hash: bytes) -> Attempt | None:
    latest = latest_attempt(connection, payment_hash)
    return latest if latest is not None and latest.status.is_open else None


def open_attempt_on(connection: Connection, subscription: int) -> Attempt | None:
    """The open attempt that pays a subscription inside the server."""
    query = select(ln_attempt).where(ln_attempt.c.subscription == subscription, _is_open())
    found = connection.execute(query).one_or_none()
    return None if found is None else _attempt(found)


def open_external_hashes(connection: Connection) -> list[bytes]:
    """Of the open attempts that the server's node pays."""
    query = select(ln_attempt.c.payment_hash).where(ln_attempt.c.subscription.is_(None), _is_open())
    return list(connection.execute(query).scalars())


def all_attempts(connection: Connection) -> list[Attempt]:
    return [_attempt(row) for row in connection.execute(select(ln_attempt).order_by(ln_attempt.c.id))]


def vtxos_of_attempt(connection: Connection, number: int) -> tuple[VtxoId, ...]:
    query = select(ln_attempt_vtxo.c.vtxo_id).where(ln_attempt_vtxo.c.attempt == number)
    found = connection.execute(query.order_by(ln_attempt_vtxo.c.position)).scalars()
    return tuple(VtxoId(each) for each in found)


def finish_attempt(
    connection: Connection,
    number: int,
    status: AttemptStatus,
    reason: FailureReason = FailureReason.UNSPECIFIED,
) -> bool:
    """End an open attempt; whether it was open."""
    statement = (
        update(ln_attempt)
        .where(ln_attempt.c.id == number, _is_open())
        .values(status=status.value, reason=int(reason))
    )
    return bool(connection.execute(statement).rowcount)


def _is_open() -> ColumnElement[bool]:
    return ln_attempt.c.status.in_([each.value for each in AttemptStatus if each.is_open])


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        id=row.id,
        payment_hash=row.payment_hash,
        invoice=row.invoice,
        amount_sat=row.amount_sat,
        mailbox_id=_key(row.mailbox_id),
        subscription=row.subscription,
        created_at=row.created_at,
        status=AttemptStatus(row.status),
        reason=FailureReason(row.reason),
    )


def _key(data: bytes | None) -> PublicKey | None:
    return None if data is None else PublicKey(data)
