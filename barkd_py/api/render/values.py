"""Values that many answers have. Source: protocol sheet 07 §7.1."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import BlockRef

Json = dict[str, Any]

_DURATION_UNITS: Final = (
    ("year", 31_557_600),
    ("month", 2_630_016),
    ("day", 86_400),
)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with the shortest exact fraction: `2026-06-01T12:00:00.5` is written `….500Z`."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    if not utc.microsecond:
        return f"{utc.isoformat(timespec='seconds')}Z"
    return f"{utc.isoformat(timespec='microseconds' if utc.microsecond % 1000 else 'milliseconds')}Z"


def duration(seconds: int) -> str:
    """`1h 30m`, `2days`, `0s`; a year has 365.25 days and a month a twelfth of that."""
    parts = []
    for name, length in _DURATION_UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{name}{'s' if count > 1 else ''}")
    for name, length in (("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


def transaction(tx: Tx) -> Json:
    return {"txid": str(tx.txid), "tx": tx.serialize().hex()}


def block_ref(block: BlockRef) -> Mapping[str, object]:
    return {"height": block.height, "hash": str(block.hash)}
