"""An Ark server that pays invoices, in memory, on the chain of `lightning_server`.

It is honest, and strict: what protocol sheet 05 §4.4, §4.5 and §4.8 make a server refuse is refused here, in
that order. It does not pay anybody by itself: a test says how each payment ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from barkd_py.ark.arkoor import MAX_FANOUT, ArkoorPart, server_cosign_part
from barkd_py.ark.attestations import is_attested, vtxo_status_message
from barkd_py.ark.fees import LightningSendFees, PpmExpiryFeeEntry, VtxoFeeInfo, lightning_send_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.errors import ServerRejected, ServerUnavailable
from barkd_py.server_rpc.api import (
    ArkoorCosignature,
    ArkoorCosignPart,
    LightningFailureReason,
    LightningPaymentStatus,
    PaymentFailed,
    PaymentPending,
    PaymentSucceeded,
    StatusQuery,
    VtxoSpendState,
)
from tests.fakes.lightning_server import INFO, ReceiveServer
from tests.fakes.wallet import SERVER_SECRET

TABLE = (
    PpmExpiryFeeEntry(0, 0),
    PpmExpiryFeeEntry(97, 1_000),
    PpmExpiryFeeEntry(199, 4_000),
    PpmExpiryFeeEntry(2161, 8_000),
)
PAY_INFO = replace(
    INFO,
    fees=replace(
        INFO.fees, lightning_send=LightningSendFees(min_fee_sat=10, base_fee_sat=75, ppm_expiry_table=TABLE)
    ),
)


@dataclass
class Booked:
    """A VTXO in the server's books. spent_into: what it was spent into, by its only spender."""

    vtxo: Vtxo
    registered: bool
    spent_into: tuple[VtxoId, ...] | None = None


@dataclass
class Attempt:
    """A payment that the server was told to make. status: what it says of it."""

    invoice: str
    amount_sat: int
    htlc_ids: tuple[VtxoId, ...]
    mailbox_id: PublicKey | None
    retry_for_secs: int | None
    status: LightningPaymentStatus = field(default_factory=PaymentPending)


@dataclass
class PayServer(ReceiveServer):
    """See the module.

    attempts: by payment hash, the newest last. lag: how many blocks its tip is behind the wallet's.
    forgets: it says yes to a payment, and starts none.
    """

    info_: ArkInfo = PAY_INFO
    books: dict[VtxoId, Booked] = field(default_factory=dict)
    attempts: dict[bytes, list[Attempt]] = field(default_factory=dict)
    lag: int = 0
    forgets: bool = False
    offers: list[tuple[bytes, int | None]] = field(default_factory=list)
    offer_invoice: bytes = b""

    # --- what tests do

    def user_coin(self, user: SecretKey, amount_sat: int, expiry_height: int) -> Vtxo:
        """A board of this user, in the books."""
        vtxo = self.coin(user, amount_sat, expiry_height)
        self.books[vtxo.id] = Booked(vtxo, registered=True)
        return vtxo

    def attempt(self, payment_hash: bytes) -> Attempt:
        return self.attempts[payment_hash][-1]

    def settle(self, preimage: bytes) -> None:
        """The payee took the money."""
        attempt = self.attempt(sha256(preimage))
        attempt.status = PaymentSucceeded(preimage)
        for htlc_id in attempt.htlc_ids:
            self.books[htlc_id].spent_into = ()

    def fail(
        self, payment_hash: bytes, reason: LightningFailureReason = LightningFailureReason.NO_ROUTE
    ) -> None:
        self.attempt(payment_hash).status = PaymentFailed(reason)

    def unspent_sat(self) -> int:
        """What users have, by the books: with the wallet's own number there is no third one."""
        return sum(
            each.vtxo.amount_sat
            for each in self.books.values()
            if each.spent_into is None and isinstance(each.vtxo.policy, PubkeyPolicy)
        )

    def _preimage(self, payment_hash: bytes) -> bytes | None:
        for attempt in self.attempts.get(payment_hash, []):
            if isinstance(attempt.status, PaymentSucceeded):
                return attempt.status.preimage
        return None

    @property
    def _tip_height(self) -> int:
        return self.chain.height - self.lag

    # --- ArkServerApi, as far as a payment needs it

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        self._reach("register_vtxo_transactions")
        for vtxo in vtxos:
            validate(vtxo, self.chain.txs[vtxo.anchor_point.txid])
            if vtxo.id not in self.books:
                raise ServerRejected(f"bad user input: vtxo {vtxo.id} is unknown")
            self.books[vtxo.id].registered = True
            self.registered.add(vtxo.id)

    async def get_vtxo_statuses(self, queries: Sequence[StatusQuery]) -> dict[VtxoId, VtxoSpendState]:
        self._reach("get_vtxo_statuses")
        states = {}
        for query in queries:
            booked = self.books[query.vtxo_id]
            assert is_attested(vtxo_status_message(query.vtxo_id), booked.vtxo.user_pubkey, query.attestation)
            if booked.spent_into is not None:
                states[query.vtxo_id] = VtxoSpendState.SPENT
            else:
                states[query.vtxo_id] = (
                    VtxoSpendState.SPENDABLE if booked.registered else VtxoSpendState.UNREGISTERED
                )
        return states

    async def request_lightning_pay_htlc_cosign(
        self, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]:
        self._reach("request_lightning_pay_htlc_cosign")
        policies = {
            output.policy
            for each in parts
            for output in each.part.all_outputs
            if isinstance(output.policy, ServerHtlcSendPolicy)
        }
        if not policies:
            raise _refused("no HTLC outputs provided")
        if len(policies) > 1:
            raise ServerUnavailable("INTERNAL: not all HTLC outputs are identical")
        (policy,) = policies
        if self._preimage(policy.payment_hash) is not None:
            raise _refused("invoice has already been paid")
        if policy.htlc_expiry_height < self._tip_height + self.info_.htlc_send_expiry_delta - 1:
            raise _refused(
                f"requested expiry is too low. our tip is {self._tip_height}. sync your node and try again"
            )
        if self._open(policy.payment_hash):
            raise _refused("payment already in progress for this invoice")
        return self._cosign(parts, PubkeyPolicy)

    async def request_arkoor_cosign(self, parts: Sequence[ArkoorCosignPart]) -> tuple[ArkoorCosignature, ...]:
        self._reach("request_arkoor_cosign")
        return self._cosign(parts, PubkeyPolicy)

    def _cosign(self, parts: Sequence[ArkoorCosignPart], of: type) -> tuple[ArkoorCosignature, ...]:
        for each in parts:
            part = each.part
            if not part.use_checkpoint:
                raise _refused("invalid cosign request: checkpoints required")
            if len(part.all_outputs) > MAX_FANOUT:
                raise _refused(f"invalid cosign request: too many outputs ({len(part.all_outputs)} > 4)")
            if part.input.exit_depth >= self.info_.max_vtxo_exit_depth and of is PubkeyPolicy:
                raise _refused("invalid cosign request: exit depth")
            if not part.verify_attestation(each.attestation):
                raise _refused("invalid cosign request: Invalid attestation")
            self._check_input(part, of)
        for each in parts:
            self._book(each.part)
        return tuple(
            ArkoorCosignature(*server_cosign_part(each.part, SERVER_SECRET, each.user_pub_nonces))
            for each in parts
        )

    def _check_input(self, part: ArkoorPart, of: type) -> None:
        booked = self.books.get(part.input.id)
        if booked is None:
            raise ServerRejected("not found: vtxo does not exist", not_found=True)
        if not isinstance(booked.vtxo.policy, of):
            raise _refused("server htlc send vtxo not supported")
        if booked.spent_into is not None:
            if booked.spent_into != _ids(part):
                raise ServerUnavailable(f"INTERNAL: tx body error: vtxo {part.input.id} is already spent")
        elif not booked.registered:
            raise _refused(f"vtxo doesn't exist or is unspendable: {part.input.id}")

    def _book(self, part: ArkoorPart) -> None:
        for vtxo in part.unsigned_vtxos:
            self.books.setdefault(vtxo.id, Booked(vtxo, registered=False))
        self.books[part.input.id].spent_into = _ids(part)

    def _open(self, payment_hash: bytes) -> bool:
        return any(
            isinstance(attempt.status, PaymentPending) for attempt in self.attempts.get(payment_hash, [])
        )

    async def initiate_lightning_payment(
        self,
        *,
        invoice: str,
        htlc_vtxo_ids: Sequence[VtxoId],
        amount_sat: int,
        mailbox_id: PublicKey | None,
        retry_for_secs: int | None,
    ) -> None:
        self._reach("initiate_lightning_payment")
        parsed = Bolt12Invoice.parse(invoice) if invoice.startswith("lni") else Bolt11Invoice.parse(invoice)
        payment_hash = parsed.payment_hash
        assert len(set(htlc_vtxo_ids)) == len(htlc_vtxo_ids) > 0
        htlcs = [self.books[htlc_id] for htlc_id in htlc_vtxo_ids]
        if self._preimage(payment_hash) is not None:
            raise _refused("vtxo is not spendable (state: ln-spent)")
        for htlc in htlcs:
            policy = htlc.vtxo.policy
            assert isinstance(policy, ServerHtlcSendPolicy)
            if htlc.spent_into is not None or not htlc.registered:
                raise _refused(f"vtxo {htlc.vtxo.id} is not spendable (state: unregistered)")
            if policy.payment_hash != payment_hash:
                raise _refused("htlc payment hash doesn't match invoice")
        if parsed.amount_msat is not None and not amount_sat * 500 <= parsed.amount_msat <= amount_sat * 1000:
            raise _refused("requested payment amount too low for invoice")
        infos = [
            VtxoFeeInfo.at_tip(
                amount_sat=htlc.vtxo.amount_sat,
                expiry_height=htlc.vtxo.expiry_height,
                tip_height=self._tip_height,
            )
            for htlc in htlcs
        ]
        fee_sat = lightning_send_fee(self.info_.fees, amount_sat, infos)
        if sum(htlc.vtxo.amount_sat for htlc in htlcs) < amount_sat + fee_sat:
            raise _refused("HTLC VTXO sum is less than the payment amount plus fees")
        if self._open(payment_hash) or self.forgets:
            return
        self.attempts.setdefault(payment_hash, []).append(
            Attempt(invoice, amount_sat, tuple(htlc_vtxo_ids), mailbox_id, retry_for_secs)
        )

    async def check_lightning_payment(self, payment_hash: bytes) -> LightningPaymentStatus:
        self._reach("check_lightning_payment")
        if not self.attempts.get(payment_hash):
            raise ServerRejected("not found: payment attempt not found", not_found=True)
        return self.attempt(payment_hash).status

    async def request_lightning_pay_htlc_revocation(
        self, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]:
        self._reach("request_lightning_pay_htlc_revocation")
        outputs = [output for each in parts for output in each.part.all_outputs]
        assert len({output.policy for output in outputs}) == 1, "one policy for all"
        assert isinstance(outputs[0].policy, PubkeyPolicy)
        assert len(outputs) == len(parts), "one output for each input"
        policies = {each.part.input.policy for each in parts}
        assert len(policies) == 1
        (policy,) = policies
        assert isinstance(policy, ServerHtlcSendPolicy)
        preimage = self._preimage(policy.payment_hash)
        if preimage is not None:
            raise _refused(f"invoice has already been paid, preimage: {preimage.hex()}")
        if self._open(policy.payment_hash) and self._tip_height <= policy.htlc_expiry_height:
            raise _refused("This lightning payment is not eligible for revocation yet")
        return self._cosign(parts, ServerHtlcSendPolicy)

    async def fetch_bolt12_invoice(self, offer: bytes, amount_sat: int | None) -> bytes:
        self._reach("fetch_bolt12_invoice")
        self.offers.append((offer, amount_sat))
        return self.offer_invoice


def _ids(part: ArkoorPart) -> tuple[VtxoId, ...]:
    return tuple(vtxo.id for vtxo in part.unsigned_vtxos)


def _refused(text: str) -> ServerRejected:
    return ServerRejected(f"error making payment: bad user input: {text}")
