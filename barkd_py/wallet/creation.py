"""Making a wallet: everything that it needs to be opened, in a database that holds none."""

import logging
from collections.abc import Callable
from pathlib import Path

from barkd_py.ark.info import ArkInfo
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.config import WalletConfig
from barkd_py.errors import BarkdError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.client import ArkServer
from barkd_py.wallet.connections import CreateFailed, connection_settings, open_usable_chain
from barkd_py.wallet.recovery.progress import FORMAT as PROGRESS_FORMAT
from barkd_py.wallet.recovery.progress import Progress
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.store.properties import WalletExists, WalletProperties

log = logging.getLogger(__name__)


async def create_wallet(
    database: Path | str,
    *,
    seed: Seed,
    network: Network,
    config: WalletConfig,
    birthday_height: int | None = None,
    recover: bool = False,
    without_server: bool = False,
    keep_words: Callable[[], None] = lambda: None,
) -> str:
    """Make a wallet in a database that holds none; nothing stays open. Returns its fingerprint.

    The order: chain source, what an earlier attempt has left is removed, server (its keys are pinned),
    on-chain wallet with its scan, and the wallet's own row last, so that a database without that row holds
    no wallet.
    recover: the seed was in use before; VTXOs are looked for once the wallet is open.
    without_server: make the wallet even if the server cannot be reached or used; nothing is pinned then.
    keep_words: called just before that row is written: there is no wallet whose words are kept nowhere.
    Raises WalletExists, and what keeps it from being made.
    """
    network = _canonical(network)
    keys = WalletKeys(seed)
    chain = await open_usable_chain(config, network)
    try:
        store = await Store.open(str(database))
        try:
            await _clear(store)
            properties = await _prepare(
                store, chain, keys, seed, network, config, birthday_height, recover, without_server
            )
            keep_words()
            async with store.transaction() as tx:
                await tx.properties.create(properties)
                if recover:
                    # Blocks were read from the birthday on only; another kind of source was searched whole.
                    searched = Progress(is_onchain_done=not chain.reads_blocks)
                    await tx.recovery.begin(PROGRESS_FORMAT.encode(searched))
        finally:
            await store.close()
    finally:
        await chain.close()
    return keys.fingerprint


async def _clear(store: Store) -> None:
    """Remove what a creation has left that came to no end. Raises WalletExists for a whole wallet."""
    async with store.read() as tx:
        if await tx.properties.find() is not None:
            raise WalletExists
    await store.erase()


async def _prepare(
    store: Store,
    chain: ChainSource,
    keys: WalletKeys,
    seed: Seed,
    network: Network,
    config: WalletConfig,
    birthday_height: int | None,
    recover: bool,
    without_server: bool,
) -> WalletProperties:
    """Everything but the wallet's own row, which is returned."""
    server = ArkServer(connection_settings(config, network))
    info: ArkInfo | None = None
    try:
        info = await server.refresh()
    except BarkdError as error:
        if not without_server:
            refused = CreateFailed("Failed to connect to provided server")
            refused.__cause__ = error
            raise CreateFailed("error creating wallet: error creating new wallet") from refused
        log.warning("creating a wallet without its Ark server: %s", chain_text(error))
    finally:
        await server.close()
    await OnchainWallet.create(
        OnchainTables(store), chain, seed, network, birthday_height=birthday_height if recover else None
    )
    return WalletProperties(
        network=network.bitcoin_name,
        fingerprint=keys.fingerprint,
        server_pubkey=None if info is None else info.server_pubkey,
        server_mailbox_pubkey=None if info is None else info.mailbox_pubkey,
        recovery_pending=recover,
    )


def _canonical(network: Network) -> Network:
    """Mutinynet is a signet: which one a wallet is on shows in its servers only."""
    return Network.from_bitcoin_name(network.bitcoin_name)
