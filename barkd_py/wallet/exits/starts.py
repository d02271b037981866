"""Starting exits: which VTXOs may be exited, and what a start stores.

A start is one transaction that stores the exit and its movement. The VTXO is not locked by that: it may still
be spent off-chain, which ends the exit.

Source: sheet 06 §1 (what no node relays), §2.7.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.validation import NonStandardVtxo, verify_standard
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.script import P2A_SCRIPT
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import DUST_SAT, BlockRef, Network
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, StoreError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.costs.worth import MAX_AUTOMATIC_FEE_RATE, worth_exiting
from barkd_py.wallet.exits.errors import DustLimit, ExitError, InvalidWalletState, NonStandardExit
from barkd_py.wallet.exits.forced.watch import Cause, Forced
from barkd_py.wallet.exits.observe import fetch_tip
from barkd_py.wallet.exits.states import Canceled, Start, VtxoSwept
from barkd_py.wallet.locks import EXITS, NamedLocks
from barkd_py.wallet.movements import (
    EXIT_START,
    MovementDestination,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.store.vtxos import VtxoUnreadable
from barkd_py.wallet.vtxo_states import Locked, MovementHolder, Spendable, StateKind, UnknownVtxo, WalletVtxo

log = logging.getLogger(__name__)

LetsGo = Callable[[WalletVtxo], Awaitable[bool]]
"""What a flow says of a VTXO: whether it holds it, and it may be exited all the same, as far as the flow has
come. One that knows by itself when its VTXOs have to leave says no. Raises ChainError, StoreError.
"""


class Starts:
    """Starts exits, whoever asks for it. onchain: what pays for them; None: nothing does."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        locks: NamedLocks,
        network: Network,
    ) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._locks = locks
        self._network = network
        self._complained: dict[VtxoId, str] = {}
        self.holders: list[LetsGo] = []

    async def start(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """Those that are free; the rest is passed over. Raises UnknownVtxo, ExitError."""
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(list(dict.fromkeys(vtxo_ids)))
            in_rounds = await tx.rounds.inputs([vtxo.id for vtxo in vtxos])
        free = [vtxo.id for vtxo in vtxos if _is_unheld(vtxo, in_rounds) or await self._may_leave(vtxo)]
        for vtxo in vtxos:
            if vtxo.id not in free:
                log.warning("no exit of %s: it is %s", vtxo.id, vtxo.state.kind.value.lower())
        await self._start(free)

    async def start_all(self) -> None:
        """Every VTXO that is not spent, whoever holds it, unless no node relays its transactions."""
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.list()
        await self._start([vtxo.id for vtxo in vtxos], pass_over_unfit=True)

    async def start_found(self, vtxo_ids: Collection[VtxoId]) -> None:
        """Start the exits of VTXOs that are on the chain already. Raises ExitError or ChainError."""
        await self.start_unchecked(vtxo_ids, await fetch_tip(self._chain))

    async def start_held(self, vtxo_id: VtxoId) -> None:
        """Start an exit whoever holds the VTXO; a success if it is exiting already."""
        await self._start([vtxo_id], is_automatic=True)

    async def _start(
        self, vtxo_ids: Sequence[VtxoId], *, pass_over_unfit: bool = False, is_automatic: bool = False
    ) -> None:
        if not vtxo_ids:
            return
        tip = await fetch_tip(self._chain)
        failure: ExitError | None = None
        async with self._locks.hold(EXITS), self._store.transaction() as tx:
            no_income = await tx.movements.failed_receipts(vtxo_ids)
            for vtxo_id in vtxo_ids:
                if not await self._may_start(tx, vtxo_id):
                    continue
                try:
                    vtxo = await _exitable_body(tx, vtxo_id)
                except ExitError as error:
                    if pass_over_unfit:
                        log.warning("no exit of %s: %s", vtxo_id, error)
                        continue
                    failure = error
                    break  # those before stay started
                state = Start(tip.height, is_automatic)
                await self._store_start(tx, vtxo, state, was_income=vtxo_id not in no_income)
        if failure is not None:
            raise failure

    async def _may_start(self, tx: Transaction, vtxo_id: VtxoId) -> bool:
        row = await tx.exits.find(vtxo_id)
        if row is not None and not isinstance(payloads.decode_state(row.state), Canceled | VtxoSwept):
            log.info("no exit of %s: there is one already", vtxo_id)
            return False
        state = (await tx.vtxos.get(vtxo_id)).state.kind
        return state in (StateKind.SPENDABLE, StateKind.LOCKED)

    async def _store_start(self, tx: Transaction, vtxo: Vtxo, state: Start, *, was_income: bool) -> None:
        await _forget_sweep(tx, vtxo.id)
        script = vtxo.output.script_pubkey
        address = address_from_script(script, self._network)
        method = (
            PaymentMethod(PaymentMethodKind.BITCOIN, address)
            if address is not None
            else PaymentMethod(PaymentMethodKind.OUTPUT_SCRIPT, script.hex())
        )
        movement = await tx.movements.create(
            EXIT_START,
            MovementUpdate(
                intended_balance_sat=-vtxo.amount_sat,
                effective_balance_sat=-vtxo.amount_sat if was_income else 0,
                input_vtxos=(vtxo.id,),
                sent_to=(MovementDestination(method, vtxo.amount_sat),),
            ),
        )
        await tx.exits.save(
            ExitRow(
                vtxo.id, state.type, payloads.encode_state(state), payloads.encode_history(()), movement.id
            )
        )
        log.info("exit of %s started", vtxo.id)

    async def start_forced(
        self, forced: Sequence[Forced], confirmed: Collection[Txid], tip: BlockRef
    ) -> None:
        """Start the exits of VTXOs that cannot stay where they are, as far as that helps.

        confirmed: the exit transactions that are on the chain. Raises ChainError.
        """
        untouched = [each for each in forced if each.cause is Cause.NOT_REFRESHED]
        if untouched and not await self._can_pay():
            # They may still be refreshed, as long as no exit has begun.
            for each in untouched:
                self._complain(each.vtxo_id, f"{each.cause.value}; no confirmed coins pay for its exit")
            forced = [each for each in forced if each not in untouched]
        there = [each.vtxo_id for each in forced if each.cause is Cause.OWN_OUTPUT]
        in_danger = await self._wanted([each for each in forced if each.cause is not Cause.OWN_OUTPUT])
        if in_danger:
            rates = await self._chain.update_fee_rates()
            rate = min(rates.fast, MAX_AUTOMATIC_FEE_RATE)
            worth = worth_exiting(list(in_danger.values()), confirmed, rate)
        else:
            worth = frozenset()
        for each in forced:
            if each.vtxo_id in there or each.vtxo_id in worth:
                log.warning("%s must be exited: %s", each.vtxo_id, each.cause.value)
            elif each.vtxo_id in in_danger:
                self._complain(each.vtxo_id, f"{each.cause.value}, and an exit costs more than it holds")
        await self.start_unchecked([*there, *worth], tip)

    async def _can_pay(self) -> bool:
        return self._onchain is not None and (await self._onchain.balance()).confirmed_sat > 0

    async def _wanted(self, forced: Sequence[Forced]) -> dict[VtxoId, Vtxo]:
        """Those whose exits can go on, and were not called off in full knowledge."""
        wanted: dict[VtxoId, Vtxo] = {}
        for each in forced:
            async with self._store.read() as tx:
                row = await tx.exits.find(each.vtxo_id)
                vtxos, unreadable = await tx.vtxos.readable_bodies([each.vtxo_id])
                stored = await tx.vtxos.get(each.vtxo_id)
            if unreadable:
                self._complain(each.vtxo_id, f"{each.cause.value}, and {unreadable[0]}")
                continue
            (vtxo,) = vtxos
            if each.cause is Cause.NOT_REFRESHED and not await self._may_leave(stored):
                continue
            match None if row is None else payloads.decode_state(row.state):
                case VtxoSwept():
                    continue
                case Canceled(tip_height=height) if height >= each.since_height:
                    continue
            try:
                verify_chain(vtxo)
                if each.cause is Cause.NOT_REFRESHED:
                    verify_standard(vtxo)  # what is half on the chain may be relayed by now
            except (InvalidWalletState, NonStandardVtxo) as error:
                self._complain(each.vtxo_id, f"{each.cause.value}, and it cannot be exited: {error}")
            else:
                wanted[each.vtxo_id] = vtxo
        return wanted

    async def _may_leave(self, vtxo: WalletVtxo) -> bool:
        """Whether its exit is the right thing if it would else expire. Raises ChainError.

        What a flow holds may leave as long as nobody else can have got anything for it: the flow knows. What
        nobody holds may: that it is spent is the server's word alone. If that is true, the server and whoever
        has the money have the signed spend, and publish that; we have lost fees. If not, all of it would be
        lost. An HTLC that nobody holds is not ours to take.
        """
        match vtxo.state:
            case Spendable():
                return True
            case Locked(None):
                return vtxo.policy_kind == PubkeyPolicy.KIND
            case Locked():
                try:
                    return any([await lets_go(vtxo) for lets_go in self.holders])
                except StoreError as error:
                    self._complain(vtxo.id, f"what holds it cannot be read: {error}")
                    return False
            case _:
                return False

    def _complain(self, vtxo_id: VtxoId, text: str) -> None:
        """Say it once, for it will be so for a long time."""
        if self._complained.get(vtxo_id) != text:
            self._complained[vtxo_id] = text
            log.error("%s is in danger: %s", vtxo_id, text)

    async def start_unchecked(self, vtxo_ids: Collection[VtxoId], tip: BlockRef) -> None:
        """Whether its transactions relay does not matter for a VTXO that is on the chain."""
        if not vtxo_ids:
            return
        async with self._locks.hold(EXITS), self._store.transaction() as tx:
            no_income = await tx.movements.failed_receipts(vtxo_ids)
            for vtxo_id in vtxo_ids:
                if await self._may_start(tx, vtxo_id):
                    state, vtxo = Start(tip.height, is_automatic=True), await tx.vtxos.body(vtxo_id)
                    await self._store_start(tx, vtxo, state, was_income=vtxo_id not in no_income)


async def _forget_sweep(tx: Transaction, vtxo_id: VtxoId) -> None:
    """An exit that ended as swept is tried again: from now on this one says where the money is."""
    row = await tx.exits.find(vtxo_id)
    if row is not None and row.movement_id is not None:
        await tx.movements.update(row.movement_id, MovementUpdate(effective_balance_sat=0))


def _is_unheld(vtxo: WalletVtxo, in_rounds: Collection[VtxoId]) -> bool:
    """Or held by a round: whoever asks for the exit of an input gives up the refresh."""
    match vtxo.state:
        case Spendable() | Locked(None):  # held by nobody: a recovery does not know whether it can be spent
            return True
        case Locked(MovementHolder()):
            return vtxo.id in in_rounds
        case _:
            return False


async def _exitable_body(tx: Transaction, vtxo_id: VtxoId) -> Vtxo:
    """Raises DustLimit, InvalidWalletState, NonStandardExit."""
    vtxo = await tx.vtxos.get(vtxo_id)
    if vtxo.amount_sat < DUST_SAT:
        raise DustLimit(vtxo_id, vtxo.amount_sat)
    try:
        body = await tx.vtxos.body(vtxo_id)
    except (UnknownVtxo, VtxoUnreadable) as error:
        raise InvalidWalletState(chain_text(error)) from error
    try:
        verify_standard(body)
    except NonStandardVtxo as error:
        # Not its cause: the message says it already.
        raise NonStandardExit(vtxo_id, str(error)) from None
    verify_chain(body)
    return body


def verify_chain(vtxo: Vtxo) -> None:
    """Check that the exit transactions can be broadcast and lead to the VTXO. Raises InvalidWalletState.

    The signatures were verified when the VTXO was received.
    """
    try:
        txs = vtxo.exit_transactions()
        is_whole = vtxo.is_fully_signed and bool(txs) and vtxo.computed_point == vtxo.point
    except BarkdError as error:
        raise InvalidWalletState(f"the exit of {vtxo.id} is malformed: {error}") from error
    if not is_whole or not all(map(_is_exit_tx, txs)):
        raise InvalidWalletState(f"the exit of {vtxo.id} is incomplete")


def _is_exit_tx(tx: Tx) -> bool:
    return (
        tx.version == 3 and tx.outputs[-1].script_pubkey == P2A_SCRIPT and all(i.witness for i in tx.inputs)
    )
