"""Every public nonce that a daemon ever sent, over all its lives: none may come twice.

A secret nonce that signs two messages gives the secret key away. The server sees the public half of each, and
so does a proxy: a daemon that came back from the dead and sent one of them again could be made to sign twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from barkd_py.ark.rounds import ForfeitBundle
from barkd_py.bitcoin.musig import PUBLIC_NONCE_BYTES
from barkd_py.server_rpc.protos import bark_server_pb2, mailbox_server_pb2

# What a user's nonces are called in requests.
_FIELDS = {"pub_nonce", "user_pub_nonces", "public_nonces", "public_nonce", "user_nonces"}

assert bark_server_pb2, mailbox_server_pb2  # importing them fills the pool


def nonces_of(method: str, request: bytes) -> list[bytes]:
    """The public nonces in a request. method: the path of the call, ``/package.Service/Method``."""
    service, _, name = method.strip("/").rpartition("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].input_type
    message = message_factory.GetMessageClass(descriptor)()
    message.ParseFromString(request)
    return list(_walk(message))


def _walk(message: Message) -> Iterator[bytes]:
    for descriptor, value in message.ListFields():
        single = isinstance(value, Message | bytes | str | int)
        for item in (value,) if single else value:
            if isinstance(item, Message):
                yield from _walk(item)
            elif descriptor.name == "forfeit_bundles":
                yield ForfeitBundle.decode(item).user_pub_nonce
            elif descriptor.name in _FIELDS:
                assert len(item) == PUBLIC_NONCE_BYTES, descriptor.full_name
                yield item


@dataclass
class NonceLog:
    """seen: each nonce with the call that sent it first. reused: what was sent again."""

    seen: dict[bytes, str] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)

    def note(self, method: str, request: bytes) -> None:
        for nonce in nonces_of(method, request):
            if nonce in self.seen:
                self.reused.append(f"{nonce.hex()}: {self.seen[nonce]}, then {method}")
            else:
                self.seen[nonce] = method
