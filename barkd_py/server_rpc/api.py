"""What the wallet may ask of the Ark server, in the wallet's own terms.

`ArkServerApi` is the seam: `client.ArkServer` implements it over gRPC, tests implement it in memory. Nothing
of protobuf or gRPC is visible here. Answers that a server could falsify arrive with their lengths and counts
checked against the request, but not yet *verified*: signatures, chains and preimages are the caller's work.

Errors of every method: `ServerRejected` (the server did nothing: the caller may undo), `ServerUnavailable`
(outcome unknown: keep the state and ask again), `ProtocolViolation` (the answer is malformed), and what the
connection raises when the server may not be used at all (`connection.ServerUnusable`).

Source: protocol sheet 08 §3, §4.
"""

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from barkd_py.ark.arkoor import ArkoorPart
from barkd_py.ark.cosign import Cosignature
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import Policy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import FeeRate

MAX_RECOVERY_IDS_PER_POST = 20
MAX_VTXOS_PER_ARKOOR_POST = 100
MAX_VTXOS_PER_REGISTRATION = 1000
MAX_IDS_PER_LOOKUP = 1000
MAX_BOARD_FUNDING_INPUTS = 100


# --- VTXO look-ups


class VtxoSpendState(enum.Enum):
    """What the server says about a VTXO. A hint: it cannot be verified, and exits on chain do not show."""

    SPENDABLE = "spendable"
    SPENT = "spent"
    UNCLAIMED = "unclaimed"  # output of a round whose unlock preimage is not released
    UNREGISTERED = "unregistered"  # the signed chain was not uploaded
    HTLC_RECV_UNCLAIMED = "htlc-recv-unclaimed"


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """attestation: 64 bytes, status attestation by the VTXO's user key."""

    vtxo_id: VtxoId
    attestation: bytes


@dataclass(frozen=True, slots=True)
class VtxoLookup:
    """found: decoded and asked for, order free. missing: unknown to the server.

    An id in neither list got no usable answer (for instance a body of a server-internal policy).
    """

    found: tuple[Vtxo, ...]
    missing: tuple[VtxoId, ...]


@dataclass(frozen=True, slots=True)
class RecoveredVtxo:
    """vtxo: not validated. derivation_index: the server's claim, below 2**31."""

    vtxo: Vtxo
    derivation_index: int
    spend_state: VtxoSpendState | None  # None: no usable answer


@dataclass(frozen=True, slots=True)
class XpubRecoveryPage:
    vtxos: tuple[RecoveredVtxo, ...]
    keys_scanned: int
    have_more: bool
    cursor: VtxoId | None


# --- cosigning


@dataclass(frozen=True, slots=True)
class ArkoorCosignPart:
    """One input of a package: what is asked, one nonce (66 bytes) per transaction to sign, in part order."""

    part: ArkoorPart
    user_pub_nonces: tuple[bytes, ...]
    attestation: bytes


@dataclass(frozen=True, slots=True)
class ArkoorCosignature:
    """The server's answer for one part; both tuples are as long as the nonces that were sent."""

    pub_nonces: tuple[bytes, ...]
    partial_sigs: tuple[bytes, ...]


# --- mailbox


@dataclass(frozen=True, slots=True)
class ArkoorDelivery:
    """vtxos: full encodings as delivered, *not decoded*: bad ones are dropped one by one."""

    vtxos: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundParticipationCompleted:
    """unlock_hash: as delivered, of any length."""

    unlock_hash: bytes


@dataclass(frozen=True, slots=True)
class IncomingLightningPayment:
    """payment_hash: as delivered, of any length."""

    payment_hash: bytes
    amount_msat: int


@dataclass(frozen=True, slots=True)
class RecoveryVtxoIds:
    """vtxo_ids: as delivered, of any length."""

    vtxo_ids: tuple[bytes, ...]


class LightningFailureReason(enum.IntEnum):
    UNSPECIFIED = 0
    FEE_TOO_LOW = 1  # the only one where a larger routing budget helps
    CLTV_TOO_LONG = 2
    NO_ROUTE = 3
    DESTINATION_REJECTED = 4
    SETUP_TIMEOUT = 5
    INVOICE_STATE = 6
    OTHER = 7
    RETRIES_EXHAUSTED = 8


@dataclass(frozen=True, slots=True)
class LightningSendFinished:
    """preimage: None means failed; else as delivered, not checked against the hash."""

    payment_hash: bytes
    preimage: bytes | None
    failure: LightningFailureReason


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A kind of message that this version does not know."""


MailboxContent = (
    ArkoorDelivery
    | RoundParticipationCompleted
    | IncomingLightningPayment
    | RecoveryVtxoIds
    | LightningSendFinished
    | UnknownMessage
)


@dataclass(frozen=True, slots=True)
class MailboxMessage:
    """checkpoint: position in one global sequence over all mailboxes; above 2**53."""

    checkpoint: int
    content: MailboxContent


@dataclass(frozen=True, slots=True)
class MailboxPage:
    """have_more: unreliable (it counts messages where the limit counts rows); read until a page is empty."""

    messages: tuple[MailboxMessage, ...]
    have_more: bool


# --- rounds


@dataclass(frozen=True, slots=True)
class VtxoRequest:
    amount_sat: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class RoundInput:
    """attestation: 64 bytes; its kind depends on the call."""

    vtxo_id: VtxoId
    attestation: bytes


@dataclass(frozen=True, slots=True)
class SignedVtxoRequest:
    """pub_nonces: exactly ArkInfo.nb_round_nonces of 66 bytes."""

    request: VtxoRequest
    cosign_pubkey: PublicKey
    pub_nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundAttempt:
    """challenge: 32 bytes."""

    round_seq: int
    attempt_seq: int
    challenge: bytes


@dataclass(frozen=True, slots=True)
class VtxoProposal:
    """vtxos_spec: encoded tree, not decoded. agg_nonces: 66 bytes each, one per internal node."""

    round_seq: int
    attempt_seq: int
    vtxos_spec: bytes
    unsigned_round_tx: Tx
    agg_nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """cosign_sigs: 64 bytes each, one per internal node."""

    round_seq: int
    attempt_seq: int
    signed_round_tx: Tx
    cosign_sigs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundFailed:
    round_seq: int


RoundEvent = RoundAttempt | VtxoProposal | RoundFinished | RoundFailed


class RoundParticipationState(enum.Enum):
    PENDING = "pending"
    ISSUED = "issued"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class RoundParticipation:
    """unlock_preimage: 32 bytes, not checked against the hash. output_vtxos: not validated, leaf unsigned."""

    state: RoundParticipationState
    input_vtxo_ids: tuple[VtxoId, ...]
    funding_tx: Tx | None
    output_vtxos: tuple[Vtxo, ...]
    unlock_preimage: bytes | None


# --- offboard


@dataclass(frozen=True, slots=True)
class OffboardRequest:
    net_amount_sat: int
    script_pubkey: bytes
    deduct_fees_from_gross_amount: bool
    fee_rate: FeeRate


@dataclass(frozen=True, slots=True)
class PreparedOffboard:
    """pub_nonces: 66 bytes, one per input in request order."""

    unsigned_tx: Tx
    pub_nonces: tuple[bytes, ...]


# --- Lightning


@dataclass(frozen=True, slots=True)
class PaymentPending:
    pass


@dataclass(frozen=True, slots=True)
class PaymentSucceeded:
    """preimage: 32 bytes, not checked against the hash."""

    preimage: bytes


@dataclass(frozen=True, slots=True)
class PaymentFailed:
    reason: LightningFailureReason


LightningPaymentStatus = PaymentPending | PaymentSucceeded | PaymentFailed


class LightningReceiveState(enum.Enum):
    CREATED = "created"
    ACCEPTED = "accepted"
    HTLCS_READY = "htlcs-ready"
    SETTLED = "settled"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class LightningReceiveStatus:
    invoice: str
    amount_sat: int
    state: LightningReceiveState
    htlc_vtxo_ids: tuple[VtxoId, ...]


@dataclass(frozen=True, slots=True)
class LightningReceiveGrant:
    receive: LightningReceiveStatus
    htlc_vtxos: tuple[Vtxo, ...]


class ArkServerApi(Protocol):
    """The Ark server as the wallet sees it. Every call connects first if there is no connection."""

    @property
    def cached_info(self) -> ArkInfo | None:
        """The newest ArkInfo that was fetched, without any network. None: never connected."""
        ...

    async def info(self) -> ArkInfo:
        """Connect if needed; ArkInfo, refetched when stale, after the safety and the pinned-key checks."""
        ...

    async def refresh(self) -> ArkInfo:
        """Heartbeat: handshake and ArkInfo anew, with all checks."""
        ...

    async def close(self) -> None: ...

    # VTXO look-ups

    async def get_vtxo(self, vtxo_id: VtxoId) -> Vtxo:
        """The full VTXO of that id (checked). NOT_FOUND is ServerRejected(not_found=True)."""
        ...

    async def get_vtxo_status(self, vtxo_id: VtxoId, attestation: bytes) -> VtxoSpendState: ...

    async def get_vtxos(self, vtxo_ids: Sequence[VtxoId]) -> VtxoLookup:
        """Many bodies: the batched call where the server has it, else one call per id."""
        ...

    async def get_vtxo_statuses(self, queries: Sequence[StatusQuery]) -> dict[VtxoId, VtxoSpendState]:
        """Many states; an id without a usable answer is absent from the result."""
        ...

    async def recover_vtxos_by_xpub(
        self, xpub: bytes, *, start_index: int, authorization: bytes, cursor: VtxoId | None
    ) -> XpubRecoveryPage | None:
        """None: this server does not have the call."""
        ...

    # boarding, registration, arkoor

    async def request_board_cosign(
        self,
        *,
        amount_sat: int,
        utxo: OutPoint,
        expiry_height: int,
        user_pubkey: PublicKey,
        pub_nonce: bytes,
        funding_tx: Tx,
    ) -> Cosignature:
        """amount_sat: gross, the value of the funding output. funding_tx is sent without witnesses."""
        ...

    async def register_board_vtxo(self, vtxo: Vtxo) -> None: ...

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        """Upload signed chains; split by count and by bytes; nothing is sent for an empty list."""
        ...

    async def request_arkoor_cosign(
        self, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]: ...

    # mailbox

    async def post_arkoor_message(self, blinded_id: bytes, vtxos: Sequence[Vtxo]) -> None:
        """Deliver VTXOs of one user key to a mailbox; split by 100."""
        ...

    async def read_mailbox(
        self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int
    ) -> MailboxPage: ...

    def subscribe_mailbox(
        self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int
    ) -> AsyncGenerator[MailboxMessage, None]:
        """One subscription, until the server ends it or fails; `streams` adds resubscribing."""
        ...

    async def post_recovery_vtxo_ids(
        self, mailbox_id: PublicKey, authorization: bytes, vtxo_ids: Sequence[VtxoId]
    ) -> None:
        """At most MAX_RECOVERY_IDS_PER_POST ids; all of them or none is stored."""
        ...

    # rounds

    async def next_round_time(self) -> int:
        """Unix seconds."""
        ...

    def subscribe_rounds(self) -> AsyncGenerator[RoundEvent, None]: ...

    async def last_round_event(self) -> RoundEvent | None:
        """None: the server had no round since it started."""
        ...

    async def submit_payment(
        self,
        inputs: Sequence[RoundInput],
        requests: Sequence[SignedVtxoRequest],
        *,
        mailbox_id: PublicKey | None,
    ) -> bytes:
        """The unlock hash, 32 bytes."""
        ...

    async def provide_vtxo_signatures(
        self, cosign_pubkey: PublicKey, partial_sigs: Sequence[bytes]
    ) -> None: ...

    async def submit_round_participation(
        self,
        inputs: Sequence[RoundInput],
        requests: Sequence[VtxoRequest],
        *,
        mailbox_id: PublicKey | None,
        scheduled_height: int | None,
    ) -> bytes:
        """The unlock hash, 32 bytes."""
        ...

    async def round_participation_status(self, unlock_hash: bytes) -> RoundParticipation: ...

    async def request_leaf_vtxo_cosign(self, vtxo_id: VtxoId, pub_nonce: bytes) -> Cosignature: ...

    async def request_forfeit_nonces(
        self, unlock_hash: bytes, vtxo_ids: Sequence[VtxoId]
    ) -> tuple[bytes, ...]:
        """One nonce of 66 bytes per id, in request order."""
        ...

    async def forfeit_vtxos(self, bundles: Sequence[bytes]) -> bytes:
        """The unlock preimage, 32 bytes, not checked against the hash."""
        ...

    # offboard

    async def offboard_fee_rate(self) -> FeeRate: ...

    async def prepare_offboard(
        self, request: OffboardRequest, inputs: Sequence[RoundInput]
    ) -> PreparedOffboard: ...

    async def finish_offboard(
        self, offboard_txid: Txid, pub_nonces: Sequence[bytes], partial_sigs: Sequence[bytes]
    ) -> Tx: ...

    # Lightning

    async def request_lightning_pay_htlc_cosign(
        self, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]: ...

    async def request_lightning_pay_htlc_revocation(
        self, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]: ...

    async def initiate_lightning_payment(
        self,
        *,
        invoice: str,
        htlc_vtxo_ids: Sequence[VtxoId],
        amount_sat: int,
        mailbox_id: PublicKey | None,
        retry_for_secs: int | None,
    ) -> None: ...

    async def check_lightning_payment(self, payment_hash: bytes) -> LightningPaymentStatus: ...

    async def fetch_bolt12_invoice(self, offer: bytes, amount_sat: int | None) -> bytes: ...

    async def start_lightning_receive(
        self,
        *,
        payment_hash: bytes,
        amount_sat: int,
        min_cltv_delta: int,
        mailbox_id: PublicKey | None,
        description: str | None,
    ) -> str:
        """A BOLT11 invoice, not checked."""
        ...

    async def check_lightning_receive(self, payment_hash: bytes) -> LightningReceiveStatus: ...

    async def prepare_lightning_receive_claim(
        self,
        *,
        payment_hash: bytes,
        user_pubkey: PublicKey,
        htlc_recv_expiry_height: int,
        anti_dos: RoundInput | str | None,
    ) -> LightningReceiveGrant:
        """anti_dos: proof of a spendable VTXO, or a token."""
        ...

    async def claim_lightning_receive(
        self, *, payment_hash: bytes, preimage: bytes, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]: ...

    async def cancel_lightning_receive(self, payment_hash: bytes) -> None: ...
