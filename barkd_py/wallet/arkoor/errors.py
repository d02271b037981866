"""What payments to Ark addresses refuse, and what can go wrong with them."""

from barkd_py.errors import BarkdError, InvalidInput


class ZeroAmount(BarkdError):
    """Upstream takes it, and never finishes."""

    def __init__(self) -> None:
        super().__init__("Cannot send 0 sats")


class UnusableMailbox(InvalidInput):
    """The address names a mailbox that no server could find: a payment to it would be lost."""

    def __init__(self) -> None:
        super().__init__("Ark address has an invalid mailbox id")


class AddressUnchecked(InvalidInput):
    """Our server was never reached: nobody knows whose the address is. barkd blames the address."""

    def __init__(self, reason: BarkdError) -> None:
        super().__init__(f"Other error: {reason}")


class DeliveryFailed(BarkdError):
    """The recipient could not be told. The payment is cosigned and theirs all the same."""

    def __init__(self) -> None:
        super().__init__("arkoor payment could not be delivered")
