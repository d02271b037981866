"""What must be true before a preimage goes out. The lies of a server are in tests/wallet/lightning."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.info import ArkInfo
from barkd_py.ark.lightning_receive import (
    ClaimWindow,
    CltvTooLarge,
    GrantRefused,
    Preimage,
    grant_expiry_height,
    htlc_of,
)
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcReceivePolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from tests.fakes.lightning_server import INFO
from tests.wallet.samples import vtxo_of_depth

WINDOW = ClaimWindow(exit_margin=12, claim_delta=18)
USER = SecretKey(b"\x61" * 32).public_key


def htlc(*, expiry_height: int, delta: int, exit_delta: int, tree_expiry: int) -> Vtxo:
    """An HTLC VTXO of these terms; there is no chain behind it."""
    policy = ServerHtlcReceivePolicy(USER, bytes(32), expiry_height, delta)
    return replace(vtxo_of_depth(1), policy=policy, exit_delta=exit_delta, expiry_height=tree_expiry)


def info(**changes: int) -> ArkInfo:
    deltas = {"vtxo_exit_delta": 144, "htlc_expiry_delta": 40, "max_user_invoice_cltv_delta": 250}
    return replace(INFO, **{**deltas, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("maximum", "asked"),
    [(216, 216), (217, 217), (233, 233), (234, 234), (235, 234), (250, 234)],
)
def test_as_much_time_is_asked_for_as_is_useful_and_allowed(maximum: int, asked: int) -> None:
    """144 to exit, 40 of the HTLC, 12 and 18 of margins, 2 until the grant; and up to 18 until the claim."""
    assert WINDOW.min_cltv_delta(info(max_user_invoice_cltv_delta=maximum)) == asked


def test_too_little_time_is_refused() -> None:
    with pytest.raises(CltvTooLarge) as refusal:
        WINDOW.min_cltv_delta(info(max_user_invoice_cltv_delta=215))
    assert (refusal.value.needed, refusal.value.maximum) == (216, 215)


@given(tip=st.integers(0, 400_000_000), maximum=st.integers(216, 16_383), blocks=st.integers(0, 40))
def test_the_window_is_open_for_the_blocks_that_were_asked_for(tip: int, maximum: int, blocks: int) -> None:
    """A grant of what we ask for, to the block."""
    server = info(max_user_invoice_cltv_delta=maximum)
    cltv_delta = WINDOW.min_cltv_delta(server)
    vtxo = htlc(
        expiry_height=grant_expiry_height(tip, cltv_delta),
        delta=server.htlc_expiry_delta,
        exit_delta=server.vtxo_exit_delta,
        tree_expiry=tip + 1_000,
    )
    assert WINDOW.is_open(vtxo, tip + blocks) == (blocks <= cltv_delta - 216)


@pytest.mark.parametrize(("expiry_height", "is_open"), [(314, True), (313, False)])
def test_the_last_block_of_the_window(expiry_height: int, is_open: bool) -> None:
    """100 + 144 + 40 + 12 + 18"""
    vtxo = htlc(expiry_height=expiry_height, delta=40, exit_delta=144, tree_expiry=1_000)
    assert WINDOW.is_open(vtxo, 100) is is_open
    if not is_open:
        with pytest.raises(GrantRefused, match="leave no time"):
            WINDOW.verify(vtxo, 100)


@pytest.mark.parametrize(("tree_expiry", "is_open"), [(112, True), (111, False)])
def test_the_tree_must_outlive_the_exit(tree_expiry: int, is_open: bool) -> None:
    vtxo = htlc(expiry_height=1_000, delta=40, exit_delta=144, tree_expiry=tree_expiry)
    assert WINDOW.is_open(vtxo, 100) is is_open


@pytest.mark.parametrize(("tip", "can_win"), [(99, True), (100, False)])
def test_an_exit_wins_if_its_delay_ends_before_the_expiry(tip: int, can_win: bool) -> None:
    """At height 100 our delay of 184 ends when the server's clause opens."""
    vtxo = htlc(expiry_height=284, delta=40, exit_delta=144, tree_expiry=1_000)
    assert WINDOW.can_win(vtxo, tip) is can_win


def test_an_exit_cannot_win_after_the_tree_has_expired() -> None:
    vtxo = htlc(expiry_height=1_000, delta=40, exit_delta=144, tree_expiry=100)
    assert WINDOW.can_win(vtxo, 99)
    assert not WINDOW.can_win(vtxo, 100)


def test_an_ordinary_coin_is_no_htlc() -> None:
    vtxo = replace(vtxo_of_depth(1), policy=PubkeyPolicy(USER))
    with pytest.raises(GrantRefused, match="invalid HTLC VTXO policy: pubkey"):
        htlc_of(vtxo)


class TestPreimage:
    def test_its_hash_is_sha256(self) -> None:
        assert Preimage(b"\x42" * 32).payment_hash.hex() == (
            "425ed4e4a36b30ea21b90e21c712c649e8214c29b7eaf68089d1039c6e55384c"
        )

    def test_it_is_never_the_same(self) -> None:
        assert Preimage.generate() != Preimage.generate()

    def test_it_does_not_show_itself(self) -> None:
        preimage = Preimage(bytes(range(32)))
        for text in (repr(preimage), str(preimage), f"{preimage}", f"{preimage!r}", f"{[preimage]}"):
            assert preimage.data.hex() not in text
            assert repr(preimage.data)[2:-1] not in text

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_it_has_32_bytes(self, length: int) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            Preimage(bytes(length))
