"""Amounts as text, fee rates and their rounding, networks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.tx import BlockHash
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network, format_btc


# Source: sheet 03 §0; sheet 07 §14.
@pytest.mark.parametrize(
    ("amount_sat", "text"),
    [
        (0, "0 BTC"),
        (1, "0.00000001 BTC"),
        (30_000, "0.00030000 BTC"),
        (100_000_000, "1 BTC"),
        (200_000_000, "2 BTC"),
        (100_000_001, "1.00000001 BTC"),
        (2**64 - 1, "184467440737.09551615 BTC"),
        (-1_500, "-0.00001500 BTC"),
    ],
)
def test_amounts_in_messages(amount_sat: int, text: str) -> None:
    assert format_btc(amount_sat) == text


# Source: sheet 06 §0; sheet 07 §14.
@pytest.mark.parametrize(
    ("sat_per_kvb", "sat_per_kwu"), [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (2_000, 500)]
)
def test_rates_per_kvb_are_rounded_up(sat_per_kvb: int, sat_per_kwu: int) -> None:
    assert FeeRate.from_sat_per_kvb(sat_per_kvb) == FeeRate(sat_per_kwu)


@pytest.mark.parametrize(
    ("sat_per_vb", "sat_per_kwu"), [(1.0, 250), (0.001, 1), (2.0001, 501), (-0.001, 0), (0.0, 0)]
)
def test_decimal_rates_are_rounded_up(sat_per_vb: float, sat_per_kwu: int) -> None:
    assert FeeRate.from_sat_per_vb(sat_per_vb) == FeeRate(sat_per_kwu)


@pytest.mark.parametrize("sat_per_vb", [-1.0, -0.004, math.nan, math.inf, -math.inf, 1e300, 1e308])
def test_impossible_rates_are_refused(sat_per_vb: float) -> None:
    with pytest.raises(ValueError, match="fee rate"):
        FeeRate.from_sat_per_vb(sat_per_vb)


def test_a_fee_is_that_of_upstream() -> None:
    """Source: sheet 06 §8.1."""
    assert FeeRate(2_500).fee_wu(1_105) == 2_763


@given(rate=st.integers(0, 10**7), weight_wu=st.integers(0, 4_000_000))
def test_a_fee_never_falls_short_by_a_satoshi(rate: int, weight_wu: int) -> None:
    fee_sat = FeeRate(rate).fee_wu(weight_wu)
    assert 1_000 * (fee_sat - 1) < rate * weight_wu <= 1_000 * fee_sat


@pytest.mark.parametrize(("sat_per_kwu", "shown"), [(0, 0), (1, 1), (250, 1), (251, 2), (1_250, 5)])
def test_shown_rates_are_rounded_up(sat_per_kwu: int, shown: int) -> None:
    assert FeeRate(sat_per_kwu).sat_per_vb_ceil == shown


# Source: sheet 02 §1.4.
@pytest.mark.parametrize(
    ("network", "bitcoin_name", "onchain_hrp"),
    [
        (Network.MAINNET, "bitcoin", "bc"),
        (Network.SIGNET, "signet", "tb"),
        (Network.MUTINYNET, "signet", "tb"),
        (Network.REGTEST, "regtest", "bcrt"),
    ],
)
def test_networks(network: Network, bitcoin_name: str, onchain_hrp: str) -> None:
    assert (network.bitcoin_name, network.onchain_hrp) == (bitcoin_name, onchain_hrp)
    assert Network.from_bitcoin_name(bitcoin_name).bitcoin_name == bitcoin_name


def test_mainnet_is_not_bitcoins_name() -> None:
    with pytest.raises(ValueError, match="unknown network: mainnet"):
        Network.from_bitcoin_name("mainnet")


def test_a_block_as_text() -> None:
    block = BlockRef(123, BlockHash(bytes(range(32))))
    assert str(block) == "123:" + bytes(range(32))[::-1].hex()
    assert BlockRef.parse(str(block)) == block


@pytest.mark.parametrize("text", ["", "123", ":" + "00" * 32, "-1:" + "00" * 32, "1:zz", "1:" + "00" * 31])
def test_what_is_no_block(text: str) -> None:
    with pytest.raises(ValueError):
        BlockRef.parse(text)
