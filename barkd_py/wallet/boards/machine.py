"""The steps of a board. The states, and how they follow each other: `states`.

The VTXO is stored with the action, locked by the action's movement, which has the action's id: what one
crash could separate is written in one transaction. The funding transaction is recorded in the on-chain wallet
before it is broadcast; that is what keeps the next board from choosing the same coins. If the VTXO comes
close to its expiry before the server took it, the exit is started, and registration goes on being tried.

Only the committed txid is watched: never bump the fee of a board by replacement.

Source: sheet 03 §1.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

from barkd_py.ark.deadlines import exit_start_height
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import ChainSource, Confirmed, Mempool, NotFound
from barkd_py.errors import ProtocolViolation, ServerError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.executor import Done, Next, Outcome, Park
from barkd_py.wallet.boards.probe import Dead, Pushed, Undecided, probe
from barkd_py.wallet.boards.states import FORMAT, Broadcasting, Confirming, State
from barkd_py.wallet.boards.writes import write_dead, write_exited, write_registered
from barkd_py.wallet.movements import MovementUpdate
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import Exited, Spent, WalletVtxo
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

StartExit = Callable[[VtxoId], Awaitable[None]]


class BoardMachine:
    """The steps of a board."""

    kind = ActionKind.BOARD
    format = FORMAT

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        server: ArkServerApi,
        registration: Registration,
        onchain: OnchainWallet | None,
        *,
        vtxo_exit_margin: int,
        start_exit: StartExit,
    ) -> None:
        self._store = store
        self._chain = chain
        self._server = server
        self._registration = registration
        self._onchain = onchain
        self._vtxo_exit_margin = vtxo_exit_margin
        self._start_exit = start_exit

    def reports(self, state: State) -> Sequence[VtxoId]:
        return (state.vtxo_id,) if isinstance(state, Confirming) else ()

    async def step(self, action_id: str, state: State) -> Outcome[State]:
        match state:
            case Broadcasting():
                return await self._broadcast(action_id, state)
            case Confirming():
                return await self._confirm(action_id, state)
            case _:
                assert_never(state)

    async def _broadcast(self, action_id: str, state: Broadcasting) -> Outcome[State]:
        await self._record(state.funding_tx)
        txid = state.funding_tx.txid
        if await self._is_seen(txid):
            return Next(_confirming(state))
        result = await probe(self._chain, state.funding_tx)
        match result:
            case Pushed():
                return Next(_confirming(state))
            case Undecided(reason):
                log.warning("board %s: %s", action_id, reason)
                return Park(state)
            case Dead(reason):
                if await self._is_seen(txid):  # it was itself that spent the inputs
                    return Next(_confirming(state))
                return await self._fail(action_id, state, reason)
            case _:
                assert_never(result)

    async def _confirm(self, action_id: str, state: Confirming) -> Outcome[State]:
        async with self._store.read() as tx:
            stored = await tx.vtxos.get(state.vtxo_id)
        match stored.state:
            case Exited():
                return Done(write_exited(action_id))
            case Spent():
                return await self._fail(action_id, state, "the board was given up before")
            case _:
                pass
        tip = await self._chain.tip()
        match await self._chain.tx_status(state.funding_tx.txid):
            case Confirmed(block):
                confirmations = tip.height - block.height + 1
            case Mempool():
                confirmations = 0
            case NotFound():
                result = await probe(self._chain, state.funding_tx)
                if isinstance(result, Dead) and not await self._is_seen(state.funding_tx.txid):
                    return await self._fail(action_id, state, result.reason)
                if isinstance(result, Undecided):
                    return Park(_confirming(state, result.reason))
                confirmations = 0
        trouble = state.last_trouble
        try:
            info = await self._server.info()
            if confirmations >= info.required_board_confirmations:
                await self._register(state.vtxo_id)
                return Done(write_registered(action_id, state.vtxo_id, self._registration))
        except (ServerError, ProtocolViolation) as error:
            trouble = chain_text(error)
            log.warning("board %s is not registered yet: %s", action_id, trouble)
        await self._exit_if_near_expiry(action_id, stored, tip.height)
        return Park(_confirming(state, trouble))

    async def _register(self, vtxo_id: VtxoId) -> None:
        async with self._store.read() as tx:
            vtxo = await tx.vtxos.body(vtxo_id)
        await self._server.register_board_vtxo(vtxo)
        self._registration.note_registered([vtxo_id])

    async def _fail(self, action_id: str, state: State, reason: str) -> Outcome[State]:
        """The funding transaction is dead: nothing was paid, nothing is owned. Source: sheet 03 §1.8."""
        log.error("board %s failed: %s", action_id, reason)
        if self._onchain is not None:
            await self._onchain.evict(state.funding_tx.txid)
        return Done(write_dead(action_id, state.vtxo_id))

    async def _exit_if_near_expiry(self, action_id: str, vtxo: WalletVtxo, tip_height: int) -> None:
        if tip_height < exit_start_height(vtxo, self._vtxo_exit_margin):
            return
        await self._start_exit(vtxo.id)
        async with self._store.transaction() as tx:
            movement = await tx.movements.find_by_action(action_id)
            if movement is not None and vtxo.id not in movement.exited_vtxos:
                await tx.movements.update(movement.id, MovementUpdate(exited_vtxos=(vtxo.id,)))

    async def _is_seen(self, txid: Txid) -> bool:
        return not isinstance(await self._chain.tx_status(txid), NotFound)

    async def _record(self, tx: Tx) -> None:
        if self._onchain is not None:
            await self._onchain.record(tx)


def _confirming(state: State, trouble: str | None = None) -> Confirming:
    return Confirming(state.funding_tx, state.vtxo_id, state.amount_sat, trouble)
