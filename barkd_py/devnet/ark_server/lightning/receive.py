"""Being paid over Lightning.

A user chooses a preimage and asks for an invoice with its hash. When a payment for it is held, the user asks
for the *grant*: HTLC VTXOs out of the server's pool, which the user can take with the preimage and the server
after a height. Having checked them, the user claims: shows the preimage, and gets them cosigned to their own
key. With the preimage the server takes what is held.

The order matters: the settlement is in the books before the claim is signed, so that no crash leaves the
server paid and the user not.

Source: sheet 10 §6.6; sheet 05 §5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.attestations import is_attested, lightning_receive_message
from barkd_py.ark.clause import HashLock
from barkd_py.ark.fees import FeeExceedsAmount, FeeOverflow, lightning_receive_fee, subtract_fee
from barkd_py.ark.policy import MAX_HEIGHT, ServerHtlcReceivePolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Missing
from barkd_py.devnet.ark_server.lightning.engine import LightningEngine
from barkd_py.devnet.ark_server.lightning.node import HoldInvoiceTerms
from barkd_py.devnet.ark_server.lightning.parts import LightningParts, check_no_collision
from barkd_py.devnet.ark_server.store import lightning_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.lightning_rows import ReceiveStatus, Subscription
from barkd_py.devnet.ark_server.vtxos.arkoor import (
    CosignedPart,
    CosignRules,
    PartRequest,
    checked_parts,
    user_rows,
)

MAX_DESCRIPTION_BYTES = 639

SETTLE_MARGIN_BLOCKS = 3
"""The server needs so many blocks to take a held payment after it has learned the preimage."""


@dataclass(frozen=True, slots=True)
class ReceiveRequest:
    """A wish to be paid. min_cltv_delta: blocks that the receiver needs."""

    payment_hash: bytes
    amount_sat: int
    min_cltv_delta: int
    mailbox_id: PublicKey | None
    description: str


@dataclass(frozen=True, slots=True)
class MoneyProof:
    """A VTXO and a signature by its key: shows that the asker is no stranger."""

    vtxo_id: VtxoId
    attestation: bytes


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """Asking for the HTLC VTXOs. proof: or a token that was given out before; or nothing."""

    payment_hash: bytes
    user_pubkey: PublicKey
    expiry_height: int
    proof: MoneyProof | str | None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    payment_hash: bytes
    preimage: bytes = field(repr=False)
    parts: Sequence[PartRequest]


@dataclass(frozen=True, slots=True)
class ReceiveState:
    """What is told of a receive. htlcs: once they are granted."""

    receive: Subscription
    htlcs: tuple[Vtxo, ...]


class LightningReceives:
    """The server's side of being paid."""

    def __init__(self, parts: LightningParts, engine: LightningEngine) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._store = parts.store
        self._engine = engine
        self._granting: set[bytes] = set()

    # --- the invoice

    async def start(self, request: ReceiveRequest) -> str:
        """The invoice for a hash; the same again while nobody has paid it."""
        # The real server keeps 16 bits of what is asked for.
        request = replace(request, min_cltv_delta=request.min_cltv_delta & 0xFFFF)
        await self._store.transact(partial(check_no_collision, payment_hash=request.payment_hash))
        self._check_terms(request)
        earlier = await self._store.transact(
            partial(lightning_rows.subscriptions_of, payment_hash=request.payment_hash)
        )
        for each in earlier:
            if (what := _ALREADY.get(each.status)) is not None:
                raise Failure(f"invoice already {what}")
        if earlier and earlier[-1].status is ReceiveStatus.CREATED:
            return earlier[-1].invoice
        if earlier:
            return await self._reinstate(earlier[0])
        return await self._issue(request)

    def _check_terms(self, request: ReceiveRequest) -> None:
        settings = self._settings
        if request.amount_sat == 0:
            raise BadArgument(
                "Cannot create invoice for 0 sats "
                "(this would create an explicit 0 sat invoice, not an any-amount invoice)"
            )
        if len(request.description.encode()) > MAX_DESCRIPTION_BYTES:
            raise BadArgument(f"invalid invoice description: longer than {MAX_DESCRIPTION_BYTES} bytes")
        if request.min_cltv_delta > settings.max_user_invoice_cltv_delta:
            raise Failure(
                "Requested min HTLC CLTV delta is greater than max HTLC recv CLTV delta: "
                f"requested: {request.min_cltv_delta}, max: {settings.max_user_invoice_cltv_delta}"
            )
        try:
            subtract_fee(request.amount_sat, self._fee_sat(request.amount_sat))
        except FeeExceedsAmount as error:
            raise Failure(str(error)) from None
        if (most := settings.max_vtxo_amount_sat) is not None and request.amount_sat > most:
            raise BadArgument(f"Requested amount exceeds limit of {format_btc(most)}")
        if (most := settings.max_ln_receive_amount_sat) is not None and request.amount_sat > most:
            raise BadArgument(f"Requested amount exceeds lightning receive limit of {format_btc(most)}")

    def _fee_sat(self, amount_sat: int) -> int:
        try:
            return lightning_receive_fee(self._settings.fees, amount_sat)
        except FeeOverflow:
            raise Failure("fee overflowed") from None

    async def _issue(self, request: ReceiveRequest) -> str:
        terms = HoldInvoiceTerms(
            payment_hash=request.payment_hash,
            amount_msat=request.amount_sat * 1000,
            description=request.description,
            expiry_secs=self._settings.invoice_expiry_secs,
            min_final_cltv_delta=request.min_cltv_delta + self._settings.htlc_expiry_delta,
            network=self._settings.network,
        )
        changed = await self._parts.faults.reshape("lightning.invoice", terms)
        text = await self._parts.node.add_hold_invoice(replace(changed, network=Network(changed.network)))
        await self._store.transact(
            partial(
                lightning_rows.insert_subscription,
                new=Subscription(
                    id=0,
                    payment_hash=request.payment_hash,
                    invoice=text,
                    amount_sat=request.amount_sat,
                    min_final_cltv_delta=terms.min_final_cltv_delta,
                    expires_at=Bolt11Invoice.parse(text).expires_at,
                    mailbox_id=request.mailbox_id,
                ),
            )
        )
        return text

    async def _reinstate(self, first: Subscription) -> str:
        """A cancelled hash again: the first invoice, and nobody is notified."""
        await self._parts.node.reinstate_hold_invoice(first.payment_hash)
        again = replace(
            first,
            mailbox_id=None,
            status=ReceiveStatus.CREATED,
            accepted_at=None,
            lowest_expiry_height=None,
        )
        await self._store.transact(partial(lightning_rows.insert_subscription, new=again))
        return first.invoice

    # --- the state

    async def state(self, payment_hash: bytes, *, wait: bool = False) -> ReceiveState:
        """How the latest receive stands. wait: until there is something to do for the user."""
        while True:
            changed = self._engine.changed
            found = await self._store.transact(partial(_find, payment_hash=payment_hash))
            if found is None:
                raise Missing("invoice not found", [payment_hash.hex()])
            if not wait or found.receive.status in (ReceiveStatus.ACCEPTED, ReceiveStatus.HTLCS_READY):
                return found
            await changed.wait()

    # --- the grant

    async def grant(self, request: GrantRequest) -> ReceiveState:
        """The HTLC VTXOs for a payment that is held; always the same ones."""
        payment_hash = request.payment_hash
        if payment_hash in self._granting:
            raise Failure("a claim for this payment hash is already in progress")
        self._granting.add(payment_hash)
        try:
            return await self._grant(request)
        finally:
            self._granting.discard(payment_hash)

    async def _grant(self, request: GrantRequest) -> ReceiveState:
        found = await self._store.transact(partial(_find, payment_hash=request.payment_hash))
        if found is None:
            raise Missing("no pending payment with this payment hash", [request.payment_hash.hex()])
        if found.receive.status is ReceiveStatus.HTLCS_READY:
            if await self._parts.faults.pass_point("lightning.repeat-grant"):
                return found
        elif (refusal := _NOT_GRANTED.get(found.receive.status)) is not None:
            raise BadArgument(refusal)
        await self._check_no_stranger(request)
        receive = found.receive
        amount_sat = receive.amount_sat - self._fee_sat(receive.amount_sat)
        await self._check_window(receive, request.expiry_height)
        return await self._grant_from_pool(receive, request, amount_sat)

    async def _check_no_stranger(self, request: GrantRequest) -> None:
        proof = request.proof
        if proof is None:
            if self._settings.ln_receive_anti_dos_required:
                raise BadArgument("either a receive token or a challenge proof must be provided")
            return
        if isinstance(proof, str):
            # Nobody gives tokens out here.
            raise Missing("token not found", [proof])
        rows = await self._store.transact(partial(vtxo_rows.get_all, vtxo_ids=[proof.vtxo_id]))
        (row,) = rows
        tip_height = (await self._parts.chain.tip()).height
        try:
            vtxo_rows.check_shows_money(row, tip_height=tip_height)
        except BadArgument as error:
            raise BadArgument("anti-dos proof vtxo must be spendable") from error
        message = lightning_receive_message(request.payment_hash, proof.vtxo_id)
        if not is_attested(message, row.user_vtxo().user_pubkey, proof.attestation):
            raise BadArgument("vtxo attestation invalid")

    async def _check_window(self, receive: Subscription, expiry_height: int) -> None:
        """Whether the server gets back what it grants before the payer gets back what is held."""
        tip_height = (await self._parts.chain.tip()).height
        incoming_height = receive.lowest_expiry_height
        assert incoming_height is not None
        delta = self._settings.htlc_expiry_delta
        if tip_height + delta > incoming_height:
            raise BadArgument(
                f"Inbound HTLC too close to expiring: tip {tip_height}, expiry {incoming_height}"
            )
        if expiry_height + delta > incoming_height:
            raise BadArgument(
                "Requested HTLC recv expiry too close to inbound HTLC expiry: "
                f"requested {expiry_height}, inbound expiry {incoming_height}"
            )

    async def _grant_from_pool(
        self, receive: Subscription, request: GrantRequest, amount_sat: int
    ) -> ReceiveState:
        promise = _Promise(
            amount_sat,
            ServerHtlcReceivePolicy(
                request.user_pubkey,
                request.payment_hash,
                min(request.expiry_height, MAX_HEIGHT),
                self._settings.htlc_expiry_delta,
            ),
        )
        promise = await self._parts.faults.reshape("lightning.grant", promise)
        policy = replace(promise.policy, lock=HashLock(promise.policy.lock))
        pool = self._parts.pool
        try:
            async with pool.granting:
                grant = await pool.grant(promise.amount_sat, policy)

                def write(connection: Connection) -> bool:
                    pool.book(connection, grant)
                    lightning_rows.replace_grant(connection, receive.id, [vtxo.id for vtxo in grant.vtxos])
                    return lightning_rows.move_subscription(
                        connection,
                        receive.id,
                        allowed={ReceiveStatus.ACCEPTED, ReceiveStatus.HTLCS_READY},
                        to=ReceiveStatus.HTLCS_READY,
                    )

                is_waiting = await self._store.transact(write)
        except Failure as error:
            raise Failure("vtxopool error") from error
        if not is_waiting:
            raise Failure("the receive was canceled meanwhile")
        return ReceiveState(replace(receive, status=ReceiveStatus.HTLCS_READY), grant.vtxos)

    # --- the claim

    async def claim(self, request: ClaimRequest) -> list[CosignedPart]:
        """Learn the preimage, book it, and only then sign the HTLC VTXOs over. Safe to repeat."""
        payment_hash, requests = request.payment_hash, request.parts
        if sha256(request.preimage) != payment_hash:
            raise BadArgument("preimage doesn't match payment hash")
        if not any(each.outputs or each.isolated for each in requests):
            raise Failure("no destination VTXO policy present")
        found = await self._store.transact(partial(_find, payment_hash=payment_hash))
        if found is None:
            raise Missing("no pending payment with this payment hash", [payment_hash.hex()])
        await self._check_claimable(found.receive)
        granted = sorted(vtxo.id for vtxo in found.htlcs)
        if [each.input_id for each in requests] != granted:
            raise BadArgument(f"cosign inputs do not match htlcs: {', '.join(str(each) for each in granted)}")
        rows = await self._store.transact(partial(user_rows, ids=granted))
        rules = CosignRules(
            use_checkpoint=True, max_outputs=1, max_exit_depth=None, forbid_needless_dust=False
        )
        parts = checked_parts(rules, requests, [vtxo for _, vtxo in rows])
        await self._store.transact(partial(self._book_preimage, found.receive, request.preimage))
        self._engine.wake(payment_hash)
        return await self._parts.arkoor.book_and_sign(requests, parts)

    async def _check_claimable(self, receive: Subscription) -> None:
        if receive.status is ReceiveStatus.SETTLED:
            return
        if receive.status is not ReceiveStatus.HTLCS_READY:
            raise BadArgument(f"payment status in incorrect state: {receive.status.value}")
        find = partial(lightning_rows.open_attempt_on, subscription=receive.id)
        is_inside = await self._store.transact(find) is not None
        tip_height = (await self._parts.chain.tip()).height
        incoming_height = receive.lowest_expiry_height
        assert incoming_height is not None
        if not is_inside and tip_height + SETTLE_MARGIN_BLOCKS > incoming_height:
            raise BadArgument(
                f"Lowest incoming HTLC expiry {incoming_height} is too close to the current chaintip "
                f"{tip_height} to safely settle the hold invoice"
            )

    def _book_preimage(self, receive: Subscription, preimage: bytes, connection: Connection) -> None:
        """Raises BadArgument if the receive was canceled meanwhile."""
        current = lightning_rows.get_subscription(connection, receive.id)
        if current.status not in (ReceiveStatus.HTLCS_READY, ReceiveStatus.SETTLED):
            raise BadArgument(f"payment status in incorrect state: {current.status.value}")
        lightning_rows.settle(connection, receive.payment_hash, preimage)

    # --- giving up

    async def cancel(self, payment_hash: bytes) -> None:
        """Refuse to be paid; what is held goes back. Safe to repeat.

        If the payer is a user of the same server, their payment stays open until its HTLCs expire, as it does
        at the real server.
        """
        found = await self._store.transact(partial(_find, payment_hash=payment_hash))
        if found is None:
            raise Missing("no pending payment with this payment hash", [payment_hash.hex()])
        if found.receive.status is ReceiveStatus.HTLCS_READY:
            raise BadArgument("cannot cancel: HTLC-recv vtxos have already been granted")
        if found.receive.status is ReceiveStatus.SETTLED:
            raise BadArgument("cannot cancel: payment already settled")
        if found.receive.status is ReceiveStatus.CANCELED:
            return
        try:
            await self._parts.node.cancel_hold_invoice(payment_hash)
        except Failure as error:
            raise Failure(f"could not cancel hold invoice: {error}") from None
        await self._store.transact(
            partial(
                lightning_rows.move_subscription,
                number=found.receive.id,
                allowed={ReceiveStatus.CREATED, ReceiveStatus.ACCEPTED},
                to=ReceiveStatus.CANCELED,
            )
        )


@dataclass(frozen=True, slots=True)
class _Promise:
    """What a receiver is to get."""

    amount_sat: int
    policy: ServerHtlcReceivePolicy


_ALREADY = {
    ReceiveStatus.SETTLED: "settled",
    ReceiveStatus.ACCEPTED: "accepted",
    ReceiveStatus.HTLCS_READY: "has htlcs ready",
}

_NOT_GRANTED = {
    ReceiveStatus.CANCELED: "payment canceled",
    ReceiveStatus.SETTLED: "payment already settled",
    ReceiveStatus.CREATED: "payment not yet initiated by sender",
}


def _find(connection: Connection, payment_hash: bytes) -> ReceiveState | None:
    receive = lightning_rows.latest_subscription(connection, payment_hash)
    if receive is None:
        return None
    ids = lightning_rows.granted(connection, receive.id)
    rows = vtxo_rows.find_all(connection, ids)
    return ReceiveState(receive, tuple(rows[vtxo_id].user_vtxo() for vtxo_id in ids))
