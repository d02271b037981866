"""What a description of a fault may name: RPCs that there are, fields of their answers, values that fit.

A misspelt fault would never strike, and a test that sets it would prove nothing.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from barkd_py.errors import InvalidInput
from barkd_py.server_rpc.protos import bark_server_pb2, mailbox_server_pb2

METHODS: Mapping[str, MethodDescriptor] = {
    name: method
    for file in (bark_server_pb2.DESCRIPTOR, mailbox_server_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for name, method in service.methods_by_name.items()
}
"""The RPCs that faults can strike, by name."""


def check_rpc(rpc: str) -> None:
    """Raises InvalidInput."""
    if rpc != "*" and rpc not in METHODS:
        raise InvalidInput(f"unknown rpc {rpc!r}; there are: *, {', '.join(sorted(METHODS))}")


def check_message(rpc: str, message: str) -> None:
    """Whether the messages of a stream have such a field. Raises InvalidInput."""
    if rpc != "*" and message:
        _field(METHODS[rpc].output_type, message)


def check_mutation(rpc: str, path: str, mutation: str, value: object) -> None:
    """Whether an answer can be changed so, as far as that is known beforehand. Raises InvalidInput."""
    if rpc == "*":
        return
    *outer, last = [step for step in path.split(".") if not step.isdecimal()] or [path]
    descriptor = METHODS[rpc].output_type
    for name in outer:
        inner: Descriptor | None = _field(descriptor, name).message_type
        if inner is None:
            raise InvalidInput(f"{name} of {descriptor.name} has no fields")
        descriptor = inner
    _check_value(_field(descriptor, last), mutation, value)


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor:
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    if found is None:
        there = ", ".join(descriptor.fields_by_name) or "none"
        raise InvalidInput(f"{descriptor.name} has no field {name!r}; there are: {there}")
    return found


def _check_value(field: FieldDescriptor, mutation: str, value: Any) -> None:
    is_bytes = field.type == FieldDescriptor.TYPE_BYTES
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if mutation in ("clear", "drop"):
        return
    if field.message_type is not None:
        raise InvalidInput(f"{field.name} is a message; name a field in it")
    if mutation == "flip" and not is_bytes:
        raise InvalidInput(f"{field.name} is not of bytes; only those can be flipped")
    if mutation == "add" and (is_bytes or is_text or not isinstance(value, int)):
        raise InvalidInput(f"add needs a field that is a number, and a number as the value, not {value!r}")
    if mutation == "set":
        if is_bytes and not _is_hex(value):
            raise InvalidInput(f"{field.name} is of bytes: the value must be hex, not {value!r}")
        if isinstance(value, str) is not (is_bytes or is_text) or value is None:
            raise InvalidInput(f"{field.name} is a {'text' if is_text else 'number'}: {value!r} does not fit")


def _is_hex(value: object) -> bool:
    try:
        return isinstance(value, str) and len(bytes.fromhex(value)) >= 0
    except ValueError:
        return False
