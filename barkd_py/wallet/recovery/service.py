"""Runs a recovery, from wherever the last one stopped.

Everything is written down batch by batch, together with how far the recovery is: after a kill it goes on from
the last batch. Nothing of it changes anything at the server but chains that are registered late, and doing
any part of it twice finds the same, so it can be run at any time, also on a wallet that is in use.

A recovery is *pending* from the moment the wallet is made from a mnemonic, or put back from a backup, until
one has run to its end. The regular mailbox is not dealt with before the recovery has looked into it: what
waits there was delivered to an earlier life, and may be spent.

What nobody could tell (a chain source that was away, a server without an answer) stays on a list that is
asked again from time to time: see `tick`.

Coins on the chain are looked for by a task of its own, once the VTXOs were found or could not be: a node may
take an hour for it, and meanwhile the VTXOs are tried again. That it is to be done is stored.

Source: sheet 02 §6; sheet 08 §3.4.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import zip_longest
from typing import assert_never

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, KnownError, NotFound, ProtocolViolation, chain_text
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.mailbox.pages import MailboxReader
from barkd_py.wallet.recovery.evidence import Evidence, Sighting
from barkd_py.wallet.recovery.judgement import Verdict, judge
from barkd_py.wallet.recovery.ledger import Ledger
from barkd_py.wallet.recovery.messages import sightings_in
from barkd_py.wallet.recovery.progress import FORMAT, Phase, Progress
from barkd_py.wallet.recovery.report import RecoveryReport
from barkd_py.wallet.recovery.xpub import MAX_PAGES, XpubSearch
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.recovery import RecoveryOutcome, RecoveryRun
from barkd_py.wallet.vtxo_states import Locked, Spendable

log = logging.getLogger(__name__)

BATCH = 100
MAX_RETRIES = 3
# A wallet hears of far fewer; a server that goes on and on must not fill the disk.
MAX_ENTRIES = 500_000
# So many that stay unknown end one asking, or whoever makes up VTXOs keeps server and chain source busy with
# them. The next one goes on from there.
MAX_UNKNOWN_PER_RETRY = 200
FIRST_RETRY_SECS = 60.0
LAST_RETRY_SECS = 3600.0
# Who asks for a sync waits so long for coins. Esplora finds them in seconds; for a node nobody waits.
COINS_WAIT_SECS = 10.0

Effect = Callable[[], Awaitable[object]]


class RecoveryInterrupted(BarkdError):
    """The recovery stopped, and goes on later; what it has found so far is kept. The cause says why."""

    def __init__(self) -> None:
        super().__init__("VTXO recovery from seed failed; funds may be missing until it succeeds")


class TooManyVtxos(ProtocolViolation):
    def __init__(self) -> None:
        super().__init__(f"the server names more than {MAX_ENTRIES} VTXOs")


class OnchainSearchFailed(BarkdError):
    def __init__(self) -> None:
        super().__init__("the search for on-chain coins failed")


class XpubSearchFailed(BarkdError):
    def __init__(self, reason: str | None) -> None:
        super().__init__(f"the search by extended key failed: {reason}")


class NoRecovery(NotFound):
    def __init__(self) -> None:
        super().__init__("no recovery was ever made")


class Recovery:
    """now: Unix seconds. max_xpub_pages: of one search.

    start_exits: of VTXOs that are on the chain. complete_round: takes over the round of an unlock hash.
    drain_mailbox: deals with what was delivered. rescan_onchain: looks for coins that the on-chain wallet
    does not know of. take_back: HTLCs of payments that were under way; nothing happens to those that
    something holds. wake_registration: there are VTXOs to note at the server.
    """

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        keychain: Keychain,
        evidence: Evidence,
        ledger: Ledger,
        *,
        network: Network,
        start_exits: Callable[[Collection[VtxoId]], Awaitable[None]],
        complete_round: Callable[[bytes], Awaitable[None]],
        drain_mailbox: Effect,
        rescan_onchain: Effect,
        take_back: Callable[[Collection[VtxoId]], Awaitable[None]],
        wake_registration: Callable[[], None],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        max_xpub_pages: int = MAX_PAGES,
    ) -> None:
        self._xpub = XpubSearch(
            server, keychain, evidence, network=network, now=now, max_pages=max_xpub_pages
        )
        self._store = store
        self._server = server
        self._keychain = keychain
        self._evidence = evidence
        self._ledger = ledger
        self._start_exits = start_exits
        self._complete_round = complete_round
        self._drain_mailbox = drain_mailbox
        self._rescan_onchain = rescan_onchain
        self._take_back = take_back
        self._htlcs: set[VtxoId] = set()
        self._wake_registration = wake_registration
        self._now = now
        self._monotonic = monotonic
        self._working = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._search: asyncio.Task[BarkdError | None] | None = None
        # Reasons to look for coins, and how many of them the last look came after.
        self._reasons = 0
        self._looked_after = 0
        self._lacks_only_coins = False
        self._retry_at = 0.0
        # Blocks that came, and how many of them the last retry came after.
        self._blocks = 0
        self._retried_after = 0
        self._asked: dict[VtxoId, None] = {}  # in this order
        self._seen: set[VtxoId] = set()  # since HTLCs were adopted last
        self._retry_pause_secs = FIRST_RETRY_SECS

    # --- from outside

    async def start(self) -> None:
        """Begin anew, unless one is under way, and run it to its end. Raises RecoveryInterrupted.

        It goes on if the caller is cancelled.
        """
        async with self._store.transaction() as tx:
            if not (await tx.properties.get()).recovery_pending:
                await tx.properties.set_recovery_pending(True)
                await tx.recovery.begin(FORMAT.encode(Progress(mailbox_until=await tx.mailbox.checkpoint())))
                self._reasons += 1
        await self.resume()

    async def resume(self) -> None:
        """Run what is pending to its end; nothing happens if nothing is. Raises RecoveryInterrupted.

        It goes on if the caller is cancelled.
        """
        try:
            await self._resume_vtxos()
        except RecoveryInterrupted:
            await self._wait_for_coins()
            raise
        failure = await self._wait_for_coins()
        if await self._is_pending():
            raise RecoveryInterrupted from failure

    async def catch_up(self) -> None:
        """Go on with what is pending, and ask again for what was not known. Raises RecoveryInterrupted.

        The search for coins goes on after a while without the caller.
        """
        await self._resume_vtxos_and(self.retry)
        await self._wait_for_coins(COINS_WAIT_SECS)

    async def tick(self) -> None:
        """As `catch_up`, but ask again less and less often as long as the answers stay the same, and do not
        wait for coins at all.
        """
        await self._resume_vtxos_and(self._retry_if_due)

    async def _retry_if_due(self) -> None:
        async with self._store.read() as tx:
            is_new = not self._asked.keys() >= set(await tx.recovery.pending_ids())
        is_due = self._retried_after != self._blocks or self._monotonic() >= self._retry_at
        if is_new or is_due:
            await self.retry()

    def note_block(self) -> None:
        """What hung off nothing on the chain may do so now: the next `tick` asks again."""
        self._blocks += 1

    async def look_at(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """See whether VTXOs of ours are what we believe: a server has refused them. Raises BarkdError."""
        for batch in _batches([Sighting(vtxo_id) for vtxo_id in vtxo_ids]):
            await self._deal_with(batch, None)

    async def retry(self) -> None:
        """Ask again for everything that was not known, as far as that is not too much at once. Raises
        BarkdError if nobody answers.

        Who did not know the anchors of VTXOs did not know of coins either: they are looked for again, by
        themselves. Not for late payments, for which a recovery has never asked: anybody can make those.
        """
        async with self._working:
            blocks = self._blocks
            async with self._store.read() as tx:
                before = await tx.recovery.pending_ids()
            was_all = await self._ask_for(self._in_turn(before))
            async with self._store.read() as tx:
                left = await tx.recovery.pending_ids()
            changed = left != before
            if was_all or self._seen >= set(left):  # or only a part of a payment's HTLCs may be known
                self._seen.clear()
                await self._adopt_htlcs()
            if await self._are_coins_owed():
                self._look_for_coins()
            longer = min(self._retry_pause_secs * 2, LAST_RETRY_SECS)
            self._retry_pause_secs = FIRST_RETRY_SECS if changed or not was_all else longer
            self._retry_at = self._monotonic() + self._retry_pause_secs
            self._retried_after = blocks
        if changed:
            self._wake_registration()

    def _in_turn(self, vtxo_ids: Sequence[VtxoId]) -> list[VtxoId]:
        """New ones and old ones by turns, and of those first what was not asked for the longest time."""
        wanted = set(vtxo_ids)
        self._asked = {vtxo_id: None for vtxo_id in self._asked if vtxo_id in wanted}
        new = [vtxo_id for vtxo_id in vtxo_ids if vtxo_id not in self._asked]
        pairs = zip_longest(new, list(self._asked))
        return [vtxo_id for pair in pairs for vtxo_id in pair if vtxo_id is not None]

    async def _ask_for(self, vtxo_ids: Sequence[VtxoId]) -> bool:
        """Whether it was for all of them, or too many of them stay unknown."""
        unknown = 0
        for start in range(0, len(vtxo_ids), BATCH):
            if unknown >= MAX_UNKNOWN_PER_RETRY:
                return False
            batch = vtxo_ids[start : start + BATCH]
            async with self._store.read() as tx:
                # Without a run they are what the server has refused: nobody has denied coins.
                met = set() if await tx.recovery.run() is None else set(await tx.recovery.outcomes(batch))
            await self._deal_with([Sighting(vtxo_id) for vtxo_id in batch], None)
            for vtxo_id in batch:
                self._asked.pop(vtxo_id, None)
                self._asked[vtxo_id] = None
            self._seen.update(batch)
            async with self._store.read() as tx:
                left = await tx.recovery.pending(batch)
            self._reasons += not met <= left
            unknown += len(left)
        return True

    async def is_mailbox_blocked(self) -> bool:
        """Whether the regular mailbox must be left alone for now."""
        async with self._store.read() as tx:
            if not (await tx.properties.get()).recovery_pending:
                return False
            run = await tx.recovery.run()
        return run is None or run.finished_at is not None or FORMAT.decode(run.payload).blocks_mailbox

    async def report(self) -> RecoveryReport:
        """Of the recovery that is under way, or the last one. Raises NoRecovery."""
        async with self._store.read() as tx:
            run = await tx.recovery.run()
            if run is None:
                raise NoRecovery
            progress = FORMAT.decode(run.payload)
            return RecoveryReport(
                run.started_at,
                run.finished_at,
                progress.error,
                progress.is_xpub_known,
                await tx.recovery.entries(),
                len(await tx.recovery.pending_ids()),
            )

    async def close(self) -> None:
        """Stop; what was found is kept, and the rest is found when the wallet is opened again."""
        self._is_closed = True
        tasks = [task for task in (self._task, self._search) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- running

    async def _is_pending(self) -> bool:
        async with self._store.read() as tx:
            return (await tx.properties.get()).recovery_pending

    async def _resume_vtxos(self) -> None:
        """All that is pending but the coins, which are looked for then. Raises RecoveryInterrupted."""
        if self._is_closed:
            raise RecoveryInterrupted
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._resume(), name="recovery")
            self._task.add_done_callback(_retrieve)
        task = self._task
        await asyncio.wait({task})
        if task.cancelled():
            raise RecoveryInterrupted  # the wallet was closed
        task.result()

    async def _resume_vtxos_and(self, retry: Effect) -> None:
        """What cannot come to its end keeps nobody from asking again, for late payments for one.

        Raises RecoveryInterrupted.
        """
        try:
            await self._resume_vtxos()
        except RecoveryInterrupted:
            if not self._is_closed and await self._has_reviewed():
                with suppress(KnownError):  # the first error is the one to tell of
                    await retry()
            raise
        await retry()

    async def _has_reviewed(self) -> bool:
        """Before that nobody can tell late payments from what an earlier recovery has left."""
        async with self._store.read() as tx:
            run = await tx.recovery.run()
        return run is not None and FORMAT.decode(run.payload).phase is not Phase.REVIEW

    async def _resume(self) -> None:
        async with self._working:
            if not await self._is_pending() or (self._lacks_only_coins and self._is_looking_for_coins):
                return
            self._lacks_only_coins = False
            progress = await self._begin_or_go_on()
            was_blocked = progress.blocks_mailbox
            if not was_blocked:
                await self._drain()
            try:
                while progress.phase is not Phase.DONE:
                    progress = await self._advance(progress)
                await self._settle()
                if was_blocked:
                    await self._drain()
                if not progress.is_xpub_done:
                    await self._save(replace(progress, phase=Phase.XPUB, retries=0))
                    raise XpubSearchFailed(progress.error)
            except KnownError as error:
                await self._note_error(error)
                if await self._are_coins_owed():
                    self._look_for_coins()
                raise RecoveryInterrupted from error
            self._lacks_only_coins = True
            if await self._are_coins_owed():
                self._look_for_coins()
            else:
                await self._finish()

    async def _drain(self) -> None:
        """What was delivered just now belongs in the history, so the mailbox goes first."""
        try:
            await self._drain_mailbox()
        except BarkdError as error:  # the daemon does it again
            log.warning("recovery: mailbox: %s", chain_text(error))

    async def _begin_or_go_on(self) -> Progress:
        async with self._store.transaction() as tx:
            run: RecoveryRun | None = await tx.recovery.run()
            if run is not None and run.finished_at is None:
                return replace(FORMAT.decode(run.payload), error=None)
            progress = Progress()
            await tx.recovery.begin(FORMAT.encode(progress))
            self._reasons += 1
            return progress

    async def _advance(self, progress: Progress) -> Progress:
        """The progress after the next phase, or as much of it as can be written down at once."""
        match progress.phase:
            case Phase.REVIEW:
                return await self._review(progress)
            case Phase.XPUB:
                return await self._search_by_xpub(progress)
            case Phase.MAILBOX:
                return await self._read_mailbox(progress)
            case Phase.RECOVERY:
                return await self._read_recovery_mailbox(progress)
            case Phase.RETRIES:
                return await self._retry_failed(progress)
            case Phase.DONE:
                return progress
            case _:
                assert_never(progress.phase)

    async def _settle(self) -> None:
        """What is done once everything was heard of."""
        dropped = await self._ledger.drop_parents()
        if dropped:
            log.info("recovery: %d VTXOs are spent by later ones", dropped)
        await self._adopt_htlcs()
        self._wake_registration()

    async def _finish(self) -> None:
        """Coins were looked for; the recovery is over if that was all that it lacked."""
        async with self._store.transaction() as tx:
            run = await tx.recovery.run()
            if run is None:
                return
            progress = replace(FORMAT.decode(run.payload), is_onchain_done=True)
            is_over = self._lacks_only_coins and run.finished_at is None
            if is_over:
                await tx.properties.set_recovery_pending(False)
                await tx.recovery.save(FORMAT.encode(replace(progress, error=None)), finished=True)
            else:
                await tx.recovery.amend(FORMAT.encode(progress))
        if is_over:
            self._lacks_only_coins = False
            self._retry_at = self._monotonic() + self._retry_pause_secs
            log.info("recovery finished: %s", await self.report())

    async def _save(self, progress: Progress) -> Progress:
        async with self._store.transaction() as tx:
            await tx.recovery.save(FORMAT.encode(progress))
        return progress

    async def _note_error(self, error: KnownError) -> None:
        async with self._store.transaction() as tx:
            run = await tx.recovery.run()
            if run is not None:
                progress = replace(FORMAT.decode(run.payload), error=chain_text(error))
                await tx.recovery.save(FORMAT.encode(progress))

    # --- coins

    @property
    def _is_looking_for_coins(self) -> bool:
        return self._search is not None and not self._search.done()

    async def _are_coins_owed(self) -> bool:
        """Whether there is a reason to look for coins since the last time, stored or of this life."""
        async with self._store.read() as tx:
            run = await tx.recovery.run()
        is_done = run is None or FORMAT.decode(run.payload).is_onchain_done
        return not is_done or self._looked_after != self._reasons

    def _look_for_coins(self) -> None:
        """Let it be done; who looks already does so again if there is a new reason."""
        if not self._is_looking_for_coins:
            self._search = asyncio.create_task(self._look_until_done(), name="search for coins")
            self._search.add_done_callback(_retrieve_search)

    async def _look_until_done(self) -> BarkdError | None:
        """Returns the error if it could not be done."""
        while True:
            reasons = self._reasons
            try:
                await self._rescan_onchain()
            except KnownError as error:
                log.warning("recovery: on-chain wallet: %s", chain_text(error))
                failure = OnchainSearchFailed()
                failure.__cause__ = error
                async with self._working:
                    if self._lacks_only_coins:
                        await self._note_error(failure)
                return failure
            async with self._working:
                self._looked_after = reasons
                if reasons == self._reasons:
                    await self._finish()
                    return None

    async def _wait_for_coins(self, timeout_secs: float | None = None) -> BarkdError | None:
        """Until nobody looks any more; the error of a look that failed."""
        if self._search is None:
            return None
        done, _ = await asyncio.wait({self._search}, timeout=timeout_secs)
        return next((task.result() for task in done if not task.cancelled()), None)

    # --- phases

    async def _review(self, progress: Progress) -> Progress:
        """What is stored and not in use, and what was left from before."""
        async with self._store.read() as tx:
            stored = [row.id for row in await tx.vtxos.list() if row.state in (Spendable(), Locked(None))]
            left = await tx.recovery.pending_ids()
        sightings = [Sighting(vtxo_id) for vtxo_id in dict.fromkeys((*stored, *left))]
        return await self._take_in(sightings, progress, replace(progress, phase=Phase.XPUB))

    async def _search_by_xpub(self, progress: Progress) -> Progress:
        """One page. An error does not keep the mailboxes from being read, but the recovery from ending."""
        following = Phase.RETRIES if progress.is_mailbox_read else Phase.MAILBOX
        try:
            page = await self._xpub.page(progress)
        except BarkdError as error:
            log.warning("recovery: the search by extended key failed: %s", chain_text(error))
            return await self._save(replace(progress, phase=following, error=chain_text(error)))
        if page is None:
            log.info("recovery: the server cannot search by extended key")
            return await self._save(
                replace(progress, phase=following, is_xpub_known=False, is_xpub_done=True)
            )
        after = self._xpub.after(progress, page)
        if after.is_xpub_done:
            after = replace(after, phase=following)
        if not progress.blocks_mailbox:
            await self._drain()
        return await self._take_in(await self._xpub.believed(page.vtxos), progress, after)

    async def _read_mailbox(self, progress: Progress) -> Progress:
        """Payments that were delivered; in a wallet that was alive, those that it has dealt with."""
        until = progress.mailbox_until
        reader = MailboxReader(self._server, self._keychain.mailbox_key, now=self._now)
        async with aclosing(reader.read(progress.mailbox)) as pages:
            async for messages in pages:
                if until is not None:
                    messages = tuple(message for message in messages if message.checkpoint <= until)
                    if not messages:
                        break
                after = replace(progress, mailbox=messages[-1].checkpoint)
                progress = await self._take_in(sightings_in(messages), progress, after)
        return await self._save(replace(progress, phase=Phase.RECOVERY, is_mailbox_read=True))

    async def _read_recovery_mailbox(self, progress: Progress) -> Progress:
        reader = MailboxReader(self._server, self._keychain.recovery_mailbox_key, now=self._now)
        async with aclosing(reader.read(progress.recovery_mailbox)) as pages:
            async for messages in pages:
                after = replace(progress, recovery_mailbox=messages[-1].checkpoint)
                progress = await self._take_in(sightings_in(messages), progress, after)
        phase = Phase.RETRIES if progress.is_xpub_done else Phase.XPUB
        return await self._save(replace(progress, phase=phase))

    async def _retry_failed(self, progress: Progress) -> Progress:
        """Once more from the start: bodies are fetched again, for those in the mailbox may be wrong."""
        async with self._store.read() as tx:
            failed = [entry.vtxo_id for entry in await tx.recovery.entries(RecoveryOutcome.FAILED)]
        if not failed or progress.retries >= MAX_RETRIES:
            return replace(progress, phase=Phase.DONE)
        after = replace(progress, retries=progress.retries + 1)
        for batch in _batches([Sighting(vtxo_id) for vtxo_id in failed]):
            await self._deal_with(batch, progress)
        return await self._save(after)

    # --- batches

    async def _take_in(self, sightings: Sequence[Sighting], before: Progress, after: Progress) -> Progress:
        """Deal with what was not dealt with before; `after` is written down with the last of it."""
        async with self._store.read() as tx:
            if await tx.recovery.count() > MAX_ENTRIES:
                raise TooManyVtxos
            outcomes = await tx.recovery.outcomes([each.vtxo_id for each in sightings])
        new = {
            each.vtxo_id: each
            for each in reversed(sightings)
            if outcomes.get(each.vtxo_id, RecoveryOutcome.FAILED) is RecoveryOutcome.FAILED
        }
        *batches, last = list(_batches(list(new.values()))) or [[]]
        for batch in batches:
            await self._deal_with(batch, before)
        if last:
            await self._deal_with(last, after)
            return after
        return await self._save(after)

    async def _deal_with(self, sightings: Sequence[Sighting], progress: Progress | None) -> None:
        """Raises ConnectFailed, ServerUnusable, StoreError; then nothing of it is written down."""
        facts = await self._evidence.gather(sightings)
        verdicts: dict[VtxoId, Verdict] = {}
        for vtxo_id, each in facts.items():
            verdict = judge(each)
            if verdict.finish_round and each.vtxo is not None and each.vtxo.unlock_hash is not None:
                verdict = await self._finish_round(each.vtxo.unlock_hash, verdict)
            verdicts[vtxo_id] = verdict
        exiting = await self._ledger.write(facts, verdicts, progress)
        self._htlcs.update(vtxo_id for vtxo_id, verdict in verdicts.items() if verdict.take_back)
        if exiting:
            try:
                await self._start_exits(exiting)
            except BarkdError as error:  # noticed again with the next block
                log.warning("recovery: exits of VTXOs on the chain: %s", chain_text(error))

    async def _adopt_htlcs(self) -> None:
        """All at once: the server gives back all HTLCs of a payment or none. After a kill `retry` does it."""
        htlcs, self._htlcs = self._htlcs, set()
        try:
            await self._take_back(htlcs)
        except BarkdError as error:  # they stay on the list
            log.warning("recovery: HTLCs of Lightning payments: %s", chain_text(error))

    async def _finish_round(self, unlock_hash: bytes, verdict: Verdict) -> Verdict:
        try:
            await self._complete_round(unlock_hash)
        except BarkdError as error:
            reason = f"its round could not be taken over: {chain_text(error)}"
            return Verdict(RecoveryOutcome.FAILED, reason, ask_again=True)
        return verdict


def _batches(sightings: Sequence[Sighting]) -> list[Sequence[Sighting]]:
    return [sightings[start : start + BATCH] for start in range(0, len(sightings), BATCH)]


def _retrieve(task: asyncio.Task[None]) -> None:
    """Whoever waits hears of an error; if nobody does, it is in the report."""
    if not task.cancelled():
        task.exception()


def _retrieve_search(task: asyncio.Task[BarkdError | None]) -> None:
    """What the search cannot handle: nobody may be waiting for it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("recovery: the search for on-chain coins broke off", exc_info=error)
