"""A server that lies to a payer: each line of what a client must verify, sheet 05 §9, and sheet 02.

Whatever it says, it gets no HTLC for nothing, and nothing counts as paid, or as ours, that is not.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from barkd_py.ark.vtxo import VtxoInvalid
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.errors import BarkdError, ProtocolViolation, ServerUnavailable, chain_text
from barkd_py.server_rpc.api import ArkoorCosignature, PaymentSucceeded
from barkd_py.wallet.actions.bad_answers import MAX_BAD_ANSWERS
from barkd_py.wallet.lightning.send.states import Initiated, Locked, Stuck
from barkd_py.wallet.vtxo_states import StateKind
from tests.fakes.pay_server import Attempt
from tests.wallet.lightning.payer import PREIMAGE, Payer, bolt11
from tests.wallet.lightning.test_send import AMOUNT_SAT, COIN_SAT, FEE_SAT, HASH, assert_paid, assert_refunded

Cosignatures = tuple[ArkoorCosignature, ...]


def another_nonce(answer: Cosignatures) -> Cosignatures:
    first = answer[0]
    nonces = (SecretKey(b"\x01" * 32).public_key.data * 2, *first.pub_nonces[1:])
    return (replace(first, pub_nonces=nonces), *answer[1:])


def another_signature(answer: Cosignatures) -> Cosignatures:
    first = answer[0]
    flipped = bytes([first.partial_sigs[0][0] ^ 1]) + first.partial_sigs[0][1:]
    return (replace(first, partial_sigs=(flipped, *first.partial_sigs[1:])), *answer[1:])


def last_signature_wrong(answer: Cosignatures) -> Cosignatures:
    """The first ones are right, so a client that signs as it goes has signed something."""
    last = answer[-1]
    return (*answer[:-1], replace(last, partial_sigs=(*last.partial_sigs[:-1], b"\x02" * 32)))


def one_missing(answer: Cosignatures) -> Cosignatures:
    first = answer[0]
    return (
        replace(first, pub_nonces=first.pub_nonces[:-1], partial_sigs=first.partial_sigs[:-1]),
        *answer[1:],
    )


def none_at_all(_: Cosignatures) -> Cosignatures:
    return ()


LIES: list[Callable[[Cosignatures], Cosignatures]] = [
    another_nonce,
    another_signature,
    last_signature_wrong,
    one_missing,
    none_at_all,
]


# --- cosigned HTLCs


@pytest.mark.parametrize("lie", LIES)
async def test_htlcs_that_are_not_cosigned_are_not_paid_with(
    payer: Payer, lie: Callable[[Cosignatures], Cosignatures]
) -> None:
    payer.liar.lies["request_lightning_pay_htlc_cosign"] = lie
    with pytest.raises(ProtocolViolation):
        await payer.pay()
    state = await payer.state()
    assert isinstance(state, Locked)
    assert state.bad_answers == 1
    assert payer.liar.calls["initiate_lightning_payment"] == 0

    payer.liar.lies.clear()
    await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_server_that_never_cosigns_right_has_its_books_looked_at(payer: Payer) -> None:
    """It has booked the HTLCs, so the inputs are not free: they stay until it is mended."""
    payer.liar.lies["request_lightning_pay_htlc_cosign"] = another_signature
    for _ in range(MAX_BAD_ANSWERS + 1):
        with pytest.raises(BarkdError):
            await (payer.drive() if await payer.state() else payer.pay())
    assert isinstance(await payer.state(), Locked)
    assert len(await payer.vtxos(StateKind.LOCKED)) == 1
    payer.liar.lies.clear()
    await payer.drive()
    assert isinstance(await payer.state(), Initiated)


async def test_a_server_that_never_cosigned_loses_the_payment(payer: Payer) -> None:
    """Nothing is in its books: the inputs are free."""

    async def make_up(parts: object) -> Cosignatures:
        return ()

    payer.liar.answers["request_lightning_pay_htlc_cosign"] = make_up
    for _ in range(MAX_BAD_ANSWERS):
        with pytest.raises(ProtocolViolation):
            await (payer.drive() if await payer.state() else payer.pay())
    await assert_refunded(payer)


async def test_an_anchor_that_is_not_what_the_vtxo_says_is_no_proof(payer: Payer) -> None:
    """The chain below the inputs is proven again, with what the chain source says."""
    (txid,) = payer.server.chain.txs
    real = payer.server.chain.txs[txid]
    payer.server.chain.txs[txid] = replace(real, outputs=(replace(real.outputs[0], value_sat=1),))
    # The server's own look at the chain must not be what refuses.
    payer.liar.answers["register_vtxo_transactions"] = _nothing
    with pytest.raises(ProtocolViolation):
        await payer.pay()
    assert payer.liar.calls["initiate_lightning_payment"] == 0
    assert await payer.name() == "inputs-locked"


async def _nothing(_: object) -> None:
    pass


# --- preimages


@pytest.mark.parametrize("preimage", [b"\x00" * 32, HASH, PREIMAGE[:31] + b"\x00"])
async def test_a_wrong_preimage_settles_nothing(payer: Payer, preimage: bytes) -> None:
    await payer.pay()
    payer.server.attempt(HASH).status = PaymentSucceeded(preimage)
    await payer.drive()
    assert await payer.name() == "payment-initiated"
    assert (await payer.balance()).pending_lightning_send_sat == AMOUNT_SAT + FEE_SAT


@pytest.mark.parametrize("preimage", [b"\x00" * 32, b"", b"\x01" * 33])
async def test_a_wrong_preimage_in_the_mailbox_settles_nothing(payer: Payer, preimage: bytes) -> None:
    await payer.pay()
    await payer.sends.on_finished(HASH, preimage)
    await payer.sends.poller.drive_all()
    assert await payer.name() == "payment-initiated"
    payer.server.settle(PREIMAGE)  # it does not stand in the way of the right one
    await payer.drive()
    await assert_paid(payer)


@pytest.mark.parametrize("preimage", [bytes(32), PREIMAGE[:31], b""], ids=["other", "short", "none"])
async def test_a_wrong_preimage_that_somebody_noted_settles_nothing(payer: Payer, preimage: bytes) -> None:
    """Whoever noted it has looked at it; so does who settles."""
    await payer.pay()
    payer.machine.note_preimage(HASH, preimage)
    await payer.sends.poller.drive_all()
    assert await payer.name() == "payment-initiated"


async def test_what_comes_back_is_proven_before_it_counts(
    payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked HTLCs that cannot be proven are not had: the HTLCs stay, to be asked for again."""
    await payer.pay()
    payer.server.fail(HASH)

    async def disproved(_: object) -> None:
        raise VtxoInvalid("the VTXO is invalid: so it is said")

    with monkeypatch.context() as broken:
        broken.setattr(payer.machine._anchors, "validate", disproved)
        with pytest.raises(VtxoInvalid):
            await payer.drive()
    assert isinstance(await payer.state(), Stuck)
    await payer.drive()
    await assert_refunded(payer)


async def test_what_is_paid_while_a_payment_begins_is_not_paid_again(payer: Payer) -> None:
    """The record is looked at once more when the inputs are taken."""

    async def paid_meanwhile() -> object:
        async with payer.store.transaction() as tx:
            await tx.lightning.record_paid(HASH, PREIMAGE)
        return await payer.server.info()

    payer.liar.answers["info"] = paid_meanwhile
    with pytest.raises(BarkdError, match=r"^Invoice has already been paid$"):
        await payer.pay()
    assert payer.server.attempts == {}
    assert await payer.movements() == []


async def test_a_wrong_preimage_in_a_refusal_settles_nothing(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)

    async def refuse(_: object) -> None:
        raise ServerUnavailable(f"invoice has already been paid, preimage: {'00' * 32}")

    payer.liar.answers["request_lightning_pay_htlc_revocation"] = refuse
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert isinstance(await payer.state(), Stuck)


async def test_success_with_a_wrong_preimage_until_the_end_is_a_failure(payer: Payer) -> None:
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    payer.server.attempts[HASH] = [
        Attempt(state.payment.invoice, AMOUNT_SAT, state.htlc_ids, None, None, PaymentSucceeded(b"\x00" * 32))
    ]
    payer.server.chain.height = state.payment.htlc_expiry_height - 11

    async def refuse(_: object) -> None:
        raise ServerUnavailable("no")

    payer.liar.answers["request_lightning_pay_htlc_revocation"] = refuse
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert await payer.name() == "revocation-stuck"
    payer.server.chain.height = state.payment.htlc_expiry_height + 7
    await payer.drive()
    assert payer.exits.started == list(state.htlc_ids)


async def test_a_preimage_before_the_htlcs_exist_pays_nothing(payer: Payer) -> None:
    """Somebody else may have paid the invoice; it is not our money that did."""
    payer.server.away.add("request_lightning_pay_htlc_cosign")
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    await payer.sends.on_finished(HASH, PREIMAGE)
    await payer.sends.poller.drive_all()
    assert isinstance(await payer.state(), Locked)


# --- revocation


@pytest.mark.parametrize("lie", LIES)
async def test_a_revocation_that_is_not_cosigned_gives_nothing_up(
    payer: Payer, lie: Callable[[Cosignatures], Cosignatures]
) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    payer.liar.lies["request_lightning_pay_htlc_revocation"] = lie
    with pytest.raises(ProtocolViolation):
        await payer.drive()
    assert isinstance(await payer.state(), Stuck)
    htlc_ids = set(payer.server.attempt(HASH).htlc_ids)
    assert {vtxo.id for vtxo in await payer.vtxos(StateKind.LOCKED)} == htlc_ids
    payer.liar.lies.clear()
    await payer.drive()
    await assert_refunded(payer)


async def test_a_failure_that_is_none_does_not_give_the_money_twice(payer: Payer) -> None:
    """It says failed, and revokes; what comes later is its own loss."""
    await payer.pay()
    payer.server.fail(HASH)
    await payer.drive()
    await payer.sends.on_finished(HASH, PREIMAGE)
    await payer.sends.poller.drive_all()
    await payer.assert_even(COIN_SAT)


# --- another payment than was asked for


async def test_another_hash_settles_nothing_of_ours(payer: Payer) -> None:
    await payer.pay()
    other = sha256(b"\x71" * 32)
    await payer.sends.on_finished(other, b"\x71" * 32)
    await payer.sends.poller.drive_all()
    assert await payer.name() == "payment-initiated"


async def test_the_fee_is_what_the_schedule_said_when_it_began(payer: Payer) -> None:
    """What the server says of its fees later takes nothing more."""
    payer.server.away.add("request_lightning_pay_htlc_cosign")
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    payer.server.away.clear()
    info = payer.server.info_
    dear = replace(info.fees.lightning_send, base_fee_sat=9_000)
    payer.server.info_ = replace(info, fees=replace(info.fees, lightning_send=dear))
    await payer.drive()  # the server finds the HTLCs too small, so they come back
    await assert_refunded(payer)


async def test_an_invoice_is_stored_before_anything_is_asked(payer: Payer) -> None:
    seen: list[str] = []

    async def look(parts: object) -> Cosignatures:
        seen.append(await payer.name())
        raise ServerUnavailable("no")

    payer.liar.answers["request_lightning_pay_htlc_cosign"] = look
    with pytest.raises(ServerUnavailable) as raised:
        await payer.pay(bolt11())
    assert chain_text(raised.value) == "no"
    assert seen == ["inputs-locked"]
