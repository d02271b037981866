"""The rows of devnet's Lightning nodes. Every function runs inside a transaction of `Store`."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.lightning.node import PaymentOrder
from barkd_py.devnet.ark_server.store.database import inserted_id
from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason
from barkd_py.devnet.lightning.behaviour import Behaviour
from barkd_py.devnet.lightning.tables import (
    address,
    hold_invoice,
    incoming,
    node,
    offer,
    outside_invoice,
    payment,
)


def secret_of(connection: Connection, name: str) -> SecretKey:
    """The key of a node, made when it is asked for first."""
    new = SecretKey.generate().secret_bytes
    connection.execute(insert(node).values(name=name, secret=new).on_conflict_do_nothing())
    return SecretKey(connection.execute(select(node.c.secret).where(node.c.name == name)).scalar_one())


# --- invoices and offers of payees outside


@dataclass(frozen=True, slots=True)
class OutsideInvoice:
    """refused: how often it has been refused. state: open, held or paid."""

    payment_hash: bytes
    text: str
    amount_msat: int | None
    preimage: bytes
    behaviour: Behaviour
    expires_at: int
    min_final_cltv_delta: int
    refused: int = 0
    state: str = "open"
    comment: str | None = None


def put_invoice(connection: Connection, new: OutsideInvoice) -> None:
    connection.execute(
        insert(outside_invoice).values(
            payment_hash=new.payment_hash,
            text=new.text,
            amount_msat=new.amount_msat,
            preimage=new.preimage,
            behaviour=json.dumps(new.behaviour.to_json()),
            expires_at=new.expires_at,
            min_final_cltv_delta=new.min_final_cltv_delta,
            refused=new.refused,
            state=new.state,
            comment=new.comment,
        )
    )


def find_invoice(connection: Connection, payment_hash: bytes) -> OutsideInvoice | None:
    query = select(outside_invoice).where(outside_invoice.c.payment_hash == payment_hash)
    row = connection.execute(query).one_or_none()
    return None if row is None else _invoice(row)


def all_invoices(connection: Connection) -> list[OutsideInvoice]:
    return [_invoice(row) for row in connection.execute(select(outside_invoice))]


def set_invoice(connection: Connection, payment_hash: bytes, **columns: object) -> None:
    of_this = outside_invoice.c.payment_hash == payment_hash
    connection.execute(update(outside_invoice).where(of_this).values(**columns))


def _invoice(row: Row[Any]) -> OutsideInvoice:
    return OutsideInvoice(
        payment_hash=row.payment_hash,
        text=row.text,
        amount_msat=row.amount_msat,
        preimage=row.preimage,
        behaviour=Behaviour.from_json(json.loads(row.behaviour)),
        expires_at=row.expires_at,
        min_final_cltv_delta=row.min_final_cltv_delta,
        refused=row.refused,
        state=row.state,
        comment=row.comment,
    )


def put_offer(connection: Connection, data: bytes, secret: SecretKey, behaviour: Behaviour) -> None:
    values = {"data": data, "secret": secret.secret_bytes, "behaviour": json.dumps(behaviour.to_json())}
    connection.execute(insert(offer).values(values).on_conflict_do_nothing())


def find_offer(connection: Connection, data: bytes) -> tuple[SecretKey, Behaviour] | None:
    row = connection.execute(select(offer).where(offer.c.data == data)).one_or_none()
    return None if row is None else (SecretKey(row.secret), Behaviour.from_json(json.loads(row.behaviour)))


def put_address(connection: Connection, name: str, config: str) -> None:
    statement = insert(address).values(name=name, config=config)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"config": config}))


def find_address(connection: Connection, name: str) -> str | None:
    found: str | None = connection.execute(
        select(address.c.config).where(address.c.name == name)
    ).scalar_one_or_none()
    return found


# --- payments of the Ark server's node


@dataclass(frozen=True, slots=True)
class Payment:
    """state: pending, succeeded or failed. expiry_height: when a held one comes back."""

    id: int
    order: PaymentOrder
    retry_until: float
    expiry_height: int
    state: str = "pending"
    reason: FailureReason = FailureReason.UNSPECIFIED
    preimage: bytes | None = None


def insert_payment(
    connection: Connection, order: PaymentOrder, retry_until: float, expiry_height: int
) -> int:
    values = {
        "payment_hash": order.payment_hash,
        "invoice": order.invoice,
        "amount_msat": order.amount_msat,
        "max_fee_msat": order.max_fee_msat,
        "max_cltv_delta": order.max_cltv_delta,
        "retry_until": retry_until,
        "retry_secs": order.retry_secs,
        "expiry_height": expiry_height,
        "state": "pending",
    }
    return inserted_id(connection, insert(payment).values(values))


def latest_payment(connection: Connection, payment_hash: bytes) -> Payment | None:
    query = select(payment).where(payment.c.payment_hash == payment_hash)
    row = connection.execute(query.order_by(payment.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _payment(row)


def pending_payments(connection: Connection) -> list[Payment]:
    return [_payment(row) for row in connection.execute(select(payment).where(payment.c.state == "pending"))]


def all_payments(connection: Connection) -> list[Payment]:
    return [_payment(row) for row in connection.execute(select(payment).order_by(payment.c.id))]


def end_payment(
    connection: Connection,
    number: int,
    state: str,
    *,
    reason: FailureReason = FailureReason.UNSPECIFIED,
    preimage: bytes | None = None,
) -> bool:
    """End a pending payment; whether it was pending."""
    statement = (
        update(payment)
        .where(payment.c.id == number, payment.c.state == "pending")
        .values(state=state, reason=int(reason), preimage=preimage)
    )
    return bool(connection.execute(statement).rowcount)


def _payment(row: Row[Any]) -> Payment:
    return Payment(
        id=row.id,
        order=PaymentOrder(
            payment_hash=row.payment_hash,
            invoice=row.invoice,
            amount_msat=row.amount_msat,
            max_fee_msat=row.max_fee_msat,
            max_cltv_delta=row.max_cltv_delta,
            retry_secs=row.retry_secs,
        ),
        retry_until=row.retry_until,
        expiry_height=row.expiry_height,
        state=row.state,
        reason=FailureReason(row.reason),
        preimage=row.preimage,
    )


# --- hold invoices of the Ark server's node, and what comes in for them


@dataclass(frozen=True, slots=True)
class HoldInvoice:
    """state: open, settled or canceled."""

    payment_hash: bytes
    text: str
    amount_msat: int
    expires_at: int
    min_final_cltv_delta: int
    state: str = "open"


def put_hold_invoice(connection: Connection, new: HoldInvoice) -> None:
    connection.execute(
        insert(hold_invoice).values(
            payment_hash=new.payment_hash,
            text=new.text,
            amount_msat=new.amount_msat,
            expires_at=new.expires_at,
            min_final_cltv_delta=new.min_final_cltv_delta,
            state=new.state,
        )
    )


def find_hold_invoice(connection: Connection, payment_hash: bytes) -> HoldInvoice | None:
    query = select(hold_invoice).where(hold_invoice.c.payment_hash == payment_hash)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return HoldInvoice(
        row.payment_hash, row.text, row.amount_msat, row.expires_at, row.min_final_cltv_delta, row.state
    )


def set_hold_invoice(connection: Connection, payment_hash: bytes, state: str) -> None:
    of_this = hold_invoice.c.payment_hash == payment_hash
    connection.execute(update(hold_invoice).where(of_this).values(state=state))


@dataclass(frozen=True, slots=True)
class Incoming:
    """A payment from outside. state: held, settled or failed. arrived_at: Unix seconds."""

    id: int
    payment_hash: bytes
    amount_msat: int
    expiry_height: int
    arrived_at: float
    state: str = "held"
    reason: FailureReason = FailureReason.UNSPECIFIED
    preimage: bytes | None = None


def insert_incoming(connection: Connection, new: Incoming) -> int:
    values = {
        "payment_hash": new.payment_hash,
        "amount_msat": new.amount_msat,
        "expiry_height": new.expiry_height,
        "arrived_at": new.arrived_at,
        "state": new.state,
        "reason": int(new.reason),
    }
    return inserted_id(connection, insert(incoming).values(values))


def get_incoming(connection: Connection, number: int) -> Incoming:
    return _incoming(connection.execute(select(incoming).where(incoming.c.id == number)).one())


def held_for(connection: Connection, payment_hash: bytes) -> list[Incoming]:
    query = select(incoming).where(incoming.c.payment_hash == payment_hash, incoming.c.state == "held")
    return [_incoming(row) for row in connection.execute(query)]


def all_held(connection: Connection) -> list[Incoming]:
    return [_incoming(row) for row in connection.execute(select(incoming).where(incoming.c.state == "held"))]


def all_incoming(connection: Connection) -> list[Incoming]:
    return [_incoming(row) for row in connection.execute(select(incoming).order_by(incoming.c.id))]


def end_incoming(
    connection: Connection,
    number: int,
    state: str,
    *,
    reason: FailureReason = FailureReason.UNSPECIFIED,
    preimage: bytes | None = None,
) -> None:
    of_this = (incoming.c.id == number) & (incoming.c.state == "held")
    values = {"state": state, "reason": int(reason), "preimage": preimage}
    connection.execute(update(incoming).where(of_this).values(values))


def _incoming(row: Row[Any]) -> Incoming:
    return Incoming(
        id=row.id,
        payment_hash=row.payment_hash,
        amount_msat=row.amount_msat,
        expiry_height=row.expiry_height,
        arrived_at=row.arrived_at,
        state=row.state,
        reason=FailureReason(row.reason),
        preimage=row.preimage,
    )
