"""Why an invoice is not made or canceled, and how a payment that was to come in can go wrong."""

from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import (
    BarkdError,
    NotFound,
    ProtocolViolation,
    ServerUnavailable,
    StateConflict,
)


class ReceiveCanceled(BarkdError):
    """The server will not take a payment for this invoice any more."""

    def __init__(self, payment_hash: bytes) -> None:
        super().__init__(f"Lightning receive {payment_hash.hex()} canceled server-side")


class AlreadySettled(BarkdError):
    """The server says that this payment is over, although we never released it."""

    def __init__(self) -> None:
        super().__init__("payment already settled")


class WindowClosed(BarkdError):
    """The preimage was kept, so the sender gets the money back."""

    def __init__(self) -> None:
        super().__init__("HTLC claim window closed, abandoning")


class ClaimTimeout(ServerUnavailable):
    """The server may still cosign the claim; it is asked again."""

    def __init__(self) -> None:
        super().__init__("the server takes too long to cosign the claim")


class ClaimBudgetExhausted(BarkdError):
    """The claim goes on being tried, but less often."""

    def __init__(self) -> None:
        super().__init__("lightning receive claim retry budget exhausted")


class HtlcsLost(BarkdError):
    """Neither the server nor the chain gave us the money that we released the preimage for."""

    def __init__(self, payment_hash: bytes) -> None:
        super().__init__(f"the HTLC VTXOs of payment {payment_hash.hex()} are lost")


class NoMailbox(BarkdError):
    """There is nowhere to leave what is for another wallet. Refused when the invoice is made."""

    def __init__(self) -> None:
        super().__init__("no mailbox delivery mechanism configured on destination")


class ZeroInvoice(BarkdError):
    def __init__(self) -> None:
        super().__init__(
            "Cannot create invoice for 0 sats "
            "(this would create an explicit 0 sat invoice, not an any-amount invoice)"
        )


class AbsurdFee(BarkdError):
    """The server's schedule takes more than anybody would give. No invoice was made."""

    def __init__(self, fee_sat: int, amount_sat: int) -> None:
        super().__init__(
            f"the server keeps a fee of {format_btc(fee_sat)} of a payment of {format_btc(amount_sat)}"
        )


class UnreadableInvoice(ProtocolViolation):
    """What the server returned is no invoice; the cause says why."""

    def __init__(self) -> None:
        super().__init__("invalid bolt11 invoice returned by Ark server")


class UnknownReceive(NotFound):
    """No payment of this hash is expected."""

    def __init__(self, payment_hash: bytes) -> None:
        text = payment_hash.hex()
        super().__init__("no pending lightning receive found for this payment hash", (text,))


class CannotCancelReceive(StateConflict):
    """It is too late. Nothing was changed."""


class AboveMaximum(BarkdError):
    """The server holds no VTXO of this amount."""

    def __init__(self, amount_sat: int, maximum_sat: int) -> None:
        super().__init__(
            f"amount of {format_btc(amount_sat)} exceeds maximum value of {format_btc(maximum_sat)}"
        )
