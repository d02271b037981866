"""Leaving Ark: starting offboards, what they cost, and driving those that are under way.

An offboard is stored, with its inputs locked, before anything is asked of the server, and goes on in the
background whatever becomes of the caller. Its states: `states`.

Source: sheet 03 §3.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from barkd_py.ark.arkoor import ArkoorDestination, plan_outputs, split_package
from barkd_py.ark.fees import VtxoFeeInfo
from barkd_py.ark.offboard import verify_offboard_request
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid, TxOut
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, StateConflict
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.drives import WAIT_SECS, Drives
from barkd_py.wallet.actions.executor import ActionExecutor, Until
from barkd_py.wallet.actions.holding import state_of_holder
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.offboards.errors import (
    CannotLock,
    OffboardPending,
    OffboardVanished,
    SendBelowDust,
    TooManyOffboardInputs,
)
from barkd_py.wallet.offboards.machine import OffboardMachine
from barkd_py.wallet.offboards.states import (
    FORMAT,
    UPSTREAM_NAMES,
    Confirming,
    Payment,
    Preparing,
    Splitting,
    State,
)
from barkd_py.wallet.offboards.terms import (
    OffboardEstimate,
    OffboardTarget,
    OffboardTerms,
    min_output_sat,
    plan_whole,
    whole_estimate,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, WalletVtxo
from barkd_py.wallet.vtxos.inputs import choose
from barkd_py.wallet.vtxos.selection import FeeSelection

# Any amount will do where only the script is checked.
_MAX_OUTPUT_SAT = 10**15


@dataclass(frozen=True, slots=True)
class OffboardResult:
    """The transaction is out."""

    offboard_txid: Txid
    movement_id: int


class Offboards:
    """Starts offboards, estimates them, and drives those that are under way."""

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: OffboardMachine,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        *,
        change_split_factor: int,
        wait_secs: float = WAIT_SECS,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._change_split_factor = change_split_factor
        self._drives = Drives(machine.kind.spoken, wait_secs)

    async def lets_go(self, vtxo: WalletVtxo) -> bool:
        """Whether it has not been paid for on the chain. See `exits.starts.LetsGo`."""
        state = await state_of_holder(self._store, self._machine, vtxo)
        return state is not None and not await self._machine.is_paid(state)

    async def offboard(self, vtxo_ids: Sequence[VtxoId], target: OffboardTarget) -> OffboardResult:
        """Let these VTXOs leave, whole; the fee is taken from them. Returns when the transaction is out.

        Raises TooManyOffboardInputs, DuplicateOffboardInput, UnknownVtxo, OffboardLeavesDust, CannotLock; the
        server's refusal; OffboardPending or StillPending if it goes on in the background.
        """
        return await self._offboard(vtxo_ids, target)

    async def offboard_all(self, target: OffboardTarget) -> OffboardResult:
        """As `offboard`, of every spendable VTXO."""
        return await self._offboard(None, target)

    async def send(self, amount_sat: int, target: OffboardTarget) -> OffboardResult:
        """Pay an amount on chain; the fee comes on top. Returns when the transaction is out.

        Raises SendBelowDust, CannotCoverPaymentAndFees, CannotLock, and as `offboard`.
        """
        verify_offboard_request(TxOut(_MAX_OUTPUT_SAT, target.script_pubkey))
        minimum_sat = min_output_sat(target.script_pubkey)
        if amount_sat < minimum_sat or amount_sat == 0:
            raise SendBelowDust(target.address, minimum_sat)
        terms = await self._terms(target.script_pubkey)
        action_id = secrets.token_hex(16)

        async def prepare(tx: Transaction) -> State:
            selection = await _select(tx, terms, amount_sat)
            state = await self._plan_split(tx, target, terms, amount_sat, selection)
            await _lock(tx, state.payment.input_ids, action_id)
            return state

        return await self._run(action_id, prepare)

    async def _offboard(self, vtxo_ids: Sequence[VtxoId] | None, target: OffboardTarget) -> OffboardResult:
        verify_offboard_request(TxOut(_MAX_OUTPUT_SAT, target.script_pubkey))
        terms = await self._terms(target.script_pubkey)
        action_id = secrets.token_hex(16)

        async def prepare(tx: Transaction) -> State:
            if vtxo_ids is None:
                inputs = await tx.vtxos.payable()
            else:
                inputs = await tx.vtxos.get_many(vtxo_ids)
            payment = plan_whole(inputs, target, terms)
            await _lock(tx, payment.input_ids, action_id)
            return Preparing(payment, tuple(sorted(payment.input_ids)))

        return await self._run(action_id, prepare)

    async def _terms(self, script_pubkey: bytes) -> OffboardTerms:
        info = await self._server.info()
        fee_rate = await self._server.offboard_fee_rate()
        tip = await self._chain.tip()
        return OffboardTerms(info, fee_rate, tip.height, script_pubkey)

    async def _plan_split(
        self,
        tx: Transaction,
        target: OffboardTarget,
        terms: OffboardTerms,
        amount_sat: int,
        selection: FeeSelection[WalletVtxo],
    ) -> Splitting:
        """Raises TooManyOffboardInputs if the split would make more VTXOs than leave at once."""
        offboard_key = await self._keychain.reserve_in(tx)
        change_key = await self._keychain.reserve_in(tx)
        outputs = plan_outputs(
            [vtxo.amount_sat for vtxo in selection.vtxos],
            ArkoorDestination(amount_sat + selection.fee_sat, PubkeyPolicy(offboard_key.public_key)),
            PubkeyPolicy(change_key.public_key),
            split_factor=self._change_split_factor,
        )
        input_ids = tuple(vtxo.id for vtxo in selection.vtxos)
        parts = split_package(await tx.vtxos.bodies(input_ids), outputs)
        leaving = [vtxo for part in parts for vtxo in part.unsigned_vtxos if vtxo.policy == outputs[0].policy]
        if len(leaving) > terms.info.max_offboard_inputs:
            raise TooManyOffboardInputs(len(leaving), terms.info.max_offboard_inputs)
        payment = Payment(
            address=target.address,
            script_pubkey=target.script_pubkey,
            net_amount_sat=amount_sat,
            fee_sat=selection.fee_sat,
            fee_rate_sat_per_kwu=terms.fee_rate.sat_per_kwu,
            deducts_fee=False,
            input_ids=input_ids,
        )
        change_sat = tuple(piece.amount_sat for piece in outputs[1:])
        return Splitting(payment, offboard_key.public_key, change_key.public_key, change_sat)

    async def _run(
        self, action_id: str, prepare: Callable[[Transaction], Awaitable[State]]
    ) -> OffboardResult:
        """Store and drive; cancelling the caller does not cancel the offboard."""
        drive = self._executor.begin(self._machine, action_id, prepare, until=Until.PARK)
        await self._drives.run(action_id, drive)
        async with self._store.read() as tx:
            row = await tx.actions.find(action_id)
            movement = await tx.movements.find_by_action(action_id)
        if row is None or movement is None:
            raise OffboardVanished(action_id)
        state = FORMAT.decode(row.payload)
        if not isinstance(state, Confirming):
            raise OffboardPending(action_id, UPSTREAM_NAMES[type(state)])
        return OffboardResult(state.txid, movement.id)

    async def drive_all(self) -> None:
        await self._executor.drive_all(self._machine)

    async def close(self) -> None:
        """Stop driving; every offboard is where its row says."""
        await self._drives.close()

    # --- estimates

    async def estimate(self, vtxo_ids: Sequence[VtxoId], script_pubkey: bytes) -> OffboardEstimate:
        """What `offboard` would cost. Raises UnknownVtxo, ServerError, FeeOverflow."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(vtxo_ids)
        return whole_estimate(vtxos, terms)

    async def estimate_all(self, script_pubkey: bytes) -> OffboardEstimate:
        """What `offboard_all` would cost."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.payable()
        return whole_estimate(vtxos, terms)

    async def estimate_send(self, amount_sat: int, script_pubkey: bytes) -> OffboardEstimate:
        """What `send` would cost; where it cannot be paid, what it costs at most."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            try:
                selection = await _select(tx, terms, amount_sat)
                fee_sat, spent = selection.fee_sat, tuple(vtxo.id for vtxo in selection.vtxos)
            except BarkdError:
                fee_sat, spent = terms.fee_sat(amount_sat, [VtxoFeeInfo.fresh(amount_sat)]), ()
        return OffboardEstimate(amount_sat + fee_sat, fee_sat, amount_sat, spent)


async def _select(tx: Transaction, terms: OffboardTerms, amount_sat: int) -> FeeSelection[WalletVtxo]:
    """Raises CannotCoverPaymentAndFees."""
    return await choose(
        tx, lambda payable: terms.select(payable, amount_sat), expires_after_height=terms.tip_height
    )


async def _lock(tx: Transaction, vtxo_ids: Sequence[VtxoId], action_id: str) -> None:
    """Raises CannotLock."""
    try:
        await tx.vtxos.lock(vtxo_ids, ActionHolder(action_id))
    except StateConflict as error:
        raise CannotLock from error
