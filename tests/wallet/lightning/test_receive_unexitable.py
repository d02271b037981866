"""A server that grants what could never be taken on chain does not get the preimage. Source: sheet 05 §9."""

from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.lightning_receive import MAX_GRANT_DEPTH, MAX_STUCK_SAT, ClaimWindow, GrantRefused
from barkd_py.ark.policy import ServerHtlcReceivePolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.tx import TxOut
from tests.wallet.lightning.receiver import Receiver
from tests.wallet.samples import vtxo_of_depth

WINDOW = ClaimWindow(exit_margin=12, claim_delta=18)


async def refuses(receiver: Receiver, payment_hash: bytes, complaint: str) -> None:
    with pytest.raises(GrantRefused, match=complaint):
        await receiver.drive(payment_hash)
    assert receiver.server.preimages == []
    assert receiver.liar.calls["claim_lightning_receive"] == 0


def grant_in_pieces(receiver: Receiver, payment_hash: bytes, dust: list[int]) -> None:
    """Grant the amount as these pieces, and the rest in one."""
    server = receiver.server

    def lie(grant: Any) -> Any:
        (vtxo,) = grant.htlc_vtxos
        rest_sat = vtxo.amount_sat - sum(dust)
        vtxos = server.htlcs(vtxo.policy, [*dust, rest_sat] if rest_sat else dust)
        server.subscriptions[payment_hash].htlcs = vtxos
        return replace(grant, htlc_vtxos=vtxos)

    receiver.liar.lies["prepare_lightning_receive_claim"] = lie


async def test_a_grant_of_nothing_but_dust(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    grant_in_pieces(receiver, payment_hash, [*[329] * 30, 10])
    await refuses(receiver, payment_hash, "9880 of the 9880 sat granted cannot exit")


@pytest.mark.parametrize(("dust", "is_taken"), [([329, 329], True), ([329, 329, 3], False)])
async def test_a_little_dust_is_borne(receiver: Receiver, dust: list[int], is_taken: bool) -> None:
    assert (sum(dust) <= MAX_STUCK_SAT) is is_taken
    payment_hash = await receiver.paid_invoice()
    grant_in_pieces(receiver, payment_hash, dust)
    if is_taken:
        await receiver.drive(payment_hash)
        assert (await receiver.receives.find(payment_hash)).state == "settled"
    else:
        await refuses(receiver, payment_hash, "661 of the 9880 sat granted cannot exit")


async def test_a_chain_that_would_take_for_ever(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()

    def lie(grant: Any) -> Any:
        (vtxo,) = grant.htlc_vtxos
        return replace(grant, htlc_vtxos=(replace(vtxo, genesis=vtxo.genesis[:1] * (MAX_GRANT_DEPTH + 1)),))

    receiver.liar.lies["prepare_lightning_receive_claim"] = lie
    await refuses(receiver, payment_hash, "26 exit transactions, which is too many")


async def test_transactions_that_no_node_relays(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    data = TxOut(0, b"\x6a\x01a")

    def lie(grant: Any) -> Any:
        (vtxo,) = grant.htlc_vtxos
        first = replace(vtxo.genesis[0], siblings=(*vtxo.genesis[0].siblings, data, data))
        return replace(grant, htlc_vtxos=(replace(vtxo, genesis=(first, *vtxo.genesis[1:])),))

    receiver.liar.lies["prepare_lightning_receive_claim"] = lie
    await refuses(receiver, payment_hash, "9880 of the 9880 sat granted cannot exit")


def htlc_of_depth(depth: int, *, expiry_height: int, tree_expiry: int) -> Vtxo:
    base = vtxo_of_depth(1)
    policy = ServerHtlcReceivePolicy(base.user_pubkey, bytes(32), expiry_height, 40)
    return replace(
        base, policy=policy, exit_delta=144, expiry_height=tree_expiry, genesis=base.genesis[:1] * depth
    )


@pytest.mark.parametrize(("depth", "blocks"), [(1, 12), (6, 12), (7, 13), (20, 26)])
def test_longer_chains_take_longer(depth: int, blocks: int) -> None:
    """144 + 40 + 18, and the blocks that the chain takes."""
    htlc = htlc_of_depth(depth, expiry_height=100 + 202 + blocks, tree_expiry=1_000)
    assert WINDOW.is_open(htlc, 100)
    assert not WINDOW.is_open(htlc, 101)
    htlc = htlc_of_depth(depth, expiry_height=1_000, tree_expiry=100 + blocks)
    assert WINDOW.is_open(htlc, 100)
    assert not WINDOW.is_open(htlc, 101)
