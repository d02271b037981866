"""`wallet.exits`: what users and the daemon may ask of emergency exits.

One lock (`EXITS`) makes everything that changes exits happen one after the other; it is held across calls of
the chain source. Reading takes no lock: it shows what is stored.

An exit is started by one transaction that stores it and its movement. The VTXO is not locked by that: it may
still be spent off-chain, which ends the exit. From the block that confirms its own transaction on, it is
`Exited`, and nothing else can use it.

A claim is stored and its exits are `claim-in-progress` before it is broadcast; if the node refuses it, all is
as before. So a crash around the broadcast leaves a claim that the next run broadcasts again.

Source: sheet 06 §2.7, §3, §5.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

from barkd_py.ark.claim import ClaimInput
from barkd_py.ark.validation import NonStandardVtxo, verify_standard
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.script import P2A_SCRIPT
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import DUST_SAT, BlockRef, FeeRate, Network
from barkd_py.chain.source import BroadcastError, ChainSource, Confirmed, NotFound, PackageFee
from barkd_py.errors import BarkdError, ChainError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.claim import (
    Claim,
    ClaimPaths,
    FindPreimage,
    build_claim,
    claim_fee_sat,
    secrets_of,
)
from barkd_py.wallet.exits.driver import ExitDriver, LiveExit, Looked, apply_consequences, row_after
from barkd_py.wallet.exits.errors import (
    CannotCancelExit,
    ClaimMissingSignableClause,
    DustLimit,
    ExitError,
    ExitTxAlreadyBroadcast,
    InvalidWalletState,
    NonStandardExit,
    NotExiting,
    OnchainSyncFailure,
    SpentVtxo,
    SweptVtxo,
    TransactionRetrievalFailure,
    UnknownExitVtxo,
    VtxoAlreadyExited,
    VtxoNotClaimable,
)
from barkd_py.wallet.exits.estimate import (
    DEFAULT_FEE_MARGIN,
    UnpaidTx,
    check_margin,
    estimate_broadcast,
)
from barkd_py.wallet.exits.forced import OnChainWatch
from barkd_py.wallet.exits.machine import cancel
from barkd_py.wallet.exits.observe import fetch_tip
from barkd_py.wallet.exits.states import (
    AwaitingConfirmation,
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitChild,
    ExitFeeEstimate,
    ExitFilter,
    ExitPackage,
    ExitProgress,
    ExitState,
    ExitStatus,
    ExitTxStatus,
    Pending,
    Processing,
    Start,
    TxConfirmed,
    VtxoAlreadySpent,
    VtxoSwept,
    is_cancelable,
    is_live,
)
from barkd_py.wallet.keychain import Keychain
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
from barkd_py.wallet.vtxos import Locked, MovementHolder, Spendable, StateKind, UnknownVtxo, WalletVtxo

log = logging.getLogger(__name__)

DUMMY_P2TR_SCRIPT = b"\x51\x20" + bytes(32)
"""Where the claim of an estimate goes if nobody has said."""


class Exits:
    """Emergency exits."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        keychain: Keychain,
        locks: NamedLocks,
        network: Network,
    ) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._keychain = keychain
        self._locks = locks
        self._network = network
        self._paths = ClaimPaths(store)
        self._driver = ExitDriver(store, chain, onchain, self._paths)
        self._watch = OnChainWatch(store, chain, self._driver.memory)
        self._watched_at: BlockRef | None = None

    @property
    def preimage_sources(self) -> list[FindPreimage]:
        """Where preimages of incoming Lightning payments may be; add to it what knows more."""
        return self._paths.preimages

    # --- starting

    async def start(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """See `daemon.wallet_api.ExitsApi`."""
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(list(dict.fromkeys(vtxo_ids)))
            in_rounds = await tx.rounds.inputs([vtxo.id for vtxo in vtxos])
        free = [vtxo.id for vtxo in vtxos if _is_free(vtxo, in_rounds)]
        for vtxo in vtxos:
            if vtxo.id not in free:
                log.warning("no exit of %s: it is %s", vtxo.id, vtxo.state.kind.value.lower())
        await self._start(free)

    async def start_all(self) -> None:
        """See `daemon.wallet_api.ExitsApi`."""
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.list()
        await self._start([vtxo.id for vtxo in vtxos], pass_over_unfit=True)

    async def start_found(self, vtxo_ids: Collection[VtxoId]) -> None:
        """Start the exits of VTXOs that are on the chain already. Raises ExitError or ChainError."""
        await self._start_unchecked(vtxo_ids, await fetch_tip(self._chain))

    async def start_held(self, vtxo_id: VtxoId) -> None:
        """Start an exit whoever holds the VTXO; a success if it is exiting already."""
        await self._start([vtxo_id])

    async def _start(self, vtxo_ids: Sequence[VtxoId], *, pass_over_unfit: bool = False) -> None:
        if not vtxo_ids:
            return
        tip = await fetch_tip(self._chain)
        failure: ExitError | None = None
        async with self._locks.hold(EXITS), self._store.transaction() as tx:
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
                await self._store_start(tx, vtxo, tip)
        if failure is not None:
            raise failure

    async def _may_start(self, tx: Transaction, vtxo_id: VtxoId) -> bool:
        row = await tx.exits.find(vtxo_id)
        if row is not None and not isinstance(payloads.decode_state(row.state), Canceled | VtxoSwept):
            log.info("no exit of %s: there is one already", vtxo_id)
            return False
        state = (await tx.vtxos.get(vtxo_id)).state.kind
        return state in (StateKind.SPENDABLE, StateKind.LOCKED)

    async def _store_start(self, tx: Transaction, vtxo: Vtxo, tip: BlockRef) -> None:
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
                effective_balance_sat=-vtxo.amount_sat,
                input_vtxos=(vtxo.id,),
                sent_to=(MovementDestination(method, vtxo.amount_sat),),
            ),
        )
        state = Start(tip.height)
        await tx.exits.save(
            ExitRow(
                vtxo.id, state.type, payloads.encode_state(state), payloads.encode_history(()), movement.id
            )
        )
        log.info("exit of %s started", vtxo.id)

    # --- canceling

    async def cancel(self, vtxo_id: VtxoId) -> None:
        """See `daemon.wallet_api.ExitsApi`."""
        async with self._locks.hold(EXITS):
            found = await self._find(vtxo_id)
            if isinstance(found.state, Canceled):
                return
            if not is_cancelable(found.state):
                raise CannotCancelExit(vtxo_id, found.state.type)
            async with self._store.read() as tx:
                vtxo = await tx.vtxos.body(vtxo_id)
            last = vtxo.point.txid
            try:
                status = await self._chain.tx_status(last)
            except ChainError as error:
                raise TransactionRetrievalFailure(last, chain_text(error)) from error
            if not isinstance(status, NotFound):
                raise ExitTxAlreadyBroadcast(vtxo_id, last)
            state = cancel(found.state, await fetch_tip(self._chain))
            row = row_after(found.row, state, [found.state])
            async with self._store.transaction() as tx:
                await tx.exits.save(row)
                await apply_consequences(tx, row, state)
            self._driver.forget(vtxo_id)

    async def _find(self, vtxo_id: VtxoId) -> LiveExit:
        async with self._store.read() as tx:
            row = await tx.exits.find(vtxo_id)
        if row is None:
            raise NotExiting(vtxo_id)
        return LiveExit.of(row)

    # --- going on

    async def progress(self, fee_rate: FeeRate | None = None) -> ExitProgress:
        """See `daemon.wallet_api.ExitsApi`."""
        if self._onchain is not None:
            try:
                await self._onchain.sync()
            except ChainError as error:
                raise OnchainSyncFailure from error
        return self._progress_of(await self._run(fee_rate))

    async def tick(self) -> None:
        """What the daemon does with every block, and now and then between blocks.

        Raises ExitError or ChainError if the chain source is away; the next tick makes up for it.
        """
        await self.notice_forced()
        async with self._store.read() as tx:
            is_any_live = await tx.exits.has_live()
        if is_any_live:
            await self._chain.update_fee_rates()
            await self._run(None)

    async def _run(self, fee_rate: FeeRate | None) -> Looked:
        async with self._locks.hold(EXITS):
            return await self._driver.run(fee_rate)

    async def notice_forced(self) -> None:
        """Start the exits of VTXOs that others have put on the chain. Looks once per tip.

        Raises ExitError or ChainError if the chain source is away.
        """
        tip = await fetch_tip(self._chain)
        if tip == self._watched_at:
            return
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.list()
            exiting = {row.vtxo_id for row in await tx.exits.list(only_live=True)}
        watched = [vtxo.id for vtxo in vtxos if vtxo.id not in exiting]
        if watched:
            async with self._locks.hold(EXITS):
                on_chain = await self._watch.find(watched, tip)
            for vtxo_id in on_chain:
                log.warning("%s is being put on the chain by somebody else: exiting", vtxo_id)
            await self._start_unchecked(on_chain, tip)
        self._watched_at = tip

    async def _start_unchecked(self, vtxo_ids: Collection[VtxoId], tip: BlockRef) -> None:
        """Whether its transactions relay does not matter for a VTXO that is on the chain."""
        if not vtxo_ids:
            return
        async with self._locks.hold(EXITS), self._store.transaction() as tx:
            for vtxo_id in vtxo_ids:
                if await self._may_start(tx, vtxo_id):
                    await self._store_start(tx, await tx.vtxos.body(vtxo_id), tip)

    def _progress_of(self, looked: Looked) -> ExitProgress:
        listed = sorted(
            (
                ExitStatus(vtxo_id, exit_.state, error=self._driver.errors.get(vtxo_id))
                for vtxo_id, exit_ in looked.exits.items()
                if not isinstance(exit_.state, Claimed)
            ),
            key=lambda status: str(status.vtxo_id),
        )
        heights = [height for status in listed if (height := _claimable_height(status.state)) is not None]
        return ExitProgress(
            exits=tuple(listed),
            is_done=not any(isinstance(status.state, Pending) for status in listed),
            claimable_height=max(heights, default=None),
        )

    # --- looking

    async def statuses(
        self, which: ExitFilter, *, with_history: bool = False, with_packages: bool = False
    ) -> Sequence[ExitStatus]:
        """See `daemon.wallet_api.ExitsApi`."""
        async with self._store.read() as tx:
            rows = await tx.exits.list(only_live=which is ExitFilter.LIVE)
            exits = [LiveExit.of(row) for row in rows]
            if which is ExitFilter.FINISHED:
                exits = [exit_ for exit_ in exits if not is_live(exit_.state)]
            packages = await _packages(tx, exits) if with_packages else {}
        return [self._status(exit_, with_history, packages) for exit_ in exits]

    async def status(
        self, vtxo_id: VtxoId, *, with_history: bool = False, with_packages: bool = False
    ) -> ExitStatus:
        """See `daemon.wallet_api.ExitsApi`."""
        found = await self._find(vtxo_id)
        packages: Mapping[VtxoId, tuple[ExitPackage, ...]] = {}
        if with_packages:
            async with self._store.read() as tx:
                packages = await _packages(tx, [found])
        return self._status(found, with_history, packages)

    def _status(
        self, exit_: LiveExit, with_history: bool, packages: Mapping[VtxoId, tuple[ExitPackage, ...]]
    ) -> ExitStatus:
        vtxo_id = exit_.row.vtxo_id
        return ExitStatus(
            vtxo_id,
            exit_.state,
            history=payloads.decode_history(exit_.row.history) if with_history else (),
            packages=packages.get(vtxo_id, ()),
            error=self._driver.errors.get(vtxo_id),
        )

    # --- claiming

    async def claim(
        self, vtxo_ids: Sequence[VtxoId] | None, script_pubkey: bytes, fee_rate: FeeRate | None = None
    ) -> Txid:
        """See `daemon.wallet_api.ExitsApi`."""
        rate = fee_rate or (await self._chain.fee_rates()).regular
        async with self._locks.hold(EXITS):
            exits, tip = await self._claimable(vtxo_ids)
            inputs = await self._claim_inputs([exit_.row.vtxo_id for exit_ in exits])
            claim = build_claim(
                inputs,
                script_pubkey,
                rate,
                tip_height=tip.height,
                find_secret=await secrets_of(self._keychain, inputs),
            )
            await self._send_claim(exits, claim, tip)
        if self._onchain is not None and self._onchain.is_mine(script_pubkey):
            spent = {each.outpoint: each.output for each in inputs}
            await self._onchain.record(claim.tx, foreign_outputs=spent)
        return claim.tx.txid

    async def _claimable(self, vtxo_ids: Sequence[VtxoId] | None) -> tuple[list[LiveExit], BlockRef]:
        """The exits to claim, in the given order, and the tip at which they were just seen claimable."""
        wanted = None if vtxo_ids is None else tuple(dict.fromkeys(vtxo_ids))
        for vtxo_id in wanted or ():
            await self._find(vtxo_id)
        looked = await self._driver.look(wanted)
        exits = looked.exits
        if wanted is None:
            wanted = tuple(
                [vtxo_id for vtxo_id, exit_ in exits.items() if isinstance(exit_.state, Claimable)]
            )
        for vtxo_id in wanted:
            if vtxo_id not in exits or not isinstance(exits[vtxo_id].state, Claimable):
                raise VtxoNotClaimable(vtxo_id)
        return [exits[vtxo_id] for vtxo_id in wanted], looked.tip

    async def _claim_inputs(self, vtxo_ids: Sequence[VtxoId]) -> list[ClaimInput]:
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.bodies(vtxo_ids)
        inputs: list[ClaimInput] = []
        for vtxo, path in zip(vtxos, await self._paths.find(vtxos), strict=True):
            if path is None:
                raise ClaimMissingSignableClause(vtxo.id)
            last = vtxo.exit_transactions()[-1]
            if last.txid != vtxo.point.txid or last.outputs[vtxo.point.vout] != path.output:
                raise InvalidWalletState(f"the exit of {vtxo.id} does not lead to its output")
            inputs.append(path)
        return inputs

    async def _send_claim(self, exits: Sequence[LiveExit], claim: Claim, tip: BlockRef) -> None:
        """Store, broadcast; undo if it is refused."""
        async with self._store.transaction() as tx:
            await tx.exits.save_claim(claim.tx)
            for exit_ in exits:
                assert isinstance(exit_.state, Claimable)
                state = ClaimInProgress(tip.height, exit_.state.claimable_since, claim.tx.txid)
                await tx.exits.save(row_after(exit_.row, state, [exit_.state]))
        try:
            await self._chain.broadcast(claim.tx)
        except BroadcastError:
            async with self._store.transaction() as tx:
                await tx.exits.delete_claim(claim.tx.txid)
                for exit_ in exits:
                    await tx.exits.save(exit_.row)
            raise
        log.info("claim %s of %d exits was broadcast, fee %d sat", claim.tx.txid, len(exits), claim.fee_sat)

    # --- estimating

    async def estimate_fee(
        self,
        vtxo_ids: Sequence[VtxoId] | None,
        *,
        fee_rate: FeeRate | None = None,
        margin: float = DEFAULT_FEE_MARGIN,
        script_pubkey: bytes | None = None,
    ) -> ExitFeeEstimate:
        """See `daemon.wallet_api.ExitsApi`."""
        check_margin(margin)
        rates = await self._chain.fee_rates()
        broadcast_rate, claim_rate = fee_rate or rates.fast, fee_rate or rates.regular
        candidates, skipped = await self._candidates(vtxo_ids)
        unpaid = [tx for vtxo, state in candidates for tx in await self._unpaid(vtxo, state)]
        estimate = estimate_broadcast(unpaid, broadcast_rate, margin)
        paths = await self._paths.find([vtxo for vtxo, _ in candidates])
        claims = [path for path in paths if path is not None]
        balance_sat = 0 if self._onchain is None else (await self._onchain.balance()).total_sat
        return ExitFeeEstimate(
            broadcast_fee_sat=estimate.fee_sat,
            claim_fee_sat=claim_fee_sat(claims, script_pubkey or DUMMY_P2TR_SCRIPT, claim_rate),
            fee_rate=broadcast_rate,
            txs_to_broadcast=estimate.txs_to_broadcast,
            is_fundable=self._onchain is not None and balance_sat >= estimate.fee_sat,
            skipped=skipped,
        )

    async def _candidates(
        self, vtxo_ids: Sequence[VtxoId] | None
    ) -> tuple[list[tuple[Vtxo, ExitState | None]], tuple[VtxoId, ...]]:
        """The VTXOs with the states of their exits; and those that were skipped, if none were named."""
        found: list[tuple[Vtxo, ExitState | None]] = []
        skipped: list[VtxoId] = []
        async with self._store.read() as tx:
            if vtxo_ids is None:
                wanted = [vtxo.id for vtxo in await tx.vtxos.list({StateKind.SPENDABLE})]
            else:
                wanted = list(dict.fromkeys(vtxo_ids))
            for vtxo_id in wanted:
                try:
                    found.append(await _estimable(tx, vtxo_id))
                except NonStandardExit:
                    if vtxo_ids is not None:
                        raise
                    skipped.append(vtxo_id)
        return found, tuple(skipped)

    async def _unpaid(self, vtxo: Vtxo, state: ExitState | None) -> list[UnpaidTx]:
        """The exit transactions that are not confirmed."""
        txs = vtxo.exit_transactions()
        match state:
            case Processing():
                statuses = {entry.txid: entry.status for entry in state.transactions}
                return [
                    _unpaid_tx(tx, statuses[tx.txid])
                    for tx in txs
                    if not isinstance(statuses[tx.txid], TxConfirmed)
                ]
            case AwaitingDelta() | Claimable() | ClaimInProgress():
                return []
            case _:
                confirmed = await self._count_confirmed(txs)
                return [UnpaidTx(tx.txid, tx.weight_wu) for tx in txs[confirmed:]]

    async def _count_confirmed(self, txs: Sequence[Tx]) -> int:
        """How many of the transactions, from the first on, are in blocks; 0 if nobody answers."""
        remembered = self._driver.memory.confirmed
        for count, tx in enumerate(txs):
            try:
                is_confirmed = tx.txid in remembered or isinstance(
                    await self._chain.tx_status(tx.txid), Confirmed
                )
            except ChainError as error:
                log.warning("fee estimate: %s", chain_text(error))
                return count
            if not is_confirmed:
                return count
        return len(txs)


def _is_free(vtxo: WalletVtxo, in_rounds: Collection[VtxoId]) -> bool:
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
    except UnknownVtxo as error:
        raise InvalidWalletState(chain_text(error)) from error
    try:
        verify_standard(body)
    except NonStandardVtxo as error:
        raise NonStandardExit(vtxo_id, str(error)) from error
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


def _claimable_height(state: ExitState) -> int | None:
    match state:
        case AwaitingDelta(claimable_height=height):
            return height
        case Claimable() | ClaimInProgress():
            return state.claimable_since.height
        case _:
            return None


async def _packages(tx: Transaction, exits: Sequence[LiveExit]) -> dict[VtxoId, tuple[ExitPackage, ...]]:
    """The transactions of exits with their children; none for a VTXO that is not in the database any more."""
    known = await tx.vtxos.known([exit_.row.vtxo_id for exit_ in exits])
    listed = [exit_ for exit_ in exits if exit_.row.vtxo_id in known]
    bodies = await tx.vtxos.bodies([exit_.row.vtxo_id for exit_ in listed])
    txids = {exit_tx.txid for vtxo in bodies for exit_tx in vtxo.exit_transactions()}
    children = {row.exit_txid: row for row in await tx.exits.find_children(sorted(txids))}
    packages: dict[VtxoId, tuple[ExitPackage, ...]] = {}
    for exit_, vtxo in zip(listed, bodies, strict=True):
        fees = _fees(exit_.state)
        entries: list[ExitPackage] = []
        for exit_tx in vtxo.exit_transactions():
            row = children.get(exit_tx.txid)
            child = (
                None
                if row is None
                else ExitChild(
                    Tx.parse(row.child_tx), payloads.decode_origin(row.origin), fees.get(exit_tx.txid)
                )
            )
            entries.append(ExitPackage(exit_tx, child))
        packages[vtxo.id] = tuple(entries)
    return packages


def _fees(state: ExitState) -> dict[Txid, PackageFee | None]:
    if not isinstance(state, Processing):
        return {}
    return {
        entry.txid: entry.status.fee
        for entry in state.transactions
        if isinstance(entry.status, AwaitingConfirmation)
    }


async def _estimable(tx: Transaction, vtxo_id: VtxoId) -> tuple[Vtxo, ExitState | None]:
    """A VTXO whose exit can be estimated, and its exit's state, if there was ever one.

    Raises UnknownExitVtxo, NonStandardExit, VtxoAlreadyExited, SpentVtxo, SweptVtxo.
    """
    vtxo = await tx.vtxos.find(vtxo_id)
    if vtxo is None:
        raise UnknownExitVtxo(vtxo_id)
    body = await tx.vtxos.body(vtxo_id)
    try:
        verify_standard(body)
    except NonStandardVtxo as error:
        raise NonStandardExit(vtxo_id, str(error)) from error
    row = await tx.exits.find(vtxo_id)
    state = None if row is None else payloads.decode_state(row.state)
    match state:
        case Claimed():
            raise VtxoAlreadyExited(vtxo_id)
        case VtxoAlreadySpent():
            raise SpentVtxo(vtxo_id)
        case VtxoSwept():
            raise SweptVtxo(vtxo_id)
        case None | Canceled() if vtxo.state.kind is StateKind.SPENT:
            raise SpentVtxo(vtxo_id)
        case None | Canceled() if vtxo.state.kind is StateKind.EXITED:
            raise VtxoAlreadyExited(vtxo_id)
        case _:
            return body, state


def _unpaid_tx(tx: Tx, status: ExitTxStatus) -> UnpaidTx:
    if isinstance(status, AwaitingConfirmation):
        return UnpaidTx(tx.txid, tx.weight_wu, has_child=True, child_fee=status.fee)
    return UnpaidTx(tx.txid, tx.weight_wu)
