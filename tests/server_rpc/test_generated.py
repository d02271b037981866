"""The stubs against upstream's encodings, and the generator against what is committed."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barkd_py.server_rpc import generate
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from tests.support.vectors import load

# How the vectors name fields, where that is not the name on the wire.
_RENAMED = {
    "OffboardRequest": {"script_pubkey": "offboard_spk", "net_amount": "net_amount_sat"},
}


def _cases() -> Iterator[Any]:
    for case in load("grpc"):
        if case["message"] != "RoundEvent":  # its fields are those of a variant: see test_convert.py
            yield pytest.param(case, id=f"{case['message']} {case.get('name', '')}")


def _outpoint(text: str) -> bytes:
    txid, vout = text.split(":")
    return bytes.fromhex(txid)[::-1] + int(vout).to_bytes(4, "little")


def _part(fields: dict[str, Any]) -> pb.ArkoorCosignRequest:
    def outputs(name: str) -> list[pb.ArkoorDestination]:
        return [
            pb.ArkoorDestination(total_amount=output["amount"], policy=bytes.fromhex(output["policy_hex"]))
            for output in fields[name]
        ]

    return pb.ArkoorCosignRequest(
        input_vtxo_id=_outpoint(fields["input"]),
        outputs=outputs("outputs"),
        user_pub_nonces=[bytes.fromhex(nonce) for nonce in fields["user_pub_nonces"]],
        isolated_outputs=outputs("isolated_outputs"),
        use_checkpoint=fields["use_checkpoint"],
        attestation=bytes.fromhex(fields["attestation"]),
    )


def _build(name: str, fields: Any) -> Any:
    """The message that has these fields, by the names and types of the committed stubs."""
    if name == "ArkoorPackageCosignRequest":
        return pb.ArkoorPackageCosignRequest(parts=[_part(part) for part in fields])
    if name == "ArkoorPackageCosignResponse":
        return pb.ArkoorPackageCosignResponse(parts=[_build("ArkoorCosignResponse", part) for part in fields])
    if name == "SignedVtxoRequest":
        return pb.SignedVtxoRequest(
            vtxo=_build("VtxoRequest", {key: fields[key] for key in ("amount", "policy_hex")}),
            cosign_pubkey=bytes.fromhex(fields["cosign_pubkey"]),
            public_nonces=[bytes.fromhex(nonce) for nonce in fields["public_nonces"]],
        )
    if name == "VtxoRequest":
        return pb.VtxoRequest(amount=fields["amount"], policy=bytes.fromhex(fields["policy_hex"]))
    message = getattr(pb, name)()
    return _fill(message, fields)


def _fill(message: Any, fields: dict[str, Any]) -> Any:
    renamed = _RENAMED.get(type(message).__name__, {})
    for key, value in fields.items():
        name = renamed.get(key, key)
        descriptor = message.DESCRIPTOR.fields_by_name[name]
        if value is None:
            continue
        if isinstance(value, dict):
            _fill(getattr(message, name), value)
            getattr(message, name).SetInParent()
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    _fill(getattr(message, name).add(), item)
                else:
                    getattr(message, name).append(_scalar(descriptor, item))
        else:
            setattr(message, name, _scalar(descriptor, value))
    return message


def _scalar(descriptor: Any, value: Any) -> Any:
    if descriptor.type != descriptor.TYPE_BYTES:
        return value
    return _outpoint(value) if ":" in value else bytes.fromhex(value)


@pytest.mark.parametrize("case", list(_cases()))
def test_upstreams_bytes_hold_the_fields_that_the_vectors_name(case: dict[str, Any]) -> None:
    name = case["message"].split()[-1]
    expected = _build(name, case["fields"])
    encoded = bytes.fromhex(case["proto"])
    assert type(expected).FromString(encoded) == expected
    assert expected.SerializeToString() == encoded


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    """By the one release of the generator that pyproject.toml names: others lay out differently."""
    first_line = (generate.PROTOS / "bark_server_pb2_grpc.py").read_text().splitlines()[0]
    assert first_line == f"# grpcio-tools {importlib.metadata.version('grpcio-tools')}", "make generate"
    generate.generate(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_text() == (generate.PROTOS / path.name).read_text(), path.name


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        (pb.SubmitPaymentRequest, "input_vtxos", 2),
        (pb.RoundParticipationRequest, "input_vtxos", 2),
        (pb.RoundParticipationStatusResponse, "input_vtxo_ids", 5),
        (pb.OffboardRequest, "deduct_fees_from_gross_amount", 3),
        (pb.OffboardRequest, "fee_rate_kwu", 5),
        (pb.LightningPayHtlcCosignRequest, "parts", 2),
        (pb.ArkoorPackageCosignRequest, "parts", 1),
        (pb.ClaimLightningReceiveRequest, "cosign_request", 4),
        (mb.MailboxMessage, "checkpoint", 2),
    ],
)
def test_numbers_of_fields_beside_the_holes(message: Any, field: str, number: int) -> None:
    """Of messages that no vector has. Source: sheet 08 §10."""
    assert message.DESCRIPTOR.fields_by_name[field].number == number
