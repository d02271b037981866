"""Where a Lightning payment can be, and what follows from what is seen.

            Locked ──── cosigned ───▶ Funded ─── server told ──▶ Initiated ─ preimage ─▶ done: paid
              │                          │                          │
   refused,   │                          │ refused, late            │
   not booked │  refused, yet booked     ▼                          │
              ├───────────────────────▶ Revocable ◀─ failed, late, ─┘
              │                          │  │        never heard of
              ▼                          │  │
        done: undone       revoked ◀─────┘  └── not revoked ──▶ Stuck ── claimed on chain ──▶ done: failed
                                                                  │
                                                        revoked or paid after all

The money is in three places, one after the other: in inputs that are locked (Locked), in HTLCs that server
and wallet hold together (Funded to Stuck), and in the end with the server, or back in a VTXO of ours.

A preimage decides, whenever it comes: it proves that the payee was paid. Before HTLCs are revoked the server
is asked once more, and nothing that it says without a preimage makes a payment a success.

Everything here is pure. Source: protocol sheet 05 §4.3-4.9, §10.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.deadlines import Exitable, exit_start_height
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.server_rpc.api import (
    LightningPaymentStatus,
    PaymentFailed,
    PaymentPending,
    PaymentSucceeded,
)
from barkd_py.wallet.movements import PaymentMethod
from barkd_py.wallet.store.payloads import HexBytes, PayloadFormat, PublicKeyHex, VtxoIdText

# How often a server may not know a payment that it was told to make, before the HTLCs are asked back.
MAX_LOST = 30
# After the HTLCs have expired an honest server gives them back, once it has seen the blocks.
EXPIRED_GRACE_BLOCKS = 6
# What a payment out of inputs that are about to expire gets, before their HTLCs exit.
MIN_PATIENCE_BLOCKS = 3
# A server that is silent for so many blocks is away, not just restarting.
SILENT_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class Payment:
    """What is paid, fixed for good: every repetition of a request asks for the very same thing.

    payment_hash: 32 bytes. amount_sat: what the payee gets; the HTLCs hold fee_sat more, and what routing
    leaves of it is the server's. change_sat: the pieces of change, all to htlc_pubkey. exit_by_height: from
    here on the HTLCs have to go on the chain, because a tree below them expires. method: what the user named.
    movement_id: of this attempt; an invoice whose payment failed can be paid again.
    """

    payment_hash: HexBytes
    invoice: str
    method: PaymentMethod
    amount_sat: int
    fee_sat: int
    input_ids: tuple[VtxoIdText, ...]
    change_sat: tuple[int, ...]
    htlc_pubkey: PublicKeyHex
    revocation_pubkey: PublicKeyHex
    htlc_expiry_height: int
    exit_by_height: int
    movement_id: int
    retry_for_secs: int | None = None

    @property
    def htlc_sat(self) -> int:
        return self.amount_sat + self.fee_sat

    @property
    def htlc_policy(self) -> ServerHtlcSendPolicy:
        return htlc_policy(self.htlc_pubkey, self.payment_hash, self.htlc_expiry_height)

    @property
    def outputs(self) -> tuple[ArkoorDestination, ...]:
        change_policy = PubkeyPolicy(self.htlc_pubkey)
        return (
            ArkoorDestination(self.htlc_sat, self.htlc_policy),
            *(ArkoorDestination(amount_sat, change_policy) for amount_sat in self.change_sat),
        )

    def is_preimage(self, preimage: bytes) -> bool:
        return len(preimage) == 32 and sha256(preimage) == self.payment_hash


def htlc_policy(user_pubkey: PublicKey, payment_hash: bytes, expiry_height: int) -> ServerHtlcSendPolicy:
    return ServerHtlcSendPolicy(user_pubkey, payment_hash, expiry_height)


# --- states


@dataclass(frozen=True, slots=True)
class Locked:
    """Inputs are locked; the server has perhaps cosigned the HTLCs. bad_answers: of the server, so far."""

    payment: Payment
    bad_answers: int = 0
    type: Literal["locked"] = "locked"


@dataclass(frozen=True, slots=True)
class Funded:
    """The HTLCs are stored; the server has perhaps been told to pay."""

    payment: Payment
    htlc_ids: tuple[VtxoIdText, ...]
    type: Literal["funded"] = "funded"


@dataclass(frozen=True, slots=True)
class Initiated:
    """The server is paying. lost: how often it did not know of it."""

    payment: Payment
    htlc_ids: tuple[VtxoIdText, ...]
    lost: int = 0
    type: Literal["initiated"] = "initiated"


@dataclass(frozen=True, slots=True)
class Revocable:
    """The payment is given up, or never was; the HTLCs are to be cosigned back to us."""

    payment: Payment
    htlc_ids: tuple[VtxoIdText, ...]
    type: Literal["revocable"] = "revocable"


@dataclass(frozen=True, slots=True)
class Stuck:
    """The server did not give the HTLCs back. It is asked again, until they exit.

    silent_since_height: the tip when it stopped answering. exiting: those whose exits are started; as long
    as an output of them is left, the server may take it and the payment is made after all. returned_sat: what
    came back of the others.
    """

    payment: Payment
    htlc_ids: tuple[VtxoIdText, ...]
    silent_since_height: int | None = None
    exiting: tuple[VtxoIdText, ...] = ()
    returned_sat: int = 0
    type: Literal["stuck"] = "stuck"


State = Locked | Funded | Initiated | Revocable | Stuck
WithHtlcs = Funded | Initiated | Revocable | Stuck

FORMAT: PayloadFormat[State] = PayloadFormat(
    "lightning send",
    lambda: TypeAdapter(
        Annotated[Locked | Funded | Initiated | Revocable | Stuck, Field(discriminator="type")]
    ),
)


# --- decisions


class Answer(enum.Enum):
    """What the server says about a payment, once its words have been weighed."""

    PAID = enum.auto()
    """With a preimage that is one."""
    FAILED = enum.auto()
    PENDING = enum.auto()
    UNKNOWN = enum.auto()
    """It has never heard of it."""
    SILENT = enum.auto()
    """No answer, or one that is worth nothing."""


def weigh(status: LightningPaymentStatus, payment: Payment) -> Answer:
    """A success without a preimage, or with a wrong one, is none."""
    match status:
        case PaymentSucceeded(preimage):
            return Answer.PAID if payment.is_preimage(preimage) else Answer.PENDING
        case PaymentFailed():
            return Answer.FAILED
        case PaymentPending():
            return Answer.PENDING


class Decision(enum.Enum):
    SETTLE = enum.auto()
    REVOKE = enum.auto()
    TELL_AGAIN = enum.auto()
    WAIT = enum.auto()


def exit_by(vtxos: Iterable[Exitable], exit_margin: int, *, deeper_by: int, tip_height: int) -> int:
    """When HTLCs have to go on the chain, because the server may sweep a tree below them.

    vtxos: what they come out of, and deeper_by how many transactions later; or they themselves. Inputs that
    are as good as expired do not send their HTLCs there at once: a payment that works out takes seconds.
    """
    first = min(exit_start_height(vtxo, exit_margin, deeper_by=deeper_by) for vtxo in vtxos)
    return max(first, tip_height + MIN_PATIENCE_BLOCKS)


def is_late(payment: Payment, tip_height: int, threshold: int) -> bool:
    """Whether the HTLCs, or a tree below them, expire so soon that they must come back.

    threshold: config `vtxo_refresh_expiry_threshold`. (Upstream looks at the HTLCs only.)
    """
    return tip_height > max(0, payment.htlc_expiry_height - threshold) or tip_height >= payment.exit_by_height


def after_poll(state: Initiated, answer: Answer, *, tip_height: int, threshold: int) -> Decision:
    """What to do with a payment under way."""
    if answer is Answer.PAID:
        return Decision.SETTLE
    if answer is Answer.FAILED or is_late(state.payment, tip_height, threshold):
        return Decision.REVOKE
    if answer is Answer.UNKNOWN:
        return Decision.REVOKE if state.lost + 1 >= MAX_LOST else Decision.TELL_AGAIN
    return Decision.WAIT


def must_exit(state: Stuck, answer: Answer, *, tip_height: int, exit_margin: int) -> bool:
    """Whether HTLCs that the server does not give back have to go on the chain now.

    A server that is still paying is right to keep them until they expire, and an exit costs. So they exit

    - before they expire, if the server gave up the payment, or has been away for a while;
    - soon after they expired, whatever it says;
    - whenever the tree below them is about to expire: after that they would be worth nothing.

    (Upstream leaves them to the server, unless a caller of its library said otherwise.)

    exit_margin: blocks that it takes to get them confirmed, config `vtxo_exit_margin`.
    """
    payment = state.payment
    if tip_height >= payment.exit_by_height:
        return True
    if tip_height > payment.htlc_expiry_height + EXPIRED_GRACE_BLOCKS:
        return True
    if tip_height <= max(0, payment.htlc_expiry_height - exit_margin):
        return False
    if answer is Answer.SILENT:
        since = state.silent_since_height
        return since is not None and tip_height - since >= SILENT_BLOCKS
    return answer in (Answer.FAILED, Answer.UNKNOWN)
