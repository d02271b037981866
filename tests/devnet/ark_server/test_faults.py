"""Faults: the server misbehaves for the calls that a test names, and for no others. Source: sheet 10 §14."""

import asyncio
from typing import Any

import grpc
import pytest

from barkd_py.ark.board import finish_board
from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.vtxo import VtxoId
from barkd_py.devnet.ark_server.faults import BadFault, Fault, Faults, Kind, Stage, mutate
from barkd_py.devnet.armed_faults import describe
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import METADATA, Client, Refusal


def fault(**fields: Any) -> Fault:
    return Fault.from_json(fields)


async def test_error_strikes_as_often_as_it_should(alice: Client) -> None:
    alice.server.faults.set(
        fault(rpc="GetArkInfo", kind="error", code="UNAVAILABLE", text="gone", skip=1, count=2)
    )
    answers = []
    for _ in range(4):
        try:
            await alice.call(alice.ark.GetArkInfo, core_pb2.Empty())
            answers.append("OK")
        except grpc.aio.AioRpcError as error:
            answers.append(error.code().name)
    assert answers == ["OK", "UNAVAILABLE", "UNAVAILABLE", "OK"]


async def test_error_may_name_identifiers(alice: Client) -> None:
    text = "unusable inputs"
    alice.server.faults.set(
        fault(rpc="*", kind="error", code="INVALID_ARGUMENT", text=text, identifiers="a,b")
    )
    refusal = await alice.refusal(alice.ark.GetArkInfo, core_pb2.Empty())
    assert refusal == Refusal("INVALID_ARGUMENT", text, "a,b")


async def test_fault_strikes_one_vtxo_only(alice: Client) -> None:
    first, second = await alice.board(), await alice.board()
    number = alice.server.faults.set(fault(rpc="GetVtxo", kind="error", contains=first.id.hex(), count=None))
    refusal = await alice.refusal(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=first.id))
    assert refusal.code == "INTERNAL"
    await alice.call(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=second.id))
    assert alice.server.faults.remove(number)
    await alice.call(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=first.id))


async def test_fault_strikes_one_client_only(alice: Client) -> None:
    alice.server.faults.set(fault(rpc="*", kind="error", client="barkd/", count=None))
    await alice.call(alice.ark.GetArkInfo, core_pb2.Empty())
    metadata = (("x-user-agent", "barkd/0.8.0"),)
    refusal = await alice.refusal(alice.ark.GetArkInfo, core_pb2.Empty(), metadata)
    assert refusal.code == "INTERNAL"


@pytest.mark.parametrize("kind", ["drop", "error"])
async def test_answer_may_be_lost_after_the_work_is_done(alice: Client, bob: Client, kind: str) -> None:
    vtxo = await alice.board()
    outputs = [(vtxo.amount_sat, bob.policy)]
    payment = alice.prepare_payment([vtxo], outputs)
    alice.server.faults.set(fault(rpc="RequestArkoorCosign", stage="after-commit", kind=kind))
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal.code == ("CANCELLED" if kind == "drop" else "INTERNAL")
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENT
    again = alice.prepare_payment([vtxo], outputs)
    answer = await alice.call(alice.ark.RequestArkoorCosign, again.request)
    assert len(alice.finish_payment(again, answer)) == 1


async def test_answer_may_be_late(alice: Client) -> None:
    alice.server.faults.set(fault(rpc="GetArkInfo", kind="delay", seconds=30))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alice.ark.GetArkInfo(core_pb2.Empty(), metadata=METADATA, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("how", ["that one", "all"])
async def test_a_delay_ends_when_it_is_taken_away(alice: Client, how: str) -> None:
    faults = alice.server.faults
    number = faults.set(fault(rpc="GetArkInfo", kind="delay", seconds=3_600))
    other = faults.set(fault(rpc="GetArkInfo", kind="delay", seconds=0))
    asking = asyncio.create_task(alice.call(alice.ark.GetArkInfo, core_pb2.Empty()))
    async with asyncio.timeout(60):
        while [each["hits"] for each in faults.list()] != [1, 1]:
            await asyncio.sleep(0.001)
        assert not asking.done()
        if how == "all":
            faults.clear()
        else:
            faults.remove(other)
            assert not asking.done()
            faults.remove(number)
        await asking


async def test_partial_signature_may_be_wrong(alice: Client) -> None:
    alice.server.faults.set(
        fault(rpc="RequestBoardCosign", stage="reply", kind="mutate", path="partial_sig", mutation="flip")
    )
    with pytest.raises(BadCosignature, match="invalid board cosignature received from server"):
        await alice.signed_board()
    board = await alice.prepare_board()
    answer = await alice.call(alice.ark.RequestBoardCosign, board.request)
    finish_board(
        board.template, alice.secret, board.sec_nonce, board.pub_nonce, answer.pub_nonce, answer.partial_sig
    )


async def test_stream_may_swallow_messages(alice: Client) -> None:
    alice.server.faults.set(fault(rpc="SubscribeMailbox", stage="stream", kind="swallow"))
    first, second = await alice.board(), await alice.board()
    await _post_ids(alice, first.id)
    await _post_ids(alice, second.id)
    request = alice.mailbox_request(expiry=2**32)
    stream = alice.mailbox.SubscribeMailbox(request, metadata=METADATA)
    message = await asyncio.wait_for(stream.read(), 60)
    assert list(message.recovery_vtxo_ids.vtxo_ids) == [second.id]
    stream.cancel()


async def _post_ids(owner: Client, vtxo_id: VtxoId) -> None:
    request = owner.mailbox_request(expiry=2**32)
    await owner.server.mailboxes.post_recovery_ids(request.mailbox_id, [vtxo_id], request.authorization)


# --- descriptions


@pytest.mark.parametrize(
    "description",
    [
        {"rpc": "GetVtxo"},
        {"kind": "error"},
        {"rpc": "GetVtxo", "kind": "explode"},
        {"rpc": "GetVtxo", "kind": "error", "stage": "reply"},
        {"rpc": "GetVtxo", "kind": "error", "code": "WRONG"},
        {"rpc": "GetVtxo", "kind": "error", "contains": "xyz"},
        {"rpc": "GetVtxo", "kind": "mutate", "stage": "reply"},
        {"rpc": "GetVtxo", "kind": "mutate", "stage": "reply", "path": "vtxo", "mutation": "rot13"},
        {"rpc": "GetVtxo", "kind": "error", "unknown": 1},
        {"rpc": "GetVtox", "kind": "error"},
        {"rpc": "GetVtxo", "kind": "error", "count": "3"},
        {"rpc": "GetVtxo", "kind": "error", "skip": True},
        {"rpc": "GetVtxo", "kind": "delay", "seconds": "1"},
        {"rpc": "SubscribeRounds", "kind": "swallow", "stage": "stream", "message": "finish"},
        *(
            {"rpc": "RequestBoardCosign", "kind": "mutate", "stage": "reply", "path": path, **mutation}
            for path, mutation in (
                ("partial_sgi", {}),
                ("partial_sig.inner", {}),
                ("partial_sig", {"mutation": "set", "value": "xyz"}),
                ("partial_sig", {"mutation": "set", "value": 7}),
                ("partial_sig", {"mutation": "set"}),
                ("partial_sig", {"mutation": "add", "value": 7}),
            )
        ),
        {"rpc": "GetArkInfo", "kind": "mutate", "stage": "reply", "path": "network", "mutation": "flip"},
        {
            "rpc": "GetArkInfo",
            "kind": "mutate",
            "stage": "reply",
            "path": "fees",
            "mutation": "set",
            "value": 1,
        },
        *(
            {"rpc": "GetArkInfo", "kind": "mutate", "stage": "reply", "path": "vtxo_exit_delta", **mutation}
            for mutation in (
                {"mutation": "add", "value": "7"},
                {"mutation": "set", "value": "7"},
                {"mutation": "set"},
            )
        ),
    ],
)
def test_senseless_faults_are_refused(description: dict[str, Any]) -> None:
    with pytest.raises(BadFault):
        Fault.from_json(description)


def test_faults_are_listed_as_they_were_described() -> None:
    faults = Faults()
    described = {"rpc": "GetVtxo", "kind": "delay", "seconds": 2.0, "count": None}
    number = faults.set(Fault.from_json(described))
    (listed,) = faults.list()
    assert listed["id"] == number
    assert described.items() <= listed.items()
    assert Fault.from_json({key: listed[key] for key in describe(Fault("x", Stage.BEFORE, Kind.DROP))})
    faults.clear()
    assert faults.list() == []
    assert not faults.remove(number)


def test_mutations_change_what_the_path_names() -> None:
    answer = pb.ArkoorPackageCosignResponse(
        parts=[pb.ArkoorCosignResponse(server_partial_sigs=[b"\x00", b"\x02"], server_pub_nonces=[b"n"])]
    )
    mutate(answer, "parts.0.server_partial_sigs.1", "flip")
    assert list(answer.parts[0].server_partial_sigs) == [b"\x00", b"\x03"]
    mutate(answer, "parts.0.server_pub_nonces.0", "drop")
    assert list(answer.parts[0].server_pub_nonces) == []
    mutate(answer, "parts.0.server_partial_sigs.0", "set", "ff")
    assert answer.parts[0].server_partial_sigs[0] == b"\xff"
    info = pb.ArkInfo(vtxo_exit_delta=12, network="regtest", fees=pb.FeeSchedule())
    mutate(info, "vtxo_exit_delta", "add", -12)
    mutate(info, "network", "set", "signet")
    mutate(info, "fees", "clear")
    assert (info.vtxo_exit_delta, info.network, info.HasField("fees")) == (0, "signet", False)
    for path in ("nothing", "parts", "network.0.x"):
        with pytest.raises(BadFault):
            mutate(info, path, "flip")
