"""Why the daemon does not make, open, hand out or delete a wallet.

The texts are barkd's where clients know them. Source: protocol sheet 07 §6.2, §9.5.
"""

from pathlib import Path

from barkd_py.datadir import DATABASE_FILE
from barkd_py.errors import BarkdError, InvalidInput, StoreError, WalletNotLoaded


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


class OthersInside(InvalidInput):
    """What is to be removed belongs to another daemon; the cause says which, and it goes on."""

    def __init__(self) -> None:
        super().__init__(
            "another daemon runs on a database in this data directory, which would be removed; stop it, and "
            "move its database away, first"
        )


class WalletElsewhere(WalletNotLoaded):
    """Another daemon runs the wallet; this one stands by."""

    def __init__(self) -> None:
        BarkdError.__init__(self, "another daemon runs this wallet; this one takes over when that ends")


class WalletOutOfReach(WalletNotLoaded):
    """This daemon stands by, and nobody is known to run the wallet; the cause says what keeps it away."""

    def __init__(self) -> None:
        BarkdError.__init__(self, "this daemon stands by for its wallet, and cannot open it")


class CreationFailed(BarkdError):
    """No wallet was made, and what was begun is gone again."""

    def __init__(self) -> None:
        super().__init__("Error while creating wallet")


class DeletionFailed(BarkdError):
    """Not all of it is gone, and deleting again completes it. With the words left, the daemon stands by."""

    def __init__(self) -> None:
        super().__init__("Couldn't delete wallet")


class CreateRefused(BarkdError):
    """The request for a new wallet makes no sense together with what is there."""


class NoWalletInDatabase(StoreError):
    """There is a mnemonic, and nothing else of its wallet."""

    def __init__(self, datadir: Path, *, at_url: bool) -> None:
        doubt = (
            "the database that BARKD_DATABASE_URL names holds no wallet: is it the right one, and did nobody "
            "delete the wallet?"
            if at_url
            else f"{datadir / DATABASE_FILE} holds no wallet of barkd-py: is BARKD_DATABASE_URL missing?"
        )
        super().__init__(
            f"there is a mnemonic in {datadir}, but {doubt} A wallet moves from one database to another by "
            "`barkd backup` and `barkd restore`, and comes from barkd by its words (docs/migration.md)"
        )


class OtherWalletInDatabase(StoreError):
    """The database is somebody else's, by now at least."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(f"the database that BARKD_DATABASE_URL names holds another wallet, {fingerprint}")


class DatabaseMoved(StoreError):
    """The wallet is in another database now."""

    def __init__(self, aside: Path) -> None:
        super().__init__(
            f"the wallet was moved to another database, and its old one is {aside}: set BARKD_DATABASE_URL. "
            "Do not put the old one back: it would pay with VTXOs that are spent"
        )


class TwoDatabases(StoreError):
    """Nobody can tell which of them is the wallet."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"there is a wallet in {file}, and BARKD_DATABASE_URL names another database: unset it; or move "
            "the wallet there with `barkd backup` and `barkd restore`, which puts the file aside"
        )


class RuntimeStopped(BarkdError):
    def __init__(self) -> None:
        super().__init__("barkd is shutting down")
