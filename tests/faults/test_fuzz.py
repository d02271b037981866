"""Every decoder, fed noise and damaged examples: it answers or raises what it documents, in bounded space.

What a decoder documents is a `KnownError` or a `ValueError`, which its callers expect. Anything else would
end a loop of the daemon, or answer a request with a bug's 500. A decoder that believes a length in the data
before it has read so much would take gigabytes for a few bytes.
"""

import ast
import inspect
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

import barkd_py
from barkd_py.api.amounts import parse_amount
from barkd_py.api.auth import AuthToken
from barkd_py.api.json_body import BodyRejected, read_any, read_model
from barkd_py.api.params import (
    ParameterRejected,
    parse_boolean,
    parse_float,
    parse_unsigned,
    read_query,
)
from barkd_py.api.schemas.notifications import WaitQuery
from barkd_py.api.schemas.wallet import CreateWalletRequest
from barkd_py.api.timestamps import parse_timestamp
from barkd_py.api.values import parse_destination_script
from barkd_py.ark import mailbox, policy
from barkd_py.ark.address import ArkAddress
from barkd_py.ark.rounds import ForfeitBundle
from barkd_py.ark.tree import SignedTreeSpec, TreeSpec
from barkd_py.ark.vtxo import BareVtxo, ServerVtxo, Vtxo, VtxoId
from barkd_py.bitcoin.address import bech32_encode, parse_address, to_5_bits
from barkd_py.bitcoin.bip32 import ExtendedPublicKey, parse_mnemonic
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tlv import read_tlv_stream
from barkd_py.bitcoin.tx import OutPoint, Tx, parse_block_body
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.chain.http import parse_json
from barkd_py.errors import KnownError
from barkd_py.server_rpc import convert
from barkd_py.server_rpc.connection import ServerAddress
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2 as core
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from barkd_py.server_rpc.socks import parse_proxy
from barkd_py.wallet.lightning.send import states as send_states
from barkd_py.wallet.payments.bip321 import Bip321Uri
from barkd_py.wallet.payments.request import decode_lnurl, parse_destination, parse_lightning_destination
from tests.bitcoin.test_bolt12_invoice import invoice_records, signed
from tests.support.vectors import cases, load
from tests.wallet.lightning.test_send_states import HTLCS, PAYMENT

DOCUMENTED = (KnownError, ValueError, BodyRejected, ParameterRejected)

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


def _examples(*messages: Message) -> tuple[bytes, ...]:
    return tuple(message.SerializeToString() for message in messages)


_VTXOS = _hex("vtxo", "full_hex", kind="user")
_TX = _hex("vtxo", "anchor_tx", kind="user")[0]
_IDS = [bytes(Vtxo.decode(each).id) for each in _VTXOS]
_NONCE = pb.LeafVtxoCosignResponse.FromString(_messages(pb.LeafVtxoCosignResponse)[1]).public_nonce
_RECEIVE = pb.CheckLightningReceiveResponse(
    invoice="lnbcrt1", amount_sat=10_000, status=pb.HTLCS_READY, htlc_vtxos=_IDS[:2]
)
_MAIL: dict[str, Any] = {
    "arkoor": mb.ArkoorMessage(vtxos=_VTXOS[:2]),
    "round_participation_completed": mb.RoundParticipationCompleted(unlock_hash=bytes(32)),
    "incoming_lightning_payment": mb.IncomingLightningPaymentMessage(payment_hash=bytes(32), amount_msat=5),
    "recovery_vtxo_ids": mb.RecoveryVtxoIdsMessage(vtxo_ids=_IDS[:2]),
    "lightning_send_finished": mb.LightningSendFinishedMessage(payment_hash=bytes(32), preimage=bytes(32)),
}
_BOLT12_INVOICE = signed(invoice_records())


def _as_many_as_there_are(message: pb.ArkoorPackageCosignResponse) -> object:
    """What was asked for has as many parts and nonces as the answer, so that the rest of it is read."""
    asked: Any = [SimpleNamespace(user_pub_nonces=part.server_pub_nonces) for part in message.parts]
    return convert.arkoor_cosignatures(message, asked)


BINARY = (
    Decoder(
        "answer of a chain source",
        parse_json,
        (b'{"tx": {"vin": [[0, 1.5e-8, null]]}}', b"[" * 900 + b"]" * 900),
    ),
    Decoder("VTXO", Vtxo.decode, _hex("vtxo", "full_hex", kind="user")),
    Decoder("VTXO of the server", ServerVtxo.decode, _hex("vtxo", "full_hex", kind="server")),
    Decoder("bare VTXO", BareVtxo.decode, _hex("vtxo", "bare_hex", kind="user")),
    Decoder("policy", policy.decode_policy, _hex("policies", "encoded")),
    Decoder("policy of the server", policy.decode_server_policy, _hex("policies", "encoded")),
    Decoder("tree", TreeSpec.decode, _hex("tree", "spec_hex")),
    Decoder("signed tree", SignedTreeSpec.decode, _hex("tree", "signed_tree_hex")),
    Decoder("forfeit bundle", ForfeitBundle.decode, _hex("forfeits", "bundle_hex")),
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
    Decoder("outpoint in bytes", OutPoint.from_bytes, (bytes(36),)),
    Decoder("VTXO id in bytes", VtxoId.from_bytes, (bytes(36),)),
    Decoder(
        "block", parse_block_body, (b"\x00", *(b"\x01" + tx for tx in _hex("vtxo", "anchor_tx", kind="user")))
    ),
    Decoder("TLV", lambda data: list(read_tlv_stream(data)), (b"\x01\x02ab\x03\x00", b"\xfd\x01\x00\x00")),
    Decoder("transaction", Tx.parse, _hex("vtxo", "anchor_tx", kind="user")),
    Decoder(
        "extended key",
        ExtendedPublicKey.parse,
        _hex("mailbox", "xpub_bytes", kind="xpub-recovery-authorization"),
    ),
    Decoder("bolt12 invoice", Bolt12Invoice.decode, (_BOLT12_INVOICE,)),
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
        _examples(
            pb.RoundParticipationStatusResponse(
                status=pb.ROUND_PART_ISSUED,
                input_vtxo_ids=_IDS[:2],
                round_funding_tx=_TX,
                output_vtxos=_VTXOS[:2],
                unlock_preimage=bytes(32),
            )
        ),
    ),
    Decoder(
        "gRPC: mailbox",
        _message(mb.MailboxMessages, convert.mailbox_page),
        _examples(
            *(
                mb.MailboxMessages(messages=[mb.MailboxMessage(checkpoint=7, **{kind: content})])
                for kind, content in _MAIL.items()
            )
        ),
    ),
    Decoder(
        "gRPC: board",
        _message(pb.BoardCosignResponse, convert.board_cosignature),
        _messages(pb.BoardCosignResponse),
    ),
    Decoder(
        "gRPC: leaf",
        _message(pb.LeafVtxoCosignResponse, convert.leaf_cosignature),
        _messages(pb.LeafVtxoCosignResponse),
    ),
    Decoder(
        "gRPC: arkoor",
        _message(pb.ArkoorPackageCosignResponse, _as_many_as_there_are),
        _messages(pb.ArkoorPackageCosignResponse),
    ),
    Decoder(
        "gRPC: receive",
        _message(pb.CheckLightningReceiveResponse, convert.receive_status),
        _examples(_RECEIVE),
    ),
    Decoder(
        "gRPC: offboard",
        _message(pb.PrepareOffboardResponse, lambda message: convert.prepared_offboard(message, 1)),
        _examples(pb.PrepareOffboardResponse(offboard_tx=_TX, forfeit_cosign_nonces=[_NONCE])),
    ),
    Decoder(
        "gRPC: payment",
        _message(pb.LightningPaymentStatus, convert.payment_status),
        _examples(
            pb.LightningPaymentStatus(pending=core.Empty()),
            pb.LightningPaymentStatus(success=pb.PaymentSuccessStatus(preimage=bytes(32))),
            pb.LightningPaymentStatus(failed=core.LightningPaymentFailure()),
        ),
    ),
    Decoder(
        "gRPC: grant",
        _message(pb.PrepareLightningReceiveClaimResponse, convert.receive_grant),
        _examples(pb.PrepareLightningReceiveClaimResponse(receive=_RECEIVE, htlc_vtxos=_VTXOS[:2])),
    ),
    Decoder(
        "gRPC: recovery",
        _message(pb.RecoverVtxosByXpubResponse, convert.recovery_page),
        _examples(
            pb.RecoverVtxosByXpubResponse(
                vtxos=[
                    pb.RecoveredVtxo(
                        vtxo=_VTXOS[0], derivation_index=3, spend_state=pb.VTXO_SPEND_STATE_SPENT
                    )
                ],
                nb_keys_scanned=10,
                have_more=True,
                cursor_vtxo_id=_IDS[0],
            )
        ),
    ),
)

_REGTEST = Network.REGTEST
_SENDS = send_states.FORMAT
_ADDRESSES = _text("address", "address", kind="valid")
_INVOICES = _text("bolt11", "invoice", kind="valid")
_OFFERS = _text("bolt12", "offer", kind="offer", valid=True)
_BITCOIN_ADDRESS = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"
_LNURL = bech32_encode("lnurl", to_5_bits(b"https://service.example/pay?id=1"), 1)

TEXT = (
    Decoder("Ark address", ArkAddress.parse, _ADDRESSES),
    Decoder("bitcoin address", lambda text: parse_address(text, _REGTEST), (_BITCOIN_ADDRESS,)),
    Decoder("VTXO id", VtxoId.parse, _text("vtxo", "id", kind="user")),
    Decoder("outpoint", OutPoint.parse, _text("vtxo", "anchor_point", kind="user")),
    Decoder("block", BlockRef.parse, ("5:" + "00" * 32,)),
    Decoder("VTXO in hex", Vtxo.decode_hex, _text("vtxo", "full_hex", kind="user")),
    Decoder("transaction in hex", Tx.from_hex, _text("vtxo", "anchor_tx", kind="user")),
    Decoder("mnemonic", parse_mnemonic, _text("keys", "mnemonic", kind="wallet")),
    Decoder("bolt11", Bolt11Invoice.parse, _INVOICES),
    Decoder("offer", Offer.parse, _OFFERS),
    Decoder("bolt12 invoice in text", Bolt12Invoice.parse, (str(Bolt12Invoice.decode(_BOLT12_INVOICE)),)),
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
    Decoder(
        "lightning destination",
        parse_lightning_destination,
        (*_INVOICES[:3], *_OFFERS[:3], _LNURL, "user@a.example"),
    ),
    Decoder("destination script", lambda text: parse_destination_script(text, _REGTEST), (_BITCOIN_ADDRESS,)),
    Decoder(
        "public key in hex",
        PublicKey.from_hex,
        ("02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",),
    ),
    Decoder("token", AuthToken.decode, (AuthToken(bytes(range(32))).encode(),)),
    Decoder("boolean", parse_boolean, ("true", "false")),
    Decoder("server", ServerAddress.parse, ("http://127.0.0.1:3535", "ark.example")),
    Decoder("proxy", parse_proxy, ("socks5h://127.0.0.1:9050",)),
    Decoder("stored state", _SENDS.decode, (_SENDS.encode(send_states.Initiated(PAYMENT, HTLCS, 1)),)),
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
    """Some of them decode: mutations of what is refused at its first byte would show nothing."""
    decoded = 0
    for example in filter(len, decoder.examples):
        with suppress(*DOCUMENTED):
            decoder.decode(example)
            decoded += 1
    assert decoded


# --- none is left out

_A_DECODER = re.compile(r"(decode|parse|from_bytes|from_hex)(_|$)|read_")
_PART_OF_ANOTHER = {
    "ark/genesis.py": {"read_genesis"},  # a VTXO
    "ark/policy.py": {"read_policy", "read_server_policy", "read_height", "read_delta"},
    "ark/vtxo.py": {"decode", "decode_hex"},
    "bitcoin/bolt12.py": {"read_path_ends"},
    "bitcoin/encode.py": {"from_hex"},
    "bitcoin/tlv.py": {"read_big_size", "read_truncated_u64"},
    "bitcoin/tx.py": {"from_hex"},
    "chain/http.py": {"read_body"},  # bytes as they come; what they are is decided after
    "api/params.py": {"read_path_text", "read_path_u32"},  # numbers and texts of a route
    "api/values.py": {"parse_payee_script", "parse_vtxo_id", "parse_known_vtxo_ids"},
    "wallet/payments/options.py": {"parse_payment_request", "parse"},  # the destination's, BIP 321's
}
_OUR_OWN_DATA = {
    "datadir.py": {"read_mnemonic"},
    "wallet/exits/payloads.py": {"decode_history", "decode_state", "decode_first"},
    "wallet/exits/rows.py": {"read_exits"},
    "wallet/rounds/states.py": {"decode_round"},
    "wallet/store/engine.py": {"parse_url"},
    "wallet/store/snapshot.py": {"read_description"},
}
_ASK_THE_SERVER = {"read_mailbox", "read_payment_request"}
_OF_A_MACHINE = {"decode"}


def _decoders(file: Path) -> Iterator[tuple[str, str]]:
    """What is called like a decoder, and what shows that it is fuzzed: its name, or its class's."""
    for node in ast.walk(ast.parse(file.read_text())):
        owner = node.name if isinstance(node, ast.ClassDef) else None
        for each in getattr(node, "body", ()) if isinstance(node, ast.ClassDef | ast.Module) else ():
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and _A_DECODER.match(each.name):
                yield each.name, owner or each.name


def test_no_decoder_is_left_out() -> None:
    """Whoever writes a decoder puts it into the lists above, or says here why not."""
    package = Path(barkd_py.__file__).parent
    here = set(re.findall(r"\w+", Path(__file__).read_text().partition("# --- none is left out")[0]))
    missing = set()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if name.startswith(("devnet/", "cli/")) or "/protos/" in name:
            continue
        excused = _PART_OF_ANOTHER.get(name, set()) | _OUR_OWN_DATA.get(name, set()) | _ASK_THE_SERVER
        if name.endswith(("machine.py", "executor.py", "payloads.py")):
            excused = excused | _OF_A_MACHINE  # states that were stored by us
        missing |= {
            f"{name}: {word}.{each}"
            for each, word in _decoders(file)
            if each not in excused and word not in here and not word.startswith("_")
        }
    assert missing == set()


def test_every_message_of_the_server_is_read() -> None:
    """What turns an answer into our types: `convert` has one function for each."""
    public = {name for name, each in vars(convert).items() if inspect.isfunction(each) and name[0] != "_"}
    read = {name for name in public if "message" in inspect.signature(getattr(convert, name)).parameters}
    here = Path(__file__).read_text()
    inner = {"fee_schedule", "mailbox_message", "failure_reason"}  # parts of others
    assert {name for name in read - inner if f"convert.{name}" not in here} == set()
