"""Being paid over Lightning.

    AwaitingPayment ─ granted ─▶ HtlcsReady ─ all is well ─▶ PreimageRevealed ─ claimed ─▶ done: successful
       │                            │                           │      │
       │ expired, canceled,         │ no time left              │      └─ for others ─▶ Delivering ─▶ done
       ▼ refused again and again    ▼                           ▼
    done: forgotten              done: abandoned             taken on chain ─▶ done: exited

The server holds the payment of the sender, and grants HTLC VTXOs for it. They are verified to the last byte
(`ark.lightning_receive`) and locked. Then `PreimageRevealed` is stored, and only then the claim is sent,
which is what reveals the preimage. Before, the payment can be abandoned, and the sender has it back in the
end. Afterwards it is never abandoned: the same claim is sent until the server answers it, however often the
program dies in between; the server cosigns it once and then repeats itself. If it does not, and the time runs
out in which the HTLC VTXOs can be taken on chain, they exit; the claim is still tried until they are on the
chain. Once there they are claimed as soon as possible, because from the HTLC's expiry on the server may have
them.

Upstream stores the state only after a failure, never exits by itself, and so can lose both.

Source: protocol sheet 05 §5, §9, §10.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, assert_never

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.lightning_receive import ClaimWindow, Preimage
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource
from barkd_py.errors import (
    BarkdError,
    ChainError,
    OutsideError,
    ProtocolViolation,
    ServerRejected,
    ServerUnavailable,
    chain_text,
    log_text,
)
from barkd_py.server_rpc.api import ArkServerApi, LightningReceiveState
from barkd_py.wallet.actions.executor import Done, Failed, Next, Outcome, Park
from barkd_py.wallet.actions.failures import is_final
from barkd_py.wallet.arkoor.package import cosign_package
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.keychain import Keychain, UnknownKey
from barkd_py.wallet.lightning.receive.errors import (
    AlreadySettled,
    ClaimBudgetExhausted,
    ClaimTimeout,
    HtlcsLost,
    NoMailbox,
    ReceiveCanceled,
    WindowClosed,
)
from barkd_py.wallet.lightning.receive.grant import Grants
from barkd_py.wallet.lightning.receive.htlcs import CLAIMABLE, Htlc, Htlcs, taken_by_others
from barkd_py.wallet.lightning.receive.states import (
    FORMAT,
    AwaitingPayment,
    Delivering,
    HtlcsReady,
    PreimageRevealed,
    State,
    reported_vtxos,
)
from barkd_py.wallet.lightning.receive.writes import (
    write_abandoned,
    write_delivered,
    write_exited,
    write_granted,
    write_settled,
    write_spent,
)
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxos.anchors import Anchors
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

EXPIRY_GRACE_SECS = 60
"""An invoice that has just expired may have been paid in time."""
MAX_REFUSALS = 5
"""How often a grant may be refused, or be unfit, before the payment is given up."""
AWAIT_SECS = 4.0
RETRY_SECS = 1.0
CLAIM_SECS = 120.0
"""How long a claim may take before it is seen whether it is time to exit. The next one goes on with it."""
EXIT_LOOK_SECS = 30.0
DELIVERY_RETRY_SECS = 60.0


class ExitSeam(Protocol):
    """What the machine asks of exits."""

    async def start(self, vtxo_id: VtxoId) -> None:
        """Begin the exit of a VTXO, whoever holds it; nothing happens if it is exiting."""

    async def claim(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """Spend the outputs of exits that are claimable to the on-chain wallet."""


@dataclass(frozen=True, slots=True)
class ReceiveSettings:
    """claim_retries: how often a claim may fail before it is tried less often."""

    window: ClaimWindow
    claim_retries: int


class LightningReceiveMachine:
    """The steps of a payment that comes in. now: Unix seconds."""

    kind = ActionKind.LIGHTNING_RECEIVE
    format = FORMAT

    def __init__(
        self,
        store: Store,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        registration: Registration,
        anchors: Anchors,
        settings: ReceiveSettings,
        *,
        exits: ExitSeam,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._registration = registration
        self._anchors = anchors
        self._settings = settings
        self._exits = exits
        self._now = now
        self._htlcs = Htlcs(store, chain)
        self._grants = Grants(store, keychain, server, chain, anchors, settings.window)
        self._complaints: set[str] = set()

    def reports(self, state: State) -> Sequence[VtxoId]:
        return reported_vtxos(state)

    async def step(self, action_id: str, state: State) -> Outcome[State]:
        match state:
            case AwaitingPayment():
                return await self._await_payment(action_id, state)
            case HtlcsReady():
                return await self._release(action_id, state)
            case PreimageRevealed():
                return await self._claim(action_id, state)
            case Delivering():
                return await self._deliver(action_id, state)
            case _:
                assert_never(state)

    # --- AwaitingPayment

    async def _await_payment(self, action_id: str, state: AwaitingPayment) -> Outcome[State]:
        payment_hash = state.terms.payment_hash
        try:
            status = await self._server.check_lightning_receive(payment_hash)
        except ServerRejected as error:
            # Upstream forgets the preimage. A server that was restored from a backup may remember later.
            log.warning("lightning receive %s: %s", payment_hash.hex(), log_text(error))
            return self._wait_for_payment(state)
        match status.state:
            case LightningReceiveState.CREATED:
                return self._wait_for_payment(state)
            case LightningReceiveState.ACCEPTED | LightningReceiveState.HTLCS_READY:
                return await self._take_grant(action_id, state)
            case LightningReceiveState.CANCELED:
                return Failed(ReceiveCanceled(payment_hash))
            case LightningReceiveState.SETTLED:
                return Failed(AlreadySettled())
            case _:
                assert_never(status.state)

    def _wait_for_payment(self, state: AwaitingPayment) -> Outcome[State]:
        if state.terms.expires_at < self._now() - EXPIRY_GRACE_SECS:
            log.info("lightning receive %s: the invoice has expired", state.terms.payment_hash.hex())
            return Done()
        return Park(state, AWAIT_SECS)

    async def _take_grant(self, action_id: str, state: AwaitingPayment) -> Outcome[State]:
        try:
            vtxos, fee_sat = await self._grants.request(state)
        except (ServerRejected, ProtocolViolation) as error:
            return self._after_refusal(state, error)
        ready = HtlcsReady(state.terms, tuple(sorted(vtxo.id for vtxo in vtxos)))
        return Next(ready, writes=write_granted(action_id, ready, vtxos, fee_sat))

    def _after_refusal(self, state: AwaitingPayment, error: BarkdError) -> Outcome[State]:
        """Ask again a few times: the proof may have been spent meanwhile. Nothing is lost by giving up."""
        state = replace(state, refusals=state.refusals + 1)
        if state.refusals >= MAX_REFUSALS:
            return Failed(error)
        return Park(state, RETRY_SECS, error)

    # --- HtlcsReady

    async def _release(self, action_id: str, state: HtlcsReady) -> Outcome[State]:
        """Decide to release the preimage; it is not sent before the decision is stored."""
        htlcs = await self._htlcs.read(state.htlc_ids)
        tip = await self._chain.fetch_tip()
        if any(htlc.is_on_chain for htlc in htlcs):
            # Somebody has put them on the chain. There we can take them, if there is time.
            if not all(self._can_take(htlc, tip.height) for htlc in htlcs):
                return Failed(WindowClosed(), write_abandoned(action_id, state.htlc_ids))
            return Next(self._revealed(state, is_on_chain=True))
        if not all(self._settings.window.is_open(htlc.body, tip.height) for htlc in htlcs):
            return Failed(WindowClosed(), write_abandoned(action_id, state.htlc_ids))
        try:
            await self._keychain.secrets_for([htlc.body.user_pubkey for htlc in htlcs])
        except UnknownKey as error:
            return Failed(error, write_abandoned(action_id, state.htlc_ids))
        return Next(self._revealed(state, is_on_chain=False))

    def _can_take(self, htlc: Htlc, tip_height: int) -> bool:
        """Whether there is time for an HTLC VTXO that is on the chain, or follows the others there."""
        window = self._settings.window
        if htlc.is_on_chain:
            return window.can_claim(htlc.body, tip_height)
        return window.is_open(htlc.body, tip_height)

    def _revealed(self, state: HtlcsReady, *, is_on_chain: bool) -> PreimageRevealed:
        now = datetime.fromtimestamp(self._now(), UTC)
        return PreimageRevealed(
            state.terms, state.htlc_ids, now, is_exiting=is_on_chain, is_sent=not is_on_chain
        )

    # --- PreimageRevealed

    async def _claim(self, action_id: str, state: PreimageRevealed) -> Outcome[State]:
        htlcs = await self._htlcs.read(state.htlc_ids)
        if any(htlc.is_on_chain for htlc in htlcs):
            if not state.is_sent:
                return await self._disclose_on_chain(action_id, state, htlcs)
            return await self._follow_exits(action_id, state, htlcs)
        if not state.is_sent:  # a reorganisation: think again
            return Next(HtlcsReady(state.terms, state.htlc_ids))
        try:
            async with asyncio.timeout(CLAIM_SECS):
                vtxos = await self._request_claim(state, htlcs)
        except TimeoutError:
            return await self._after_failed_claim(action_id, state, htlcs, ClaimTimeout())
        except BarkdError as error:  # whatever it is: in time, they go on the chain
            return await self._after_failed_claim(
                action_id, state, htlcs, _without_preimage(error, state.terms.preimage)
            )
        if state.terms.deliver_to is None:
            self._registration.note_registered(vtxo.id for vtxo in vtxos)
            return Done(write_settled(action_id, state, vtxos, self._registration))
        delivering = Delivering(state.terms, tuple(vtxos), state.revealed_at)
        return Next(delivering, writes=write_spent(state.htlc_ids))

    async def _request_claim(self, state: PreimageRevealed, htlcs: Sequence[Htlc]) -> Sequence[Vtxo]:
        """What the HTLC VTXOs become, cosigned, registered and proven; the preimage is out now."""
        terms = state.terms
        vtxos = await cosign_package(
            self._store,
            self._keychain,
            self._server,
            state.htlc_ids,
            [terms.claim_destination(sum(htlc.stored.amount_sat for htlc in htlcs))],
            request=lambda parts: self._server.claim_lightning_receive(
                payment_hash=terms.payment_hash, preimage=terms.preimage.data, parts=parts
            ),
        )
        await self._server.register_vtxo_transactions(vtxos)
        await self._anchors.validate(vtxos)
        return vtxos

    async def _after_failed_claim(
        self, action_id: str, state: PreimageRevealed, htlcs: Sequence[Htlc], error: BarkdError
    ) -> Outcome[State]:
        """Try again, and see to it that the HTLC VTXOs are on the chain before it is too late."""
        payment = state.terms.payment_hash.hex()
        is_refusal = is_final(error)
        if not is_refusal:
            attempts = min(state.claim_attempts + 1, max(self._settings.claim_retries, 1))
            state = replace(state, claim_attempts=attempts)
        try:
            tip = await self._chain.tip()
            state, is_certain = await self._confirm_expiry(state, htlcs, tip)
        except ChainError as trouble:
            log.warning("lightning receive %s: %s", payment, log_text(trouble))
        else:
            if all(htlc.is_over(tip.height) for htlc in htlcs) and is_certain:
                lost = HtlcsLost(state.terms.payment_hash)
                lost.__cause__ = error
                return Failed(lost, write_exited(action_id, state, (), 0, lost=taken_by_others(htlcs, ())))
            if any(not self._settings.window.is_open(htlc.body, tip.height) for htlc in htlcs):
                started = await self._start_exits(state, htlcs, tip.height)
                state = replace(state, is_exiting=state.is_exiting or started)
        if is_refusal:
            return Park(state, error=error)
        if state.claim_attempts >= self._settings.claim_retries:
            exhausted = ClaimBudgetExhausted()
            exhausted.__cause__ = error
            return Park(state, error=exhausted)
        return Park(state, RETRY_SECS, error)

    async def _confirm_expiry(
        self, state: PreimageRevealed, htlcs: Sequence[Htlc], tip: BlockRef
    ) -> tuple[PreimageRevealed, bool]:
        """Whether it is certain which of them have expired, for that may end the payment for good.

        No single look at the chain makes it so: the block at which it was first seen must be that deep in the
        chain. Raises ChainError.
        """
        if not any(htlc.has_expired(tip.height) for htlc in htlcs):
            return replace(state, expired_since=None), True
        since = state.expired_since
        if since is None or await self._chain.block_hash(since.height) != since.hash:
            return replace(state, expired_since=tip), False
        return state, tip.height >= since.height + FINAL_CONFIRMATIONS

    async def _start_exits(self, state: PreimageRevealed, htlcs: Sequence[Htlc], tip_height: int) -> bool:
        """Whether any is under way now. Where an exit cannot win any more it would only cost."""
        is_any = False
        for htlc in htlcs:
            if htlc.is_on_chain or htlc.is_over(tip_height):
                continue
            if not htlc.can_exit:
                self._complain(state, f"{htlc.stored.id} of {htlc.stored.amount_sat} sat cannot exit")
                continue
            if not self._settings.window.can_win(htlc.body, tip_height):
                self._complain(state, f"it is too late to exit {htlc.stored.id}")
                continue
            try:
                await self._exits.start(htlc.stored.id)
                is_any = True
            except BarkdError as error:
                self._complain(state, f"no exit: {chain_text(error)}")
        if is_any:
            self._complain(state, "the server does not pay: its HTLC VTXOs exit")
        return is_any

    def _complain(self, state: PreimageRevealed, text: str) -> None:
        """Say it once, for it will be so for a long time."""
        text = f"lightning receive {state.terms.payment_hash.hex()}: {text}"
        if text not in self._complaints:
            self._complaints.add(text)
            log.error("%s", text)

    async def _disclose_on_chain(
        self, action_id: str, state: PreimageRevealed, htlcs: Sequence[Htlc]
    ) -> Outcome[State]:
        """Decide to send the first claim, which shows the preimage to everybody; not before all can be
        claimed, and not if the server could be first.
        """
        if await self._htlcs.are_claimed(htlcs):  # the user was faster
            return Next(replace(state, is_sent=True))
        tip = await self._chain.fetch_tip()
        wanted = [htlc for htlc in htlcs if htlc.is_on_chain or htlc.can_exit]
        window = self._settings.window
        if any(htlc.is_over(tip.height) or not window.can_disclose(htlc.body, tip.height) for htlc in wanted):
            return Failed(WindowClosed(), write_abandoned(action_id, state.htlc_ids))
        if all(htlc.exit == CLAIMABLE for htlc in wanted):
            return Next(replace(state, is_sent=True))
        await self._start_exits(state, htlcs, tip.height)
        return Park(state, EXIT_LOOK_SECS)

    async def _follow_exits(
        self, action_id: str, state: PreimageRevealed, htlcs: Sequence[Htlc]
    ) -> Outcome[State]:
        """Some are on the chain, so the server cannot cosign them any more: take all of them there."""
        state = replace(state, is_exiting=True)
        tip = await self._chain.tip()
        state, is_certain = await self._confirm_expiry(state, htlcs, tip)
        is_over = all(htlc.is_over(tip.height) or not (htlc.is_on_chain or htlc.can_exit) for htlc in htlcs)
        if is_over and is_certain:
            taken = [
                htlc.stored for htlc in htlcs if await self._htlcs.is_taken_by_us(htlc, state.terms.preimage)
            ]
            ids, amount_sat = [vtxo.id for vtxo in taken], sum(vtxo.amount_sat for vtxo in taken)
            writes = write_exited(action_id, state, ids, amount_sat, lost=taken_by_others(htlcs, ids))
            if not taken:
                return Failed(HtlcsLost(state.terms.payment_hash), writes)
            return Done(writes)
        await self._start_exits(state, htlcs, tip.height)
        claimable = [htlc.stored.id for htlc in htlcs if htlc.exit == CLAIMABLE]
        if claimable:
            try:
                await self._exits.claim(claimable)
            except BarkdError as error:
                return Park(state, EXIT_LOOK_SECS, error)
        return Park(state, EXIT_LOOK_SECS)

    # --- Delivering

    async def _deliver(self, action_id: str, state: Delivering) -> Outcome[State]:
        """Tell the recipient. Nobody else has these VTXOs, so it is tried for ever."""
        assert state.terms.deliver_to is not None, "only those are delivered"
        errors: list[BarkdError] = []
        mailboxes = ArkAddress.parse(state.terms.deliver_to).mailbox_ids()
        for blinded_id in mailboxes:
            try:
                await self._server.post_arkoor_message(blinded_id, state.vtxos)
            except OutsideError as error:
                log.warning("lightning receive: delivery failed: %s", log_text(error))
                errors.append(error)
        if len(errors) < len(mailboxes):
            return Done(write_delivered(action_id, state))
        return Park(state, DELIVERY_RETRY_SECS, errors[0] if errors else NoMailbox())


def _without_preimage(error: BarkdError, preimage: Preimage) -> BarkdError:
    """The error of a claim, or one like it if the server has put our preimage into its words."""
    if preimage.data.hex() not in chain_text(error).lower():
        return error
    text = "the server refused the claim" if is_final(error) else "the claim failed"
    return ServerRejected(text) if is_final(error) else ServerUnavailable(text)
