"""How exits are stored: the present state, and the earlier ones as a list of the same. Versioned JSON."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from barkd_py.errors import StoreError
from barkd_py.wallet.exits.states import ExitState, ExitTxOrigin
from barkd_py.wallet.store.payloads import PayloadFormat
from barkd_py.wallet.store.rows import from_json, to_json

_STATE: PayloadFormat[ExitState] = PayloadFormat(
    "exit", lambda: TypeAdapter(Annotated[ExitState, Field(discriminator="type")])
)
_ORIGIN: PayloadFormat[ExitTxOrigin] = PayloadFormat(
    "child of an exit transaction", lambda: TypeAdapter(Annotated[ExitTxOrigin, Field(discriminator="type")])
)

encode_state = _STATE.encode
decode_state = _STATE.decode
encode_origin = _ORIGIN.encode
decode_origin = _ORIGIN.decode


def encode_history(history: tuple[ExitState, ...]) -> str:
    return to_json([encode_state(state) for state in history])


def decode_history(text: str) -> tuple[ExitState, ...]:
    """Oldest first. Raises StoreError."""
    entries = from_json(text)
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise StoreError("the history of an exit is malformed")
    return tuple(map(decode_state, entries))


def decode_first(text: str) -> ExitState | None:
    """The oldest entry of a history; None if there is none. Raises StoreError."""
    match from_json(text):
        case [str(entry), *_]:
            return decode_state(entry)
        case []:
            return None
        case _:
            raise StoreError("the history of an exit is malformed")
