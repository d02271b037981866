"""What a payment to an Ark address can be, and how that is stored.

    Cosigning ── cosigned by both ──▶ Delivering ── a mailbox took it ──▶ done: successful
        │                                 │
        └── refused ──▶ done, undone      └── every mailbox refuses, again and again ──▶ done: failed

A server whose answers are wrong is asked again; it counts as a refusal if the server still has the inputs as
spendable.

Inputs, change key and outputs are chosen and stored, with the inputs locked, in one transaction. From then on
the payment is fixed, and so every repetition of the cosign request asks for the very same transactions, with
fresh nonces: a server that has cosigned already does it again. For the same reason a *refusal* proves that it
never did, and the inputs can be released.

Once cosigned, the money is the recipient's. Inputs stay locked until the recipient has been told; then they
are spent and the change is stored, in the transaction that ends the action.

Source: sheet 03 §2.8.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.wallet.store.payloads import HexBytes, PayloadFormat, PublicKeyHex, VtxoHex, VtxoIdText


@dataclass(frozen=True, slots=True)
class Cosigning:
    """Inputs are locked, outputs are fixed; the server has perhaps cosigned.

    change_sat: the pieces of change, all to change_pubkey.
    """

    address: str
    recipient: PublicKeyHex
    amount_sat: int
    input_ids: tuple[VtxoIdText, ...]
    change_pubkey: PublicKeyHex
    change_sat: tuple[int, ...]
    blinded_ids: tuple[HexBytes, ...]
    bad_answers: int = 0
    type: Literal["cosigning"] = "cosigning"

    @property
    def outputs(self) -> tuple[ArkoorDestination, ...]:
        change_policy = PubkeyPolicy(self.change_pubkey)
        return (
            ArkoorDestination(self.amount_sat, PubkeyPolicy(self.recipient)),
            *(ArkoorDestination(amount_sat, change_policy) for amount_sat in self.change_sat),
        )


@dataclass(frozen=True, slots=True)
class Delivering:
    """Cosigned: `payment` belongs to the recipient, `change` to us; neither is stored anywhere else.

    registered: the server has the chains of all of them. refusals: how often every mailbox refused.
    """

    input_ids: tuple[VtxoIdText, ...]
    payment: tuple[VtxoHex, ...]
    change: tuple[VtxoHex, ...]
    blinded_ids: tuple[HexBytes, ...]
    registered: bool = False
    refusals: int = 0
    type: Literal["delivering"] = "delivering"


State = Cosigning | Delivering


def is_nothing_given(state: State) -> bool:
    """Whether nobody but us can move the inputs.

    Without our signatures the server's are worth nothing, and ours are first in what is delivered. Then the
    payment is the recipient's, who perhaps has it.
    """
    return isinstance(state, Cosigning)


FORMAT: PayloadFormat[State] = PayloadFormat(
    "arkoor send", lambda: TypeAdapter(Annotated[State, Field(discriminator="type")])
)
