"""Carries out what `machine` decides: stores each state, then does what follows from it.

A participation is driven under a lock of its own, and its row is read once the lock is held. State, locks on
the inputs and the movement are written in one transaction. What an effect comes to is the next observation,
until there is nothing left to do.

Errors: what keeps an effect from being done is raised; the state stays, and the next sync repeats the effect.

Source: sheet 04 §15-§21; sheet 09 §1.11.
"""

import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from barkd_py.ark.vtxo import VtxoId
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, chain_text
from barkd_py.server_rpc.api import ArkServerApi, RoundAttempt
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import ROUND_TIMEOUT_SECONDS, NamedLocks, round_lock_name
from barkd_py.wallet.rounds import machine
from barkd_py.wallet.rounds.bounds import UnattendedBounds
from barkd_py.wallet.rounds.effects import RoundEffects
from barkd_py.wallet.rounds.machine import Observation, TakenBack, Unlocked
from barkd_py.wallet.rounds.records import Record, Records
from barkd_py.wallet.rounds.states import (
    Canceled,
    Completed,
    Confirmed,
    Delegated,
    Failed,
    Issued,
    Joining,
    Pending,
    Registered,
    Round,
    RoundInfo,
    RoundStatus,
    Signed,
    Submitting,
    SyncError,
    Unconfirmed,
    Waiting,
    is_held,
)
from barkd_py.wallet.rounds.swap import SwapLimits
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)


class Rescue(Protocol):
    """What is done about a round that was held, besides asking the server: `wallet.round_rescue`.

    Neither call fails because the chain source is away: the next sync makes up for it.
    """

    async def look(self, round_: Round) -> Unlocked | TakenBack | None:
        """What the chain says about the inputs, if that decides.

        Raises InputsOnTheirWay while the server must not be asked.
        """

    async def exit_in_time(self, round_: Round) -> None:
        """Start the exits of the inputs for which it is time."""


class RoundDriver:
    """Drives participations, each on its own."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        registration: Registration,
        locks: NamedLocks,
        limits: SwapLimits,
        unattended: UnattendedBounds,
        rescue: Rescue,
    ) -> None:
        self._rescue = rescue
        self._keychain = keychain
        self._locks = locks
        self._records = Records(store, registration)
        self._effects = RoundEffects(store, server, chain, keychain, registration, limits, unattended)

    @property
    def refused(self) -> Mapping[VtxoId, int]:
        """Inputs that the server would not take, or that no round came about for, and the height then."""
        return self._effects.refused

    def leave_alone(self, vtxo_ids: Collection[VtxoId], height: int) -> None:
        """Maintenance does not take these for a while."""
        self._effects.refused.update(dict.fromkeys(vtxo_ids, height))

    # --- from outside

    async def feed(self, round_id: int, seen: Observation) -> Record | None:
        """Let a participation see something, and do what follows; the outcome, None if it is gone.

        Raises LockTimeout, and what keeps an effect from being done.
        """
        async with self._hold(round_id):
            record = await self._load(round_id)
            return None if record is None else await self._drive(record, seen)

    async def sync(self, round_id: int) -> RoundInfo | None:
        """Look what became of a participation; None if it is gone. Raises LockTimeout, StoreError."""
        async with self._hold(round_id):
            record = await self._load(round_id)
            if record is None:
                return None
            try:
                record = await self._sync(record)
            except BarkdError as error:
                log.warning("round state %d: %s", round_id, chain_text(error))
                latest = await self._load(round_id) or record
                return RoundInfo(round_id, latest.round, SyncError(chain_text(error)), latest.movement_id)
            return RoundInfo(round_id, record.round, _status(record.round), record.movement_id)

    async def submit(self, round_id: int) -> Record | None:
        """Hand a new delegated participation to the server. Raises what keeps it from being done."""
        return await self.feed(round_id, machine.SyncDue())

    def forget(self) -> None:
        """Wipe all secrets; what was under way is taken up again as after a restart."""
        self._effects.drop_tickets()

    @asynccontextmanager
    async def _hold(self, round_id: int) -> AsyncIterator[None]:
        name = round_lock_name(self._keychain.fingerprint, round_id)
        text = f"timed out waiting for lock on round state {round_id}"
        async with self._locks.hold(name, timeout_seconds=ROUND_TIMEOUT_SECONDS, timeout_text=text):
            yield

    # --- driving

    async def _sync(self, record: Record) -> Record:
        if self._is_interrupted(record):
            record = await self._drive(record, machine.Interrupted())
        if isinstance(record.round.state, Waiting | Submitting) and (
            lost := await self._effects.without_lost(record)
        ):
            record = await self._drive(record, lost)
        if not is_held(record.round.state):
            return await self._drive(record, machine.SyncDue())
        return await self._sync_held(record)

    async def _sync_held(self, record: Record) -> Record:
        """The round was held, so the server counts the inputs as its own: the chain is looked at as well."""
        seen = await self._rescue.look(record.round)
        try:
            record = await self._drive(record, seen or machine.SyncDue())
        except BarkdError:
            await self._rescue.exit_in_time((await self._load(record.id) or record).round)
            raise
        await self._rescue.exit_in_time(record.round)
        return record

    def _is_interrupted(self, record: Record) -> bool:
        """To be asked before a drive begins: what is joining then has lost its driver."""
        match record.round.state:
            case Joining():
                return True
            case Registered():
                return not self._effects.has_ticket(record.id)
            case _:
                return False

    async def _drive(self, record: Record, seen: Observation) -> Record:
        """Step by step until nothing is left to do. The lock is held."""
        observation: Observation | None = seen
        if self._is_interrupted(record) and not isinstance(seen, machine.Interrupted):
            record = await self._drive(record, machine.Interrupted())
        if isinstance(record.round.state, Waiting) and isinstance(seen, RoundAttempt):
            lost = await self._effects.without_lost(record)
            if lost is not None:
                record = await self._drive(record, lost)
        while observation is not None:
            step = machine.step(record.round, observation)
            if step.round != record.round:
                record = await self._save(record, step.round)
            observation = None if step.effect is None else await self._effects.perform(record, step.effect)
        return record

    # --- storing

    async def _load(self, round_id: int) -> Record | None:
        record = await self._records.load(round_id)
        if record is None:
            self._effects.drop_ticket(round_id)
        return record

    async def _save(self, record: Record, round_: Round) -> Record:
        saved = await self._records.save(record, round_)
        if not isinstance(round_.state, Joining | Registered | Signed):
            self._effects.drop_ticket(record.id)
        if isinstance(round_.state, Failed) and round_.failures >= machine.MAX_FAILURES:
            await self._effects.note_refused(round_.inputs)
        return saved


def _status(round_: Round) -> RoundStatus:
    match round_.state:
        case Completed():
            return Confirmed(round_.state.funding_tx.txid)
        case Failed() | Canceled():
            return round_.state
        case Issued():
            return Unconfirmed(round_.state.funding_tx.txid)
        case Delegated(_, funding_txid) if funding_txid is not None:
            return Unconfirmed(funding_txid)
        case Waiting() | Submitting() | Delegated() if round_.last_error is not None:
            return SyncError(round_.last_error)
        case _:
            return Pending()
