"""Movements: the history of what changed the off-chain balance, and the rules by which an entry changes.

A movement starts ``pending`` and ends ``successful``, ``failed`` or ``canceled``. Everything here is pure;
the store applies it to rows and emits the notifications after the commit (`store.movements`).

Source: protocol sheet 09 §3.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import NotFound, StateConflict

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = Mapping[str, JsonValue]

_T = TypeVar("_T")


class MovementStatus(enum.StrEnum):
    PENDING = "pending"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    CANCELED = "canceled"


class PaymentMethodKind(enum.StrEnum):
    """What a destination is; the values are those of the JSON."""

    ARK = "ark"
    BITCOIN = "bitcoin"
    OUTPUT_SCRIPT = "output-script"
    INVOICE = "invoice"
    OFFER = "offer"
    LIGHTNING_ADDRESS = "lightning-address"
    LNURL = "lnurl"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """How somebody was paid, or was to pay us. Two methods are the same if their stored texts are."""

    kind: PaymentMethodKind
    value: str


@dataclass(frozen=True, slots=True)
class MovementDestination:
    method: PaymentMethod
    amount_sat: int


@dataclass(frozen=True, slots=True)
class Subsystem:
    """Which part of the wallet made the movement, and why."""

    name: str
    kind: str


ARKOOR_RECEIVE = Subsystem("bark.arkoor", "receive")
ARKOOR_SEND = Subsystem("bark.arkoor", "send")
BOARD = Subsystem("bark.board", "board")
OFFBOARD = Subsystem("bark.offboard", "offboard")
SEND_ONCHAIN = Subsystem("bark.offboard", "send_onchain")
EXIT_START = Subsystem("bark.exit", "start")
LIGHTNING_SEND = Subsystem("bark.lightning_send", "send")
LIGHTNING_RECEIVE = Subsystem("bark.lightning_receive", "receive")
ROUND_REFRESH = Subsystem("bark.round", "refresh")

# What each part of the wallet writes into the metadata of its movements. Some of it is kept nowhere else
# (VTXOs that could not be delivered), so a user's patch must not reach it.
_OWN_METADATA: Mapping[str, frozenset[str]] = {
    "bark.arkoor": frozenset({"undelivered_vtxos"}),
    "bark.board": frozenset({"chain_anchor", "onchain_fee_sat"}),
    "bark.offboard": frozenset({"offboard_txid", "offboard_tx", "offboard_vtxos"}),
    "bark.lightning_send": frozenset({"payment_hash", "htlc_vtxos", "payment_preimage"}),
    "bark.lightning_receive": frozenset({"payment_hash", "htlc_vtxos", "payment_preimage"}),
    "bark.round": frozenset({"funding_txid"}),
}


@dataclass(frozen=True, slots=True)
class Movement:
    """One entry of the history.

    intended_balance_sat, effective_balance_sat: signed; what the user wanted to change off-chain, and what
    really changed so far, fees included. offchain_fee_sat: fee to the server.
    input_vtxos, output_vtxos, exited_vtxos: unique ids: consumed, created for us, forced on chain.
    completed_at: set once the movement is finished.
    action_id: at most one movement per action; not shown to clients.
    """

    id: int
    status: MovementStatus
    subsystem: Subsystem
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    metadata: JsonObject = field(default_factory=dict)
    intended_balance_sat: int = 0
    effective_balance_sat: int = 0
    offchain_fee_sat: int = 0
    sent_to: tuple[MovementDestination, ...] = ()
    received_on: tuple[MovementDestination, ...] = ()
    input_vtxos: tuple[VtxoId, ...] = ()
    output_vtxos: tuple[VtxoId, ...] = ()
    exited_vtxos: tuple[VtxoId, ...] = ()
    action_id: str | None = None


@dataclass(frozen=True, slots=True)
class MovementUpdate:
    """What to change; what is None or empty stays.

    metadata: merged by top-level key. sent_to, received_on: appended as they are, so a step that may run
    again uses the ``replace_`` variant. VTXO lists: new ids are appended.
    The ``replace_`` variants overwrite the whole list, and are applied before the appending ones.
    """

    intended_balance_sat: int | None = None
    effective_balance_sat: int | None = None
    offchain_fee_sat: int | None = None
    metadata: JsonObject = field(default_factory=dict)
    sent_to: tuple[MovementDestination, ...] = ()
    received_on: tuple[MovementDestination, ...] = ()
    input_vtxos: tuple[VtxoId, ...] = ()
    output_vtxos: tuple[VtxoId, ...] = ()
    exited_vtxos: tuple[VtxoId, ...] = ()
    replace_sent_to: tuple[MovementDestination, ...] | None = None
    replace_received_on: tuple[MovementDestination, ...] | None = None
    replace_input_vtxos: tuple[VtxoId, ...] | None = None
    replace_output_vtxos: tuple[VtxoId, ...] | None = None
    replace_exited_vtxos: tuple[VtxoId, ...] | None = None


class UnknownMovement(NotFound):
    def __init__(self, movement_id: int) -> None:
        super().__init__(f"no movement found with id {movement_id}", (str(movement_id),))
        self.movement_id = movement_id


class PendingIsNotFinished(StateConflict):
    """A movement cannot be finished into ``pending``. Nothing was changed."""

    def __init__(self, movement_id: int) -> None:
        super().__init__(f"cannot finish movement {movement_id} with status pending")
        self.movement_id = movement_id


def apply_update(movement: Movement, update: MovementUpdate, now: datetime) -> Movement:
    """The movement after an update: only the named fields change, and `updated_at`."""
    return replace(
        movement,
        updated_at=now,
        intended_balance_sat=_either(update.intended_balance_sat, movement.intended_balance_sat),
        effective_balance_sat=_either(update.effective_balance_sat, movement.effective_balance_sat),
        offchain_fee_sat=_either(update.offchain_fee_sat, movement.offchain_fee_sat),
        metadata={**movement.metadata, **update.metadata},
        sent_to=_either(update.replace_sent_to, movement.sent_to) + update.sent_to,
        received_on=_either(update.replace_received_on, movement.received_on) + update.received_on,
        input_vtxos=_merged(_either(update.replace_input_vtxos, movement.input_vtxos), update.input_vtxos),
        output_vtxos=_merged(
            _either(update.replace_output_vtxos, movement.output_vtxos), update.output_vtxos
        ),
        exited_vtxos=_merged(
            _either(update.replace_exited_vtxos, movement.exited_vtxos), update.exited_vtxos
        ),
    )


def finish(movement: Movement, status: MovementStatus, now: datetime) -> Movement | None:
    """The finished movement; None if it already has this status (`completed_at` is kept then).

    Another finished status is overridden. `updated_at` does not move: finishing is not an update.
    Raises PendingIsNotFinished.
    """
    if status == MovementStatus.PENDING:
        raise PendingIsNotFinished(movement.id)
    if movement.status == status:
        return None
    return replace(movement, status=status, completed_at=now)


def finish_with_update(
    movement: Movement, status: MovementStatus, update: MovementUpdate, now: datetime
) -> Movement:
    """The updated movement with this status and a new `completed_at`. Raises PendingIsNotFinished."""
    if status == MovementStatus.PENDING:
        raise PendingIsNotFinished(movement.id)
    return replace(apply_update(movement, update, now), status=status, completed_at=now)


def patch_metadata(movement: Movement, patch: JsonValue, now: datetime) -> Movement:
    """The movement after a user's merge patch; it touches nothing but `metadata` and `updated_at`.

    Of the metadata it touches only what is the user's: the wallet's own keys stay as they are, whether the
    patch names them or resets everything. (Upstream lets users overwrite them.)
    """
    own = _OWN_METADATA.get(movement.subsystem.name, frozenset())
    patched = merge_patch(dict(movement.metadata), patch)
    kept = {key: value for key, value in movement.metadata.items() if key in own}
    if isinstance(patched, dict):
        kept |= {key: value for key, value in patched.items() if key not in own}
    return replace(movement, metadata=kept, updated_at=now)


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """The target after a JSON merge patch: null deletes a key, objects merge, anything else replaces.

    A patch that is no object replaces the whole target, so metadata patched that way ends up empty.
    Source: RFC 7396 §2.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _either(new: _T | None, old: _T) -> _T:
    return old if new is None else new


def _merged(ids: tuple[VtxoId, ...], more: tuple[VtxoId, ...]) -> tuple[VtxoId, ...]:
    """Both lists, each id once, in the order of its first appearance."""
    return tuple(dict.fromkeys((*ids, *more)))
