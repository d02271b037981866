"""Boarding: starting boards, what they cost, and driving those that are under way.

The exit transaction is signed by both sides and stored before the funding transaction is broadcast; from then
on the action drives itself. Its states: `states`.

Source: sheet 03 §1.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from barkd_py.ark.board import BoardTemplate, board_funding_taproot, finish_board, generate_board_nonce
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx, TxIn, TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, StoreError, chain_text
from barkd_py.onchain.types import SignedTx
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.executor import ActionExecutor, Until
from barkd_py.wallet.boards.errors import NoOnchainWallet
from barkd_py.wallet.boards.machine import BoardMachine
from barkd_py.wallet.boards.states import FORMAT, Broadcasting, State, board_action_id
from barkd_py.wallet.boards.terms import BoardFeeEstimate, estimate_fee, plan_template
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import BOARD, MovementUpdate
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import Locked, MovementHolder, NewVtxo

log = logging.getLogger(__name__)

# One board at a time between choosing coins and recording that they are spent.
BUILD_LOCK = "board.build"


@dataclass(frozen=True, slots=True)
class PendingBoard:
    """funding_tx: without witnesses; its id is final. amount_sat: net of the board fee."""

    funding_tx: Tx
    vtxo_ids: tuple[VtxoId, ...]
    amount_sat: int
    movement_id: int


@dataclass(frozen=True, slots=True)
class _SignedBoard:
    funding: SignedTx
    template: BoardTemplate
    vtxo: Vtxo


class Boards:
    """Starts boards, and tells which are under way."""

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: BoardMachine,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        locks: NamedLocks,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._onchain = onchain
        self._locks = locks

    async def board_amount(self, amount_sat: int) -> PendingBoard:
        """Board this much; the board fee is taken from it, the fee on chain comes on top."""
        onchain = self._require_onchain()

        async def build(output_script: bytes, fee_rate: FeeRate) -> SignedTx:
            return await onchain.build_tx([TxOut(amount_sat, output_script)], fee_rate)

        return await self._board(build)

    async def board_all(self) -> PendingBoard:
        """Board every coin of the on-chain wallet."""
        return await self._board(self._require_onchain().build_drain)

    async def pending(self) -> tuple[PendingBoard, ...]:
        """Oldest first."""
        async with self._store.read() as tx:
            found = []
            for row in await tx.actions.list(ActionKind.BOARD):
                state = FORMAT.decode(row.payload)
                movement = await tx.movements.find_by_action(row.id)
                assert movement is not None, "stored with the action"
                found.append(_pending(state.funding_tx, state.vtxo_id, state.amount_sat, movement.id))
        return tuple(found)

    async def estimate(self, amount_sat: int) -> BoardFeeEstimate:
        """Raises BoardBelowMinimum, BoardTooLarge, FeeExceedsAmount, FeeOverflow."""
        return estimate_fee(await self._server.info(), amount_sat)

    async def drive_all(self) -> None:
        await self._executor.drive_all(self._machine)

    def _require_onchain(self) -> OnchainWallet:
        if self._onchain is None:
            raise NoOnchainWallet
        return self._onchain

    async def _board(self, build: Callable[[bytes, FeeRate], Awaitable[SignedTx]]) -> PendingBoard:
        info = await self._server.info()
        tip = await self._chain.tip()
        key = await self._keychain.reserve()
        expiry_height = tip.height + info.vtxo_lifetime
        taproot = board_funding_taproot(key.public_key, info.server_pubkey, expiry_height)
        fee_rate = (await self._chain.fee_rates()).regular
        async with self._locks.hold(BUILD_LOCK):
            funding = await build(taproot.script_pubkey, fee_rate)
            template = plan_template(funding.tx, taproot.script_pubkey, key.public_key, info, expiry_height)
            vtxo = await self._cosign(template, funding)
            return await self._store_and_drive(_SignedBoard(funding, template, vtxo))

    async def _cosign(self, template: BoardTemplate, funding: SignedTx) -> Vtxo:
        """The signed VTXO; nothing of it is stored yet. Raises BadCosignature."""
        (secret,) = await self._keychain.secrets_for([template.user_pubkey])
        sec_nonce, pub_nonce = generate_board_nonce(template, secret)
        answer = await self._server.request_board_cosign(
            amount_sat=template.amount_sat,
            utxo=template.utxo,
            expiry_height=template.expiry_height,
            user_pubkey=template.user_pubkey,
            pub_nonce=pub_nonce,
            funding_tx=funding.unsigned_tx,
        )
        return finish_board(template, secret, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)

    async def _store_and_drive(self, board: _SignedBoard) -> PendingBoard:
        """From the commit in here on the board is accepted, and only then anything is broadcast."""
        action_id = board_action_id(board.template.utxo)
        movement_id = 0
        is_stored = False

        async def prepare(tx: Transaction) -> State:
            nonlocal movement_id
            movement = await tx.movements.get_or_create(action_id, BOARD, _movement(board))
            movement_id = movement.id
            await tx.vtxos.insert([NewVtxo(board.vtxo, Locked(MovementHolder(movement.id)))])
            return Broadcasting(board.funding.tx, board.vtxo.id, board.vtxo.amount_sat)

        def note_stored() -> None:
            nonlocal is_stored
            is_stored = True

        try:
            await self._executor.begin(
                self._machine, action_id, prepare, until=Until.PARK, on_stored=note_stored
            )
        except BarkdError as error:
            if not is_stored:
                raise
            log.warning("board %s is stored and goes on later: %s", action_id, chain_text(error))
        return _pending(board.funding.tx, board.vtxo.id, board.vtxo.amount_sat, movement_id)


async def vtxos_in_progress(tx: Transaction) -> frozenset[VtxoId]:
    """The VTXOs of boards under way: the server learns of them when they are registered."""
    found = set()
    for row in await tx.actions.list(ActionKind.BOARD):
        with suppress(StoreError):  # one that cannot be read: whoever drives it says so
            found.add(FORMAT.decode(row.payload).vtxo_id)
    return frozenset(found)


def _movement(board: _SignedBoard) -> MovementUpdate:
    return MovementUpdate(
        intended_balance_sat=board.template.amount_sat,
        effective_balance_sat=board.vtxo.amount_sat,
        offchain_fee_sat=board.template.fee_sat,
        output_vtxos=(board.vtxo.id,),
        metadata={"chain_anchor": str(board.template.utxo), "onchain_fee_sat": board.funding.fee_sat},
    )


def _pending(funding_tx: Tx, vtxo_id: VtxoId, amount_sat: int, movement_id: int) -> PendingBoard:
    inputs = tuple(TxIn(tx_in.prevout, sequence=tx_in.sequence) for tx_in in funding_tx.inputs)
    unsigned = Tx(funding_tx.version, inputs, funding_tx.outputs, funding_tx.locktime)
    return PendingBoard(unsigned, (vtxo_id,), amount_sat, movement_id)
