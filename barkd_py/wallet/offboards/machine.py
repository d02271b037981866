"""The steps of an offboard. The states, and how they follow each other: `states`.

Source: sheet 03 §3.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from barkd_py.ark.attestations import attest, offboard_request_message
from barkd_py.ark.offboard import OffboardForfeits, OffboardTxInvalid, verify_offboard_tx
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import ChainSource, Confirmed, NotFound
from barkd_py.errors import ChainError, OutsideError, ProtocolViolation, ServerRejected, chain_text
from barkd_py.server_rpc.api import ArkServerApi, RoundInput
from barkd_py.wallet.actions.bad_answers import ASK_AGAIN_SECS, MAX_BAD_ANSWERS, counted
from barkd_py.wallet.actions.executor import Next, Outcome, Park
from barkd_py.wallet.actions.failures import Unworkable
from barkd_py.wallet.actions.server_books import are_spendable
from barkd_py.wallet.arkoor.package import cosign_package, is_refused
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.offboards.confirmation import POLL_SECS, OffboardConfirmation
from barkd_py.wallet.offboards.errors import InvalidOffboardTx, OffboardInputsLeft, UnsignedOffboardTx
from barkd_py.wallet.offboards.states import (
    FORMAT,
    Broadcasting,
    Confirming,
    Payment,
    Prepared,
    Preparing,
    Registering,
    Splitting,
    State,
)
from barkd_py.wallet.offboards.writes import undo, write_begun, write_registered, write_split, write_tx
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

_NEVER_TOOK_FORFEITS = (
    "fee rate is no longer valid",
    "does not match expected amount",
    "output address is blocked",
)
"""The server says so only after it has found every input spendable."""


class OffboardMachine:
    """The steps of an offboard. now: Unix seconds."""

    kind = ActionKind.OFFBOARD
    format = FORMAT

    def __init__(
        self,
        store: Store,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        registration: Registration,
        *,
        required_confirmations: int,
        lost_tx_grace_secs: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._registration = registration
        self._now = now
        self._confirmation = OffboardConfirmation(
            store,
            chain,
            required_confirmations=required_confirmations,
            lost_tx_grace_secs=lost_tx_grace_secs,
            now=now,
        )

    def reports(self, state: State) -> Sequence[VtxoId]:
        match state:
            case Splitting():
                return state.payment.input_ids
            case Registering():
                return (*state.vtxo_ids, *state.change_ids)
            case Confirming():
                return ()
            case _:
                return state.vtxo_ids

    async def step(self, action_id: str, state: State) -> Outcome[State]:
        match state:
            case Splitting():
                return await self._split(action_id, state)
            case Registering():
                return await self._register(action_id, state)
            case Preparing():
                return await self._prepare(action_id, state)
            case Prepared():
                return await self._finish(action_id, state)
            case Broadcasting():
                return await self._broadcast(action_id, state)
            case Confirming():
                return await self._confirmation.look(action_id, state)
            case _:
                assert_never(state)

    # --- Splitting, Registering

    async def _split(self, action_id: str, state: Splitting) -> Outcome[State]:
        try:
            vtxos = await cosign_package(
                self._store, self._keychain, self._server, state.payment.input_ids, state.outputs
            )
        except ProtocolViolation as error:
            return await self._after_bad_answer(action_id, state, error)
        except (OutsideError, Unworkable) as error:
            if is_refused(error):
                return undo(action_id, state, error)
            raise
        ours = PubkeyPolicy(state.offboard_pubkey)
        vtxo_ids = tuple(sorted(vtxo.id for vtxo in vtxos if vtxo.policy == ours))
        change_ids = tuple(vtxo.id for vtxo in vtxos if vtxo.policy != ours)
        registering = Registering(state.payment, vtxo_ids, change_ids)
        return Next(registering, write_split(action_id, registering, vtxos))

    async def _after_bad_answer(
        self, action_id: str, state: Splitting, error: ProtocolViolation
    ) -> Outcome[State]:
        """Ask again a few times, then undo; but not what the server has booked for this very split."""
        log.warning("offboard %s: bad answer of the server: %s", action_id, chain_text(error))
        answers = counted(state.bad_answers)
        if answers == MAX_BAD_ANSWERS and await are_spendable(
            self._store, self._keychain, self._server, state.payment.input_ids
        ):
            return undo(action_id, state, error)
        return Park(replace(state, bad_answers=answers), ASK_AGAIN_SECS, error)

    async def _register(self, action_id: str, state: Registering) -> Outcome[State]:
        async with self._store.read() as tx:
            if await _is_any_exited(tx, state.vtxo_ids):
                return undo(action_id, state, _inputs_exited())
            vtxos = await tx.vtxos.bodies((*state.vtxo_ids, *state.change_ids))
        await self._server.register_vtxo_transactions(vtxos)
        self._registration.note_registered(vtxo.id for vtxo in vtxos)
        writes = write_registered(action_id, state.change_ids, self._registration)
        return Next(Preparing(state.payment, state.vtxo_ids), writes)

    # --- Preparing

    async def _prepare(self, action_id: str, state: Preparing) -> Outcome[State]:
        for tx in state.earlier:
            if await self._is_seen(tx.txid):
                return await self._adopt(action_id, state, tx)
        if state.earlier and await self._confirmation.have_all_left(state.vtxo_ids):
            return undo(action_id, state, OffboardInputsLeft(state.earlier[-1].txid))
        payment = state.payment
        async with self._store.read() as read:
            stored = await read.vtxos.get_many(state.vtxo_ids)
            inputs = await read.vtxos.bodies(state.vtxo_ids)
        if not state.earlier and any(vtxo.state.kind is StateKind.EXITED for vtxo in stored):
            return undo(action_id, state, _inputs_exited())
        known = {vtxo.id for vtxo in stored if vtxo.registered}
        message = offboard_request_message(
            net_amount_sat=payment.net_amount_sat,
            script_pubkey=payment.script_pubkey,
            input_ids=state.vtxo_ids,
        )
        keys = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        proofs = [RoundInput(vtxo.id, attest(message, key)) for vtxo, key in zip(inputs, keys, strict=True)]
        try:
            await self._server.register_vtxo_transactions([vtxo for vtxo in inputs if vtxo.id not in known])
            prepared = await self._server.prepare_offboard(payment.request, proofs)
            _verify_proposal(prepared.unsigned_tx, payment, len(inputs))
        except ServerRejected as error:
            return self._refused(action_id, state, error)
        except ProtocolViolation as error:
            return Park(state, POLL_SECS, error) if state.earlier else undo(action_id, state, error)
        next_state = Prepared(
            payment, state.vtxo_ids, prepared.unsigned_tx, prepared.pub_nonces, state.earlier
        )
        return Next(next_state, write_begun(action_id, payment))

    def _refused(self, action_id: str, state: Preparing, error: ServerRejected) -> Outcome[State]:
        """Undo what the server cannot have taken. With forfeits out, only its own word proves that."""
        text = chain_text(error)
        if not state.earlier or any(phrase in text for phrase in _NEVER_TOOK_FORFEITS):
            return undo(action_id, state, error)
        return Park(state, POLL_SECS, error)

    # --- Prepared

    async def _finish(self, action_id: str, state: Prepared) -> Outcome[State]:
        try:
            signed = await self._forfeit(state)
        except ServerRejected as error:
            return await self._session_lost(action_id, state, error)
        except OutsideError:
            ended = await self._ended_without_server(action_id, state)
            if ended is None:
                raise
            return ended
        broadcasting = Broadcasting(state.payment, state.vtxo_ids, signed, state.earlier)
        return Next(broadcasting, write_tx(action_id, signed))

    async def _forfeit(self, state: Prepared) -> Tx:
        """Give the forfeits for the transaction, signed. Raises ServerError, UnsignedOffboardTx."""
        async with self._store.read() as tx:
            inputs = await tx.vtxos.bodies(state.vtxo_ids)
        keys = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        forfeits = OffboardForfeits(tuple(inputs), state.tx)
        answers = await asyncio.to_thread(forfeits.sign, keys, state.pub_nonces)
        signed = await self._server.finish_offboard(
            state.tx.txid,
            [answer.pub_nonce for answer in answers],
            [answer.partial_sig for answer in answers],
        )
        if signed.txid != state.tx.txid:
            raise UnsignedOffboardTx(f"the server finished offboard tx {signed.txid}, not {state.tx.txid}")
        if not all(tx_in.witness or tx_in.script_sig for tx_in in signed.inputs):
            raise UnsignedOffboardTx(f"offboard tx {signed.txid} is not signed")
        return signed

    async def _ended_without_server(self, action_id: str, state: Prepared) -> Outcome[State] | None:
        """Who took the forfeits, or perhaps did, may never answer any more."""
        txs = (*state.earlier, state.tx)
        if (paid := await self._find_confirmed(txs)) is not None:
            return await self._adopt(action_id, state, paid)
        if not await self._confirmation.have_all_left(state.vtxo_ids):
            return None
        for tx in txs:
            if await self._is_seen(tx.txid):
                return await self._adopt(action_id, state, tx)
        return undo(action_id, state, OffboardInputsLeft(state.tx.txid))

    async def _session_lost(self, action_id: str, state: Prepared, error: ServerRejected) -> Outcome[State]:
        """The server has forgotten the session, perhaps because it has finished it. Not a failure."""
        log.warning("offboard %s: %s", action_id, chain_text(error))
        if await self._is_seen(state.tx.txid):
            return await self._adopt(action_id, state, state.tx)
        again = Preparing(state.payment, state.vtxo_ids, (*state.earlier, state.tx))
        # The first time at once: it may have been a restart, and somebody waits.
        return Park(again, POLL_SECS) if state.earlier else Next(again)

    # --- Broadcasting

    async def _broadcast(self, action_id: str, state: Broadcasting) -> Outcome[State]:
        """The server broadcasts too; whoever is first."""
        try:
            await self._chain.broadcast(state.tx)
        except ChainError as error:
            log.warning("offboard %s: broadcasting %s: %s", action_id, state.tx.txid, chain_text(error))
        return Park(self._confirming(state, state.tx), POLL_SECS)

    # --- shared

    async def is_paid(self, state: State) -> bool:
        """Whether a transaction for which forfeits have perhaps left us is in a block. Raises ChainError.

        Until then, the forfeits are worth nothing, and the inputs may exit: if it is confirmed after all, the
        server takes what has exited, and we have lost the fees.
        """
        txs = () if isinstance(state, Splitting | Registering) else state.earlier
        if isinstance(state, Prepared | Broadcasting | Confirming):
            txs = (*txs, state.tx)
        return await self._find_confirmed(txs) is not None

    async def _find_confirmed(self, txs: Sequence[Tx]) -> Tx | None:
        for tx in txs:
            if isinstance(await self._chain.tx_status(tx.txid), Confirmed):
                return tx
        return None

    async def _is_seen(self, txid: Txid) -> bool:
        return not isinstance(await self._chain.tx_status(txid), NotFound)

    async def _adopt(self, action_id: str, state: Preparing | Prepared, tx: Tx) -> Outcome[State]:
        """It is out, though we have it unsigned: signed, it can be offered again should it get lost."""
        signed = await self._chain.get_tx(tx.txid) or tx
        return Next(self._confirming(state, signed), write_tx(action_id, signed))

    def _confirming(self, state: Preparing | Prepared | Broadcasting, tx: Tx) -> Confirming:
        return Confirming(state.payment, state.vtxo_ids, tx, self._now(), state.earlier)


async def _is_any_exited(tx: Transaction, vtxo_ids: Sequence[VtxoId]) -> bool:
    return any(vtxo.state.kind is StateKind.EXITED for vtxo in await tx.vtxos.get_many(vtxo_ids))


def _inputs_exited() -> Unworkable:
    return Unworkable("inputs of the offboard are on the chain")


def _verify_proposal(tx: Tx, payment: Payment, nb_inputs: int) -> None:
    """Raises InvalidOffboardTx."""
    try:
        verify_offboard_tx(tx, payment.destination, nb_inputs)
    except OffboardTxInvalid as error:
        raise InvalidOffboardTx from error
