"""The steps of a Lightning payment: what is asked of the server, and what is stored about it.

What a payment can be, and what is decided, is in `states`. Here the order matters: HTLCs are
stored before the server is told to pay with them; that an invoice is paid is stored together with the end of
the HTLCs; and where the server refuses, its books are looked at before anything is undone.

Two answers that are lost are worth a word. If the server has cosigned HTLCs and we never heard of it, the
same request again brings them; after a block or two the server refuses it, because HTLCs would expire too
soon. An ordinary payment with the same outputs still brings them, and then they are revoked. And if it was
told to pay, whatever refuses to repeat that, the payment is asked for before the HTLCs are.

Source: protocol sheet 05 §4.4-4.9, §9, §10.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.chain.source import ChainSource
from barkd_py.errors import (
    BarkdError,
    ChainError,
    OutsideError,
    ProtocolViolation,
    ServerRejected,
    causes,
    chain_text,
    log_text,
)
from barkd_py.server_rpc.api import ArkServerApi, PaymentSucceeded
from barkd_py.wallet.actions.bad_answers import after_bad_answer, counted
from barkd_py.wallet.actions.executor import Done, Failed, Next, Outcome, Park, Retry
from barkd_py.wallet.actions.failures import Unworkable, is_final
from barkd_py.wallet.actions.server_books import are_spendable
from barkd_py.wallet.arkoor.package import RequestCosign, cosign_package, is_refused
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.send.on_chain import Fate, HtlcWatch
from barkd_py.wallet.lightning.send.states import (
    FORMAT,
    Answer,
    Decision,
    Funded,
    Initiated,
    Locked,
    Payment,
    Revocable,
    State,
    Stuck,
    WithHtlcs,
    after_poll,
    is_late,
    must_exit,
    weigh,
)
from barkd_py.wallet.lightning.send.writes import (
    write_exits,
    write_failed,
    write_funded,
    write_paid,
    write_spent,
    write_taken_back,
)
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import UNSPENT, StateKind
from barkd_py.wallet.vtxos.anchors import Anchors
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

POLL_SECS = 2.0
STUCK_POLL_SECS = 30.0
MAX_NOTED_PREIMAGES = 1000

_PREIMAGE = re.compile(r"preimage: ([0-9a-f]{64})")


class LightningSendMachine:
    """The steps of a payment.

    threshold: config `vtxo_refresh_expiry_threshold`; exit_margin: `vtxo_exit_margin`. start_exit: of a VTXO,
    whoever holds it; a success if it is exiting already.
    """

    kind = ActionKind.LIGHTNING_SEND
    format = FORMAT

    def __init__(
        self,
        store: Store,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        registration: Registration,
        anchors: Anchors,
        *,
        threshold: int,
        exit_margin: int,
        start_exit: Callable[[VtxoId], Awaitable[None]],
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._registration = registration
        self._anchors = anchors
        self._threshold = threshold
        self._exit_margin = exit_margin
        self._start_exit = start_exit
        self._watch = HtlcWatch(store, chain)
        self._preimages: dict[bytes, bytes] = {}

    def reports(self, state: State) -> Sequence[VtxoId]:
        return state.payment.input_ids if isinstance(state, Locked) else state.htlc_ids

    def note_preimage(self, payment_hash: bytes, preimage: bytes) -> None:
        """Somebody else has heard of it; the next step looks whether it is one. Lost in a crash: the server
        is asked anyway.
        """
        if len(self._preimages) >= MAX_NOTED_PREIMAGES:
            self._preimages.pop(next(iter(self._preimages)))
        self._preimages[payment_hash] = preimage

    async def step(self, action_id: str, state: State) -> Outcome[State]:
        match state:
            case Locked():
                return await self._fund(action_id, state)
            case Funded():
                return await self._initiate(state)
            case Initiated():
                return await self._poll(state)
            case Revocable() | Stuck():
                return await self._take_back(state)
            case _:
                assert_never(state)

    # --- Locked

    async def _fund(self, action_id: str, state: Locked) -> Outcome[State]:
        try:
            vtxos = await self._cosign(state, self._server.request_lightning_pay_htlc_cosign)
        except ProtocolViolation as error:
            return await self._after_bad_answer(action_id, state, error)
        except (OutsideError, Unworkable) as error:
            if is_refused(error) or is_late(state.payment, await self._tip_height(), self._threshold):
                return await self._undo(action_id, state, error)
            raise
        return self._funded(action_id, state, vtxos, Funded)

    async def _cosign(self, state: Locked, request: RequestCosign) -> tuple[Vtxo, ...]:
        vtxos = await cosign_package(
            self._store,
            self._keychain,
            self._server,
            state.payment.input_ids,
            state.payment.outputs,
            request=request,
        )
        await self._anchors.validate(vtxos)
        return vtxos

    def _funded(
        self,
        action_id: str,
        state: Locked,
        vtxos: Sequence[Vtxo],
        following: type[Funded] | type[Revocable],
    ) -> Next[State]:
        payment = state.payment
        htlcs = [vtxo for vtxo in vtxos if vtxo.policy == payment.htlc_policy]
        change = [vtxo for vtxo in vtxos if vtxo.policy != payment.htlc_policy]
        assert sum(vtxo.amount_sat for vtxo in htlcs) == payment.htlc_sat, "the outputs are our own"
        writes = write_funded(action_id, payment, htlcs, change, self._registration.wake_at_commit)
        return Next(following(payment, tuple(vtxo.id for vtxo in htlcs)), writes)

    async def _undo(self, action_id: str, state: Locked, error: BarkdError) -> Outcome[State]:
        """The HTLCs are refused. If an earlier request was booked they exist: get them, to give them back."""
        booked = not _is_our_own(error) and not await are_spendable(
            self._store, self._keychain, self._server, state.payment.input_ids
        )
        if booked:
            try:
                vtxos = await self._cosign(state, self._server.request_arkoor_cosign)
            except (OutsideError, Unworkable) as again:
                log.warning("Lightning send %s: HTLCs are not had: %s", action_id, log_text(again))
                if not is_refused(again):
                    return Retry(error)
            else:
                return self._funded(action_id, state, vtxos, Revocable)
        return Failed(error, write_failed(state.payment))

    async def _after_bad_answer(
        self, action_id: str, state: Locked, error: ProtocolViolation
    ) -> Outcome[State]:
        state = replace(state, bad_answers=counted(state.bad_answers))
        undone = Failed(error, write_failed(state.payment))
        are_free = partial(are_spendable, self._store, self._keychain, self._server, state.payment.input_ids)
        return await after_bad_answer(
            "Lightning send",
            action_id,
            state,
            state.bad_answers,
            error,
            are_spendable=are_free,
            undone=undone,
        )

    # --- Funded

    async def _initiate(self, state: Funded) -> Outcome[State]:
        payment = state.payment
        async with self._store.read() as tx:
            htlcs = await tx.vtxos.bodies(state.htlc_ids)
        try:
            await self._server.register_vtxo_transactions(htlcs)
            self._registration.note_registered(state.htlc_ids)
            await self._tell(state)
        except OutsideError as error:
            if not is_final(error) and not is_late(payment, await self._tip_height(), self._threshold):
                raise
            log.warning("Lightning send: the server does not pay: %s", log_text(error))
            return Next(Revocable(payment, state.htlc_ids))
        return Next(Initiated(payment, state.htlc_ids))

    async def _tell(self, state: Funded | Initiated) -> None:
        """Have the server pay. It does so once, however often it is told."""
        await self._server.initiate_lightning_payment(
            invoice=state.payment.invoice,
            htlc_vtxo_ids=state.htlc_ids,
            amount_sat=state.payment.amount_sat,
            mailbox_id=self._keychain.mailbox_key.public_key,
            retry_for_secs=state.payment.retry_for_secs,
        )

    # --- Initiated

    async def _poll(self, state: Initiated) -> Outcome[State]:
        answer, preimage = await self._ask(state.payment)
        if preimage is not None:
            return self._settle(state, preimage)
        tip_height = await self._tip_height()
        match after_poll(state, answer, tip_height=tip_height, threshold=self._threshold):
            case Decision.REVOKE:
                return Next(Revocable(state.payment, state.htlc_ids))
            case Decision.TELL_AGAIN:
                try:
                    await self._tell(state)
                except OutsideError as error:
                    log.warning("Lightning send: the server is told again: %s", log_text(error))
                return Park(replace(state, lost=state.lost + 1), POLL_SECS)
            case _:
                return Park(state, POLL_SECS)

    async def _ask(self, payment: Payment) -> tuple[Answer, bytes | None]:
        """What became of a payment; the preimage, if it is one."""
        noted = self._preimages.get(payment.payment_hash)
        if noted is not None and payment.is_preimage(noted):
            return Answer.PAID, noted
        try:
            status = await self._server.check_lightning_payment(payment.payment_hash)
        except OutsideError as error:
            log.info("Lightning send: no answer about the payment: %s", log_text(error))
            unknown = any(isinstance(cause, ServerRejected) and cause.not_found for cause in causes(error))
            return Answer.UNKNOWN if unknown else Answer.SILENT, _preimage_in(error, payment)
        answer = weigh(status, payment)
        if isinstance(status, PaymentSucceeded) and answer is not Answer.PAID:
            log.error("the server sent a preimage for %s that is none", payment.payment_hash.hex())
        return answer, status.preimage if answer is Answer.PAID and isinstance(
            status, PaymentSucceeded
        ) else None

    def _settle(self, state: WithHtlcs, preimage: bytes) -> Done:
        self._preimages.pop(state.payment.payment_hash, None)
        returned_sat = state.returned_sat if isinstance(state, Stuck) else 0
        return Done(write_paid(state.payment, state.htlc_ids, preimage, returned_sat=returned_sat))

    # --- Revocable, Stuck

    async def _take_back(self, state: Revocable | Stuck) -> Outcome[State]:
        payment = state.payment
        answer, preimage = await self._ask(payment)
        if preimage is not None:
            return self._settle(state, preimage)
        if isinstance(state, Stuck) and state.exiting:
            return await self._follow_exits(state)
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(state.htlc_ids)
        htlcs = [vtxo for vtxo in vtxos if vtxo.state.kind in UNSPENT]
        on_chain = tuple(vtxo.id for vtxo in vtxos if vtxo.state.kind is StateKind.EXITED)
        if not htlcs and on_chain:  # whoever put them there
            return Next(Stuck(payment, state.htlc_ids, exiting=on_chain), write_exits(payment, on_chain))
        if not htlcs:
            return Done(write_exits(payment, state.htlc_ids))
        total_sat = sum(htlc.amount_sat for htlc in htlcs)
        destination = ArkoorDestination(total_sat, PubkeyPolicy(payment.revocation_pubkey))
        try:
            revoked = await cosign_package(
                self._store,
                self._keychain,
                self._server,
                [htlc.id for htlc in htlcs],
                (destination,),
                request=self._server.request_lightning_pay_htlc_revocation,
            )
            await self._anchors.validate(revoked)
        except BarkdError as error:  # whatever it is: in time, they go on the chain
            preimage = _preimage_in(error, payment)
            if preimage is not None:
                return self._settle(state, preimage)
            return await self._not_taken_back(state, answer, error)
        htlc_ids = [htlc.id for htlc in htlcs]
        writes = write_taken_back(payment, htlc_ids, revoked, on_chain, self._registration.wake_at_commit)
        if not on_chain:
            return Done(writes)
        return Next(Stuck(payment, state.htlc_ids, exiting=on_chain, returned_sat=total_sat), writes)

    async def _not_taken_back(
        self, state: Revocable | Stuck, answer: Answer, error: BarkdError
    ) -> Outcome[State]:
        tip_height = await self._tip_height()
        log.warning("Lightning send: HTLCs are not revoked: %s", log_text(error))
        since = None
        if answer is Answer.SILENT:
            before = state.silent_since_height if isinstance(state, Stuck) else None
            since = before or tip_height or None  # an unknown tip starts nothing
        stuck = Stuck(state.payment, state.htlc_ids, since)
        if must_exit(stuck, answer, tip_height=tip_height, exit_margin=self._exit_margin):
            return await self._exit(stuck, error)
        return Next(stuck) if isinstance(state, Revocable) else Park(stuck, STUCK_POLL_SECS, error)

    # --- exits

    async def _exit(self, state: Stuck, refusal: BarkdError) -> Outcome[State]:
        """Start the exits of the HTLCs; those that cannot exit stay, in case the server changes its mind."""
        exiting = []
        trouble = refusal
        for htlc_id in state.htlc_ids:
            try:
                await self._start_exit(htlc_id)
            except BarkdError as error:
                log.error("HTLC %s cannot exit: %s", htlc_id, log_text(error))
                trouble = error
            else:
                exiting.append(htlc_id)
        if not exiting:
            return Park(state, STUCK_POLL_SECS, trouble)
        log.warning("Lightning send: the server keeps the HTLCs, so they exit")
        writes = write_exits(state.payment, exiting)
        return Park(replace(state, exiting=tuple(exiting)), STUCK_POLL_SECS, writes=writes)

    async def _follow_exits(self, state: Stuck) -> Outcome[State]:
        """Until every output is spent the server may take it with the preimage, so the payment is not over,
        and its invoice is not paid again. Where an HTLC is lost that is so for good. If an exit is canceled,
        the server is asked again.
        """
        sight = await self._watch.look(state.payment, state.exiting)
        if sight.preimage is not None:
            log.warning("Lightning send: the server took the HTLCs with the preimage: it was paid")
            return self._settle(state, sight.preimage)
        if Fate.CALLED_OFF in sight.fates:
            return Park(replace(state, exiting=()), STUCK_POLL_SECS)
        if Fate.OPEN in sight.fates:
            return Park(state, STUCK_POLL_SECS)
        if Fate.LOST in sight.fates:
            return Park(state, STUCK_POLL_SECS, writes=write_spent(state.htlc_ids))
        return Done(write_spent(state.htlc_ids))

    # --- shared

    async def _tip_height(self) -> int:
        """0 if it is not known: then nothing is late."""
        try:
            return (await self._chain.tip()).height
        except ChainError as error:
            log.warning("Lightning send: the tip is not known: %s", log_text(error))
            return 0


def _is_our_own(error: BarkdError) -> bool:
    """Whether the wallet itself found that the server cannot be asked."""
    return any(isinstance(cause, Unworkable) for cause in causes(error))


def _preimage_in(error: BarkdError, payment: Payment) -> bytes | None:
    """A server that refuses because the payment was made says the preimage."""
    found = (bytes.fromhex(text) for text in _PREIMAGE.findall(chain_text(error)))
    return next((preimage for preimage in found if payment.is_preimage(preimage)), None)
