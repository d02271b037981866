"""Paying an Ark address out of round: starting payments, and driving those that are under way.

`ArkoorSends.send` chooses inputs, change key and outputs, and stores them before anything is asked of the
server; from then on the payment is fixed. A caller waits a minute at most; after that the payment goes on by
itself. Its states: `states`.

Source: sheet 03 §2.8.
"""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.arkoor import ArkoorDestination, ChangeToDestination, plan_outputs
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, InsufficientFunds
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.blame import blamed_inputs
from barkd_py.wallet.actions.drives import WAIT_SECS, Drives
from barkd_py.wallet.actions.executor import ActionExecutor, Until
from barkd_py.wallet.actions.failures import StillPending
from barkd_py.wallet.actions.holding import state_of_holder
from barkd_py.wallet.arkoor.errors import ZeroAmount
from barkd_py.wallet.arkoor.machine import ArkoorSendMachine
from barkd_py.wallet.arkoor.recipient import verify_mailboxes, verify_server
from barkd_py.wallet.arkoor.states import Cosigning, State, is_nothing_given
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, Locked, WalletVtxo
from barkd_py.wallet.vtxos.inputs import choose
from barkd_py.wallet.vtxos.selection import SelectionLimits, select

log = logging.getLogger(__name__)

# How often other inputs are chosen because the server refused some.
MAX_SELECTIONS = 20


class ArkoorSends:
    """Starts payments and drives those that are under way."""

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: ArkoorSendMachine,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        *,
        network: Network,
        change_split_factor: int,
        wait_secs: float = WAIT_SECS,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._network = network
        self._change_split_factor = change_split_factor
        self._drives = Drives(machine.kind.spoken, wait_secs)

    async def lets_go(self, vtxo: WalletVtxo) -> bool:
        """Whether it is an input that nobody can have got anything for. See `exits.starts.LetsGo`."""
        state = await state_of_holder(self._store, self._machine, vtxo)
        return state is not None and is_nothing_given(state)

    async def send(self, address_text: str, amount_sat: int) -> None:
        """Pay; when this returns, the recipient's mailbox has the payment.

        Raises InvalidInput for the address, NotEnoughVtxos, the server's refusal, or StillPending after a
        minute. The payment goes on if the caller is cancelled.
        """
        if amount_sat <= 0:
            raise ZeroAmount
        address = ArkAddress.parse(address_text)
        info = await verify_server(address, self._server, self._network)
        verify_mailboxes(address)
        tip = await self._chain.tip()
        limits = SelectionLimits(max_exit_depth=info.max_vtxo_exit_depth, expires_after_height=tip.height)
        refusal: BarkdError | None = None
        for _ in range(MAX_SELECTIONS):
            chosen: list[VtxoId] = []
            try:
                await self._attempt(address, amount_sat, limits, chosen)
                return
            except InsufficientFunds as error:
                if refusal is None:
                    raise
                raise error from refusal
            except BarkdError as error:
                unfit = blamed_inputs(error, chosen) | await self._taken_out(chosen)
                if not unfit:
                    raise
                log.warning("paying without %d VTXOs that the server refuses: %s", len(unfit), error)
                refusal, limits = error, replace(limits, exclude=frozenset(limits.exclude) | unfit)
        assert refusal is not None
        raise refusal

    async def _attempt(
        self,
        address: ArkAddress,
        amount_sat: int,
        limits: SelectionLimits,
        chosen: list[VtxoId],
    ) -> None:
        """One payment. chosen: where the inputs are told. It goes on if the caller is cancelled."""
        action_id = secrets.token_hex(16)

        async def prepare(tx: Transaction) -> State:
            state = await self._plan(tx, address, amount_sat, limits)
            await tx.vtxos.lock(state.input_ids, ActionHolder(action_id))
            chosen.extend(state.input_ids)
            return state

        drive = self._executor.begin(self._machine, action_id, prepare, until=Until.DONE)
        try:
            await self._drives.run(action_id, drive)
        except StillPending:
            chosen.clear()
            raise

    async def _taken_out(self, vtxo_ids: Sequence[VtxoId]) -> frozenset[VtxoId]:
        """Those that turned out to be unfit for payments after a refusal."""
        async with self._store.read() as tx:
            rows = await tx.vtxos.find_many(vtxo_ids)
        return frozenset(row.id for row in rows.values() if row.state == Locked(None))

    async def drive_all(self) -> None:
        await self._executor.drive_all(self._machine)

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        await self._drives.close()

    async def _plan(
        self,
        tx: Transaction,
        address: ArkAddress,
        amount_sat: int,
        limits: SelectionLimits,
    ) -> Cosigning:
        """Choose inputs and outputs from what is spendable in this very transaction.

        The change key is taken only once there is something to send. Raises NotEnoughVtxos,
        ChangeToDestination.
        """
        inputs = await choose(
            tx,
            lambda payable: select(payable, amount_sat, limits),
            expires_after_height=limits.expires_after_height,
        )
        change_key = await self._keychain.peek_in(tx)
        if change_key.public_key == address.user_pubkey:
            raise ChangeToDestination
        outputs = plan_outputs(
            [vtxo.amount_sat for vtxo in inputs],
            ArkoorDestination(amount_sat, address.policy),
            PubkeyPolicy(change_key.public_key),
            split_factor=self._change_split_factor,
        )
        change = outputs[1:]
        if change:
            await self._keychain.take_in(tx, change_key)
        return Cosigning(
            address=str(address),
            recipient=address.user_pubkey,
            amount_sat=amount_sat,
            input_ids=tuple(vtxo.id for vtxo in inputs),
            change_pubkey=change_key.public_key,
            change_sat=tuple(piece.amount_sat for piece in change),
            blinded_ids=address.mailbox_ids(),
        )
