"""Every decoder, fed noise and damaged examples: it answers or raises what it documents, in bounded space.

What a decoder documents is a `BarkdError` or a `ValueError`, which its callers expect. Anything else would
end a loop of the daemon, or answer a request with a bug's 500. A decoder that believes a length in the data
before it has read so much would take gigabytes for a few bytes.
"""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from barkd_py.api.amounts import parse_amount
from barkd_py.api.json_body import BodyRejected, read_any, read_model
from barkd_py.api.params import ParameterRejected, parse_float, parse_timestamp, parse_unsigned, read_query
from barkd_py.api.schemas.notifications import WaitQuery
from barkd_py.api.schemas.wallet import CreateWalletRequest
from barkd_py.ark import attestations, mailbox, policy
from barkd_py.ark.address import ArkAddress
from barkd_py.ark.rounds import ForfeitBundle
from barkd_py.ark.tree import SignedTreeSpec, TreeSpec
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import bech32_encode, parse_address, to_5_bits
from barkd_py.bitcoin.bip32 import ExtendedPublicKey, parse_mnemonic
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice
from barkd_py.bitcoin.tx import OutPoint, Tx
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.errors import BarkdError
from barkd_py.server_rpc import convert
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from barkd_py.wallet.payments.bip321 import Bip321Uri
from barkd_py.wallet.payments.request import decode_lnurl, parse_destination
from tests.support.vectors import cases, load

DOCUMENTED = (BarkdError, ValueError, BodyRejected, ParameterRejected)

# Decoded objects are larger than their bytes; what must not be is a multiple that the data chooses.
BYTES_PER_BYTE = 2_000
BYTES_AT_LEAST = 4_000_000


@dataclass(frozen=True)
class Decoder:
    """examples: valid inputs, in the decoder's own type."""

    name: str
    decode: Callable[[Any], object]
    examples: tuple[Any, ...]


def _hex(file: str, field: str, **wanted: object) -> tuple[bytes, ...]:
    found = (case.get(field) for case in cases(file, **wanted))
    return tuple(bytes.fromhex(each) for each in found if isinstance(each, str))[:8]


def _text(file: str, field: str, **wanted: object) -> tuple[str, ...]:
    return tuple(str(case[field]) for case in cases(file, **wanted))[:12]


def _message(kind: type[Message], read: Callable[[Any], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        message = kind()
        try:
            message.ParseFromString(data)
        except ProtobufError as error:
            raise ValueError("no message") from error
        return read(message)

    return decode


def _messages(kind: type[Message]) -> tuple[bytes, ...]:
    """Recorded ones of this kind, if there are; the empty one is always valid."""
    name = kind.DESCRIPTOR.name
    recorded = [case["proto"] for case in load("grpc") if name in case["message"].split()]
    return (b"", *(bytes.fromhex(each) for each in recorded[:4]))


BINARY = (
    Decoder("VTXO", Vtxo.decode, _hex("vtxo", "full_hex", kind="user")),
    Decoder("VTXO of the server", Vtxo.decode_server, _hex("vtxo", "full_hex", kind="server")),
    Decoder("bare VTXO", Vtxo.decode_bare, _hex("vtxo", "bare_hex", kind="user")),
    Decoder("policy", policy.decode_policy, _hex("policies", "encoded")),
    Decoder("policy of the server", policy.decode_server_policy, _hex("policies", "encoded")),
    Decoder("tree", TreeSpec.decode, _hex("tree", "spec_hex")),
    Decoder("signed tree", SignedTreeSpec.decode, _hex("tree", "signed_tree_hex")),
    Decoder("forfeit bundle", ForfeitBundle.decode, _hex("forfeits", "bundle_hex")),
    Decoder("attestation", attestations.decode_attestation, _hex("attestations", "attestation")),
    Decoder("mailbox id", mailbox.decode_mailbox_id, _hex("mailbox", "mailbox_id")),
    Decoder("blinded id", mailbox.decode_blinded_id, _hex("mailbox", "blinded_id")),
    Decoder(
        "authorization", mailbox.MailboxAuthorization.decode, _hex("mailbox", "encoded", kind="authorization")
    ),
    Decoder(
        "xpub authorization",
        mailbox.XpubRecoveryAuthorization.decode,
        _hex("mailbox", "encoded", kind="xpub-recovery-authorization"),
    ),
    Decoder("transaction", Tx.parse, _hex("vtxo", "anchor_tx", kind="user")),
    Decoder(
        "extended key",
        ExtendedPublicKey.parse,
        _hex("mailbox", "xpub_bytes", kind="xpub-recovery-authorization"),
    ),
    Decoder("bolt12 invoice", Bolt12Invoice.decode, (b"",)),
    Decoder("JSON", read_any, (b'{"a": [1, 2.5e3, "x\\u00e9", null, true]}', b"[[[[[]]]]]")),
    Decoder(
        "JSON of a wallet",
        partial(read_model, CreateWalletRequest),
        (b'{"network": "regtest", "chain_source": {"esplora": {"url": "http://x"}}}',),
    ),
    Decoder("query", partial(read_query, WaitQuery), (b"since=2026-01-01T00:00:00Z", b"since=%zz&x=1")),
    Decoder("gRPC: info", _message(pb.ArkInfo, convert.ark_info), _messages(pb.ArkInfo)),
    Decoder("gRPC: round event", _message(pb.RoundEvent, convert.round_event), _messages(pb.RoundEvent)),
    Decoder(
        "gRPC: participation",
        _message(pb.RoundParticipationStatusResponse, convert.round_participation),
        _messages(pb.RoundParticipationStatusResponse),
    ),
    Decoder(
        "gRPC: mailbox", _message(mb.MailboxMessages, convert.mailbox_page), _messages(mb.MailboxMessages)
    ),
    Decoder(
        "gRPC: board",
        _message(pb.BoardCosignResponse, convert.board_cosignature),
        _messages(pb.BoardCosignResponse),
    ),
    Decoder(
        "gRPC: offboard",
        _message(pb.PrepareOffboardResponse, lambda message: convert.prepared_offboard(message, 1)),
        _messages(pb.PrepareOffboardResponse),
    ),
    Decoder(
        "gRPC: payment",
        _message(pb.LightningPaymentStatus, convert.payment_status),
        _messages(pb.LightningPaymentStatus),
    ),
    Decoder(
        "gRPC: grant",
        _message(pb.PrepareLightningReceiveClaimResponse, convert.receive_grant),
        _messages(pb.PrepareLightningReceiveClaimResponse),
    ),
    Decoder(
        "gRPC: recovery",
        _message(pb.RecoverVtxosByXpubResponse, convert.recovery_page),
        _messages(pb.RecoverVtxosByXpubResponse),
    ),
)

_REGTEST = Network.REGTEST
_ADDRESSES = _text("address", "address", kind="valid")
_INVOICES = _text("bolt11", "invoice", kind="valid")
_OFFERS = _text("bolt12", "offer", kind="offer", valid=True)
_LNURL = bech32_encode("lnurl", to_5_bits(b"https://service.example/pay?id=1"), 1)

TEXT = (
    Decoder("Ark address", ArkAddress.parse, _ADDRESSES),
    Decoder(
        "bitcoin address",
        lambda text: parse_address(text, _REGTEST),
        ("bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202",),
    ),
    Decoder("VTXO id", VtxoId.parse, _text("vtxo", "id", kind="user")),
    Decoder("outpoint", OutPoint.parse, _text("vtxo", "anchor_point", kind="user")),
    Decoder("block", BlockRef.parse, ("5:" + "00" * 32,)),
    Decoder("VTXO in hex", Vtxo.decode_hex, _text("vtxo", "full_hex", kind="user")),
    Decoder("transaction in hex", Tx.from_hex, _text("vtxo", "anchor_tx", kind="user")),
    Decoder("mnemonic", parse_mnemonic, _text("keys", "mnemonic", kind="wallet")),
    Decoder("bolt11", Bolt11Invoice.parse, _INVOICES),
    Decoder("offer", Offer.parse, _OFFERS),
    Decoder("bolt12 invoice in text", Bolt12Invoice.parse, ("lni1qqqq",)),
    Decoder("LNURL", decode_lnurl, (_LNURL, _LNURL.upper())),
    Decoder(
        "destination",
        lambda text: parse_destination(text, _REGTEST),
        (*_ADDRESSES[:3], *_INVOICES[:3], *_OFFERS[:3], _LNURL, "user@example.com"),
    ),
    Decoder(
        "BIP 321",
        Bip321Uri.parse,
        (f"bitcoin:?ark={_ADDRESSES[0]}&lightning={_INVOICES[0]}&amount=0.0001", "bitcoin:BC1?x=%41&req-y"),
    ),
    Decoder("amount", parse_amount, ("10000 sat", "0.0001 btc", "1.5 mBTC")),
    Decoder("unsigned number", lambda text: parse_unsigned(text, 64), ("0", "18446744073709551615")),
    Decoder("number with a point", parse_float, ("1.5", "1e9", "inf")),
    Decoder("moment", parse_timestamp, ("2026-01-01T00:00:00.123456789+01:00", "2026-01-01T00:00:00Z")),
)


def _check(decoder: Decoder, data: bytes | str) -> None:
    _warm_up(decoder)
    tracemalloc.start()
    try:
        decoder.decode(data)
    except DOCUMENTED:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < max(BYTES_AT_LEAST, BYTES_PER_BYTE * len(data)), f"{decoder.name}: {peak} bytes"


@cache
def _warm_up(decoder: Decoder) -> None:
    """What is loaded at the first use is not the data's doing."""
    with suppress(*DOCUMENTED):
        decoder.decode(decoder.examples[0])


@st.composite
def damaged(draw: st.DrawFn, examples: tuple[bytes, ...]) -> bytes:
    """An example with some bytes changed, cut out, repeated or put in; lengths of all kinds among them."""
    data = bytearray(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        span = draw(st.integers(0, 9))
        piece = draw(
            st.one_of(
                st.binary(max_size=9),
                st.sampled_from(
                    (b"\xff" * 9, b"\xfe\xff\xff\xff\xff", b"\xfd\xff\xff", b"\x00" * 8, b"\x80" * 9)
                ),
            )
        )
        data[at : at + span] = piece
    return bytes(data)


@pytest.mark.parametrize("decoder", BINARY, ids=lambda decoder: str(decoder.name))
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_bytes(decoder: Decoder, data: st.DataObject) -> None:
    _check(decoder, data.draw(damaged(decoder.examples) | st.binary(max_size=300)))


@pytest.mark.parametrize("decoder", TEXT, ids=lambda decoder: str(decoder.name))
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_texts(decoder: Decoder, data: st.DataObject) -> None:
    mangled = damaged(tuple(example.encode() for example in decoder.examples))
    decoded = mangled.map(lambda raw: raw.decode("utf-8", errors="replace"))
    _check(decoder, data.draw(decoded | st.text(max_size=120)))


@pytest.mark.parametrize("decoder", [*BINARY, *TEXT], ids=lambda decoder: str(decoder.name))
def test_the_examples_show_the_way(decoder: Decoder) -> None:
    """Most of them decode: mutations of what is refused at its first byte would show nothing."""
    decoded = 0
    for example in decoder.examples:
        try:
            decoder.decode(example)
            decoded += 1
        except DOCUMENTED:
            continue
    assert decoded or len(decoder.examples) == 1 or decoder.name.startswith("gRPC")
