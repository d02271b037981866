"""What a recovery found, for people and for the API."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """finished_at: None while it goes on. error: what keeps it from finishing.

    searched_by_key: whether the server could look for our keys; else only what somebody noted was found.
    pending: VTXOs that are asked for again from time to time.
    """

    started_at: datetime
    finished_at: datetime | None
    error: str | None
    searched_by_key: bool
    entries: tuple[RecoveryEntry, ...]
    pending: int

    @property
    def is_complete(self) -> bool:
        """Everything that was heard of is accounted for, and is ours."""
        doubtful = {RecoveryOutcome.FAILED, RecoveryOutcome.FOREIGN}
        return self.finished_at is not None and not any(entry.outcome in doubtful for entry in self.entries)

    def counts(self) -> Mapping[RecoveryOutcome, int]:
        counts = dict.fromkeys(RecoveryOutcome, 0)
        for entry in self.entries:
            counts[entry.outcome] += 1
        return counts

    def amount_sat(self, outcome: RecoveryOutcome) -> int:
        return sum(entry.amount_sat or 0 for entry in self.entries if entry.outcome is outcome)

    def __str__(self) -> str:
        """One line for the log."""
        counts = self.counts()
        numbers = ", ".join(f"{counts[outcome]} {outcome.value.replace('_', ' ')}" for outcome in counts)
        recovered = self.amount_sat(RecoveryOutcome.RECOVERED)
        return f"{len(self.entries)} VTXOs: {numbers}; {recovered} sat recovered"


__all__ = ["RecoveryEntry", "RecoveryOutcome", "RecoveryReport"]
