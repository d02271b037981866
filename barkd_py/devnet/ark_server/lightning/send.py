"""Paying Lightning invoices for users.

A user first turns VTXOs into HTLC VTXOs, which the server can take with the preimage and the user after a
height; then the server pays. If the payee is another user of the same server, no payment leaves it: the
receive is accepted at once, and the attempt ends with it. If the payment fails, the user asks for the
revocation of the HTLCs, which the server signs only once it is certain that it cannot learn the preimage.

Source: sheet 10 §6.5, §9.2; sheet 05 §4.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.clause import HashLock
from barkd_py.ark.fees import PPM, FeeOverflow, VtxoFeeInfo, lightning_send_fee
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import format_btc
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Missing
from barkd_py.devnet.ark_server.lightning.engine import LightningEngine
from barkd_py.devnet.ark_server.lightning.invoice import PayableInvoice
from barkd_py.devnet.ark_server.lightning.node import PaymentOrder, Succeeded
from barkd_py.devnet.ark_server.lightning.parts import LightningParts, check_no_collision
from barkd_py.devnet.ark_server.settings import Emulation
from barkd_py.devnet.ark_server.store import lightning_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.lightning_rows import (
    Attempt,
    AttemptStatus,
    FailureReason,
    ReceiveStatus,
    Subscription,
)
from barkd_py.devnet.ark_server.vtxos.arkoor import (
    CosignedPart,
    CosignRules,
    PartRequest,
    checked_parts,
    user_rows,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What a user wants to be paid. retry_secs: how long to try; None for the server's own idea."""

    invoice: PayableInvoice
    htlc_ids: tuple[VtxoId, ...]
    amount_sat: int
    mailbox_id: PublicKey | None
    retry_secs: int | None


@dataclass(frozen=True, slots=True)
class PaymentState:
    """What is told of a payment. preimage: if it succeeded. reason: if it failed."""

    preimage: bytes | None = None
    reason: FailureReason | None = None


class LightningSends:
    """The server's side of paying invoices."""

    def __init__(self, parts: LightningParts, engine: LightningEngine) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._store = parts.store
        self._engine = engine

    # --- HTLCs

    async def cosign_htlcs(self, requests: Sequence[PartRequest]) -> list[CosignedPart]:
        """Spend VTXOs into HTLC VTXOs for a payment. The amounts are not looked at yet."""
        try:
            return await self._cosign_htlcs(requests)
        except Failure as error:
            raise Failure("error making payment") from error

    async def _cosign_htlcs(self, requests: Sequence[PartRequest]) -> list[CosignedPart]:
        ids = [request.input_id for request in requests]
        rows = await self._store.transact(partial(user_rows, ids=ids))
        policies = [
            output.policy
            for request in requests
            for output in (*request.outputs, *request.isolated)
            if isinstance(output.policy, ServerHtlcSendPolicy) and output.policy.lock is HashLock.V1
        ]
        if not policies:
            raise BadArgument("no HTLC outputs provided")
        policy = policies[0]
        if any(each != policy for each in policies):
            raise Failure("not all HTLC outputs are identical")
        tip_height = (await self._parts.chain.tip()).height
        await self._store.transact(partial(self._check_payable, policy=policy, tip_height=tip_height))
        parts = checked_parts(self._parts.arkoor.rules, requests, [vtxo for _, vtxo in rows])
        for (row, _), part in zip(rows, parts, strict=True):
            vtxo_rows.check_spendable(row, tip_height=tip_height, by=part.spending_tx.txid)
        return await self._parts.arkoor.book_and_sign(requests, parts)

    def _check_payable(self, connection: Connection, policy: ServerHtlcSendPolicy, tip_height: int) -> None:
        check_no_collision(connection, policy.payment_hash)
        if lightning_rows.preimage_of(connection, policy.payment_hash) is not None:
            raise BadArgument("invoice has already been paid")
        # One block of slack: the wallet's tip may be behind.
        if policy.htlc_expiry_height < tip_height + self._settings.htlc_send_expiry_delta - 1:
            raise BadArgument(
                f"requested expiry is too low. our tip is {tip_height}. sync your node and try again"
            )
        if lightning_rows.open_attempt(connection, policy.payment_hash) is not None:
            raise BadArgument("payment already in progress for this invoice")

    # --- paying

    async def initiate(self, request: PaymentRequest) -> None:
        """Check a payment and start it. From then on trouble is seen in its state only."""
        tip_height = (await self._parts.chain.tip()).height
        htlcs = await self._store.transact(
            partial(self._checked_htlcs, request=request, tip_height=tip_height)
        )
        await self._store.transact(partial(_check_receive, request=request))
        fee_sat = self._fee_sat(request.amount_sat, htlcs, tip_height)
        total_sat = sum(vtxo.amount_sat for vtxo in htlcs)
        if total_sat < request.amount_sat + fee_sat:
            raise BadArgument(
                f"HTLC VTXO sum of {format_btc(total_sat)} is less than the payment amount of "
                f"{format_btc(request.amount_sat)} plus fees of {format_btc(fee_sat)}"
            )
        if not request.invoice.is_signed:
            raise Failure("invalid invoice signature: bolt12 signature is invalid")
        budget_sat = fee_sat * self._settings.ln_max_fee_ppm // PPM + total_sat - request.amount_sat - fee_sat
        try:
            await self._start(request, htlcs, budget_sat, tip_height)
        except Failure as error:
            log.warning("starting payment %s failed: %s", request.invoice.payment_hash.hex(), error)

    def _checked_htlcs(self, connection: Connection, request: PaymentRequest, tip_height: int) -> list[Vtxo]:
        rows = vtxo_rows.get_all(connection, request.htlc_ids)
        for row in rows:
            vtxo_rows.check_htlc_spendable(row, tip_height=tip_height)
        vtxos = [row.user_vtxo() for row in rows]
        if not vtxos:
            raise BadArgument("no HTLC VTXOs provided")
        invoice = request.invoice
        for vtxo in vtxos:
            if vtxo.server_pubkey != self._parts.keys.server_pubkey:
                raise BadArgument("invalid server pubkey used")
            if _htlc(vtxo).payment_hash != invoice.payment_hash:
                raise BadArgument("htlc payment hash doesn't match invoice")
        if invoice.amount_msat is not None:
            if invoice.amount_msat > request.amount_sat * 1000:
                raise BadArgument("requested payment amount too low for invoice")
            if invoice.amount_msat < request.amount_sat * 500:
                raise BadArgument("requested payment amount more than double invoice amount")
        return vtxos

    def _fee_sat(self, amount_sat: int, htlcs: Sequence[Vtxo], tip_height: int) -> int:
        infos = [
            VtxoFeeInfo.at_tip(
                amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=tip_height
            )
            for vtxo in htlcs
        ]
        try:
            return lightning_send_fee(self._settings.fees, amount_sat, infos)
        except FeeOverflow:
            raise Failure("fee overflowed") from None

    async def _start(
        self, request: PaymentRequest, htlcs: Sequence[Vtxo], budget_sat: int, tip_height: int
    ) -> None:
        invoice = request.invoice
        if not await self._parts.faults.pass_point("lightning.initiate"):
            return
        lowest_expiry_height = min(_htlc(vtxo).htlc_expiry_height for vtxo in htlcs)
        attempt, receive, wakes = await self._store.transact(
            partial(self._book, request=request, lowest_expiry_height=lowest_expiry_height)
        )
        for mailbox_id in wakes:
            self._parts.mailboxes.wake(mailbox_id)
        if attempt is None:
            return
        if receive is not None:
            self._engine.wake(invoice.payment_hash)
            try:
                await self._parts.node.cancel_hold_invoice(invoice.payment_hash)
            except Failure:
                await self._engine.fail(attempt, FailureReason.OTHER)
                raise
            return
        max_cltv_delta = lowest_expiry_height - (tip_height + self._settings.htlc_expiry_delta)
        if max_cltv_delta < 0:
            raise Failure("the HTLCs expire too soon to pay with")
        await self._parts.node.pay(
            PaymentOrder(
                payment_hash=invoice.payment_hash,
                invoice=invoice.text,
                amount_msat=invoice.to_pay_msat(request.amount_sat),
                max_fee_msat=budget_sat * 1000,
                max_cltv_delta=max_cltv_delta,
                retry_secs=self._retry_secs(request),
            )
        )
        self._engine.wake(invoice.payment_hash)

    def _retry_secs(self, request: PaymentRequest) -> int:
        most = self._settings.payment_retry_secs
        if request.retry_secs is None or self._settings.emulate is Emulation.V0_6:
            return most
        return min(request.retry_secs, most)

    def _book(
        self, connection: Connection, request: PaymentRequest, lowest_expiry_height: int
    ) -> tuple[Attempt | None, Subscription | None, list[PublicKey]]:
        """Write the attempt: it, if it is new and open; the receive that it pays; mailboxes to wake."""
        payment_hash = request.invoice.payment_hash
        if lightning_rows.open_attempt(connection, payment_hash) is not None:
            return None, None, []
        receive = lightning_rows.latest_subscription(connection, payment_hash)
        new = Attempt(
            id=0,
            payment_hash=payment_hash,
            invoice=request.invoice.text,
            amount_sat=request.amount_sat,
            mailbox_id=request.mailbox_id,
            subscription=None if receive is None else receive.id,
            created_at=self._parts.clock(),
        )
        attempt = lightning_rows.insert_attempt(connection, new, request.htlc_ids)
        if receive is None:
            return attempt, None, []
        if receive.status is not ReceiveStatus.CREATED:
            log.info("invoice is not in a valid state to pay: %s. expected: created", receive.status.value)
            return None, receive, self._engine.fail_in(connection, attempt, FailureReason.INVOICE_STATE)
        return attempt, receive, self._engine.accept(connection, receive, lowest_expiry_height)

    # --- the state

    async def state(self, payment_hash: bytes, *, wait: bool = False) -> PaymentState:
        """How the latest attempt stands: neither preimage nor reason while it is open. Raises Missing."""
        while True:
            changed = self._engine.changed
            state = await self._store.transact(partial(_payment_state, payment_hash=payment_hash))
            if not wait or state != PaymentState():
                return state
            await changed.wait()

    # --- giving up

    async def revoke(self, requests: Sequence[PartRequest]) -> list[CosignedPart]:
        """Spend the HTLC VTXOs of a payment that failed back to its user."""
        destinations = [output.policy for each in requests for output in (*each.outputs, *each.isolated)]
        if not destinations or any(policy != destinations[0] for policy in destinations):
            raise Failure("all revocation vtxo requests must have the same policy")
        if not isinstance(destinations[0], PubkeyPolicy):
            raise BadArgument("pay htlcs revocation policy must be pubkey")
        rows = await self._store.transact(partial(user_rows, ids=[request.input_id for request in requests]))
        vtxos = [vtxo for _, vtxo in rows]
        policy = vtxos[0].policy
        if any(vtxo.policy != policy for vtxo in vtxos):
            raise Failure("all vtxos should have the same policy")
        if not isinstance(policy, ServerHtlcSendPolicy):
            raise Failure("vtxo is not htlc send")
        await self._store.transact(partial(_check_not_paid, payment_hash=policy.payment_hash))
        rules = CosignRules(
            use_checkpoint=True, max_outputs=1, max_exit_depth=None, forbid_needless_dust=False
        )
        parts = checked_parts(rules, requests, vtxos)
        await self._check_given_up(policy)
        answers = await self._parts.arkoor.book_and_sign(
            requests, parts, guard=partial(_give_up_receive, payment_hash=policy.payment_hash), lock=False
        )
        self._engine.wake(policy.payment_hash)
        return answers

    async def _check_given_up(self, policy: ServerHtlcSendPolicy) -> None:
        """Whether the server can be certain not to learn the preimage, or the user may leave anyway."""
        find = partial(lightning_rows.latest_attempt, payment_hash=policy.payment_hash)
        attempt = await self._store.transact(find)
        if attempt is None or not attempt.status.is_open:
            return
        if (await self._parts.chain.tip()).height <= policy.htlc_expiry_height:
            raise BadArgument("This lightning payment is not eligible for revocation yet")
        payment = await self._parts.node.payment(policy.payment_hash)
        if isinstance(payment, Succeeded):
            await self._engine.succeed(attempt, payment.preimage)
            raise BadArgument(f"This lightning payment has completed. preimage: {payment.preimage.hex()}")

    # --- offers

    async def fetch_invoice(self, offer: bytes, amount_msat: int) -> bytes:
        """Ask for an invoice for an offer. Raises Failure."""
        return await self._parts.node.fetch_invoice(offer, amount_msat)


def _htlc(vtxo: Vtxo) -> ServerHtlcSendPolicy:
    assert isinstance(vtxo.policy, ServerHtlcSendPolicy)
    return vtxo.policy


def _check_receive(connection: Connection, request: PaymentRequest) -> None:
    """If the payee is a user of the server, the invoice must be the one that it was given."""
    payment_hash = request.invoice.payment_hash
    receive = lightning_rows.latest_subscription(connection, payment_hash)
    if receive is None:
        return
    if receive.invoice != request.invoice.text:
        raise BadArgument(
            f"invoice does not match the invoice we issued for payment hash {payment_hash.hex()}"
        )
    if request.amount_sat < receive.amount_sat:
        raise BadArgument(
            f"payment amount of {format_btc(request.amount_sat)} is less than the invoiced amount of "
            f"{format_btc(receive.amount_sat)}"
        )


def _payment_state(connection: Connection, payment_hash: bytes) -> PaymentState:
    attempt = lightning_rows.latest_attempt(connection, payment_hash)
    if attempt is None:
        raise Missing("payment attempt not found", [payment_hash.hex()])
    if attempt.status is AttemptStatus.FAILED:
        return PaymentState(reason=attempt.reason)
    if attempt.status is not AttemptStatus.SUCCEEDED:
        return PaymentState()
    preimage = lightning_rows.preimage_of(connection, payment_hash)
    if preimage is None:
        raise Failure("missing preimage on payment success")
    return PaymentState(preimage=preimage)


def _check_not_paid(connection: Connection, payment_hash: bytes) -> None:
    preimage = lightning_rows.preimage_of(connection, payment_hash)
    if preimage is not None:
        raise BadArgument(f"invoice has already been paid, preimage: {preimage.hex()}")


def _give_up_receive(connection: Connection, payment_hash: bytes) -> None:
    """Nobody can be paid any more with what is revoked. Raises BadArgument if somebody still can."""
    _check_not_paid(connection, payment_hash)
    receive = lightning_rows.latest_subscription(connection, payment_hash)
    if receive is None:
        return
    if receive.status in (ReceiveStatus.HTLCS_READY, ReceiveStatus.SETTLED):
        raise BadArgument(
            f"invoice receive is already committed (status: {receive.status.value}), cannot revoke: "
            "the payment can still be claimed"
        )
    lightning_rows.move_subscription(
        connection,
        receive.id,
        allowed={ReceiveStatus.CREATED, ReceiveStatus.ACCEPTED},
        to=ReceiveStatus.CANCELED,
    )
