"""Why the daemon does not make, open, hand out or delete a wallet.

The texts are barkd's where clients know them. Source: protocol sheet 07 §6.2, §9.5.
"""

from barkd_py.errors import BarkdError, InvalidInput, WalletNotLoaded


class WalletAlreadySet(InvalidInput):
    def __init__(self) -> None:
        super().__init__("Wallet already set")


class BadMnemonic(InvalidInput):
    def __init__(self) -> None:
        super().__init__("bad request: Invalid mnemonic")


class DeletionNotConfirmed(InvalidInput):
    def __init__(self) -> None:
        super().__init__("deletion not confirmed: set dangerous=true")


class FingerprintMismatch(InvalidInput):
    def __init__(self) -> None:
        super().__init__("Fingerprint does not match the loaded wallet")


class WalletElsewhere(WalletNotLoaded):
    """Another daemon runs the wallet; this one stands by."""

    def __init__(self) -> None:
        BarkdError.__init__(self, "another daemon runs this wallet; this one takes over when that ends")


class CreationFailed(BarkdError):
    """No wallet was made, and what was begun is gone again."""

    def __init__(self) -> None:
        super().__init__("Error while creating wallet")


class DeletionFailed(BarkdError):
    """The wallet is unloaded but not all of its files are gone; deleting again completes it."""

    def __init__(self) -> None:
        super().__init__("Couldn't delete wallet")


class CreateRefused(BarkdError):
    """The request for a new wallet makes no sense together with what is there."""


class RuntimeStopped(BarkdError):
    def __init__(self) -> None:
        super().__init__("barkd is shutting down")
