"""How the runtime makes and opens wallets: `WalletBackend` on `barkd_py.wallet.wallet.Wallet`."""

from collections.abc import Callable
from pathlib import Path

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.loops import Daemon
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import DATABASE_FILE
from barkd_py.wallet.wallet import Wallet


class Backend:
    """Wallets whose database is a file of the data directory."""

    async def create(self, datadir: Path, new: NewWallet) -> None:
        await Wallet.create(
            datadir / DATABASE_FILE,
            seed=parse_mnemonic(new.mnemonic),
            network=new.network,
            config=new.config,
            birthday_height=new.birthday_height,
            recover=new.recover,
            without_server=new.without_server,
        )

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        wallet = await Wallet.open(
            datadir / DATABASE_FILE, seed=parse_mnemonic(mnemonic), load_config=load_config
        )
        wallet.background = Daemon(wallet)
        return wallet


def default_backend() -> WalletBackend:
    return Backend()
