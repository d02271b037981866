"""When a round's funding transaction is deep enough to forfeit for, and what is looked at once more before.

Source: sheet 04 §18.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.rounds import RoundRejected
from barkd_py.ark.validation import TransitionInvalid
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import Confirmed, Mempool, NotFound, TxStatus
from barkd_py.errors import ServerUnavailable
from barkd_py.wallet.rounds.states import Issued, Output, Round
from barkd_py.wallet.rounds.swap import SwapLimits, Swapper, _verify_before_forfeiting
from barkd_py.wallet.store import Store
from tests.ark.test_rounds import (
    FINISHED,
    LOCKED,
    OTHERS,
    OUTPUT,
    SPEC,
    STRANGER,
    honest_tree_with,
    leaf,
    signed_by_both,
    signed_leaf,
)
from tests.ark.worked_examples import UNLOCK_HASH, USER
from tests.wallet.samples import insert, vtxo_of_depth

FUNDING = Tx(2, (TxIn(OutPoint(Txid(bytes([8] * 32)), 1)),), (TxOut(10_000, b"\x51"),))
TIP_HEIGHT = 200


def block(height: int) -> BlockRef:
    return BlockRef(height, BlockHash(height.to_bytes(32, "big")))


@dataclass
class Chain:
    """Knows one transaction. broadcasts: what it was given."""

    status: TxStatus
    broadcasts: int = 0

    async def tip(self) -> BlockRef:
        return block(TIP_HEIGHT)

    async def tx_status(self, txid: Txid) -> TxStatus:
        assert txid == FUNDING.txid
        return self.status

    async def broadcast(self, tx: Tx) -> None:
        assert tx == FUNDING
        self.broadcasts += 1


async def is_deep(chain: Chain, required: int) -> bool:
    unused: Any = None
    asked: Any = chain
    return await Swapper(unused, unused, asked, unused, SwapLimits(required, 12)).is_deep(FUNDING)


@pytest.mark.parametrize(
    ("required", "last_height"), [(0, TIP_HEIGHT), (1, TIP_HEIGHT), (2, 199), (3, 198), (6, 195)]
)
async def test_the_block_that_it_is_in_is_its_first_confirmation(required: int, last_height: int) -> None:
    for height in range(last_height - 3, TIP_HEIGHT + 1):
        assert await is_deep(Chain(Confirmed(block(height))), required) is (height <= last_height), height


@pytest.mark.parametrize(("required", "is_enough"), [(0, True), (1, False), (2, False)])
async def test_the_mempool_is_enough_only_if_nothing_is_asked_for(required: int, is_enough: bool) -> None:
    assert await is_deep(Chain(Mempool()), required) is is_enough


@pytest.mark.parametrize("required", [0, 1])
async def test_one_that_nobody_has_is_broadcast_and_looked_at_again_later(required: int) -> None:
    chain = Chain(NotFound())
    assert not await is_deep(chain, required)
    assert chain.broadcasts == 1


# --- once more before forfeiting, however the leaf came to us


def issued(funding: Tx = FINISHED.funding, unlock_hash: bytes = UNLOCK_HASH) -> Issued:
    return Issued(unlock_hash, funding, (), is_delegated=True)


def test_a_signed_leaf_that_hangs_on_our_hash_is_forfeited_for() -> None:
    _verify_before_forfeiting(signed_leaf(), issued())


def test_a_leaf_on_another_hash_is_not() -> None:
    with pytest.raises(RoundRejected, match="locked to another hash"):
        _verify_before_forfeiting(signed_leaf(), issued(unlock_hash=sha256(b"another")))


def test_a_leaf_that_opens_to_another_key_is_not() -> None:
    foreign = replace(leaf(OUTPUT), policy=PubkeyPolicy(STRANGER.public_key), cosign_pubkey=None)
    vtxo, funding = honest_tree_with(replace(SPEC, leaves=(*OTHERS, foreign)))
    swapped = signed_by_both(replace(vtxo, policy=OUTPUT.policy).with_computed_point(), STRANGER)
    with pytest.raises(RoundRejected, match="another key than its policy"):
        _verify_before_forfeiting(swapped, issued(funding))


def test_a_leaf_of_a_tree_at_another_output_is_not() -> None:
    vtxo, funding = honest_tree_with(
        replace(SPEC, leaves=(*OTHERS, replace(leaf(OUTPUT), cosign_pubkey=None))), vout=1
    )
    with pytest.raises(RoundRejected, match="not anchored"):
        _verify_before_forfeiting(signed_by_both(vtxo), issued(funding))


def test_a_leaf_without_its_signature_is_not() -> None:
    with pytest.raises(TransitionInvalid, match="missing signature"):
        _verify_before_forfeiting(LOCKED, issued())


class ForfeitServer:
    """Cosigns nothing. asked_to_forfeit: whether it was asked for the nonces to do it."""

    def __init__(self) -> None:
        self.asked_to_forfeit = False

    async def register_vtxo_transactions(self, _: object) -> None:
        pass

    async def request_forfeit_nonces(self, *_: object) -> None:
        self.asked_to_forfeit = True
        raise ServerUnavailable("that is far enough")


class Keys:
    async def secrets_for(self, pubkeys: object) -> tuple[()]:
        return ()


@pytest.mark.parametrize(("beside_sat", "can_exit"), [(330, True), (329, False)])
async def test_a_leaf_that_nodes_would_not_relay_is_not(
    sqlite_store: Store, beside_sat: int, can_exit: bool
) -> None:
    """All of it is rightly signed; it is what hangs beside it in the tree that would keep it there."""
    ours = replace(leaf(OUTPUT), cosign_pubkey=None)
    beside = replace(OTHERS[0], amount_sat=beside_sat, unlock_hash=sha256(b"beside"))
    vtxo, funding = honest_tree_with(replace(SPEC, leaves=(*OTHERS, ours, beside, beside)))
    state = replace(issued(funding), vtxos=(signed_by_both(vtxo),))
    inputs = await insert(sqlite_store, vtxo_of_depth(1))
    round_ = Round(inputs, (Output(OUTPUT.amount_sat, USER),), state)
    server = ForfeitServer()
    asked: Any = server
    chain: Any = Chain(Confirmed(block(TIP_HEIGHT)))
    keys: Any = Keys()
    swapper = Swapper(sqlite_store, asked, chain, keys, SwapLimits(0, 12))
    with pytest.raises(
        ServerUnavailable if can_exit else RoundRejected, match=r"far enough|not relay the exit"
    ):
        await swapper.prepare(round_, state)
    assert server.asked_to_forfeit is can_exit
