"""`ArkServer` against a real gRPC server on loopback: what is sent, and what is believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from barkd_py.ark.arkoor import ArkoorDestination, ArkoorPart
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import ServerRejected, ServerUnavailable
from barkd_py.server_rpc import api
from barkd_py.server_rpc import client as client_module
from barkd_py.server_rpc.client import ArkServer, WrongVtxo
from barkd_py.server_rpc.connection import ConnectionSettings
from barkd_py.server_rpc.errors import ConversionError
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from tests.server_rpc.strict_server import MAILBOX_KEY, Refusal, StrictServer, always
from tests.support.vectors import cases, load


def _pubkey_vtxos() -> tuple[Vtxo, ...]:
    vtxos = (Vtxo.decode_hex(case["full_hex"]) for case in cases("vtxo", kind="user"))
    return tuple(vtxo for vtxo in vtxos if vtxo.policy.kind == "pubkey")


VTXOS = _pubkey_vtxos()[:4]
MAILBOX = PublicKey(MAILBOX_KEY)
SECRET = SecretKey(bytes([7] * 32))
NONCE = generate_nonce(SECRET)[1]
OTHER_NONCE = generate_nonce(SECRET)[1]
ATTESTATION = bytes(64)


@asynccontextmanager
async def connected_to(server: StrictServer) -> AsyncIterator[ArkServer]:
    async with server.listening() as port:
        client = ArkServer(ConnectionSettings(address=f"http://127.0.0.1:{port}", network="regtest"))
        try:
            yield client
        finally:
            await client.close()


def not_found() -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, "not found: VTXO")


# --- look-ups


async def test_a_vtxo_is_the_one_that_was_asked_for() -> None:
    server = StrictServer({"GetVtxo": always(pb.GetVtxoResponse(vtxo=VTXOS[0].encode()))})
    async with connected_to(server) as client:
        assert await client.get_vtxo(VTXOS[0].id) == VTXOS[0]
        with pytest.raises(WrongVtxo):
            await client.get_vtxo(VTXOS[1].id)
    assert server.seen("GetVtxo")[0].request.vtxo_id == bytes(VTXOS[0].id)


async def test_a_vtxo_that_cannot_be_decoded_is_an_error_of_the_server() -> None:
    server = StrictServer({"GetVtxo": always(pb.GetVtxoResponse(vtxo=VTXOS[0].encode() + b"\0"))})
    async with connected_to(server) as client:
        with pytest.raises(ConversionError, match="full VTXO"):
            await client.get_vtxo(VTXOS[0].id)


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (1, api.VtxoSpendState.SPENDABLE),
        (2, api.VtxoSpendState.SPENT),
        (3, api.VtxoSpendState.UNCLAIMED),
        (4, api.VtxoSpendState.UNREGISTERED),
        (5, api.VtxoSpendState.HTLC_RECV_UNCLAIMED),
    ],
)
async def test_spend_states(number: int, state: api.VtxoSpendState) -> None:
    server = StrictServer({"GetVtxoStatus": always(pb.GetVtxoStatusResponse(spend_state=number))})  # type: ignore[arg-type]
    async with connected_to(server) as client:
        assert await client.get_vtxo_status(VTXOS[0].id, ATTESTATION) == state


@pytest.mark.parametrize("number", [0, 9])
async def test_an_unknown_spend_state_is_never_taken_for_spendable(number: int) -> None:
    server = StrictServer({"GetVtxoStatus": always(pb.GetVtxoStatusResponse(spend_state=number))})  # type: ignore[arg-type]
    async with connected_to(server) as client:
        with pytest.raises(ConversionError, match="unknown spend state"):
            await client.get_vtxo_status(VTXOS[0].id, ATTESTATION)
        queries = [api.StatusQuery(VTXOS[0].id, ATTESTATION)]
        assert await client.get_vtxo_statuses(queries) == {}


async def test_batched_lookups_believe_only_what_was_asked() -> None:
    first, second, stranger, unread = VTXOS
    server = StrictServer(
        {
            "GetVtxosByIds": always(
                pb.GetVtxosByIdsResponse(
                    vtxos=[first.encode(), stranger.encode(), b"garbage"],
                    missing_vtxo_ids=[bytes(second.id), bytes(stranger.id)],
                )
            )
        }
    )
    async with connected_to(server) as client:
        lookup = await client.get_vtxos([first.id, second.id, unread.id, first.id])
    assert lookup == api.VtxoLookup((first,), (second.id,))
    assert len(server.seen("GetVtxosByIds")[0].request.vtxo_ids) == 3


async def test_batched_states_are_of_what_was_asked_for() -> None:
    """What else the server says, or what no wallet knows the meaning of, is nothing to us."""
    first, second, stranger, _ = VTXOS
    said = {first: pb.VTXO_SPEND_STATE_SPENT, stranger: pb.VTXO_SPEND_STATE_SPENDABLE, second: 9}
    answer = pb.GetVtxosStatusByIdsResponse()
    for vtxo, state in said.items():
        answer.vtxos.add(vtxo_id=bytes(vtxo.id), spend_state=state)
    server = StrictServer({"GetVtxosStatusByIds": always(answer)})
    async with connected_to(server) as client:
        states = await client.get_vtxo_statuses(
            [api.StatusQuery(vtxo.id, ATTESTATION) for vtxo in (first, second)]
        )
    assert states == {first.id: api.VtxoSpendState.SPENT}


async def test_an_old_server_is_asked_for_one_vtxo_at_a_time() -> None:
    async def get_vtxo(request: pb.GetVtxoRequest) -> pb.GetVtxoResponse:
        for vtxo in VTXOS[:2]:
            if request.vtxo_id == bytes(vtxo.id):
                return pb.GetVtxoResponse(vtxo=vtxo.encode())
        if request.vtxo_id == bytes(VTXOS[2].id):
            return pb.GetVtxoResponse(vtxo=b"of a policy that no user has")
        raise not_found()

    async def get_status(request: pb.GetVtxoStatusRequest) -> pb.GetVtxoStatusResponse:
        if request.vtxo_id == bytes(VTXOS[3].id):
            raise not_found()
        return pb.GetVtxoStatusResponse(spend_state=pb.VTXO_SPEND_STATE_SPENT)

    server = StrictServer({"GetVtxo": get_vtxo, "GetVtxoStatus": get_status})
    async with connected_to(server) as client:
        lookup = await client.get_vtxos([vtxo.id for vtxo in VTXOS])
        statuses = await client.get_vtxo_statuses(
            [api.StatusQuery(vtxo.id, ATTESTATION) for vtxo in (VTXOS[0], VTXOS[3])]
        )
        await client.get_vtxos([VTXOS[0].id])
    assert lookup == api.VtxoLookup(VTXOS[:2], (VTXOS[3].id,))
    assert statuses == {VTXOS[0].id: api.VtxoSpendState.SPENT}
    assert len(server.seen("GetVtxosByIds")) == 1  # remembered
    assert len(server.seen("GetVtxosStatusByIds")) == 0


async def test_a_server_that_fails_is_not_an_old_one() -> None:
    server = StrictServer({"GetVtxosByIds": always(Refusal(grpc.StatusCode.INTERNAL, "internal error"))})
    async with connected_to(server) as client:
        with pytest.raises(ServerUnavailable):
            await client.get_vtxos([VTXOS[0].id])
    assert not server.seen("GetVtxo")


async def test_recovery_by_xpub() -> None:
    page = pb.RecoverVtxosByXpubResponse(
        vtxos=[
            pb.RecoveredVtxo(
                vtxo=VTXOS[0].encode(), derivation_index=3, spend_state=pb.VTXO_SPEND_STATE_SPENT
            ),
            pb.RecoveredVtxo(
                vtxo=VTXOS[1].encode(), derivation_index=2**31, spend_state=pb.VTXO_SPEND_STATE_SPENT
            ),
            pb.RecoveredVtxo(vtxo=b"garbage", derivation_index=4),
        ],
        nb_keys_scanned=10,
        have_more=True,
        cursor_vtxo_id=bytes(VTXOS[0].id),
    )
    server = StrictServer({"RecoverVtxosByXpub": always(page)})
    async with connected_to(server) as client:
        got = await client.recover_vtxos_by_xpub(
            bytes(78), start_index=1, authorization=bytes(72), cursor=None
        )
    recovered = api.RecoveredVtxo(VTXOS[0], 3, api.VtxoSpendState.SPENT)
    assert got == api.XpubRecoveryPage((recovered,), 10, True, VTXOS[0].id)
    assert not server.seen("RecoverVtxosByXpub")[0].request.HasField("cursor_vtxo_id")


async def test_a_server_without_recovery_by_xpub() -> None:
    async with connected_to(StrictServer()) as client:
        got = await client.recover_vtxos_by_xpub(
            bytes(78), start_index=0, authorization=bytes(72), cursor=None
        )
    assert got is None


# --- cosigning


def board_request() -> dict[str, Any]:
    return {
        "amount_sat": 100_000,
        "utxo": OutPoint(Txid(bytes(32)), 1),
        "expiry_height": 5000,
        "user_pubkey": SECRET.public_key,
        "pub_nonce": NONCE,
    }


async def test_a_board_request_carries_the_funding_transaction_without_witnesses() -> None:
    tx = Tx.parse(VTXOS[0].exit_transactions()[0].serialize())
    assert tx.has_witness
    answer = pb.BoardCosignResponse(pub_nonce=OTHER_NONCE, partial_sig=bytes(32))
    server = StrictServer({"RequestBoardCosign": always(answer)})
    async with connected_to(server) as client:
        got = await client.request_board_cosign(**{**board_request(), "funding_tx": tx})
    assert (got.pub_nonce, got.partial_sig) == (OTHER_NONCE, bytes(32))
    request = server.seen("RequestBoardCosign")[0].request
    assert Tx.parse(request.funding_tx) == replace(
        tx, inputs=tuple(replace(tx_in, witness=()) for tx_in in tx.inputs)
    )
    assert (request.amount, request.expiry_height, request.utxo[32:]) == (100_000, 5000, b"\1\0\0\0")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (pb.BoardCosignResponse(pub_nonce=OTHER_NONCE[:65], partial_sig=bytes(32)), "public musig nonce"),
        (pb.BoardCosignResponse(pub_nonce=bytes(66), partial_sig=bytes(32)), "public musig nonce"),
        (pb.BoardCosignResponse(pub_nonce=OTHER_NONCE, partial_sig=bytes(31)), "partial musig signature"),
        (pb.BoardCosignResponse(), "public musig nonce"),
    ],
)
async def test_malformed_board_answers(answer: pb.BoardCosignResponse, error: str) -> None:
    server = StrictServer({"RequestBoardCosign": always(answer)})
    tx = VTXOS[0].exit_transactions()[0]
    async with connected_to(server) as client:
        with pytest.raises(ConversionError, match=error):
            await client.request_board_cosign(**{**board_request(), "funding_tx": tx})


def arkoor_parts() -> tuple[api.ArkoorCosignPart, ...]:
    """Two inputs, of one and of two outputs."""
    parts = []
    for vtxo, pieces in zip(VTXOS, (1, 2), strict=False):
        amounts = (
            [vtxo.amount_sat // 2, vtxo.amount_sat - vtxo.amount_sat // 2]
            if pieces == 2
            else [vtxo.amount_sat]
        )
        outputs = tuple(ArkoorDestination(amount, PubkeyPolicy(SECRET.public_key)) for amount in amounts)
        part = ArkoorPart(vtxo, outputs)
        parts.append(api.ArkoorCosignPart(part, (NONCE,) * part.signature_count, ATTESTATION))
    return tuple(parts)


def arkoor_answer(
    *counts: int, nonce: bytes = OTHER_NONCE, sig: bytes = bytes(32)
) -> pb.ArkoorPackageCosignResponse:
    return pb.ArkoorPackageCosignResponse(
        parts=[
            pb.ArkoorCosignResponse(server_pub_nonces=[nonce] * count, server_partial_sigs=[sig] * count)
            for count in counts
        ]
    )


def without_its_last_signature(answer: pb.ArkoorPackageCosignResponse) -> pb.ArkoorPackageCosignResponse:
    del answer.parts[-1].server_partial_sigs[-1]
    return answer


async def test_an_arkoor_request_and_its_answer() -> None:
    parts = arkoor_parts()
    server = StrictServer({"RequestArkoorCosign": always(arkoor_answer(2, 3))})
    async with connected_to(server) as client:
        got = await client.request_arkoor_cosign(parts)
    assert [len(answer.pub_nonces) for answer in got] == [2, 3]
    request = server.seen("RequestArkoorCosign")[0].request
    assert [part.input_vtxo_id for part in request.parts] == [bytes(part.part.input.id) for part in parts]
    assert [output.total_amount for output in request.parts[1].outputs] == [
        output.amount_sat for output in parts[1].part.outputs
    ]
    assert request.parts[0].outputs[0].policy == b"\0" + SECRET.public_key.data
    assert request.parts[0].use_checkpoint


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (arkoor_answer(2), "Wrong number of packages"),
        (arkoor_answer(2, 3, 3), "Wrong number of packages"),
        (arkoor_answer(2, 2), "Wrong number of server nonces"),
        (arkoor_answer(3, 3), "Wrong number of server nonces"),
        (without_its_last_signature(arkoor_answer(2, 3)), "Wrong number of server partial sigs"),
        (arkoor_answer(2, 3, nonce=bytes(66)), "public musig nonce"),
        (arkoor_answer(2, 3, sig=bytes(33)), "partial musig signature"),
    ],
)
async def test_malformed_arkoor_answers(answer: pb.ArkoorPackageCosignResponse, error: str) -> None:
    server = StrictServer({"RequestArkoorCosign": always(answer)})
    async with connected_to(server) as client:
        with pytest.raises(ConversionError, match=error):
            await client.request_arkoor_cosign(arkoor_parts())


# --- registration and mailbox


async def test_nothing_is_sent_for_no_vtxos() -> None:
    server = StrictServer()
    async with connected_to(server) as client:
        await client.register_vtxo_transactions([])
    assert not server.calls


async def test_registration_is_split_by_count() -> None:
    server = StrictServer({"RegisterVtxoTransactions": always(core_pb2.Empty())})
    async with connected_to(server) as client:
        await client.register_vtxo_transactions([VTXOS[0]] * 1001)
    assert [len(call.request.vtxos) for call in server.seen("RegisterVtxoTransactions")] == [1000, 1]


async def test_registration_is_split_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(VTXOS[0].encode())
    monkeypatch.setattr(client_module, "MAX_REQUEST_BYTES", 2 * size + 1)
    server = StrictServer({"RegisterVtxoTransactions": always(core_pb2.Empty())})
    async with connected_to(server) as client:
        await client.register_vtxo_transactions([VTXOS[0]] * 5)
    assert [len(call.request.vtxos) for call in server.seen("RegisterVtxoTransactions")] == [2, 2, 1]


async def test_deliveries_are_split_by_a_hundred() -> None:
    server = StrictServer({"PostArkoorMessage": always(core_pb2.Empty())})
    async with connected_to(server) as client:
        await client.post_arkoor_message(MAILBOX_KEY, [VTXOS[0]] * 101)
    assert [len(call.request.vtxos) for call in server.seen("PostArkoorMessage")] == [100, 1]


async def test_mailbox_messages_of_every_kind() -> None:
    page = mb.MailboxMessages(
        messages=[
            mb.MailboxMessage(checkpoint=2**60, arkoor=mb.ArkoorMessage(vtxos=[b"a", b"b"])),
            mb.MailboxMessage(
                checkpoint=2**60 + 1,
                round_participation_completed=mb.RoundParticipationCompleted(
                    payment_hashes=[b"old"], unlock_hash=b"hash"
                ),
            ),
            mb.MailboxMessage(
                checkpoint=2**60 + 2,
                incoming_lightning_payment=mb.IncomingLightningPaymentMessage(
                    payment_hash=b"p", amount_msat=5
                ),
            ),
            mb.MailboxMessage(
                checkpoint=2**60 + 3, recovery_vtxo_ids=mb.RecoveryVtxoIdsMessage(vtxo_ids=[b"id"])
            ),
            mb.MailboxMessage(
                checkpoint=2**60 + 4,
                lightning_send_finished=mb.LightningSendFinishedMessage(payment_hash=b"p", preimage=b"x"),
            ),
            mb.MailboxMessage(
                checkpoint=2**60 + 5,
                lightning_send_finished=mb.LightningSendFinishedMessage(
                    payment_hash=b"p",
                    failure=core_pb2.LightningPaymentFailure(reason=99),  # type: ignore[arg-type]
                ),
            ),
            mb.MailboxMessage(checkpoint=2**60 + 6),
        ],
        have_more=True,
    )
    server = StrictServer({"ReadMailbox": always(page)})
    async with connected_to(server) as client:
        got = await client.read_mailbox(MAILBOX, bytes(105), 3)
    assert got.have_more
    assert [message.checkpoint - 2**60 for message in got.messages] == list(range(7))
    unspecified = api.LightningFailureReason.UNSPECIFIED
    assert [message.content for message in got.messages] == [
        api.ArkoorDelivery((b"a", b"b")),
        api.RoundParticipationCompleted(b"hash"),
        api.IncomingLightningPayment(b"p", 5),
        api.RecoveryVtxoIds((b"id",)),
        api.LightningSendFinished(b"p", b"x", unspecified),
        api.LightningSendFinished(b"p", None, unspecified),
        api.UnknownMessage(),
    ]
    request = server.seen("ReadMailbox")[0].request
    assert (request.mailbox_id, request.checkpoint, len(request.authorization)) == (MAILBOX_KEY, 3, 105)


async def test_recovery_ids_are_posted_with_their_authorization() -> None:
    server = StrictServer({"PostRecoveryVtxoIds": always(core_pb2.Empty())})
    async with connected_to(server) as client:
        await client.post_recovery_vtxo_ids(MAILBOX, b"auth", [VTXOS[0].id])
    request = server.seen("PostRecoveryVtxoIds")[0].request
    assert (list(request.vtxo_ids), request.authorization) == ([bytes(VTXOS[0].id)], b"auth")


# --- rounds, offboards, Lightning


async def test_no_round_yet_is_not_an_error() -> None:
    server = StrictServer({"LastRoundEvent": always(not_found())})
    async with connected_to(server) as client:
        assert await client.last_round_event() is None
    server.answers["LastRoundEvent"] = always(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no"))
    async with connected_to(server) as client:
        with pytest.raises(ServerRejected):
            await client.last_round_event()


def _round_event(name: str) -> tuple[pb.RoundEvent, dict[str, Any]]:
    vectors = load("grpc")
    case = next(case for case in vectors if case["message"] == "RoundEvent" and case["name"] == name)
    return pb.RoundEvent.FromString(bytes.fromhex(case["proto"])), case["fields"]


async def test_round_events_of_the_vectors() -> None:
    async def events(_: Any) -> AsyncIterator[pb.RoundEvent]:
        for name in ("attempt", "proposal", "finished", "failed"):
            yield _round_event(name)[0]

    async with connected_to(StrictServer(streams={"SubscribeRounds": events})) as client:
        got = [event async for event in client.subscribe_rounds()]
    attempt, proposal, finished, failed = got
    fields = _round_event("attempt")[1]
    assert attempt == api.RoundAttempt(7, 0, bytes.fromhex(fields["challenge"]))
    fields = _round_event("proposal")[1]
    assert isinstance(proposal, api.VtxoProposal)
    assert proposal.vtxos_spec.hex() == fields["vtxos_spec"]
    assert proposal.unsigned_round_tx.serialize().hex() == fields["unsigned_round_tx"]
    fields = _round_event("finished")[1]
    assert isinstance(finished, api.RoundFinished)
    assert [sig.hex() for sig in finished.cosign_sigs] == fields["cosign_sigs"]
    assert finished.signed_round_tx.serialize().hex() == fields["signed_round_tx"]
    assert failed == api.RoundFailed(7)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (pb.RoundEvent(), "unknown round event"),
        (pb.RoundEvent(attempt=pb.RoundAttempt(round_attempt_challenge=bytes(31))), "invalid challenge"),
        (pb.RoundEvent(vtxo_proposal=pb.VtxoProposal(unsigned_round_tx=b"x")), "invalid unsigned_round_tx"),
        (pb.RoundEvent(finished=pb.RoundFinished(signed_round_tx=b"x")), "invalid signed_round_tx"),
    ],
)
async def test_malformed_round_events_end_the_stream(event: pb.RoundEvent, error: str) -> None:
    async def events(_: Any) -> AsyncIterator[pb.RoundEvent]:
        yield event

    async with connected_to(StrictServer(streams={"SubscribeRounds": events})) as client:
        with pytest.raises(ConversionError, match=error):
            await anext(client.subscribe_rounds())


async def test_forfeit_nonces_are_one_per_vtxo() -> None:
    answer = pb.ForfeitNoncesResponse(public_nonces=[OTHER_NONCE])
    async with connected_to(StrictServer({"RequestForfeitNonces": always(answer)})) as client:
        assert await client.request_forfeit_nonces(bytes(32), [VTXOS[0].id]) == (OTHER_NONCE,)
        with pytest.raises(ConversionError, match="Wrong number of forfeit nonces"):
            await client.request_forfeit_nonces(bytes(32), [VTXOS[0].id, VTXOS[1].id])


async def test_the_offboard_rate_is_divided_down_as_the_server_does() -> None:
    answer = pb.OffboardFeeRateResponse(sat_vkb=7003)
    async with connected_to(StrictServer({"GetOffboardFeeRate": always(answer)})) as client:
        assert await client.offboard_fee_rate() == FeeRate(1750)


@pytest.mark.parametrize("sat_vkb", [0, 3])
async def test_an_offboard_for_nothing_is_not_begun(sat_vkb: int) -> None:
    """The server would prepare it, take the forfeits, and then find out that nobody relays it."""
    answer = pb.OffboardFeeRateResponse(sat_vkb=sat_vkb)
    async with connected_to(StrictServer({"GetOffboardFeeRate": always(answer)})) as client:
        with pytest.raises(ConversionError, match="invalid offboard fee rate"):
            await client.offboard_fee_rate()


async def test_a_prepared_offboard_has_a_nonce_per_input() -> None:
    tx = VTXOS[0].exit_transactions()[0]
    answer = pb.PrepareOffboardResponse(offboard_tx=tx.serialize(), forfeit_cosign_nonces=[OTHER_NONCE])
    request = api.OffboardRequest(5000, b"\x51\x20" + bytes(32), True, FeeRate(250))
    inputs = [api.RoundInput(vtxo.id, ATTESTATION) for vtxo in VTXOS[:2]]
    server = StrictServer({"PrepareOffboard": always(answer)})
    async with connected_to(server) as client:
        got = await client.prepare_offboard(request, inputs[:1])
        assert (got.unsigned_tx, got.pub_nonces) == (tx, (OTHER_NONCE,))
        with pytest.raises(ConversionError, match="Wrong number of forfeit cosign nonces"):
            await client.prepare_offboard(request, inputs)
    sent = server.seen("PrepareOffboard")[0].request
    assert (sent.offboard.net_amount_sat, sent.offboard.fee_rate_kwu) == (5000, 250)
    assert sent.offboard.deduct_fees_from_gross_amount


async def test_a_finished_offboard_is_named_in_internal_byte_order() -> None:
    tx = VTXOS[0].exit_transactions()[0]
    server = StrictServer(
        {"FinishOffboard": always(pb.FinishOffboardResponse(signed_offboard_tx=tx.serialize()))}
    )
    async with connected_to(server) as client:
        assert await client.finish_offboard(Txid.from_hex("00" * 31 + "01"), [NONCE], [bytes(32)]) == tx
    assert server.seen("FinishOffboard")[0].request.offboard_txid == b"\1" + bytes(31)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (pb.LightningPaymentStatus(pending=core_pb2.Empty()), api.PaymentPending()),
        (
            pb.LightningPaymentStatus(success=pb.PaymentSuccessStatus(preimage=bytes(32))),
            api.PaymentSucceeded(bytes(32)),
        ),
        (
            pb.LightningPaymentStatus(failed=core_pb2.LightningPaymentFailure()),
            api.PaymentFailed(api.LightningFailureReason.UNSPECIFIED),
        ),
    ],
)
async def test_payment_statuses(
    message: pb.LightningPaymentStatus, status: api.LightningPaymentStatus
) -> None:
    async with connected_to(StrictServer({"CheckLightningPayment": always(message)})) as client:
        assert await client.check_lightning_payment(bytes(32)) == status


@pytest.mark.parametrize(
    "message",
    [pb.LightningPaymentStatus(), pb.LightningPaymentStatus(success=pb.PaymentSuccessStatus(preimage=b"x"))],
)
async def test_an_unclear_payment_status_is_no_success(message: pb.LightningPaymentStatus) -> None:
    async with connected_to(StrictServer({"CheckLightningPayment": always(message)})) as client:
        with pytest.raises(ConversionError):
            await client.check_lightning_payment(bytes(32))


async def test_a_status_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of invoices wait for each other."""
    assert client_module.STATUS_TIMEOUT_SECONDS <= 30
    monkeypatch.setattr(client_module, "STATUS_TIMEOUT_SECONDS", 0.05)
    never = asyncio.Event()

    async def hang(_: Any) -> None:
        await never.wait()

    async with connected_to(
        StrictServer({"CheckLightningReceive": hang, "CheckLightningPayment": hang})
    ) as client:
        await client.info()
        for check in (client.check_lightning_receive, client.check_lightning_payment):
            with pytest.raises(ServerUnavailable, match="Deadline expired"):
                await check(bytes(32))
        never.set()


async def test_an_unknown_receive_status_is_no_success() -> None:
    message = pb.CheckLightningReceiveResponse(status=7)  # type: ignore[arg-type]
    async with connected_to(StrictServer({"CheckLightningReceive": always(message)})) as client:
        with pytest.raises(ConversionError):
            await client.check_lightning_receive(bytes(32))


def test_ids_are_sent_in_internal_byte_order() -> None:
    vtxo_id = VtxoId.parse("00" * 31 + "01:7")
    assert bytes(vtxo_id) == b"\1" + bytes(31) + b"\7\0\0\0"
