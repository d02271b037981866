"""What a board can be, and how that is stored.

    Broadcasting ── seen by the chain source ──▶ Confirming ── registered ──▶ done: spendable
         │                                           │
         └── an input was double-spent by a confirmed transaction ──▶ done: failed, VTXO spent

The exit transaction is signed by both sides and stored *before* the funding transaction leaves the machine,
so the money is never without a way out.

Source: sheet 03 §1.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.bitcoin.tx import OutPoint
from barkd_py.wallet.store.payloads import PayloadFormat, TxHex, VtxoIdText


@dataclass(frozen=True, slots=True)
class Broadcasting:
    """Signed and stored; the chain source has not shown the funding transaction yet."""

    funding_tx: TxHex
    vtxo_id: VtxoIdText
    amount_sat: int
    type: Literal["broadcasting"] = "broadcasting"


@dataclass(frozen=True, slots=True)
class Confirming:
    """On its way into a block, and then to the server. last_trouble: why registering failed last time."""

    funding_tx: TxHex
    vtxo_id: VtxoIdText
    amount_sat: int
    last_trouble: str | None = None
    type: Literal["confirming"] = "confirming"


State = Broadcasting | Confirming
FORMAT: PayloadFormat[State] = PayloadFormat(
    "board", lambda: TypeAdapter(Annotated[State, Field(discriminator="type")])
)


def board_action_id(utxo: OutPoint) -> str:
    return f"board.{utxo.txid}.{utxo.vout}"
