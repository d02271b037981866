"""Faults on demand: the server misbehaves as a test tells it to, for some calls only.

A `Fault` says which calls (`rpc`, and what the request must contain or who must ask), when in the call
(`stage`), what happens (`action`) and how often. Without faults the server is honest.

| stage | the server has done | actions |
|---|---|---|
| before | nothing | error, drop, delay |
| after-commit | all of its work; the answer is lost | error, drop, delay |
| reply | everything; the answer goes out changed | mutate |
| stream | opened a stream; at each message | error, drop, delay, mutate, swallow, repeat |
| engine | come to a point of its own work (see `POINTS`) | error, drop, delay, mutate, swallow |

A call that is swallowed before it starts is answered with success and an empty message. ``message`` narrows
faults of a stream to one kind of message, such as ``finished``. At the engine's points, ``rpc`` names the
point; an error makes the work fail there, and a drop stops the engine for good, as if the server had been
killed: restart it.

A mutation names a field by its path in the answer, such as ``partial_sig`` or
``parts.0.server_partial_sigs.1``: ``set`` a value (hex for bytes), ``flip`` a bit of bytes, ``add`` to a
number, ``clear`` the field, ``drop`` the element of a list. At the engine's points, the path leads through
our own objects: ``leaves.0.unlock_hash``, ``outputs.1.value_sat``.

Source: sheet 10 §14.
"""

import enum
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.failures import RpcStatus
from barkd_py.devnet.ark_server.fault_checks import check_message, check_mutation, check_rpc
from barkd_py.devnet.armed_faults import ArmedFaults, read_fault
from barkd_py.errors import InvalidInput

log = logging.getLogger(__name__)

T = TypeVar("T")

POINTS = {
    "round.spec": "a round's tree, before it is proposed (mutate)",
    "round.book": "before a signed round is booked",
    "round.sign": "after that, before its funding transaction is signed",
    "round.broadcast": "before that is broadcast (swallow: it is not)",
    "round.announce": "before everybody is told",
    "offboard.tx": "an offboard's transaction, before it is shown (mutate)",
    "offboard.book": "before a finished offboard is booked",
    "offboard.broadcast": "before its transaction is broadcast (swallow: it never is)",
    "lightning.initiate": "a payment, checked, before it is started (swallow: it never is)",
    "lightning.invoice": "a receiver's invoice, before it is issued (mutate)",
    "lightning.grant": "what a receiver is to get, before it is (mutate)",
    "lightning.repeat-grant": "a receiver asks again for what was granted (swallow: it gets something new)",
}
"""Where the engine can be hit."""


class BadFault(InvalidInput):
    """A description of a fault that makes no sense."""


class Stage(enum.Enum):
    """When in a call a fault strikes."""

    BEFORE = "before"
    AFTER_COMMIT = "after-commit"
    REPLY = "reply"
    STREAM = "stream"
    ENGINE = "engine"


class Kind(enum.Enum):
    """What a fault does."""

    ERROR = "error"
    DROP = "drop"
    DELAY = "delay"
    MUTATE = "mutate"
    SWALLOW = "swallow"
    REPEAT = "repeat"


_ALLOWED = {
    Stage.BEFORE: {Kind.ERROR, Kind.DROP, Kind.DELAY, Kind.SWALLOW},
    Stage.AFTER_COMMIT: {Kind.ERROR, Kind.DROP, Kind.DELAY},
    Stage.REPLY: {Kind.MUTATE},
    Stage.STREAM: {Kind.ERROR, Kind.DROP, Kind.DELAY, Kind.MUTATE, Kind.SWALLOW, Kind.REPEAT},
    Stage.ENGINE: {Kind.ERROR, Kind.DROP, Kind.DELAY, Kind.MUTATE, Kind.SWALLOW},
}

_MUTATIONS = ("set", "flip", "add", "clear", "drop")


class CallDropped(Exception):
    """The call ends without an answer, as if the connection had been lost."""


class EngineHalted(Exception):
    """The engine stops for good, as if the server had been killed at this point."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour.

    rpc: method name, ``*`` for all. contains: hex that the request must contain (a VTXO id, a key, a hash),
    or empty. client: a prefix of the caller's ``x-user-agent``, or empty. message: a field that a stream's
    message must have, or empty. skip: matching calls that pass first. count: how many are hit, None for all.
    code, text, identifiers: of an error. seconds: of a delay. path, mutation, value: of a mutation.
    """

    rpc: str
    stage: Stage
    kind: Kind
    contains: str = ""
    client: str = ""
    message: str = ""
    skip: int = 0
    count: int | None = 1
    code: str = "INTERNAL"
    text: str = "fault"
    identifiers: str | None = None
    seconds: float = 0.0
    path: str = ""
    mutation: str = "flip"
    value: str | int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _ALLOWED[self.stage]:
            raise BadFault(f"{self.kind.value} cannot happen at stage {self.stage.value}")
        if self.stage is Stage.ENGINE and self.rpc not in POINTS:
            raise BadFault(f"unknown point {self.rpc!r}; there are: {', '.join(POINTS)}")
        if self.code not in grpc.StatusCode.__members__:
            raise BadFault(f"unknown status code: {self.code}")
        if self.kind is Kind.MUTATE and (not self.path or self.mutation not in _MUTATIONS):
            raise BadFault("a mutation needs a path and one of: " + ", ".join(_MUTATIONS))
        try:
            bytes.fromhex(self.contains)
        except ValueError:
            raise BadFault("contains must be hex") from None

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> "Fault":
        """From JSON with the names of the fields. Raises BadFault."""
        try:
            fields = read_fault(description, cls, Stage, Kind)
            fault = cls(**fields)
            if fault.stage is not Stage.ENGINE:
                check_rpc(fault.rpc)
                check_message(fault.rpc, fault.message)
                if fault.kind is Kind.MUTATE:
                    check_mutation(fault.rpc, fault.path, fault.mutation, fault.value)
        except InvalidInput as error:
            raise BadFault(f"invalid fault: {error}") from error
        return fault

    def status(self) -> RpcStatus:
        """The error that it answers with."""
        identifiers = None if self.identifiers is None else self.identifiers.split(",")
        return RpcStatus(grpc.StatusCode[self.code], self.text, identifiers)


@dataclass(frozen=True, slots=True)
class Call:
    """What faults are matched against. request: its bytes on the wire. client: the ``x-user-agent``."""

    rpc: str
    request: bytes = field(default=b"", repr=False)
    client: str = ""


class Faults(ArmedFaults[Fault]):
    """The faults that are set, and what they do to calls and to the engine."""

    def due(self, call: Call, stage: Stage, reply: Message | None = None) -> Sequence[Fault]:
        """The faults that strike now; counted as struck."""
        struck = self.take_due(lambda fault: _matches(fault, call, stage, reply))
        for fault in struck:
            log.info("fault %s strikes %s", fault.kind.value, call.rpc)
        return struck

    async def strike(self, call: Call, stage: Stage, reply: Message | None = None) -> int:
        """Let the due faults happen; how often the message, or the call, is to go on: normally once.

        Raises RpcStatus or CallDropped.
        """
        passes = 1
        for fault in self.due(call, stage, reply):
            match fault.kind:
                case Kind.DELAY:
                    await self.pause(fault, fault.seconds)
                case Kind.ERROR:
                    raise fault.status()
                case Kind.DROP:
                    raise CallDropped
                case Kind.SWALLOW:
                    passes = 0
                case Kind.REPEAT:
                    passes *= 2
                case Kind.MUTATE:
                    if reply is not None:
                        mutate(reply, fault.path, fault.mutation, fault.value)
        return passes

    async def pass_point(self, point: str) -> bool:
        """Pass a point of the engine's; False if what comes next is to be left out.

        Raises RpcStatus or EngineHalted.
        """
        try:
            return bool(await self.strike(Call(point), Stage.ENGINE))
        except CallDropped:
            raise EngineHalted(point) from None

    async def reshape(self, point: str, value: T) -> T:
        """Pass a point with something that can be mutated there; what became of it.

        Raises RpcStatus, EngineHalted or BadFault.
        """
        for fault in self.due(Call(point), Stage.ENGINE):
            match fault.kind:
                case Kind.MUTATE:
                    value = _reshaped(value, fault.path.split("."), fault)
                case Kind.DELAY:
                    await self.pause(fault, fault.seconds)
                case Kind.ERROR:
                    raise fault.status()
                case Kind.DROP:
                    raise EngineHalted(point)
        return value


def _reshaped(value: Any, path: Sequence[str], fault: Fault) -> Any:
    """A copy of a dataclass or tuple with what the path leads to changed. Raises BadFault."""
    step, *rest = path
    try:
        if isinstance(value, tuple):
            index = int(step)
            if not rest and fault.mutation == "drop":
                return (*value[:index], *value[index + 1 :])
            return (*value[:index], _changed_inside(value[index], rest, fault), *value[index + 1 :])
        return replace(value, **{step: _changed_inside(getattr(value, step), rest, fault)})
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise BadFault(f"cannot {fault.mutation} {fault.path}: {error}") from error


def _changed_inside(value: Any, rest: Sequence[str], fault: Fault) -> Any:
    return _reshaped(value, rest, fault) if rest else _changed(value, fault.mutation, fault.value)


def _matches(fault: Fault, call: Call, stage: Stage, reply: Message | None) -> bool:
    return (
        fault.stage is stage
        and fault.rpc in ("*", call.rpc)
        and bytes.fromhex(fault.contains) in call.request
        and call.client.startswith(fault.client)
        and (not fault.message or (reply is not None and _has(reply, fault.message)))
    )


def _has(message: Message, name: str) -> bool:
    return any(descriptor.name == name for descriptor, _ in message.ListFields())


def mutate(message: Message, path: str, mutation: str, value: str | int | None = None) -> None:
    """Change a field of a message in place. Raises BadFault if there is no such field or element."""
    *outer, last = path.split(".")
    try:
        target: Any = message
        for step in outer:
            target = target[int(step)] if step.isdecimal() else getattr(target, step)
        if last.isdecimal():
            _mutate_element(target, int(last), mutation, value)
        else:
            _mutate_field(target, last, mutation, value)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadFault(f"cannot {mutation} {path}: {error}") from error


def _mutate_element(items: Any, index: int, mutation: str, value: str | int | None) -> None:
    if mutation == "drop":
        del items[index]
    else:
        items[index] = _changed(items[index], mutation, value)


def _mutate_field(message: Message, name: str, mutation: str, value: str | int | None) -> None:
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if mutation == "clear":
        message.ClearField(name)
        return
    current = getattr(message, name)
    if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
        raise BadFault(f"{name} is a message; name a field in it")
    setattr(message, name, _changed(current, mutation, value))


def _changed(current: Any, mutation: str, value: str | int | None) -> Any:
    match mutation, current:
        case "set", bytes():
            return bytes.fromhex(str(value))
        case "set", PublicKey():
            return PublicKey.from_hex(str(value))
        case "set", _:
            return value
        case "flip", bytes():
            # The last bit keeps points and scalars plausible.
            return current[:-1] + bytes((current[-1] ^ 1,))
        case "add", int():
            return current + int(value or 0)
        case _:
            raise BadFault(f"{mutation} does not fit {type(current).__name__}")
