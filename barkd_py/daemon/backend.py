"""Where the runtime's wallets come from."""

from collections.abc import Callable
from pathlib import Path

from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.errors import StoreError


class _NoWallets:
    """Stands in until the wallet itself is there: every wallet is unreadable."""

    async def create(self, datadir: Path, new: NewWallet) -> None:
        raise StoreError("wallets cannot be created yet")

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        raise StoreError("failed to read properties")


def default_backend() -> WalletBackend:
    """The backend of the daemon."""
    return _NoWallets()
