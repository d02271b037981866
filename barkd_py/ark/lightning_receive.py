"""Being paid over Lightning: what the server promises, and what must be true before the preimage goes out.

The server holds the sender's HTLC and grants us *HTLC VTXOs*: coins that we can take with the preimage, and
that go back to the server after a height. Then we have it cosign them over to a key of ours, and tell it the
preimage in the same request. From that moment the sender has paid. So everything that we may want to refuse
is refused before:

    invoice   ours to the letter: hash, amount, description, network            `verify_invoice`
    grant     v1 HTLCs of our hash and key, enough of them, on the known terms  `verify_grant`
    window    time to take them on chain, should the server not cosign          `ClaimWindow`

Whether the chains of the granted VTXOs are valid is `ark.validation`, and whether their anchors are in a
block is a question to the chain.

Source: protocol sheet 05 §5.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from barkd_py.ark.clause import PREIMAGE_BYTES, HashLock
from barkd_py.ark.fees import FeeOverflow, FeeSchedule, lightning_receive_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import ServerHtlcReceivePolicy
from barkd_py.ark.validation import UnexpectedTerms, is_relayable
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import DUST_SAT, Network
from barkd_py.errors import BarkdError, ProtocolViolation

GRANT_BLOCKS = 2
"""How many blocks may come between the sender's HTLC and the grant."""
SLACK_BLOCKS = 18
"""How many blocks may come between the grant and the claim, if the server allows that many. Upstream asks for
none, and one block in between then costs the payment."""

MAX_FEE_RISE = 2
"""How many times as much the fee may be by the time of the payment. The server sets it, and could else keep
nearly everything of an invoice that is out."""

MAX_STUCK_SAT = 2 * DUST_SAT
"""How much of a grant may be in VTXOs whose exits no node relays: that is lost if the server does not cosign.
Honest servers grant dust only where the amount, or the last piece of it, is dust."""
EXIT_SPARE_BLOCKS = 6
"""Exit transactions are confirmed one after the other, at best one in each block. And some more."""
MAX_GRANT_DEPTH = 25
"""Longer chains cost more to exit than they bring, if they come to an end in time at all. Those of honest
servers have four to six transactions."""


class InvoiceMismatch(ProtocolViolation):
    """The server returned another invoice than the one that was asked for."""


class GrantRefused(ProtocolViolation):
    """What the server granted does not buy the preimage."""


class CltvTooLarge(BarkdError):
    """The server does not allow the time that a claim on chain would take."""

    def __init__(self, *, needed: int, maximum: int) -> None:
        super().__init__(
            f"HTLC CLTV delta ({needed}) is greater than Server's max HTLC recv CLTV delta: {maximum}"
        )
        self.needed = needed
        self.maximum = maximum


@dataclass(frozen=True, slots=True)
class Preimage:
    """The secret that a payment is released with. Neither its text nor its `repr` shows it."""

    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.data) != PREIMAGE_BYTES:
            raise ValueError(f"a preimage has {PREIMAGE_BYTES} bytes")

    @classmethod
    def generate(cls) -> "Preimage":
        """Not derived from the seed: whoever learns the seed later learns no preimages."""
        return cls(secrets.token_bytes(PREIMAGE_BYTES))

    @property
    def payment_hash(self) -> bytes:
        """32 bytes."""
        return sha256(self.data)

    def __str__(self) -> str:
        return repr(self)


# --- the invoice


def verify_invoice(
    invoice: Bolt11Invoice,
    *,
    payment_hash: bytes,
    amount_sat: int,
    description: str | None,
    network: Network,
    now: float,
) -> None:
    """Check an invoice that the server made for us. Raises InvoiceMismatch.

    description: None lets the server choose. now: Unix seconds.
    """
    if invoice.payment_hash != payment_hash:
        raise InvoiceMismatch(
            f"Ark server returned invoice with payment hash {invoice.payment_hash.hex()}, "
            f"expected {payment_hash.hex()}"
        )
    if not invoice.is_of(network):
        raise InvoiceMismatch(f"Ark server returned invoice for another network than {network.value}")
    if invoice.amount_msat != amount_sat * 1000:
        raise InvoiceMismatch(
            f"Ark server returned invoice over {invoice.amount_msat} msat, expected {amount_sat * 1000}"
        )
    if description is not None and invoice.description != description:
        raise InvoiceMismatch("Ark server returned invoice with another description")
    if invoice.expires_at <= now:
        raise InvoiceMismatch("Ark server returned invoice that has expired")


# --- time


@dataclass(frozen=True, slots=True)
class ClaimWindow:
    """The time that a claim on chain takes besides the deltas of the VTXO itself, in blocks.

    exit_margin: until the VTXO's transactions are confirmed; more for long chains. claim_delta: until the
    claim is.
    """

    exit_margin: int
    claim_delta: int

    def min_cltv_delta(self, info: ArkInfo) -> int:
        """What the server must keep between the sender's payment and the expiry of our HTLC, in blocks.

        Raises CltvTooLarge.
        """
        deltas = info.vtxo_exit_delta + info.htlc_expiry_delta + self.exit_margin + self.claim_delta
        needed = deltas + GRANT_BLOCKS
        if needed > info.max_user_invoice_cltv_delta:
            raise CltvTooLarge(needed=needed, maximum=info.max_user_invoice_cltv_delta)
        return min(needed + SLACK_BLOCKS, info.max_user_invoice_cltv_delta)

    def is_open(self, vtxo: Vtxo, tip_height: int) -> bool:
        """Whether the HTLC can still be taken on chain before anybody else can have it.

        Both the claim, and the confirmation of the VTXO's transactions before its tree expires.
        """
        return self._has_time_to_claim(vtxo, tip_height) and self._has_time_to_exit(vtxo, tip_height)

    def can_win(self, vtxo: Vtxo, tip_height: int) -> bool:
        """Whether an exit that starts now may come first, if every transaction is confirmed at once."""
        policy = htlc_of(vtxo)
        return (
            tip_height + vtxo.exit_delta + policy.htlc_expiry_delta < policy.htlc_expiry_height
            and tip_height < vtxo.expiry_height
        )

    def can_claim(self, vtxo: Vtxo, tip_height: int) -> bool:
        """Whether an HTLC that is on the chain can be taken in time, though its delay may begin only now."""
        policy = htlc_of(vtxo)
        deltas = vtxo.exit_delta + policy.htlc_expiry_delta + self.claim_delta
        return tip_height + deltas <= policy.htlc_expiry_height

    def can_disclose(self, vtxo: Vtxo, tip_height: int) -> bool:
        """Whether a claim that is sent now, and shows the preimage, is confirmed before the server may take
        the HTLC as well.
        """
        return tip_height + self.claim_delta <= htlc_of(vtxo).htlc_expiry_height

    def _has_time_to_claim(self, vtxo: Vtxo, tip_height: int) -> bool:
        policy = htlc_of(vtxo)
        deltas = vtxo.exit_delta + policy.htlc_expiry_delta + self._exit_blocks(vtxo) + self.claim_delta
        return tip_height + deltas <= policy.htlc_expiry_height

    def _has_time_to_exit(self, vtxo: Vtxo, tip_height: int) -> bool:
        return tip_height + self._exit_blocks(vtxo) <= vtxo.expiry_height

    def _exit_blocks(self, vtxo: Vtxo) -> int:
        return max(self.exit_margin, vtxo.exit_depth + EXIT_SPARE_BLOCKS)

    def verify(self, vtxo: Vtxo, tip_height: int) -> None:
        """As `is_open`. Raises GrantRefused."""
        if not self._has_time_to_claim(vtxo, tip_height):
            policy = htlc_of(vtxo)
            raise GrantRefused(
                "HTLC VTXO timelocks leave no time to claim it unilaterally: "
                f"expiry height {policy.htlc_expiry_height}, tip {tip_height}, exit delta {vtxo.exit_delta}, "
                f"HTLC expiry delta {policy.htlc_expiry_delta}, exit depth {vtxo.exit_depth}"
            )
        if not self._has_time_to_exit(vtxo, tip_height):
            raise GrantRefused(f"HTLC VTXO expires at height {vtxo.expiry_height}, too close to {tip_height}")


def grant_expiry_height(tip_height: int, cltv_delta: int) -> int:
    """The HTLC expiry to ask for at the grant. cltv_delta: as it was when the invoice was made."""
    return tip_height + cltv_delta - GRANT_BLOCKS


# --- the grant


def htlc_of(vtxo: Vtxo) -> ServerHtlcReceivePolicy:
    """The terms of a granted VTXO. Raises GrantRefused if it is no HTLC of the present kind."""
    policy = vtxo.policy
    if not isinstance(policy, ServerHtlcReceivePolicy) or policy.lock is not HashLock.V1:
        raise GrantRefused(f"invalid HTLC VTXO policy: {policy.kind}")
    return policy


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a grant must satisfy.

    payment_hash: 32 bytes. user_pubkey: the key that was asked for. fee_sat: the server's fee as it was when
    the invoice was made.
    """

    payment_hash: bytes
    user_pubkey: PublicKey
    amount_sat: int
    fee_sat: int
    window: ClaimWindow


def verify_grant(
    vtxos: Sequence[Vtxo], terms: GrantTerms, *, info: ArkInfo, tip_height: int, reported_sat: int
) -> int:
    """Check granted VTXOs, whose chains are verified elsewhere. Returns the server's fee.

    reported_sat: what the server says it received. Raises GrantRefused or UnexpectedTerms.
    """
    if len({vtxo.id for vtxo in vtxos}) != len(vtxos):
        raise GrantRefused("the server granted the same HTLC VTXO twice")
    for vtxo in vtxos:
        policy = htlc_of(vtxo)
        if policy.payment_hash != terms.payment_hash:
            raise GrantRefused("HTLC VTXO is for another payment hash")
        if policy.user_pubkey != terms.user_pubkey:
            raise GrantRefused("HTLC VTXO is for another user key")
        if vtxo.server_pubkey != info.server_pubkey:
            raise UnexpectedTerms("HTLC VTXO uses an unexpected server pubkey")
        if vtxo.exit_delta != info.vtxo_exit_delta:
            raise UnexpectedTerms(f"HTLC VTXO uses an unexpected exit delta: {vtxo.exit_delta}")
        if vtxo.exit_depth > MAX_GRANT_DEPTH:
            raise GrantRefused(f"HTLC VTXO has {vtxo.exit_depth} exit transactions, which is too many")
        terms.window.verify(vtxo, tip_height)
    granted_sat = sum(vtxo.amount_sat for vtxo in vtxos)
    fee_sat = _fee_sat(info.fees, granted_sat, terms.amount_sat, reported_sat)
    if not vtxos or granted_sat + fee_sat < terms.amount_sat:
        raise GrantRefused("Server didn't return enough VTXOs to cover invoice amount")
    if granted_sat + MAX_FEE_RISE * terms.fee_sat < terms.amount_sat:
        raise GrantRefused(f"the server's fee has risen from {terms.fee_sat} to {fee_sat} sat")
    stuck_sat = sum(vtxo.amount_sat for vtxo in vtxos if not is_relayable(vtxo))
    if stuck_sat > MAX_STUCK_SAT:
        raise GrantRefused(f"{stuck_sat} of the {granted_sat} sat granted cannot exit")
    return fee_sat


def _fee_sat(fees: FeeSchedule, granted_sat: int, amount_sat: int, reported_sat: int) -> int:
    """The fee on what the server reports, if that adds up; else on the invoice."""
    try:
        fee_sat = lightning_receive_fee(fees, reported_sat)
    except FeeOverflow:
        return lightning_receive_fee(fees, amount_sat)
    if granted_sat + fee_sat == reported_sat:
        return fee_sat
    return lightning_receive_fee(fees, amount_sat)
