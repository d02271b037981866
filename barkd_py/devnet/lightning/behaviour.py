"""How a payee outside Ark behaves when it is paid."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason
from barkd_py.errors import InvalidInput

REASONS = {reason.name.lower().replace("_", "-"): reason for reason in FailureReason}
"""The reasons of failures, by the names that the levers use."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a payee does.

    delay_secs: it takes its time. hold: it keeps the payment until it is told to settle or fail, or until the
    payment expires. never: no answer ever comes, not even then. fail: it refuses, with this reason;
    fail_times: only so often, so that whoever tries again succeeds; None for always. late: it takes the
    payment, but the payer's node calls it failed. answer_msat, foreign_key: invoices for an offer ask for
    that much whatever was wanted, or are signed by a stranger. route_fee_msat, route_cltv_delta: what the
    way to it costs.
    """

    delay_secs: float = 0.0
    hold: bool = False
    never: bool = False
    fail: str | None = None
    fail_times: int | None = None
    late: bool = False
    answer_msat: int | None = None
    foreign_key: bool = False
    route_fee_msat: int = 0
    route_cltv_delta: int = 0

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Behaviour":
        """From the fields of a request that are a behaviour's. Raises InvalidInput."""
        fields = {name: body[name] for name in cls.__dataclass_fields__ if body.get(name) is not None}
        for name, value in fields.items():
            wanted = _KINDS[name]
            if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
                raise InvalidInput(f"{name} has the wrong type")
        if (reason := fields.get("fail")) is not None and reason not in REASONS:
            raise InvalidInput(f"unknown reason {reason!r}; there are: {', '.join(REASONS)}")
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reason(self) -> FailureReason | None:
        return None if self.fail is None else REASONS[self.fail]


_KINDS: Mapping[str, Any] = {
    "delay_secs": int | float,
    "hold": bool,
    "never": bool,
    "fail": str,
    "fail_times": int,
    "late": bool,
    "answer_msat": int,
    "foreign_key": bool,
    "route_fee_msat": int,
    "route_cltv_delta": int,
}
