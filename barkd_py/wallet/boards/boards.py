"""Boarding: on-chain money becomes a VTXO.

The exit transaction is signed by both sides and stored *before* the funding transaction leaves the machine,
so the money is never without a way out. `Boards.board` does that; from then on the action drives itself:

    Broadcasting ── seen by the chain source ──▶ Confirming ── registered ──▶ done: spendable
         │                                           │
         └── an input was double-spent by a confirmed transaction ──▶ done: failed, VTXO spent

The VTXO is stored with the action, locked by the action's movement, which has the action's id: what one
crash could separate is written in one transaction. The funding transaction is recorded in the on-chain wallet
before it is broadcast; that is what keeps the next board from choosing the same coins. If the VTXO comes
close to its expiry before the server took it, the exit is started, and registration goes on being tried.

Only the committed txid is watched: never bump the fee of a board by replacement.

Source: sheet 03 §1.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

from pydantic import Field, TypeAdapter

from barkd_py.ark.board import BoardTemplate, board_funding_taproot, finish_board, generate_board_nonce
from barkd_py.ark.fees import board_fee, subtract_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import FeeRate, format_btc
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    Confirmed,
    Mempool,
    NotFound,
)
from barkd_py.errors import BarkdError, ChainError, ProtocolViolation, ServerError, chain_text
from barkd_py.onchain.types import SignedTx
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import MAX_BOARD_FUNDING_INPUTS, ArkServerApi
from barkd_py.wallet.actions.executor import ActionExecutor, Done, Next, Outcome, Park, Until
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import BOARD, MovementStatus, MovementUpdate
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import PayloadFormat, TxHex, VtxoIdText
from barkd_py.wallet.vtxos.registration import Registration
from barkd_py.wallet.vtxos.states import Exited, Locked, MovementHolder, NewVtxo, Release, Spent

log = logging.getLogger(__name__)

# One board at a time between choosing coins and recording that they are spent.
BUILD_LOCK = "board.build"

StartExit = Callable[[VtxoId], Awaitable[None]]


# --- errors


class NoOnchainWallet(BarkdError):
    def __init__(self) -> None:
        super().__init__("no onchain wallet configured; cannot board")


class TooManyBoardInputs(BarkdError):
    def __init__(self, count: int) -> None:
        super().__init__(
            f"We need {count} inputs to board, exceeding the limit of {MAX_BOARD_FUNDING_INPUTS}"
        )


class WrongFundingOutput(BarkdError):
    """The funding transaction does not pay the board exactly once. Nothing was asked of the server."""


class BoardTooSmall(BarkdError):
    def __init__(self, amount_sat: int, minimum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} is less than minimum board amount required by server"
            f" ({format_btc(minimum_sat)})"
        )


class BoardBelowMinimum(BarkdError):
    """As BoardTooSmall, in the words of the estimate."""

    def __init__(self, amount_sat: int, minimum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} does not meet minimum value of"
            f" {format_btc(minimum_sat)}"
        )


class BoardTooLarge(BarkdError):
    def __init__(self, amount_sat: int, maximum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} exceeds maximum value of {format_btc(maximum_sat)}"
        )


# --- states


@dataclass(frozen=True, slots=True)
class Broadcasting:
    """Signed and stored; the chain source has not shown the funding transaction yet."""

    funding_tx: TxHex
    vtxo_id: VtxoIdText
    amount_sat: int
    type: Literal["broadcasting"] = "broadcasting"


@dataclass(frozen=True, slots=True)
class Confirming:
    """On its way into a block, and then to the server. last_trouble: why registering failed last time."""

    funding_tx: TxHex
    vtxo_id: VtxoIdText
    amount_sat: int
    last_trouble: str | None = None
    type: Literal["confirming"] = "confirming"


BoardState = Annotated[Broadcasting | Confirming, Field(discriminator="type")]

_FORMAT: PayloadFormat[Broadcasting | Confirming] = PayloadFormat("board", TypeAdapter(BoardState))


@dataclass(frozen=True, slots=True)
class PendingBoard:
    """funding_tx: without witnesses; its id is final. amount_sat: net of the board fee."""

    funding_tx: Tx
    vtxo_ids: tuple[VtxoId, ...]
    amount_sat: int
    movement_id: int


@dataclass(frozen=True, slots=True)
class BoardFeeEstimate:
    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...] = ()


def estimate_fee(info: ArkInfo, amount_sat: int) -> BoardFeeEstimate:
    """Raises BoardBelowMinimum, BoardTooLarge, FeeExceedsAmount, FeeOverflow."""
    if amount_sat < info.min_board_amount_sat:
        raise BoardBelowMinimum(amount_sat, info.min_board_amount_sat)
    if info.max_vtxo_amount_sat is not None and amount_sat > info.max_vtxo_amount_sat:
        raise BoardTooLarge(amount_sat, info.max_vtxo_amount_sat)
    fee_sat = board_fee(info.fees, amount_sat)
    return BoardFeeEstimate(amount_sat, fee_sat, subtract_fee(amount_sat, fee_sat))


def board_action_id(utxo: OutPoint) -> str:
    return f"board.{utxo.txid}.{utxo.vout}"


async def vtxos_in_progress(tx: Transaction) -> frozenset[VtxoId]:
    """The VTXOs of boards under way: the server learns of them when they are registered."""
    rows = await tx.actions.list(ActionKind.BOARD)
    return frozenset(_FORMAT.decode(row.payload).vtxo_id for row in rows)


# --- the conflict probe


@dataclass(frozen=True, slots=True)
class Pushed:
    """The node has the transaction."""


@dataclass(frozen=True, slots=True)
class Undecided:
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """It can never confirm: something else has spent an input for good."""

    reason: str


ProbeResult = Pushed | Undecided | Dead


async def probe(chain: ChainSource, tx: Tx) -> ProbeResult:
    """Find out why a transaction of ours is not seen, and offer it again. Source: sheet 03 §1.7.

    An error of the chain source never condemns the transaction.
    """
    for tx_in in tx.inputs:
        parent = tx_in.prevout.txid
        try:
            status = await chain.tx_status(parent)
            if isinstance(status, NotFound):
                return Undecided(f"funding input parent tx {parent} not yet visible on chain")
            if isinstance(status, Confirmed) and await chain.is_spent_confirmed(tx_in.prevout):
                return Dead(f"funding input {tx_in.prevout} was spent by another transaction")
        except ChainError as error:
            return Undecided(chain_text(error))
    try:
        await chain.broadcast_package([tx])
    except BroadcastError as error:
        match error.kind:
            case BroadcastErrorKind.KNOWN:
                return Pushed()
            case BroadcastErrorKind.MISSING_OR_SPENT:
                return Dead(chain_text(error))
            case _:
                return Undecided(f"funding tx re-broadcast rejected: {chain_text(error)}")
    except ChainError as error:
        return Undecided(chain_text(error))
    return Pushed()


# --- the machine


class BoardMachine:
    """The steps of a board."""

    kind = ActionKind.BOARD

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        server: ArkServerApi,
        registration: Registration,
        onchain: OnchainWallet | None,
        *,
        vtxo_exit_margin: int,
        start_exit: StartExit | None = None,
    ) -> None:
        self._store = store
        self._chain = chain
        self._server = server
        self._registration = registration
        self._onchain = onchain
        self._vtxo_exit_margin = vtxo_exit_margin
        self.start_exit = start_exit

    def encode(self, state: Broadcasting | Confirming) -> str:
        return _FORMAT.encode(state)

    def decode(self, payload: str) -> Broadcasting | Confirming:
        return _FORMAT.decode(payload)

    def reports(self, state: Broadcasting | Confirming) -> Sequence[VtxoId]:
        return (state.vtxo_id,) if isinstance(state, Confirming) else ()

    async def step(
        self, action_id: str, state: Broadcasting | Confirming
    ) -> Outcome[Broadcasting | Confirming]:
        match state:
            case Broadcasting():
                return await self._broadcast(action_id, state)
            case Confirming():
                return await self._confirm(action_id, state)
            case _:
                assert_never(state)

    async def _broadcast(self, action_id: str, state: Broadcasting) -> Outcome[Broadcasting | Confirming]:
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

    async def _confirm(self, action_id: str, state: Confirming) -> Outcome[Broadcasting | Confirming]:
        async with self._store.read() as tx:
            stored = await tx.vtxos.get(state.vtxo_id)
        match stored.state:
            case Exited():
                return Done(writes=_finish_movement(action_id, MovementStatus.FAILED))
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
                return Done(writes=self._complete(action_id, state.vtxo_id))
        except (ServerError, ProtocolViolation) as error:
            trouble = chain_text(error)
            log.warning("board %s is not registered yet: %s", action_id, trouble)
        await self._exit_if_near_expiry(action_id, state.vtxo_id, stored.expiry_height, tip.height)
        return Park(_confirming(state, trouble))

    async def _register(self, vtxo_id: VtxoId) -> None:
        async with self._store.read() as tx:
            vtxo = await tx.vtxos.body(vtxo_id)
        await self._server.register_board_vtxo(vtxo)
        self._registration.note_registered([vtxo_id])

    def _complete(self, action_id: str, vtxo_id: VtxoId) -> Callable[[Transaction], Awaitable[None]]:
        async def write(tx: Transaction) -> None:
            movement = await tx.movements.find_by_action(action_id)
            assert movement is not None, "stored with the action"
            await tx.vtxos.change([vtxo_id], Release(MovementHolder(movement.id)))
            await tx.movements.finish(movement.id, MovementStatus.SUCCESSFUL)
            self._registration.wake_at_commit()

        return write

    async def _fail(
        self, action_id: str, state: Broadcasting | Confirming, reason: str
    ) -> Outcome[Broadcasting | Confirming]:
        """The funding transaction is dead: nothing was paid, nothing is owned. Source: sheet 03 §1.8."""
        log.error("board %s failed: %s", action_id, reason)
        if self._onchain is not None:
            await self._onchain.evict(state.funding_tx.txid)

        async def write(tx: Transaction) -> None:
            await tx.vtxos.mark_spent([state.vtxo_id])
            await _finish_movement(action_id, MovementStatus.FAILED, effective_balance_sat=0)(tx)

        return Done(writes=write)

    async def _exit_if_near_expiry(
        self, action_id: str, vtxo_id: VtxoId, expiry_height: int, tip_height: int
    ) -> None:
        if expiry_height > tip_height + self._vtxo_exit_margin:
            return
        if self.start_exit is None:
            log.error("board %s is about to expire at block %d: exit it", action_id, expiry_height)
            return
        await self.start_exit(vtxo_id)
        async with self._store.transaction() as tx:
            movement = await tx.movements.find_by_action(action_id)
            if movement is not None and vtxo_id not in movement.exited_vtxos:
                await tx.movements.update(movement.id, MovementUpdate(exited_vtxos=(vtxo_id,)))

    async def _is_seen(self, txid: Txid) -> bool:
        return not isinstance(await self._chain.tx_status(txid), NotFound)

    async def _record(self, tx: Tx) -> None:
        if self._onchain is not None:
            await self._onchain.record(tx)


def _confirming(state: Broadcasting | Confirming, trouble: str | None = None) -> Confirming:
    return Confirming(state.funding_tx, state.vtxo_id, state.amount_sat, trouble)


def _finish_movement(
    action_id: str, status: MovementStatus, *, effective_balance_sat: int | None = None
) -> Callable[[Transaction], Awaitable[None]]:
    async def write(tx: Transaction) -> None:
        movement = await tx.movements.find_by_action(action_id)
        if movement is None or movement.status is status:
            return
        update = MovementUpdate(effective_balance_sat=effective_balance_sat)
        await tx.movements.finish_with_update(movement.id, status, update)

    return write


# --- starting


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
                state = self._machine.decode(row.payload)
                movement = await tx.movements.find_by_action(row.id)
                assert movement is not None, "stored with the action"
                found.append(_pending(state.funding_tx, state.vtxo_id, state.amount_sat, movement.id))
        return tuple(found)

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
            template = _template(funding.tx, taproot.script_pubkey, key.public_key, info, expiry_height)
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

        async def prepare(tx: Transaction) -> Broadcasting | Confirming:
            nonlocal movement_id
            movement = await tx.movements.get_or_create(action_id, BOARD, _movement(board))
            movement_id = movement.id
            await tx.vtxos.insert([NewVtxo(board.vtxo, Locked(MovementHolder(movement.id)))])
            return Broadcasting(board.funding.tx, board.vtxo.id, board.vtxo.amount_sat)

        await self._executor.store_new(self._machine, action_id, prepare)
        try:
            await self._executor.drive(self._machine, action_id, until=Until.PARK)
        except BarkdError as error:
            log.warning("board %s is stored and goes on later: %s", action_id, chain_text(error))
        return _pending(board.funding.tx, board.vtxo.id, board.vtxo.amount_sat, movement_id)


def _template(
    funding_tx: Tx, script_pubkey: bytes, user_pubkey: PublicKey, info: ArkInfo, expiry_height: int
) -> BoardTemplate:
    """What is to be signed for this funding transaction, after every check that we can make."""
    if len(funding_tx.inputs) > MAX_BOARD_FUNDING_INPUTS:
        raise TooManyBoardInputs(len(funding_tx.inputs))
    vouts = [vout for vout, out in enumerate(funding_tx.outputs) if out.script_pubkey == script_pubkey]
    if not vouts:
        raise WrongFundingOutput("PSBT output does not pay to the expected board funding address")
    if len(vouts) > 1:
        raise WrongFundingOutput("PSBT pays to the board funding address more than once")
    (vout,) = vouts
    amount_sat = funding_tx.outputs[vout].value_sat
    if amount_sat < info.min_board_amount_sat:
        raise BoardTooSmall(amount_sat, info.min_board_amount_sat)
    fee_sat = board_fee(info.fees, amount_sat)
    subtract_fee(amount_sat, fee_sat)
    return BoardTemplate(
        user_pubkey=user_pubkey,
        server_pubkey=info.server_pubkey,
        amount_sat=amount_sat,
        fee_sat=fee_sat,
        expiry_height=expiry_height,
        exit_delta=info.vtxo_exit_delta,
        utxo=funding_tx.outpoint(vout),
    )


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
