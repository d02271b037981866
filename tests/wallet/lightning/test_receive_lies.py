"""A server that lies to whoever is to be paid. Source: protocol sheet 05 §9, §12 items 15 and 16.

However it lies before the claim, the preimage stays with us and nothing of ours is touched; however it lies
afterwards, the claim goes on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.clause import HashLock
from barkd_py.ark.fees import LightningReceiveFees
from barkd_py.ark.lightning_receive import GrantRefused, InvoiceMismatch
from barkd_py.ark.policy import Policy, PubkeyPolicy, ServerHtlcReceivePolicy
from barkd_py.ark.validation import UnexpectedTerms
from barkd_py.ark.vtxo import Vtxo, VtxoInvalid
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, ChainError, ServerRejected, ServerUnavailable, chain_text
from barkd_py.server_rpc.api import ArkoorCosignature, LightningReceiveGrant, LightningReceiveState
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.receive.errors import AlreadySettled, UnreadableInvoice
from barkd_py.wallet.lightning.receive.states import PreimageRevealed
from barkd_py.wallet.vtxo_states import StateKind
from tests.fakes.lightning_server import NODE_SECRET, ReceiveServer
from tests.wallet.lightning.receiver import Receiver
from tests.wallet.lightning.test_receive import FEE_SAT, assert_paid, granted

# --- the invoice


def other_invoice(**changes: Any) -> Callable[..., Any]:
    """An invoice as the server should have made it, but for this."""

    async def make(*, payment_hash: bytes, amount_sat: int, description: str | None, **_: object) -> str:
        fields: dict[str, Any] = {
            "network": Network.REGTEST,
            "amount_msat": amount_sat * 1000,
            "payment_hash": payment_hash,
            "payment_secret": b"\x32" * 32,
            "timestamp": 1_800_000_000,
            "description": description,
            **changes,
        }
        return create_invoice(NODE_SECRET, **fields).text

    return make


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"payment_hash": b"\x01" * 32}, "returned invoice with payment hash 0101.*, expected "),
        ({"amount_msat": 9_999_000}, "returned invoice over 9999000 msat, expected 10000000"),
        ({"amount_msat": 10_000_001}, "returned invoice over 10000001 msat"),
        ({"amount_msat": None}, "returned invoice over None msat"),
        ({"network": Network.MAINNET}, "another network than regtest"),
        ({"network": Network.SIGNET}, "another network than regtest"),
        ({"description": "something else"}, "another description"),
        ({"description_hash": b"\x02" * 32}, "another description"),
        ({"timestamp": 1_800_000_000 - 3_600}, "has expired"),
    ],
)
async def test_another_invoice_is_not_given_out(
    receiver: Receiver, changes: dict[str, Any], complaint: str
) -> None:
    receiver.liar.answers["start_lightning_receive"] = other_invoice(**changes)
    with pytest.raises(InvoiceMismatch, match=complaint):
        await receiver.receives.create(10_000, description="a coffee")
    assert await receiver.receives.pending() == []


async def test_the_server_may_describe_what_we_did_not(receiver: Receiver) -> None:
    receiver.liar.answers["start_lightning_receive"] = other_invoice(description="its own words")
    assert await receiver.receives.create(10_000)


@pytest.mark.parametrize("text", ["", "lnbcrt1", "nonsense", "lno1pqpzwyq2qe3k7en"])
async def test_what_is_no_invoice_is_not_given_out(receiver: Receiver, text: str) -> None:
    receiver.liar.lies["start_lightning_receive"] = lambda _: text
    with pytest.raises(UnreadableInvoice, match="invalid bolt11 invoice returned by Ark server"):
        await receiver.receives.create(10_000)
    assert await receiver.receives.pending() == []


# --- the grant

Regrant = Callable[[ReceiveServer, ServerHtlcReceivePolicy, int], Sequence[Vtxo]]
"""What the server grants instead of HTLCs of this policy and amount."""


def with_policy(change: Callable[[ServerHtlcReceivePolicy], Policy]) -> Regrant:
    return lambda server, policy, amount_sat: server.htlcs(change(policy), [amount_sat])


def with_amounts(choose: Callable[[int], Sequence[int]]) -> Regrant:
    return lambda server, policy, amount_sat: server.htlcs(policy, choose(amount_sat))


def with_vtxos(change: Callable[[Vtxo], Sequence[Vtxo]]) -> Regrant:
    return lambda server, policy, amount_sat: change(server.htlcs(policy, [amount_sat])[0])


def expiring_at(height: int) -> Regrant:
    return lambda server, policy, amount_sat: server.htlcs(policy, [amount_sat], expiry_height=height)


def _unsigned(vtxo: Vtxo) -> Sequence[Vtxo]:
    item = vtxo.genesis[-1]
    transition: Any = replace(item.transition, signature=bytes(64))
    return [replace(vtxo, genesis=(*vtxo.genesis[:-1], replace(item, transition=transition)))]


OTHER_KEY = SecretKey(b"\x41" * 32).public_key

LIES: dict[str, tuple[Regrant, type[BarkdError], str]] = {
    "nothing": (with_vtxos(lambda _: []), GrantRefused, "return enough VTXOs to cover invoice amount"),
    "one satoshi short": (
        with_amounts(lambda amount_sat: [amount_sat - 1]),
        GrantRefused,
        "return enough VTXOs to cover invoice amount",
    ),
    "one VTXO, twice": (
        with_vtxos(lambda vtxo: [vtxo, vtxo]),
        GrantRefused,
        "granted the same HTLC VTXO twice",
    ),
    "half of it, twice": (
        lambda server, policy, amount_sat: server.htlcs(policy, [amount_sat // 2]) * 2,
        GrantRefused,
        "granted the same HTLC VTXO twice",
    ),
    "another key": (
        with_policy(lambda policy: replace(policy, user_pubkey=OTHER_KEY)),
        GrantRefused,
        "for another user key",
    ),
    "another hash": (
        with_policy(lambda policy: replace(policy, payment_hash=b"\x42" * 32)),
        GrantRefused,
        "for another payment hash",
    ),
    "the old hash lock": (
        with_policy(lambda policy: replace(policy, lock=HashLock.V0)),
        GrantRefused,
        "invalid HTLC VTXO policy: server-htlc-receive$",
    ),
    "no HTLC": (
        with_policy(lambda policy: PubkeyPolicy(policy.user_pubkey)),
        GrantRefused,
        "invalid HTLC VTXO policy: pubkey",
    ),
    "a longer delay for us": (
        with_policy(lambda policy: replace(policy, htlc_expiry_delta=policy.htlc_expiry_delta + 19)),
        GrantRefused,
        "leave no time to claim it unilaterally",
    ),
    "an earlier expiry": (
        with_policy(lambda policy: replace(policy, htlc_expiry_height=policy.htlc_expiry_height - 19)),
        GrantRefused,
        "leave no time to claim it unilaterally",
    ),
    "a tree about to expire": (expiring_at(211), GrantRefused, "expires at height 211, too close to 200"),
    "another server's": (
        with_vtxos(lambda vtxo: [replace(vtxo, server_pubkey=OTHER_KEY)]),
        UnexpectedTerms,
        "unexpected server pubkey",
    ),
    "a longer exit": (
        with_vtxos(lambda vtxo: [replace(vtxo, exit_delta=vtxo.exit_delta + 1)]),
        UnexpectedTerms,
        "unexpected exit delta: 13",
    ),
    "a missing signature": (with_vtxos(_unsigned), VtxoInvalid, "invalid signature"),
    "more than there is": (
        with_vtxos(lambda vtxo: [replace(vtxo, amount_sat=vtxo.amount_sat + 1)]),
        VtxoInvalid,
        "VTXO",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_grant_that_is_not_as_it_should_be(receiver: Receiver, lie: str) -> None:
    regrant, kind, complaint = LIES[lie]
    coin = await receiver.add_coin()
    payment_hash = await receiver.paid_invoice()

    def lie_about(grant: Any) -> Any:
        (vtxo,) = grant.htlc_vtxos
        assert isinstance(vtxo.policy, ServerHtlcReceivePolicy)
        return replace(grant, htlc_vtxos=tuple(regrant(receiver.server, vtxo.policy, vtxo.amount_sat)))

    receiver.liar.lies["prepare_lightning_receive_claim"] = lie_about
    for _ in range(5):
        assert await receiver.state(payment_hash) is not None
        with pytest.raises(kind, match=complaint):
            await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    assert receiver.server.preimages == []
    assert receiver.liar.calls["claim_lightning_receive"] == 0
    assert await receiver.movements() == []
    assert [vtxo.id for vtxo in await receiver.vtxos(*StateKind)] == [coin]
    assert await receiver.balance() == Balance(spendable_sat=5_000)


@pytest.mark.parametrize(
    "regrant",
    [
        with_policy(lambda policy: replace(policy, htlc_expiry_delta=policy.htlc_expiry_delta + 18)),
        with_policy(lambda policy: replace(policy, htlc_expiry_height=policy.htlc_expiry_height - 18)),
        expiring_at(212),
    ],
)
async def test_a_grant_that_is_just_good_enough(receiver: Receiver, regrant: Regrant) -> None:
    payment_hash = await receiver.paid_invoice()
    server = receiver.server

    def lie_about(grant: Any) -> Any:
        (vtxo,) = grant.htlc_vtxos
        vtxos = tuple(regrant(server, vtxo.policy, vtxo.amount_sat))
        server.subscriptions[payment_hash].htlcs = vtxos
        return replace(grant, htlc_vtxos=vtxos)

    receiver.liar.lies["prepare_lightning_receive_claim"] = lie_about
    await receiver.drive(payment_hash)
    assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_a_server_that_mends_its_ways_in_time(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.liar.lies["prepare_lightning_receive_claim"] = lambda grant: replace(grant, htlc_vtxos=())
    for _ in range(4):
        with pytest.raises(GrantRefused):
            await receiver.drive(payment_hash)
    receiver.liar.lies.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


@pytest.mark.parametrize("reported_sat", [0, 1, 9_999, 20_000, 2**64 - 1])
async def test_an_amount_that_does_not_add_up_is_passed_over(receiver: Receiver, reported_sat: int) -> None:
    """The fee is then the one on the invoice."""
    payment_hash = await receiver.paid_invoice()
    receiver.liar.lies["prepare_lightning_receive_claim"] = lambda grant: replace(
        grant, receive=replace(grant.receive, amount_sat=reported_sat)
    )
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


@pytest.mark.parametrize(
    ("base_fee_sat", "is_taken"), [(50, True), (220, True), (221, False), (9_000, False)]
)
async def test_a_fee_that_rises_after_the_invoice_is_out(
    receiver: Receiver, base_fee_sat: int, is_taken: bool
) -> None:
    """It was 120 sat; twice that is borne. What the sender has paid by then would else be the server's."""
    payment_hash = await receiver.paid_invoice()
    info = receiver.server.info_
    fees = LightningReceiveFees(base_fee_sat=base_fee_sat, ppm=2_000)
    receiver.server.info_ = replace(info, fees=replace(info.fees, lightning_receive=fees))
    if is_taken:
        await receiver.drive(payment_hash)
        await assert_paid(receiver, payment_hash, 10_000, base_fee_sat + 20)
    else:
        with pytest.raises(GrantRefused, match="fee has risen from 120 to"):
            await receiver.drive(payment_hash)
        assert receiver.server.preimages == []


async def test_an_anchor_that_nobody_knows(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()

    async def unknown(txid: object) -> None:
        return None

    receiver.chain_liar.answers["get_tx"] = unknown
    for _ in range(7):
        with pytest.raises(ChainError, match="not found"):
            await receiver.drive(payment_hash)
    assert receiver.server.preimages == []
    receiver.chain_liar.answers.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_vtxo_that_was_granted_before_is_not_taken_for_another(receiver: Receiver) -> None:
    """The wallet has it already: it would be counted twice."""
    payment_hash = await receiver.paid_invoice()
    await receiver.drive(payment_hash)
    other = await receiver.paid_invoice()
    old = receiver.server.subscriptions[payment_hash].htlcs
    receiver.liar.lies["prepare_lightning_receive_claim"] = lambda grant: replace(grant, htlc_vtxos=old)
    with pytest.raises(GrantRefused, match="for another payment hash"):
        await receiver.drive(other)


async def test_a_vtxo_that_the_wallet_has_had_buys_no_preimage(receiver: Receiver) -> None:
    """Nothing is wrong with it, but that we have it: one coin would be taken for two payments."""
    payment_hash = await receiver.paid_invoice()
    grants: list[LightningReceiveGrant] = []

    def keep_back(grant: LightningReceiveGrant) -> LightningReceiveGrant:
        grants.append(grant)
        return replace(grant, htlc_vtxos=())

    receiver.liar.lies["prepare_lightning_receive_claim"] = keep_back
    with pytest.raises(GrantRefused, match="return enough"):
        await receiver.drive(payment_hash)
    (vtxo,) = grants[0].htlc_vtxos
    await receiver.hold(vtxo)
    receiver.liar.lies["prepare_lightning_receive_claim"] = lambda _: grants[0]
    with pytest.raises(GrantRefused, match="granted a VTXO that was ours before"):
        await receiver.drive(payment_hash)
    assert receiver.server.preimages == []
    assert await receiver.movements() == []


async def test_a_payment_that_we_never_released_cannot_be_settled(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.liar.lies["check_lightning_receive"] = lambda status: replace(
        status, state=LightningReceiveState.SETTLED
    )
    with pytest.raises(AlreadySettled):
        await receiver.drive(payment_hash)
    assert receiver.server.preimages == []


async def test_a_payment_that_never_came(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    receiver.liar.lies["check_lightning_receive"] = lambda status: replace(
        status, state=LightningReceiveState.ACCEPTED
    )
    for _ in range(5):
        with pytest.raises(ServerRejected):
            await receiver.drive(payment_hash)
    assert receiver.server.preimages == []


# --- the claim


def _flipped(answers: tuple[ArkoorCosignature, ...]) -> tuple[ArkoorCosignature, ...]:
    first, *rest = answers
    wrong = bytes((first.partial_sigs[0][0] ^ 1,)) + first.partial_sigs[0][1:]
    return (replace(first, partial_sigs=(wrong, *first.partial_sigs[1:])), *rest)


@pytest.mark.parametrize(
    "lie",
    [
        _flipped,
        lambda answers: answers[:-1],
        lambda answers: (*answers, answers[0]),
        lambda answers: tuple(reversed(answers)),
    ],
)
async def test_a_cosignature_that_is_wrong_is_not_used(receiver: Receiver, lie: Callable[[Any], Any]) -> None:
    receiver.server.pieces = 2
    payment_hash = await receiver.paid_invoice()
    receiver.liar.lies["claim_lightning_receive"] = lie
    for _ in range(7):
        with pytest.raises(BarkdError):
            await receiver.drive(payment_hash)
    assert isinstance(await receiver.state(payment_hash), PreimageRevealed)
    assert await receiver.balance() == Balance(claimable_lightning_receive_sat=10_000 - FEE_SAT)
    receiver.liar.lies.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_what_a_claim_makes_is_proven_before_it_counts(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_hash = await granted(receiver)
    receiver.server.chain.is_away = False

    async def disproved(_: object) -> None:
        raise VtxoInvalid("the VTXO is invalid: so it is said")

    with monkeypatch.context() as broken:
        broken.setattr(receiver.machine._anchors, "validate", disproved)
        with pytest.raises(VtxoInvalid):
            await receiver.drive(payment_hash)
    assert isinstance(await receiver.state(payment_hash), PreimageRevealed)
    assert await receiver.balance() == Balance(claimable_lightning_receive_sat=10_000 - FEE_SAT)
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_refusal_after_the_preimage_is_out_undoes_nothing(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()

    async def refuse(**_: object) -> None:
        raise ServerRejected("bad user input: payment status in incorrect state: canceled")

    receiver.liar.answers["claim_lightning_receive"] = refuse
    for _ in range(10):
        with pytest.raises(ServerRejected):
            await receiver.drive(payment_hash)
    state = await receiver.state(payment_hash)
    assert isinstance(state, PreimageRevealed)
    assert state.claim_attempts == 0
    assert await receiver.balance() == Balance(claimable_lightning_receive_sat=10_000 - FEE_SAT)
    receiver.liar.answers.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


@pytest.mark.parametrize("error", [ServerRejected, ServerUnavailable])
async def test_a_server_that_shouts_the_preimage_is_not_repeated(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, error: type[BarkdError]
) -> None:
    payment_hash = await receiver.paid_invoice()
    preimage = (await receiver.preimage(payment_hash)).hex()

    async def shout(**_: object) -> None:
        raise error(f"bad user input: your preimage is {preimage.upper()}")

    receiver.liar.answers["claim_lightning_receive"] = shout
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(error) as raised:
            await receiver.drive(payment_hash)
        await receiver.receives.poller.drive_all()
    assert preimage not in chain_text(raised.value).lower()
    assert preimage not in caplog.text.lower()


# --- secrecy


async def test_the_preimage_is_shown_nowhere(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        receiver.server.tokens = {"a secret token"}
        payment_hash = await receiver.paid_invoice(token="a secret token")
        preimage = await receiver.preimage(payment_hash)
        waiting = await receiver.state(payment_hash)
        receiver.server.away = {"claim_lightning_receive"}
        with pytest.raises(ServerUnavailable) as raised:
            await receiver.drive(payment_hash)
        revealed = await receiver.state(payment_hash)
        shown = await receiver.receives.find(payment_hash)
        movement = await receiver.movement()
        receiver.server.away.clear()
        await receiver.drive(payment_hash)
    told = [repr(waiting), str(waiting), repr(revealed), repr(shown), str(shown.preimage), caplog.text]
    told += [repr(raised.value), chain_text(raised.value), repr(movement)]
    for text in told:
        assert preimage.hex() not in text
        assert repr(preimage)[2:-1] not in text
        assert "a secret token" not in text
