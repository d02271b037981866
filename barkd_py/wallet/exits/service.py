"""`wallet.exits`: what users and the daemon may ask of emergency exits.

One lock (`EXITS`) makes everything that changes exits happen one after the other; it is held across calls of
the chain source. Reading takes no lock: it shows what is stored.

A VTXO may be spent off-chain while its exit goes on, which ends the exit. From the block that confirms its
own transaction on, it is `Exited`, and nothing else can use it. How exits are started, claimed and estimated
is in `starts`, `claims` and `costs`.

Source: sheet 06 §2.7, §3, §5.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.chain.source import ChainSource, NotFound
from barkd_py.errors import ChainError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.claim_tx import ClaimPaths, FindPreimage
from barkd_py.wallet.exits.claims.aftercare import ClaimAftercare
from barkd_py.wallet.exits.claims.sending import Claims
from barkd_py.wallet.exits.costs.estimates import Estimates
from barkd_py.wallet.exits.costs.formula import DEFAULT_FEE_MARGIN
from barkd_py.wallet.exits.driver import ExitDriver, LateIncome, Looked
from barkd_py.wallet.exits.errors import (
    CannotCancelExit,
    ExitTxAlreadyBroadcast,
    NotExiting,
    OnchainSyncFailure,
    TransactionRetrievalFailure,
)
from barkd_py.wallet.exits.forced.watch import Cause, Forced, OnChainWatch
from barkd_py.wallet.exits.machine import cancel
from barkd_py.wallet.exits.observe import fetch_tip
from barkd_py.wallet.exits.packages import load_packages
from barkd_py.wallet.exits.rows import LiveExit, apply_consequences, read_exits, row_after
from barkd_py.wallet.exits.starts import LetsGo, Starts
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitFeeEstimate,
    ExitFilter,
    ExitPackage,
    ExitProgress,
    ExitState,
    ExitStatus,
    Pending,
    is_cancelable,
    is_live,
)
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import EXITS, NamedLocks
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.unreadable import PassedOver
from barkd_py.wallet.vtxo_states import Exited


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
        *,
        late_income: LateIncome,
        exit_margin: int = 12,
    ) -> None:
        """exit_margin: config `vtxo_exit_margin`."""
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._locks = locks
        self._paths = ClaimPaths(store)
        self._aftercare = ClaimAftercare(store, chain)
        self._driver = ExitDriver(
            store, chain, onchain, self._paths, on_claimed=self._aftercare.note, late_income=late_income
        )
        self._watch = OnChainWatch(store, chain, exit_margin=exit_margin)
        self._starts = Starts(store, chain, onchain, locks, network)
        self._claims = Claims(store, chain, onchain, keychain, locks, self._driver, self._paths)
        self._estimates = Estimates(store, chain, onchain, self._paths, self._driver.memory)
        self._passed_over = PassedOver("exits")
        self._watched_at: BlockRef | None = None
        self._watching = asyncio.Lock()

    @property
    def preimage_sources(self) -> list[FindPreimage]:
        """Where preimages of incoming Lightning payments may be; add to it what knows more."""
        return self._paths.preimages

    @property
    def holders(self) -> list[LetsGo]:
        """The flows that are asked before a VTXO that they hold is exited; add to it what holds some."""
        return self._starts.holders

    # --- starting

    async def start(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """See `daemon.wallet_api.ExitsApi`."""
        await self._starts.start(vtxo_ids)

    async def start_all(self) -> None:
        """See `daemon.wallet_api.ExitsApi`."""
        await self._starts.start_all()

    async def start_found(self, vtxo_ids: Collection[VtxoId]) -> None:
        """Start the exits of VTXOs that are on the chain already. Raises ExitError or ChainError."""
        await self._starts.start_found(vtxo_ids)

    async def start_held(self, vtxo_id: VtxoId) -> None:
        """Start an exit whoever holds the VTXO; a success if it is exiting already."""
        await self._starts.start_held(vtxo_id)

    async def start_given_up(self, since_heights: Mapping[VtxoId, int]) -> None:
        """Start the exits of inputs of a round that does not end, as far as they are worth it.

        since_heights: from when on each had to be; what was called off later stays so. Safe to repeat. Raises
        ExitError or ChainError.
        """
        async with self._store.read() as tx:
            exiting = {row.vtxo_id for row in await tx.exits.list(only_live=True)}
        forced = [
            Forced(vtxo_id, Cause.ROUND, height)
            for vtxo_id, height in since_heights.items()
            if vtxo_id not in exiting
        ]
        if forced:
            await self._starts.start_forced(forced, self._watch.confirmed, await fetch_tip(self._chain))

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
                vtxo = await tx.vtxos.get(vtxo_id)
            last = vtxo_id.outpoint.txid
            if isinstance(vtxo.state, Exited):  # it was in a block, which a reorganisation took back
                raise ExitTxAlreadyBroadcast(vtxo_id, last)
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
                # Only confirmed coins pay, and without a new block there are none.
                if await self._chain.fetch_tip() != self._onchain.tip or self._driver.lacks_funds:
                    await self._onchain.sync()
            except ChainError as error:
                raise OnchainSyncFailure from error
        return self._progress_of(await self._run(fee_rate))

    async def tick(self) -> None:
        """What the daemon does with every block, and now and then between blocks.

        Raises ExitError or ChainError if the chain source is away; the next tick makes up for it.
        """
        await self._go_on()  # first: they have deadlines, and no trouble with what follows may hold them up
        if await self.notice_forced():
            await self._go_on()
        assert self._watched_at is not None
        await self._aftercare.look(self._watched_at)

    async def _go_on(self) -> None:
        async with self._store.read() as tx:
            is_any_live = await tx.exits.has_live()
        if is_any_live:
            await self._chain.update_fee_rates()
            await self._run(None)

    async def _run(self, fee_rate: FeeRate | None) -> Looked:
        async with self._locks.hold(EXITS):
            return await self._driver.run(fee_rate)

    async def notice_forced(self) -> bool:
        """Start the exits that what others have put on the chain makes necessary; whether there were any.

        Looks once per tip. Raises ExitError or ChainError if the chain source is away.
        """
        async with self._watching:
            tip = await fetch_tip(self._chain)
            if tip == self._watched_at:
                return False
            forced: Sequence[Forced] = ()
            async with self._store.read() as tx:
                unspent = await tx.vtxos.unspent_ids()
                exiting = {row.vtxo_id for row in await tx.exits.list(only_live=True)}
            watched = [vtxo_id for vtxo_id in unspent if vtxo_id not in exiting]
            if watched:
                forced = await self._watch.find(watched, tip)
                await self._starts.start_forced(forced, self._watch.confirmed, tip)
            self._watched_at = tip
            return bool(forced)

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
            exits, unreadable = read_exits(rows)
            for vtxo_id, error in unreadable.items():
                self._passed_over.note(vtxo_id, error)
            if which is ExitFilter.FINISHED:
                exits = [exit_ for exit_ in exits if not is_live(exit_.state)]
            packages = await load_packages(tx, exits) if with_packages else {}
        return [self._status(exit_, with_history, packages) for exit_ in exits]

    async def status(
        self, vtxo_id: VtxoId, *, with_history: bool = False, with_packages: bool = False
    ) -> ExitStatus:
        """See `daemon.wallet_api.ExitsApi`."""
        found = await self._find(vtxo_id)
        packages: Mapping[VtxoId, tuple[ExitPackage, ...]] = {}
        if with_packages:
            async with self._store.read() as tx:
                packages = await load_packages(tx, [found])
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
        return await self._claims.claim(vtxo_ids, script_pubkey, fee_rate)

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
        return await self._estimates.estimate(
            vtxo_ids, fee_rate=fee_rate, margin=margin, script_pubkey=script_pubkey
        )


def _claimable_height(state: ExitState) -> int | None:
    match state:
        case AwaitingDelta(claimable_height=height):
            return height
        case Claimable() | ClaimInProgress():
            return state.claimable_since.height
        case _:
            return None
