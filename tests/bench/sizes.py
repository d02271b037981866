"""Two wallets whose figures stand side by side. An answer of one length should cost the same in both."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """flows: payments under way."""

    vtxos: int
    movements: int
    flows: int

    def __str__(self) -> str:
        return f"{self.vtxos:,} VTXOs"


SMALL = Size(1_000, 10_000, 100)
LARGE = Size(10_000, 100_000, 1_000)
