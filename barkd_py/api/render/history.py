"""Movements and the events that tell of them. Source: protocol sheet 07 §7.4, §7.9."""

from collections.abc import Mapping
from typing import assert_never

from barkd_py.api.contract import Contract
from barkd_py.api.render.values import Json, timestamp
from barkd_py.wallet.movements import (
    Movement,
    MovementDestination,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.notifications import (
    ChannelLagging,
    MovementCreated,
    MovementUpdated,
    Notification,
    WaitResult,
)


def movement(movement: Movement, contract: Contract) -> Json:
    json: Json = {
        "id": movement.id,
        "status": movement.status.value,
        "subsystem": {"name": movement.subsystem.name, "kind": movement.subsystem.kind},
    }
    if movement.metadata:
        json["metadata"] = _by_key(movement.metadata)
    json |= {
        "intended_balance_sat": movement.intended_balance_sat,
        "effective_balance_sat": movement.effective_balance_sat,
        "offchain_fee_sat": movement.offchain_fee_sat,
        "sent_to": [_destination(destination, contract) for destination in movement.sent_to],
        "received_on": [_destination(destination, contract) for destination in movement.received_on],
        "input_vtxos": [str(vtxo_id) for vtxo_id in movement.input_vtxos],
        "output_vtxos": [str(vtxo_id) for vtxo_id in movement.output_vtxos],
        "exited_vtxos": [str(vtxo_id) for vtxo_id in movement.exited_vtxos],
        "time": {
            "created_at": timestamp(movement.created_at),
            "updated_at": timestamp(movement.updated_at),
        },
    }
    if movement.completed_at is not None:
        json["time"]["completed_at"] = timestamp(movement.completed_at)
    return json


def _by_key(value: object) -> object:
    """JSON with the keys of its objects in their order, as barkd keeps metadata."""
    match value:
        case Mapping():
            return {key: _by_key(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_by_key(item) for item in value]
        case _:
            return value


def _destination(destination: MovementDestination, contract: Contract) -> Json:
    return {
        "destination": _payment_method(destination.method, contract),
        "amount_sat": destination.amount_sat,
    }


def _payment_method(method: PaymentMethod, contract: Contract) -> Json:
    kind = method.kind
    if kind is PaymentMethodKind.LNURL and contract is Contract.V0_1_4:
        kind = PaymentMethodKind.CUSTOM
    return {"type": kind.value, "value": method.value}


def notification(event: Notification, contract: Contract) -> Json:
    match event:
        case MovementCreated(changed):
            return {"type": "movement-created", "movement": movement(changed, contract)}
        case MovementUpdated(changed):
            return {"type": "movement-updated", "movement": movement(changed, contract)}
        case ChannelLagging():
            return {"type": "channel-lagging"}
        case _:
            assert_never(event)


def wait_result(result: WaitResult, contract: Contract) -> Json:
    last = result.last_pushed_at
    return {
        "notifications": [notification(event, contract) for event in result.notifications],
        "last_pushed_at": None if last is None else timestamp(last),
    }
