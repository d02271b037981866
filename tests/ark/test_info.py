"""Which self-descriptions of a server are refused, and why."""

from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.fees import (
    BoardFees,
    FeeSchedule,
    LightningReceiveFees,
    LightningSendFees,
    OffboardFees,
    RefreshFees,
)
from barkd_py.ark.info import (
    ArkInfo,
    BadArkInfo,
    UnsafeServer,
    check_safety,
    is_safe_exit_delta,
)
from barkd_py.ark.policy import MAX_DELTA
from barkd_py.bitcoin.keys import SecretKey

FREE = FeeSchedule(
    BoardFees(0, 0, 0),
    OffboardFees(0, 0, ()),
    RefreshFees(0, ()),
    LightningReceiveFees(0, 0),
    LightningSendFees(0, 0, ()),
)
SAFE = ArkInfo(
    network="bitcoin",
    server_pubkey=SecretKey(bytes([1] * 32)).public_key,
    mailbox_pubkey=SecretKey(bytes([2] * 32)).public_key,
    round_interval_secs=30,
    nb_round_nonces=8,
    vtxo_exit_delta=144,
    vtxo_lifetime=4320,
    htlc_send_expiry_delta=258,
    htlc_expiry_delta=40,
    max_vtxo_amount_sat=None,
    required_board_confirmations=3,
    max_user_invoice_cltv_delta=250,
    min_board_amount_sat=20_000,
    offboard_fee_rate_sat_per_kvb=7000,
    ln_receive_anti_dos_required=False,
    fees=FREE,
    max_vtxo_exit_depth=100,
    max_offboard_inputs=100,
)


def changed(fields: dict[str, Any]) -> ArkInfo:
    return replace(SAFE, **fields)


DELTAS = (
    "vtxo_exit_delta",
    "vtxo_lifetime",
    "htlc_send_expiry_delta",
    "htlc_expiry_delta",
    "required_board_confirmations",
    "max_user_invoice_cltv_delta",
)


@pytest.mark.parametrize("field", DELTAS)
def test_a_delta_that_could_overflow_heights_is_refused(field: str) -> None:
    assert getattr(changed({field: MAX_DELTA}), field) == 16_383
    for delta in (MAX_DELTA + 1, 2**32 - 1):
        with pytest.raises(BadArkInfo, match=rf"^invalid {field}$"):
            changed({field: delta})


@pytest.mark.parametrize("network", ["", "mainnet", "mutinynet", "Bitcoin"])
def test_the_network_has_one_of_bitcoins_own_names(network: str) -> None:
    with pytest.raises(BadArkInfo, match=r"^invalid network$"):
        replace(SAFE, network=network)


def test_the_exit_depth_has_16_bits() -> None:
    assert replace(SAFE, max_vtxo_exit_depth=65_535).max_vtxo_exit_depth == 65_535
    with pytest.raises(BadArkInfo, match=r"^invalid max_vtxo_exit_depth$"):
        replace(SAFE, max_vtxo_exit_depth=65_536)


@pytest.mark.parametrize(
    ("exit_delta", "is_safe", "is_safe_on_mainnet"),
    [
        (0, False, False),
        (1, True, False),
        (95, True, False),
        (96, True, True),
        (2_016, True, True),
        (2_017, False, False),
    ],
)
def test_which_exit_deltas_a_wallet_may_have_agreed_to(
    exit_delta: int, is_safe: bool, is_safe_on_mainnet: bool
) -> None:
    assert is_safe_exit_delta(exit_delta, is_mainnet=False) is is_safe
    assert is_safe_exit_delta(exit_delta, is_mainnet=True) is is_safe_on_mainnet


@pytest.mark.parametrize("network", ["bitcoin", "regtest"])
@pytest.mark.parametrize("field", ["vtxo_exit_delta", "nb_round_nonces"])
def test_a_server_without_exit_delta_or_nonces_is_never_safe(network: str, field: str) -> None:
    info = changed({"network": network, field: 0})
    with pytest.raises(UnsafeServer) as refused:
        check_safety(info)
    assert str(refused.value) == f"server-advertised {field} is 0; refusing to connect"


UNSAFE_ON_MAINNET: list[tuple[dict[str, Any], str]] = [
    ({"vtxo_exit_delta": 95}, "vtxo_exit_delta 95 is below the mainnet minimum of 96 blocks"),
    ({"max_vtxo_exit_depth": 19}, "max_vtxo_exit_depth 19 is below the minimum of 20"),
    ({"nb_round_nonces": 17}, "nb_round_nonces 17 exceeds cap 16"),
    (
        {"vtxo_lifetime": 15},
        "vtxo_lifetime 15 is unsafe (minimum > 15 = required_board_confirmations 3 + vtxo_exit_margin 12)",
    ),
]


@pytest.mark.parametrize(("change", "reason"), UNSAFE_ON_MAINNET)
def test_unsafe_terms_are_refused_on_mainnet_only(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsafeServer) as refused:
        check_safety(replace(SAFE, **change))
    assert str(refused.value) == f"server-advertised {reason}; refusing to connect"
    check_safety(replace(SAFE, network="signet", **change))


@pytest.mark.parametrize("network", ["bitcoin", "regtest"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vtxo_exit_delta": 2017}, "vtxo_exit_delta 2017 is above the maximum of 2016 blocks"),
        ({"max_vtxo_exit_depth": 1}, "max_vtxo_exit_depth 1 is below the minimum of"),
    ],
)
def test_terms_that_hold_money_up_are_refused_everywhere(
    network: str, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsafeServer, match=reason):
        check_safety(replace(SAFE, network=network, **change))


TERMS_AT_THE_LIMIT: list[dict[str, Any]] = [
    {"vtxo_exit_delta": 96},
    {"vtxo_exit_delta": 2016},
    {"nb_round_nonces": 16},
    {"vtxo_lifetime": 16},
    {"max_vtxo_exit_depth": 20},
    {"max_vtxo_exit_depth": 2, "network": "regtest"},
]


@pytest.mark.parametrize("change", TERMS_AT_THE_LIMIT)
def test_terms_at_the_limit_are_safe(change: dict[str, Any]) -> None:
    check_safety(replace(SAFE, **change))


def test_the_exit_margin_is_the_wallets_own() -> None:
    with pytest.raises(UnsafeServer, match="vtxo_exit_margin 5000"):
        check_safety(SAFE, vtxo_exit_margin=5000)
