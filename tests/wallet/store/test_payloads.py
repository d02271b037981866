"""Stored states: every field type, older and newer versions, and damage that shows nothing secret."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter

from barkd_py.ark.lightning_receive import Preimage
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import StoreError
from barkd_py.wallet.store.payloads import (
    BlockRefJson,
    HexBytes,
    OutPointText,
    PayloadFormat,
    PayloadMalformed,
    PayloadTooNew,
    PreimageHex,
    PublicKeyHex,
    TxHex,
    TxidText,
    VtxoHex,
    VtxoIdText,
)
from tests.wallet.samples import make_id, vtxo_of_depth

SECRET = Preimage(b"\x2a" * 32)
PUBLIC_KEY = SecretKey(b"\x2a" * 32).public_key


@dataclass(frozen=True, slots=True)
class Waiting:
    preimage: HexBytes
    secret: PreimageHex
    retries: int = 0
    type: Literal["waiting"] = "waiting"


@dataclass(frozen=True, slots=True)
class Working:
    vtxo: VtxoHex
    ids: tuple[VtxoIdText, ...]
    tx: TxHex
    txid: TxidText
    outpoint: OutPointText
    key: PublicKeyHex
    block: BlockRefJson | None
    type: Literal["working"] = "working"


State = Annotated[Waiting | Working, Field(discriminator="type")]
FORMAT: PayloadFormat[Waiting | Working] = PayloadFormat("test state", lambda: TypeAdapter(State))

WAITING = Waiting(b"\x01\x02", SECRET)


def working() -> Working:
    vtxo = vtxo_of_depth(3)
    tx = vtxo.exit_transactions()[0]
    block = BlockRef(7, BlockHash(b"\x09" * 32))
    point = OutPoint(Txid(bytes(range(32))), 5)
    return Working(vtxo, (make_id(1), make_id(2)), tx, tx.txid, point, PUBLIC_KEY, block)


def test_what_goes_in_comes_out() -> None:
    for state in (WAITING, working()):
        assert FORMAT.decode(FORMAT.encode(state)) == state


def test_how_it_is_written() -> None:
    assert json.loads(FORMAT.encode(WAITING)) == {
        "version": 1,
        "state": {"type": "waiting", "preimage": "0102", "secret": "2a" * 32, "retries": 0},
    }


def test_a_block_is_also_read_as_old_versions_of_barkd_wrote_it() -> None:
    payload = json.loads(FORMAT.encode(working()))
    payload["state"]["block"] = f"7:{'09' * 32}"
    assert FORMAT.decode(json.dumps(payload)) == working()


def test_older_states_are_upgraded_step_by_step() -> None:
    def rename(state: dict[str, Any]) -> dict[str, Any]:
        return {"preimage": state["image"], **{key: value for key, value in state.items() if key != "image"}}

    def count(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "retries": state["tries"] - 1}

    third: PayloadFormat[Waiting | Working] = PayloadFormat(
        "test state", lambda: TypeAdapter(State), version=3, upgrades={1: rename, 2: count}
    )
    first = {"type": "waiting", "image": "0102", "secret": "2a" * 32, "tries": 4}

    assert third.decode(json.dumps({"version": 1, "state": first})) == Waiting(b"\x01\x02", SECRET, 3)
    assert third.decode(third.encode(WAITING)) == WAITING


def test_a_newer_state_is_refused() -> None:
    with pytest.raises(PayloadTooNew, match=r"^a stored test state has version 2, which this program"):
        FORMAT.decode('{"version":2,"state":{}}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version":"1","state":{}}',
        '{"version":0,"state":{"type":"waiting"}}',
        '{"version":1,"state":[]}',
        '{"version":1,"state":{}}',
        '{"version":1,"state":{"type":"other"}}',
        '{"version":1,"state":{"type":"waiting"}}',
        '{"version":1,"state":{"type":"waiting","preimage":"0","secret":"%s"}}' % ("2a" * 32),
        '{"version":1,"state":{"type":"waiting","preimage":7,"secret":"%s"}}' % ("2a" * 32),
        '{"version":1,"state":{"type":"waiting","preimage":"00","secret":"2a"}}',
    ],
)
def test_damaged_states_are_errors(text: str) -> None:
    with pytest.raises(StoreError):
        FORMAT.decode(text)


def test_errors_show_where_and_never_what() -> None:
    payload = json.loads(FORMAT.encode(WAITING))
    payload["state"] |= {"secret": "ee" * 33, "retries": "5ecret"}
    with pytest.raises(PayloadMalformed) as raised:
        FORMAT.decode(json.dumps(payload))
    assert str(raised.value) == "a stored test state is malformed at waiting.retries, waiting.secret"
    assert raised.value.__cause__ is None
