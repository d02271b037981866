"""Rendered JSON against the described one, and the differences between versions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from barkd_py.api import render
from barkd_py.api.contract import Contract, contract_of
from barkd_py.api.schemas import boards, fees, history, notifications, onchain, wallet
from barkd_py.bitcoin.tx import BlockHash, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.movements import (
    Movement,
    MovementDestination,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.notifications import ChannelLagging, MovementCreated, MovementUpdated, WaitResult
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Locked,
    MovementHolder,
    Spendable,
    Spent,
    VtxoState,
    WalletVtxo,
)
from tests.fakes import wallet as fake

STATES: tuple[tuple[VtxoState, dict[str, object]], ...] = (
    (Spendable(), {"type": "spendable"}),
    (Spent(), {"type": "spent"}),
    (Exited(), {"type": "exited"}),
    (Locked(MovementHolder(7)), {"type": "locked", "movement_id": 7}),
    (Locked(ActionHolder("ab" * 16)), {"type": "locked", "action_id": "ab" * 16}),
    (Locked(None), {"type": "locked"}),
)


def conforms(value: object, schema: type[BaseModel]) -> None:
    """The JSON has the fields of the schema and no other, and all types are right."""
    strict = TypeAdapter(schema)
    body = to_json(value)
    parsed = strict.validate_json(body, strict=False, extra="forbid")
    assert isinstance(parsed, schema)


def a_movement(**fields: object) -> Movement:
    return fake.FakeWallet().add_movement(**fields)  # type: ignore[arg-type]


def test_ark_info_has_the_documented_form() -> None:
    json = render.ark_info(fake.ARK_INFO)
    conforms(json, wallet.ArkInfo)
    assert json["round_interval"] == "30s"
    assert json["vtxo_expiry_delta"] == json["vtxo_lifetime"] == 144
    assert json["max_vtxo_amount"] == 2_100_000_000_000_000
    assert render.ark_info(replace(fake.ARK_INFO, max_vtxo_amount_sat=5))["max_vtxo_amount"] == 5


def test_balance_has_all_nine_fields() -> None:
    json = render.balance(Balance(spendable_sat=5, pending_exit_sat=9))
    conforms(json, wallet.Balance)
    assert len(json) == 9
    assert (json["spendable_sat"], json["pending_exit_sat"]) == (5, 9)


@pytest.mark.parametrize(("state", "json"), STATES)
def test_vtxo_states(a_vtxo: WalletVtxo, state: VtxoState, json: dict[str, object]) -> None:
    rendered = render.vtxo(replace(a_vtxo, state=state), Contract.V0_8_0)
    conforms(rendered, wallet.WalletVtxoInfo)
    assert rendered["state"] == json


def test_an_exited_vtxo_is_spent_to_an_old_client_only(a_vtxo: WalletVtxo) -> None:
    def state_for(contract: Contract) -> object:
        return render.vtxo(replace(a_vtxo, state=Exited()), contract)["state"]

    assert state_for(Contract.V0_1_4) == {"type": "spent"}
    assert state_for(Contract.UNSTATED) == {"type": "exited"}


def test_a_movement_omits_what_it_does_not_have() -> None:
    json = render.movement(a_movement(completed_at=None), Contract.V0_8_0)
    conforms(json, history.Movement)
    assert "metadata" not in json
    assert "completed_at" not in json["time"]


def test_a_finished_movement_shows_everything() -> None:
    destination = MovementDestination(PaymentMethod(PaymentMethodKind.ARK, "tark1x"), 5)
    movement = a_movement(metadata={"note": "x"}, sent_to=(destination,), intended_balance_sat=-5)
    json = render.movement(movement, Contract.V0_8_0)
    conforms(json, history.Movement)
    assert json["metadata"] == {"note": "x"}
    assert json["sent_to"] == [{"destination": {"type": "ark", "value": "tark1x"}, "amount_sat": 5}]
    assert json["time"]["completed_at"] == "2026-06-01T12:00:00.123456Z"
    assert list(json) == list(history.Movement.model_fields)


@pytest.mark.parametrize("kind", list(PaymentMethodKind))
def test_every_payment_method_is_described(kind: PaymentMethodKind) -> None:
    destination = MovementDestination(PaymentMethod(kind, "v"), 5)
    conforms(render.movement(a_movement(received_on=(destination,)), Contract.V0_8_0), history.Movement)


def test_an_lnurl_is_custom_to_an_old_client() -> None:
    destination = MovementDestination(PaymentMethod(PaymentMethodKind.LNURL, "lnurl1x"), 5)
    movement = a_movement(sent_to=(destination,))

    def kind_for(contract: Contract) -> object:
        return render.movement(movement, contract)["sent_to"][0]["destination"]["type"]

    assert [kind_for(contract) for contract in Contract] == ["custom", "lnurl", "lnurl"]


def test_notifications_have_the_documented_form() -> None:
    movement = a_movement()
    result = WaitResult((MovementCreated(movement), MovementUpdated(movement)), fake.NOW)
    json = render.wait_result(result, Contract.V0_8_0)
    conforms(json, notifications.WaitNotificationResponse)
    assert [event["type"] for event in json["notifications"]] == ["movement-created", "movement-updated"]
    assert json["last_pushed_at"] == "2026-06-01T12:00:00.123456Z"
    assert render.notification(ChannelLagging(), Contract.V0_8_0) == {"type": "channel-lagging"}
    assert render.wait_result(WaitResult((), None), Contract.V0_8_0)["last_pushed_at"] is None


async def test_onchain_answers_have_the_documented_form() -> None:
    wallet_ = fake.FakeOnchain()
    wallet_.fund(5_000)
    conforms(render.onchain_balance(await wallet_.balance()), onchain.OnchainBalance)
    conforms(render.utxo((await wallet_.utxos())[0]), onchain.UtxoInfo)
    incoming = render.wallet_tx((await wallet_.transactions())[0])
    conforms(incoming, onchain.WalletTxInfo)
    assert "onchain_fee_sat" not in incoming
    assert incoming["confirmation"]["height"] == 101
    own = fake.OnchainTx(fake.some_tx(9, TxOut(1, b"")), 300, -5_300, None)
    assert render.wallet_tx(own)["onchain_fee_sat"] == 300
    assert render.wallet_tx(own)["confirmation"] is None
    block = BlockRef(5, BlockHash(bytes(31) + b"\x01"))
    assert render.block_ref(block) == {"height": 5, "hash": "01" + "00" * 31}


async def test_boards_and_fees_have_the_documented_form() -> None:
    wallet_ = fake.FakeWallet()
    assert wallet_.onchain is not None
    wallet_.onchain.fund(1_000_000)
    conforms(render.pending_board(await wallet_.board_amount(600_000)), boards.PendingBoardInfo)
    estimate = render.fee_estimate(await wallet_.estimate_board_fee(600_000))
    conforms(estimate, fees.FeeEstimateResponse)
    assert estimate == {
        "gross_amount_sat": 600_000, "fee_sat": 700, "net_amount_sat": 599_300, "vtxos_spent": [],
    }  # fmt: skip


async def test_fee_rates_are_rounded_up_to_whole_satoshis() -> None:
    json = render.fee_rates(await fake.FakeWallet().fee_rates())
    conforms(json, fees.OnchainFeeRatesResponse)
    assert json == {"fast_sat_per_vb": 6, "regular_sat_per_vb": 3, "slow_sat_per_vb": 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (1, "1s"), (30, "30s"), (60, "1m"), (90, "1m 30s"), (3600, "1h"), (5400, "1h 30m"),
        (86_400, "1day"), (172_800, "2days"), (2_630_016, "1month"), (31_557_600, "1year"),
    ],
)  # fmt: skip
def test_durations(seconds: int, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [(0, "10:00:00Z"), (500_000, "10:00:00.500Z"), (123_456, "10:00:00.123456Z"), (1, "10:00:00.000001Z")],
)
def test_timestamps_are_utc_with_the_shortest_fraction(microsecond: int, text: str) -> None:
    moment = datetime(2026, 6, 1, 12, 0, 0, microsecond, timezone(timedelta(hours=2)))
    assert render.timestamp(moment) == f"2026-06-01T{text}"
    assert render.timestamp(moment.astimezone(UTC)) == f"2026-06-01T{text}"


@pytest.mark.parametrize(
    ("user_agent", "contract"),
    [
        ("OpenAPI-Generator/0.1.4/python", Contract.V0_1_4),
        ("OpenAPI-Generator/0.5.9/typescript", Contract.V0_1_4),
        ("OpenAPI-Generator/0.6.0/python", Contract.V0_8_0),
        ("OpenAPI-Generator/0.8.0/python", Contract.V0_8_0),
        ("OpenAPI-Generator/1.0.0/rust", Contract.V0_8_0),
        ("curl/8.0", Contract.UNSTATED),
        ("", Contract.UNSTATED),
    ],
)
def test_generated_clients_name_their_version(user_agent: str, contract: Contract) -> None:
    assert contract_of(user_agent) is contract
