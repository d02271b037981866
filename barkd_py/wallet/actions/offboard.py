"""Leaving Ark: VTXOs against an output of a transaction that the server makes and pays for.

    Splitting ─▶ Registering ─┐                     send-onchain: first a payment to ourselves, so that the
                              ▼                     offboarded VTXOs hold exactly amount and fee
                           Preparing ◀── the session is lost ── Prepared ── forfeits ──▶ Broadcasting
                              │  ▲                                │                          │
                 refused:     │  └── not on chain ── look ◀───────┘ refused                  ▼
                 done, undone ▼                        └── on chain: ──────────────────▶ Confirming ─▶ done

The server proposes a transaction, and we sign a forfeit of each VTXO that is worth nothing without that very
transaction. Before the first forfeit has left us, everything can be undone. From then on the server may let
the transaction out whenever it likes: the inputs stay locked until it is confirmed, until a transaction that
it conflicts with is, or until the server itself proves that it never took the forfeits.

What is paid is fixed at the start, and no repetition changes it: the server answers an equal request with the
same session, and forgets a session after half a minute.

Source: sheet 03 §3.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, assert_never

from pydantic import Field, TypeAdapter

from barkd_py.ark.arkoor import ArkoorDestination, plan_outputs, split_package
from barkd_py.ark.attestations import attest, offboard_request_message
from barkd_py.ark.fees import VtxoFeeInfo, offboard_fee, subtract_fee_above_dust
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.offboard import (
    OffboardForfeits,
    OffboardTxInvalid,
    verify_offboard_request,
    verify_offboard_tx,
)
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.script import ScriptType, dust_limit_sat, script_type
from barkd_py.bitcoin.tx import Tx, Txid, TxOut
from barkd_py.bitcoin.units import FeeRate, format_btc
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    Confirmed,
    Mempool,
    NotFound,
)
from barkd_py.errors import (
    BarkdError,
    ChainError,
    InsufficientFunds,
    ProtocolViolation,
    ServerRejected,
    StateConflict,
    StoreError,
    chain_text,
)
from barkd_py.server_rpc.api import ArkServerApi, OffboardRequest, RoundInput
from barkd_py.wallet.actions.arkoor_package import cosign_package
from barkd_py.wallet.actions.executor import (
    ActionExecutor,
    Done,
    Failed,
    Next,
    Outcome,
    Park,
    Retry,
    Until,
    Writes,
)
from barkd_py.wallet.actions.failures import StillPending, is_final
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.movements import (
    OFFBOARD,
    SEND_ONCHAIN,
    JsonValue,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.registration import Registration
from barkd_py.wallet.selection import FeeSelection, SelectionLimits, fee_infos, select_with_fee
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import (
    HexBytes,
    PayloadFormat,
    PublicKeyHex,
    TxHex,
    TxidText,
    VtxoIdText,
)
from barkd_py.wallet.vtxos import ActionHolder, Locked, NewVtxo, Release, StateKind, WalletVtxo

log = logging.getLogger(__name__)

POLL_SECS = 30.0
MAX_BAD_ANSWERS = 5
# How long a caller waits. The offboard goes on by itself.
WAIT_SECS = 60.0
# From this depth on, a transaction that spends what ours spends has won.
DOUBLE_SPENT_CONFIRMATIONS = 6

_NEVER_TOOK_FORFEITS = (
    "fee rate is no longer valid",
    "does not match expected amount",
    "output address is blocked",
)
"""The server says so only after it has found every input spendable."""


class TooManyOffboardInputs(BarkdError):
    def __init__(self, count: int, most: int) -> None:
        super().__init__(f"max inputs for offboard is {most}, {count} were provided")


class DuplicateOffboardInput(BarkdError):
    def __init__(self) -> None:
        super().__init__("offboard inputs must not contain duplicates")


class OffboardLeavesDust(InsufficientFunds):
    """The cause says how the fee and the amount are."""

    def __init__(self) -> None:
        super().__init__("offboard fee leaves dust")


class SendBelowDust(BarkdError):
    def __init__(self, address: str, minimum_sat: int) -> None:
        super().__init__(f"the minimum you can send to {address} is {format_btc(minimum_sat)}")


class CannotLock(StateConflict):
    """The cause says which VTXO is not free."""

    def __init__(self) -> None:
        super().__init__("Unable to lock VTXOs")


class InvalidOffboardTx(ProtocolViolation):
    """The server proposed something else than was asked for; the cause says what. Nothing was forfeited."""

    def __init__(self) -> None:
        super().__init__("received invalid offboard tx from server")


class UnsignedOffboardTx(ProtocolViolation):
    """The server took the forfeits, and did not give what they were for. It is asked again."""


class OffboardPending(BarkdError):
    """It is not where its transaction is known, but goes on in the background."""

    def __init__(self, action_id: str, state: str) -> None:
        super().__init__(
            f"offboard {action_id} could not complete yet (parked in {state}); "
            "it remains pending and will be retried on wallet sync"
        )


class OffboardVanished(BarkdError):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"offboard {action_id} finished without producing a txid")


class OffboardTxLost(ChainError):
    """Nobody has the transaction any more. The inputs stay locked: the server may still let it out."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"offboard tx {txid} is neither in a block nor in the mempool for a long time")
        self.txid = txid


class OffboardDoubleSpent(ChainError):
    """Another transaction spends what the offboard transaction spends: the forfeits are worth nothing."""

    def __init__(self, txid: Txid, by: Txid) -> None:
        super().__init__(f"offboard tx {txid} was double-spent by {by}")
        self.txid = txid
        self.by = by


# --- states


@dataclass(frozen=True, slots=True)
class Payment:
    """What leaves, fixed for good.

    net_amount_sat: the output's. deducts_fee: whole VTXOs leave, and the fee is taken from them; else it is a
    send, with the fee on top. input_ids: the VTXOs that were chosen at the start.
    """

    address: str
    script_pubkey: HexBytes
    net_amount_sat: int
    fee_sat: int
    fee_rate_sat_per_kwu: int
    deducts_fee: bool
    input_ids: tuple[VtxoIdText, ...]

    @property
    def destination(self) -> TxOut:
        return TxOut(self.net_amount_sat, self.script_pubkey)

    @property
    def request(self) -> OffboardRequest:
        return OffboardRequest(
            net_amount_sat=self.net_amount_sat,
            script_pubkey=self.script_pubkey,
            deduct_fees_from_gross_amount=self.deducts_fee,
            fee_rate=FeeRate(self.fee_rate_sat_per_kwu),
        )


@dataclass(frozen=True, slots=True)
class Splitting:
    """The inputs of a send are locked; the server has perhaps cosigned the split.

    change_sat: the pieces of change, all to change_pubkey.
    """

    payment: Payment
    offboard_pubkey: PublicKeyHex
    change_pubkey: PublicKeyHex
    change_sat: tuple[int, ...]
    bad_answers: int = 0
    type: Literal["splitting"] = "splitting"

    @property
    def outputs(self) -> tuple[ArkoorDestination, ...]:
        change_policy = PubkeyPolicy(self.change_pubkey)
        gross_sat = self.payment.net_amount_sat + self.payment.fee_sat
        return (
            ArkoorDestination(gross_sat, PubkeyPolicy(self.offboard_pubkey)),
            *(ArkoorDestination(amount_sat, change_policy) for amount_sat in self.change_sat),
        )


@dataclass(frozen=True, slots=True)
class Registering:
    """The split is done and stored; the server needs the chains of both sides of it."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    change_ids: tuple[VtxoIdText, ...]
    type: Literal["registering"] = "registering"


@dataclass(frozen=True, slots=True)
class Preparing:
    """To be asked for a transaction.

    vtxo_ids: sorted, because the server knows an equal request by the order too. earlier: transactions for
    which forfeits have left us; any of them may appear.
    """

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    earlier: tuple[TxHex, ...] = ()
    type: Literal["preparing"] = "preparing"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The transaction is proposed and checked; the server perhaps has our forfeits."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    pub_nonces: tuple[HexBytes, ...]
    earlier: tuple[TxHex, ...] = ()
    type: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True)
class Broadcasting:
    """The transaction is signed."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    earlier: tuple[TxHex, ...] = ()
    type: Literal["broadcasting"] = "broadcasting"


@dataclass(frozen=True, slots=True)
class Confirming:
    """The transaction is out. since: Unix seconds."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    since: float
    earlier: tuple[TxHex, ...] = ()
    trouble: str | None = None
    type: Literal["confirming"] = "confirming"

    @property
    def txid(self) -> TxidText:
        return self.tx.txid


_State = Splitting | Registering | Preparing | Prepared | Broadcasting | Confirming
_FORMAT: PayloadFormat[_State] = PayloadFormat(
    "offboard", TypeAdapter(Annotated[_State, Field(discriminator="type")])
)

_UPSTREAM_NAMES: dict[type[_State], str] = {
    Splitting: "SplitWithArkoor",
    Registering: "ArkoorRegistrationRequired",
    Preparing: "ReadyForOffboard",
    Prepared: "OffboardTxPrepared",
    Broadcasting: "ReadyForBroadcast",
    Confirming: "AwaitingConfirmations",
}


# --- the machine


class OffboardMachine:
    """The steps of an offboard. now: Unix seconds."""

    kind = ActionKind.OFFBOARD

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
        self._required_confirmations = required_confirmations
        self._lost_tx_grace_secs = lost_tx_grace_secs
        self._now = now

    def encode(self, state: _State) -> str:
        return _FORMAT.encode(state)

    def decode(self, payload: str) -> _State:
        return _FORMAT.decode(payload)

    def reports(self, state: _State) -> Sequence[VtxoId]:
        match state:
            case Splitting():
                return state.payment.input_ids
            case Registering():
                return (*state.vtxo_ids, *state.change_ids)
            case Confirming():
                return ()
            case _:
                return state.vtxo_ids

    async def step(self, action_id: str, state: _State) -> Outcome[_State]:
        try:
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
                    return await self._confirm(action_id, state)
                case _:
                    assert_never(state)
        except StoreError:
            raise
        except BarkdError as error:
            return Retry(error)

    # --- Splitting, Registering

    async def _split(self, action_id: str, state: Splitting) -> Outcome[_State]:
        try:
            vtxos = await cosign_package(
                self._store, self._keychain, self._server, state.payment.input_ids, state.outputs
            )
        except StoreError:
            raise
        except ProtocolViolation as error:
            if state.bad_answers + 1 >= MAX_BAD_ANSWERS:
                return self._undo(action_id, state, error)
            log.warning("offboard %s: bad answer of the server: %s", action_id, chain_text(error))
            return Park(replace(state, bad_answers=state.bad_answers + 1), 1.0, error)
        except BarkdError as error:
            # The request is the same every time, so a refusal proves that the split never was.
            return self._undo(action_id, state, error) if is_final(error) else Retry(error)
        ours = PubkeyPolicy(state.offboard_pubkey)
        vtxo_ids = tuple(sorted(vtxo.id for vtxo in vtxos if vtxo.policy == ours))
        change_ids = tuple(vtxo.id for vtxo in vtxos if vtxo.policy != ours)

        async def write(tx: Transaction) -> None:
            await tx.vtxos.steal_spent(state.payment.input_ids)
            await tx.vtxos.insert(NewVtxo(vtxo, Locked(ActionHolder(action_id))) for vtxo in vtxos)
            update = replace(
                _movement(state.payment),
                output_vtxos=change_ids,
                metadata={"offboard_vtxos": [str(vtxo_id) for vtxo_id in vtxo_ids]},
            )
            await tx.movements.get_or_create(action_id, SEND_ONCHAIN, update)

        return Next(Registering(state.payment, vtxo_ids, change_ids), write)

    async def _register(self, action_id: str, state: Registering) -> Outcome[_State]:
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.bodies((*state.vtxo_ids, *state.change_ids))
        await self._server.register_vtxo_transactions(vtxos)
        self._registration.note_registered(vtxo.id for vtxo in vtxos)

        async def write(tx: Transaction) -> None:
            await tx.vtxos.change(state.change_ids, Release(ActionHolder(action_id)))
            self._registration.wake_at_commit()

        return Next(Preparing(state.payment, state.vtxo_ids), write)

    # --- Preparing

    async def _prepare(self, action_id: str, state: Preparing) -> Outcome[_State]:
        for tx in state.earlier:
            if await self._is_seen(tx.txid):
                return Next(self._confirming(state, tx), _note_tx(action_id, tx))
        payment = state.payment
        async with self._store.read() as read:
            stored = await read.vtxos.get_many(state.vtxo_ids)
            inputs = await read.vtxos.bodies(state.vtxo_ids)
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
            return Park(state, POLL_SECS, error) if state.earlier else self._undo(action_id, state, error)
        next_state = Prepared(
            payment, state.vtxo_ids, prepared.unsigned_tx, prepared.pub_nonces, state.earlier
        )
        return Next(next_state, _create_movement(action_id, payment))

    def _refused(self, action_id: str, state: Preparing, error: ServerRejected) -> Outcome[_State]:
        """Undo what the server cannot have taken. With forfeits out, only its own word proves that."""
        text = chain_text(error)
        if not state.earlier or any(phrase in text for phrase in _NEVER_TOOK_FORFEITS):
            return self._undo(action_id, state, error)
        return Park(state, POLL_SECS, error)

    # --- Prepared

    async def _finish(self, action_id: str, state: Prepared) -> Outcome[_State]:
        async with self._store.read() as tx:
            inputs = await tx.vtxos.bodies(state.vtxo_ids)
        keys = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        forfeits = OffboardForfeits(tuple(inputs), state.tx)
        answers = await asyncio.to_thread(forfeits.sign, keys, state.pub_nonces)
        try:
            signed = await self._server.finish_offboard(
                state.tx.txid,
                [answer.pub_nonce for answer in answers],
                [answer.partial_sig for answer in answers],
            )
        except ServerRejected as error:
            return await self._session_lost(action_id, state, error)
        if signed.txid != state.tx.txid:
            raise UnsignedOffboardTx(f"the server finished offboard tx {signed.txid}, not {state.tx.txid}")
        if not all(tx_in.witness or tx_in.script_sig for tx_in in signed.inputs):
            raise UnsignedOffboardTx(f"offboard tx {signed.txid} is not signed")
        broadcasting = Broadcasting(state.payment, state.vtxo_ids, signed, state.earlier)
        return Next(broadcasting, _note_tx(action_id, signed))

    async def _session_lost(self, action_id: str, state: Prepared, error: ServerRejected) -> Outcome[_State]:
        """The server has forgotten the session, perhaps because it has finished it. Not a failure."""
        log.warning("offboard %s: %s", action_id, chain_text(error))
        if await self._is_seen(state.tx.txid):
            return Next(self._confirming(state, state.tx), _note_tx(action_id, state.tx))
        again = Preparing(state.payment, state.vtxo_ids, (*state.earlier, state.tx))
        # The first time at once: it may have been a restart, and somebody waits.
        return Park(again, POLL_SECS) if state.earlier else Next(again)

    # --- Broadcasting, Confirming

    async def _broadcast(self, action_id: str, state: Broadcasting) -> Outcome[_State]:
        """The server broadcasts too; whoever is first."""
        try:
            await self._chain.broadcast(state.tx)
        except ChainError as error:
            log.warning("offboard %s: broadcasting %s: %s", action_id, state.tx.txid, chain_text(error))
        return Park(self._confirming(state, state.tx), POLL_SECS)

    async def _confirm(self, action_id: str, state: Confirming) -> Outcome[_State]:
        status = await self._chain.tx_status(state.txid)
        match status:
            case Confirmed(block):
                tip = await self._chain.fetch_tip()
                if tip.height - block.height + 1 >= self._required_confirmations:
                    return self._settle(action_id, state)
            case Mempool() if self._required_confirmations == 0:
                return self._settle(action_id, state)
            case NotFound():
                return await self._search(action_id, state)
        return Park(replace(state, trouble=None), POLL_SECS)

    async def _search(self, action_id: str, state: Confirming) -> Outcome[_State]:
        """Nobody has the transaction: offer it once more, and find out why."""
        try:
            await self._chain.broadcast(state.tx)
            return Park(replace(state, trouble=None), POLL_SECS)
        except BroadcastError as error:
            log.warning("offboard %s: %s", action_id, chain_text(error))
            if error.kind is BroadcastErrorKind.MISSING_OR_SPENT:
                conflict = await self._conflict(state.tx)
                if conflict is not None:
                    return self._conflicted(action_id, state, *conflict)
        if self._now() - state.since <= self._lost_tx_grace_secs:
            return Park(state, POLL_SECS)
        lost = OffboardTxLost(state.txid)
        log.error("offboard %s: %s", action_id, lost)
        return Park(replace(state, trouble=str(lost)), POLL_SECS, lost)

    async def _conflict(self, tx: Tx) -> tuple[OffboardDoubleSpent, int] | None:
        """A confirmed transaction that spends an input of ours, and its confirmations."""
        for tx_in in tx.inputs:
            parent = await self._chain.tx_status(tx_in.prevout.txid)
            if not isinstance(parent, Confirmed):
                continue
            spend = await self._chain.spender(tx_in.prevout, since_height=parent.block.height)
            if spend is None or spend.txid == tx.txid or not isinstance(spend.status, Confirmed):
                continue
            tip = await self._chain.tip()
            return OffboardDoubleSpent(tx.txid, spend.txid), tip.height - spend.status.block.height + 1
        return None

    def _conflicted(
        self, action_id: str, state: Confirming, error: OffboardDoubleSpent, confirmations: int
    ) -> Outcome[_State]:
        """What spends it may be an earlier transaction of this very offboard, which pays as well.

        Else our forfeits spend a connector that will never be, and the VTXOs are ours again: to be exited.
        """
        for tx in state.earlier:
            if tx.txid == error.by:
                return Park(replace(state, tx=tx), POLL_SECS, writes=_note_tx(action_id, tx))
        log.error("offboard %s: %s (%d confirmations)", action_id, error, confirmations)
        if confirmations < DOUBLE_SPENT_CONFIRMATIONS:
            return Park(replace(state, trouble=str(error)), POLL_SECS, error)
        return self._undo(action_id, state, error)

    def _settle(self, action_id: str, state: Confirming) -> Outcome[_State]:
        async def write(tx: Transaction) -> None:
            await tx.vtxos.steal_spent(state.vtxo_ids)
            movement = await tx.movements.find_by_action(action_id)
            assert movement is not None, "stored before this state"
            await tx.movements.finish(movement.id, MovementStatus.SUCCESSFUL)

        return Done(write)

    # --- shared

    async def _is_seen(self, txid: Txid) -> bool:
        return not isinstance(await self._chain.tx_status(txid), NotFound)

    def _confirming(self, state: Preparing | Prepared | Broadcasting, tx: Tx) -> Confirming:
        return Confirming(state.payment, state.vtxo_ids, tx, self._now(), state.earlier)

    def _undo(self, action_id: str, state: _State, error: BarkdError) -> Failed:
        """Nothing left the wallet; the executor releases what is locked."""
        payment = state.payment

        async def write(tx: Transaction) -> None:
            subsystem = OFFBOARD if payment.deducts_fee else SEND_ONCHAIN
            movement = await tx.movements.get_or_create(action_id, subsystem, _movement(payment))
            update = MovementUpdate(
                effective_balance_sat=0, offchain_fee_sat=0, metadata={"error": chain_text(error)}
            )
            await tx.movements.finish_with_update(movement.id, MovementStatus.FAILED, update)

        return Failed(error, write)


def _verify_proposal(tx: Tx, payment: Payment, nb_inputs: int) -> None:
    """Raises InvalidOffboardTx."""
    try:
        verify_offboard_tx(tx, payment.destination, nb_inputs)
    except OffboardTxInvalid as error:
        raise InvalidOffboardTx from error


def _movement(payment: Payment) -> MovementUpdate:
    gross_sat = payment.net_amount_sat + payment.fee_sat
    method = PaymentMethod(PaymentMethodKind.BITCOIN, payment.address)
    return MovementUpdate(
        intended_balance_sat=-gross_sat if payment.deducts_fee else -payment.net_amount_sat,
        effective_balance_sat=-gross_sat,
        offchain_fee_sat=payment.fee_sat,
        input_vtxos=payment.input_ids,
        sent_to=(MovementDestination(method, payment.net_amount_sat),),
    )


def _create_movement(action_id: str, payment: Payment) -> Writes:
    async def write(tx: Transaction) -> None:
        subsystem = OFFBOARD if payment.deducts_fee else SEND_ONCHAIN
        await tx.movements.get_or_create(action_id, subsystem, _movement(payment))

    return write


def _note_tx(action_id: str, tx: Tx) -> Writes:
    async def write(transaction: Transaction) -> None:
        movement = await transaction.movements.find_by_action(action_id)
        assert movement is not None, "stored before this state"
        metadata: dict[str, JsonValue] = {
            "offboard_txid": str(tx.txid),
            "offboard_tx": tx.serialize().hex(),
        }
        await transaction.movements.update(movement.id, MovementUpdate(metadata=metadata))

    return write


# --- starting


@dataclass(frozen=True, slots=True)
class OffboardResult:
    """The transaction is out."""

    offboard_txid: Txid
    movement_id: int


@dataclass(frozen=True, slots=True)
class OffboardEstimate:
    """gross: what leaves the wallet; net: what arrives. vtxos_spent: none if no choice covers it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...]


@dataclass(frozen=True, slots=True)
class OffboardTarget:
    """Where to: an address of the wallet's network, and its script."""

    address: str
    script_pubkey: bytes


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an offboard costs at this moment, at this target."""

    info: ArkInfo
    fee_rate: FeeRate
    tip_height: int
    script_pubkey: bytes

    def fee_sat(self, amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        return offboard_fee(
            self.info.fees, amount_sat, infos, script_pubkey=self.script_pubkey, fee_rate=self.fee_rate
        )

    def whole_fee_sat(self, vtxos: Sequence[WalletVtxo]) -> int:
        return self.fee_sat(sum(vtxo.amount_sat for vtxo in vtxos), fee_infos(vtxos, self.tip_height))

    def select(self, spendable: Sequence[WalletVtxo], amount_sat: int) -> FeeSelection[WalletVtxo]:
        """Raises CannotCoverPaymentAndFees."""
        # Expired ones are refused as inputs of the split by newer servers.
        limits = SelectionLimits(
            max_exit_depth=self.info.max_vtxo_exit_depth,
            expires_after_height=self.tip_height,
            max_inputs=self.info.max_offboard_inputs,
        )
        return select_with_fee(spendable, amount_sat, self.fee_sat, tip_height=self.tip_height, limits=limits)


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
        self._wait_secs = wait_secs
        self._tasks: set[asyncio.Task[None]] = set()

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

        async def prepare(tx: Transaction) -> _State:
            selection = terms.select(await tx.vtxos.list([StateKind.SPENDABLE]), amount_sat)
            state = await self._plan_split(tx, target, terms, amount_sat, selection)
            await _lock(tx, state.payment.input_ids, action_id)
            return state

        return await self._run(action_id, prepare)

    async def _offboard(self, vtxo_ids: Sequence[VtxoId] | None, target: OffboardTarget) -> OffboardResult:
        verify_offboard_request(TxOut(_MAX_OUTPUT_SAT, target.script_pubkey))
        terms = await self._terms(target.script_pubkey)
        action_id = secrets.token_hex(16)

        async def prepare(tx: Transaction) -> _State:
            if vtxo_ids is None:
                inputs = await tx.vtxos.list([StateKind.SPENDABLE])
            else:
                inputs = await tx.vtxos.get_many(vtxo_ids)
            payment = _plan_whole(inputs, target, terms)
            await _lock(tx, payment.input_ids, action_id)
            return Preparing(payment, tuple(sorted(payment.input_ids)))

        return await self._run(action_id, prepare)

    async def _terms(self, script_pubkey: bytes) -> _Terms:
        info = await self._server.info()
        fee_rate = await self._server.offboard_fee_rate()
        tip = await self._chain.tip()
        return _Terms(info, fee_rate, tip.height, script_pubkey)

    async def _plan_split(
        self,
        tx: Transaction,
        target: OffboardTarget,
        terms: _Terms,
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
        self, action_id: str, prepare: Callable[[Transaction], Awaitable[_State]]
    ) -> OffboardResult:
        """Store and drive; cancelling the caller does not cancel the offboard."""
        drive = self._executor.begin(self._machine, action_id, prepare, until=Until.PARK)
        task = asyncio.create_task(drive, name=f"offboard {action_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=self._wait_secs)
        if not done or task.cancelled():
            raise StillPending("offboard")
        task.result()
        async with self._store.read() as tx:
            row = await tx.actions.find(action_id)
            movement = await tx.movements.find_by_action(action_id)
        if row is None or movement is None:
            raise OffboardVanished(action_id)
        state = self._machine.decode(row.payload)
        if not isinstance(state, Confirming):
            raise OffboardPending(action_id, _UPSTREAM_NAMES[type(state)])
        return OffboardResult(state.txid, movement.id)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s: %s", task.get_name(), error)

    async def drive_all(self) -> None:
        await self._executor.drive_all(self._machine)

    async def close(self) -> None:
        """Stop driving; every offboard is where its row says."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- estimates

    async def estimate(self, vtxo_ids: Sequence[VtxoId], script_pubkey: bytes) -> OffboardEstimate:
        """What `offboard` would cost. Raises UnknownVtxo, ServerError, FeeOverflow."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(vtxo_ids)
        return _whole_estimate(vtxos, terms)

    async def estimate_all(self, script_pubkey: bytes) -> OffboardEstimate:
        """What `offboard_all` would cost."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.list([StateKind.SPENDABLE])
        return _whole_estimate(vtxos, terms)

    async def estimate_send(self, amount_sat: int, script_pubkey: bytes) -> OffboardEstimate:
        """What `send` would cost; where it cannot be paid, what it costs at most."""
        terms = await self._terms(script_pubkey)
        async with self._store.read() as tx:
            spendable = await tx.vtxos.list([StateKind.SPENDABLE])
        try:
            selection = terms.select(spendable, amount_sat)
            fee_sat, spent = selection.fee_sat, tuple(vtxo.id for vtxo in selection.vtxos)
        except BarkdError:
            fee_sat, spent = terms.fee_sat(amount_sat, [VtxoFeeInfo.fresh(amount_sat)]), ()
        return OffboardEstimate(amount_sat + fee_sat, fee_sat, amount_sat, spent)


# Any amount will do where only the script is checked.
_MAX_OUTPUT_SAT = 10**15

_MIN_RELAYED_P2WPKH_SAT = 294


def min_output_sat(script_pubkey: bytes) -> int:
    """The least that nodes relay to a script. The protocol's own limit is lower for P2WPKH."""
    if script_type(script_pubkey) is ScriptType.P2WPKH:
        return _MIN_RELAYED_P2WPKH_SAT
    return dust_limit_sat(script_pubkey) or 0


def _plan_whole(inputs: Sequence[WalletVtxo], target: OffboardTarget, terms: _Terms) -> Payment:
    most = terms.info.max_offboard_inputs
    if len(inputs) > most:
        raise TooManyOffboardInputs(len(inputs), most)
    input_ids = tuple(vtxo.id for vtxo in inputs)
    if len(set(input_ids)) != len(input_ids):
        raise DuplicateOffboardInput
    gross_sat = sum(vtxo.amount_sat for vtxo in inputs)
    fee_sat = terms.whole_fee_sat(inputs)
    try:
        net_amount_sat = subtract_fee_above_dust(
            gross_sat, fee_sat, dust_sat=min_output_sat(target.script_pubkey)
        )
    except InsufficientFunds as error:
        raise OffboardLeavesDust from error
    if not inputs:
        raise OffboardLeavesDust
    return Payment(
        address=target.address,
        script_pubkey=target.script_pubkey,
        net_amount_sat=net_amount_sat,
        fee_sat=fee_sat,
        fee_rate_sat_per_kwu=terms.fee_rate.sat_per_kwu,
        deducts_fee=True,
        input_ids=input_ids,
    )


async def _lock(tx: Transaction, vtxo_ids: Sequence[VtxoId], action_id: str) -> None:
    """Raises CannotLock."""
    try:
        await tx.vtxos.lock(vtxo_ids, ActionHolder(action_id))
    except StateConflict as error:
        raise CannotLock from error


def _whole_estimate(vtxos: Sequence[WalletVtxo], terms: _Terms) -> OffboardEstimate:
    gross_sat = sum(vtxo.amount_sat for vtxo in vtxos)
    fee_sat = terms.whole_fee_sat(vtxos)
    return OffboardEstimate(gross_sat, fee_sat, max(0, gross_sat - fee_sat), tuple(vtxo.id for vtxo in vtxos))
