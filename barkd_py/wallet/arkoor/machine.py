"""The steps of a payment to an Ark address. The states, and how they follow each other: `states`.

Source: sheet 03 §2.8.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from barkd_py.ark.deadlines import exit_start_height
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.chain.source import ChainSource
from barkd_py.errors import OutsideError, ProtocolViolation, ServerRejected, chain_text
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.bad_answers import after_bad_answer, counted
from barkd_py.wallet.actions.executor import Done, Failed, Next, Outcome, Park, Retry
from barkd_py.wallet.actions.failures import Unworkable, is_final
from barkd_py.wallet.actions.server_books import are_spendable
from barkd_py.wallet.arkoor.errors import DeliveryFailed
from barkd_py.wallet.arkoor.package import cosign_package, is_refused
from barkd_py.wallet.arkoor.states import FORMAT, Cosigning, Delivering, State
from barkd_py.wallet.arkoor.writes import write_cosigned, write_delivered, write_undelivered
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

DELIVERY_RETRY_SECS = 60.0
# How often every mailbox may refuse before the payment is given up as undeliverable.
MAX_REFUSED_DELIVERIES = 5


class ArkoorSendMachine:
    """The steps of a payment. exit_margin: config `vtxo_exit_margin`."""

    kind = ActionKind.ARKOOR_SEND
    format = FORMAT

    def __init__(
        self,
        store: Store,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        registration: Registration,
        *,
        exit_margin: int,
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._exit_margin = exit_margin
        self._registration = registration

    def reports(self, state: State) -> Sequence[VtxoId]:
        return state.input_ids

    async def step(self, action_id: str, state: State) -> Outcome[State]:
        match state:
            case Cosigning():
                return await self._cosign(action_id, state)
            case Delivering():
                return await self._deliver_in_time(action_id, state)
            case _:
                assert_never(state)

    # --- Cosigning

    async def _cosign(self, action_id: str, state: Cosigning) -> Outcome[State]:
        try:
            vtxos = await cosign_package(
                self._store, self._keychain, self._server, state.input_ids, state.outputs
            )
        except ProtocolViolation as error:
            return await self._after_bad_answer(action_id, state, error)
        except (OutsideError, Unworkable) as error:
            if is_refused(error):
                return Failed(error)  # the executor releases the inputs
            raise
        recipient = PubkeyPolicy(state.recipient)
        payment = tuple(vtxo for vtxo in vtxos if vtxo.policy == recipient)
        change = tuple(vtxo for vtxo in vtxos if vtxo.policy != recipient)
        return Next(
            Delivering(state.input_ids, payment, change, state.blinded_ids),
            writes=write_cosigned(action_id, state),
        )

    async def _after_bad_answer(
        self, action_id: str, state: Cosigning, error: ProtocolViolation
    ) -> Outcome[State]:
        state = replace(state, bad_answers=counted(state.bad_answers))
        are_free = partial(are_spendable, self._store, self._keychain, self._server, state.input_ids)
        return await after_bad_answer(
            "arkoor send",
            action_id,
            state,
            state.bad_answers,
            error,
            are_spendable=are_free,
            undone=Failed(error),
        )

    # --- Delivering

    async def _deliver_in_time(self, action_id: str, state: Delivering) -> Outcome[State]:
        """Given up when the change, which nobody else has, would expire: it is exited like any other VTXO."""
        outcome: Outcome[State]
        try:
            outcome = await self._deliver(action_id, state)
        except OutsideError as error:
            outcome = Retry(error)
        if isinstance(outcome, Park | Retry) and await self._must_change_exit(state):
            log.error("arkoor send %s: not delivered, and the change expires soon", action_id)
            return Failed(DeliveryFailed(), write_undelivered(action_id, state, self._registration))
        return outcome

    async def _must_change_exit(self, state: Delivering) -> bool:
        heights = [exit_start_height(vtxo, self._exit_margin) for vtxo in state.change]
        return bool(heights) and (await self._chain.tip()).height >= min(heights)

    async def _deliver(self, action_id: str, state: Delivering) -> Outcome[State]:
        if not state.registered:
            try:
                await self._server.register_vtxo_transactions(state.payment + state.change)
                self._registration.note_registered(vtxo.id for vtxo in state.change)
            except ServerRejected as error:
                # The recipient registers them too, and can exit without.
                log.warning("arkoor send %s: registration refused: %s", action_id, chain_text(error))
            state = replace(state, registered=True)
        if not state.blinded_ids:
            return Done(write_delivered(action_id, state, self._registration))
        errors = []
        for blinded_id in state.blinded_ids:
            try:
                await self._server.post_arkoor_message(blinded_id, state.payment)
            except OutsideError as error:
                log.warning("arkoor send %s: delivery failed: %s", action_id, chain_text(error))
                errors.append(error)
        if len(errors) < len(state.blinded_ids):
            return Done(write_delivered(action_id, state, self._registration))
        if all(is_final(error) for error in errors):
            state = replace(state, refusals=state.refusals + 1)
            if state.refusals >= MAX_REFUSED_DELIVERIES:
                return Failed(DeliveryFailed(), write_undelivered(action_id, state, self._registration))
        return Park(state, DELIVERY_RETRY_SECS, errors[0])
