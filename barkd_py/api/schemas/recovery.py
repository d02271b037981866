"""Tag `wallet`: recovery from the mnemonic. barkd has no such calls."""

import enum
from typing import Annotated

from pydantic import Field

from barkd_py.api.schemas.common import U32, U64, Schema


class RecoveryState(enum.StrEnum):
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class RecoveryOutcome(enum.StrEnum):
    RECOVERED = "recovered"
    LOCKED = "locked"
    EXITED = "exited"
    SKIPPED = "skipped"
    FOREIGN = "foreign"
    FAILED = "failed"
    NOT_FOUND = "not_found"


class RecoveredVtxo(Schema):
    vtxo_id: str
    outcome: RecoveryOutcome
    amount_sat: U64 | None
    reason: str | None


class RecoveryCounts(Schema):
    recovered: U32
    locked: U32
    exited: U32
    skipped: U32
    foreign: U32
    failed: U32
    not_found: U32


class RecoveryReport(Schema):
    state: RecoveryState
    started_at: str
    finished_at: str | None
    error: str | None
    """What interrupted it; it goes on by itself."""
    complete: bool
    """It is finished, and everything that was heard of is ours and accounted for."""
    searched_by_key: bool
    """Whether the server could look for the wallet's keys; an older one only knows what was noted."""
    pending: U32
    """VTXOs that are asked for again from time to time."""
    counts: RecoveryCounts
    recovered_sat: U64
    vtxos: Annotated[list[RecoveredVtxo], Field(description="Everything that was heard of.")]
