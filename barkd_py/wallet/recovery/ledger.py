"""Writing down what a recovery found: VTXOs, entries and progress of one batch, in one transaction.

A VTXO whose state changed while it was looked at is left alone: whoever changed it knows better.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import MAX_MONEY_SAT
from barkd_py.wallet.mailbox.receipts import note_receipt
from barkd_py.wallet.recovery.judgement import Deed, Facts, Proven, Verdict
from barkd_py.wallet.recovery.progress import FORMAT, Progress
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome
from barkd_py.wallet.vtxo_states import Locked, MarkSpent, NewVtxo, Release, Spendable, Spent

log = logging.getLogger(__name__)

ReceivedOn = Callable[[Sequence[Vtxo]], Awaitable[Mapping[PublicKey, str]]]

_LOUD = frozenset({RecoveryOutcome.FAILED, RecoveryOutcome.FOREIGN, RecoveryOutcome.NOT_FOUND})


class Ledger:
    """received_on: our addresses that VTXOs came in on, by key, for the history."""

    def __init__(self, store: Store, received_on: ReceivedOn) -> None:
        self._store = store
        self._received_on = received_on

    async def write(
        self, facts: Mapping[VtxoId, Facts], verdicts: Mapping[VtxoId, Verdict], progress: Progress | None
    ) -> Collection[VtxoId]:
        """Do what was judged; the VTXOs that exit. progress: None outside a recovery.

        A late payment of which nobody knows, or not enough yet, is not noted: it stays one.
        """
        noted = await self._noted(facts, progress)
        late = [
            vtxo
            for vtxo_id, verdict in verdicts.items()
            if vtxo_id not in noted
            and _is_money_at_last(facts[vtxo_id], verdict)
            and (vtxo := facts[vtxo_id].vtxo) is not None
        ]
        swept = {vtxo.id for vtxo in late if facts[vtxo.id].proof == Proven(is_swept=True)}
        addresses = await self._received_on(late)
        async with self._store.transaction() as tx:
            now = await tx.vtxos.find_many(verdicts)
            final: dict[VtxoId, Verdict] = {}
            for vtxo_id, verdict in verdicts.items():
                row = now.get(vtxo_id)
                if (None if row is None else row.state) != facts[vtxo_id].state:
                    # What is held now is a payment that the mailbox keeps for the next look.
                    ask_again = row is not None and row.state == Locked(None)
                    if ask_again:
                        noted.discard(vtxo_id)
                    verdict = Verdict(
                        RecoveryOutcome.SKIPPED, "it changed while it was looked at", ask_again=ask_again
                    )
                elif _is_absurd(facts[vtxo_id].vtxo):
                    verdict = Verdict(RecoveryOutcome.FAILED, "its amount cannot be")
                else:
                    await _mend(tx, facts[vtxo_id])
                    await _do(tx, facts[vtxo_id], verdict.deed)
                final[vtxo_id] = verdict
            for payment in _payments([vtxo for vtxo in late if final[vtxo.id] is verdicts[vtxo.id]]):
                await note_receipt(tx, payment, addresses, swept)
            await tx.recovery.put(
                [
                    _entry(facts[vtxo_id], vtxo_id, each)
                    for vtxo_id, each in final.items()
                    if vtxo_id in noted or not _stays_late(facts[vtxo_id], each)
                ]
            )
            again = [vtxo_id for vtxo_id, verdict in final.items() if verdict.ask_again]
            settled = [vtxo_id for vtxo_id in final if vtxo_id not in again]
            if progress is None and await tx.recovery.pending([each for each in settled if each in noted]):
                await _owe_coins(tx)
            await tx.recovery.remove_pending(settled)
            await tx.recovery.add_pending(again)
            if progress is not None:
                await tx.recovery.save(FORMAT.encode(progress))
        for vtxo_id, verdict in final.items():
            if verdict.outcome in _LOUD or verdict.deed is Deed.HOLD:
                log.warning("recovery: VTXO %s: %s: %s", vtxo_id, verdict.outcome, verdict.reason)
        return [vtxo_id for vtxo_id, verdict in final.items() if verdict.exit]

    async def _noted(self, facts: Mapping[VtxoId, Facts], progress: Progress | None) -> set[VtxoId]:
        """Those that a recovery has met, or meets now. The others are late payments, which belong in the
        history: the mailbox has passed them on, because what they hang off was not on the chain then.

        A recovery that meets one that the mailbox holds leaves it one.
        """
        async with self._store.read() as tx:
            met = set(await tx.recovery.outcomes(list(facts)))
            if progress is None:
                return met
            held = [vtxo_id for vtxo_id, each in facts.items() if each.is_kept_mail]
            return set(facts) - (await tx.recovery.pending(held) - met)

    async def drop_parents(self) -> int:
        """Mark spent what a recovered VTXO itself descends from; how many there were.

        Its chain holds our signature: that is the proof, whatever the server says of the parent.
        """
        async with self._store.read() as tx:
            recovered = [entry.vtxo_id for entry in await tx.recovery.entries(RecoveryOutcome.RECOVERED)]
            # What cannot be read names no ancestors; it was named in the log when it was looked at.
            children, _ = await tx.vtxos.readable_bodies(list(await tx.vtxos.known(recovered)))
        ancestors = {parent for child in children for parent in child.ancestor_ids}
        async with self._store.transaction() as tx:
            rows = await tx.vtxos.find_many(ancestors)
            spent = [row.id for row in rows.values() if row.state in (Spendable(), Locked(None))]
            await tx.vtxos.change(spent, MarkSpent())
            await tx.recovery.remove_pending(spent)
            await tx.recovery.put(
                [
                    RecoveryEntry(
                        vtxo_id, RecoveryOutcome.SKIPPED, rows[vtxo_id].amount_sat, "a later VTXO spends it"
                    )
                    for vtxo_id in spent
                ]
            )
        return len(spent)


def _is_money_at_last(facts: Facts, verdict: Verdict) -> bool:
    """Whether it becomes ours to spend, or to exit, for the first time in this wallet."""
    if verdict.outcome not in (RecoveryOutcome.RECOVERED, RecoveryOutcome.EXITED):
        return False
    return verdict.deed is Deed.STORE_SPENDABLE or (verdict.deed is Deed.RELEASE and not facts.was_spendable)


def _payments(vtxos: Sequence[Vtxo]) -> list[list[Vtxo]]:
    """What belongs together: servers deliver only VTXOs of one key at once. Source: sheet 02 §5.3."""
    by_key: dict[PublicKey, list[Vtxo]] = {}
    for vtxo in vtxos:
        by_key.setdefault(vtxo.user_pubkey, []).append(vtxo)
    return list(by_key.values())


def _stays_late(facts: Facts, verdict: Verdict) -> bool:
    match verdict.outcome:
        case RecoveryOutcome.SKIPPED:
            return verdict.ask_again
        case RecoveryOutcome.LOCKED:
            return facts.is_kept_mail
        case outcome:
            return outcome in (RecoveryOutcome.FAILED, RecoveryOutcome.NOT_FOUND)


async def _mend(tx: Transaction, facts: Facts) -> None:
    """Give a stored VTXO its chain back, which cannot be read any more; from whomever, if it is proven."""
    if facts.is_unreadable and facts.vtxo is not None and isinstance(facts.proof, Proven):
        await tx.vtxos.replace_body(facts.vtxo)
        log.warning("recovery: VTXO %s could not be read here: its body is the server's now", facts.vtxo.id)


async def _do(tx: Transaction, facts: Facts, deed: Deed) -> None:
    vtxo = facts.vtxo
    if deed is Deed.NOTHING:
        return
    assert vtxo is not None, "only a VTXO that was seen is judged"
    match deed:
        case Deed.STORE_SPENDABLE:
            if facts.state is not None:
                await tx.vtxos.remove([vtxo.id])
            await tx.vtxos.insert([NewVtxo(vtxo, Spendable())])
        case Deed.STORE_SPENT:
            await tx.vtxos.insert([NewVtxo(vtxo, Spent())])
        case Deed.STORE_HELD:
            await tx.vtxos.insert([NewVtxo(vtxo, Locked(None))])
        case Deed.RELEASE:
            await tx.vtxos.change([vtxo.id], Release(None))
        case Deed.HOLD:
            await tx.vtxos.lock([vtxo.id], None)
        case Deed.MARK_SPENT:
            await tx.vtxos.mark_spent([vtxo.id])
        case _:
            assert_never(deed)


async def _owe_coins(tx: Transaction) -> None:
    """Somebody knows more than before, of coins too: whatever comes now, they are looked for."""
    run = await tx.recovery.run()
    if run is not None:
        progress = replace(FORMAT.decode(run.payload), is_onchain_done=False)
        await tx.recovery.amend(FORMAT.encode(progress))


def _is_absurd(vtxo: Vtxo | None) -> bool:
    return vtxo is not None and vtxo.amount_sat > MAX_MONEY_SAT


def _entry(facts: Facts, vtxo_id: VtxoId, verdict: Verdict) -> RecoveryEntry:
    vtxo = facts.vtxo
    amount_sat = None if vtxo is None or _is_absurd(vtxo) else vtxo.amount_sat
    return RecoveryEntry(vtxo_id, verdict.outcome, amount_sat, verdict.reason)
