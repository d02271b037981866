"""How a wallet reaches its Ark server and its chain source, by its configuration."""

from typing import Final

from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain.bitcoind import BitcoindSource, CookieFile, RpcClient, UserPass
from barkd_py.chain.esplora import EsploraSource
from barkd_py.chain.source import ChainSource, NodeTooOld
from barkd_py.config import ConfigError, WalletConfig
from barkd_py.errors import BarkdError, ChainError
from barkd_py.server_rpc.connection import ConnectionSettings
from barkd_py.version import USER_AGENT


class CreateFailed(BarkdError):
    """No wallet was made, or opened; the cause says why."""


def connection_settings(config: WalletConfig, network: Network) -> ConnectionSettings:
    """How this configuration reaches its Ark server."""
    return ConnectionSettings(
        address=config.server_address,
        network=network.bitcoin_name,
        user_agent=config.user_agent or USER_AGENT,
        access_token=config.server_access_token,
        socks5_proxy=config.socks5_proxy,
        vtxo_exit_margin=config.vtxo_exit_margin,
    )


def open_chain_source(config: WalletConfig) -> ChainSource:
    """The configured chain source; Esplora where both are. Raises ConfigError."""
    fallback = FeeRate(config.fallback_fee_rate)
    if config.esplora_address is not None:
        return EsploraSource(
            config.esplora_address, fallback_fee_rate=fallback, socks5_proxy=config.socks5_proxy
        )
    if config.bitcoind_address is None:
        raise ConfigError("Need to either provide esplora or bitcoind info")
    auth: CookieFile | UserPass
    if config.bitcoind_cookiefile is not None:
        auth = CookieFile(config.bitcoind_cookiefile)
    elif config.bitcoind_user is not None and config.bitcoind_pass is not None:
        auth = UserPass(config.bitcoind_user, config.bitcoind_pass)
    else:
        raise ConfigError("need bitcoind auth config")
    return BitcoindSource(RpcClient(config.bitcoind_address, auth), fallback_fee_rate=fallback)


_UNUSABLE: Final = "failed to create a chain source client with the config"


async def open_usable_chain(config: WalletConfig, network: Network) -> ChainSource:
    """The chain source, which was asked whether it can be used. Raises CreateFailed, ChainError."""
    try:
        chain = open_chain_source(config)
    except BarkdError as error:
        raise CreateFailed(_UNUSABLE) from error
    try:
        await chain.check_startup(network)
    except BaseException as error:
        await chain.close()
        if isinstance(error, NodeTooOld):
            raise CreateFailed("chain source version check failed") from error
        if isinstance(error, ChainError):
            raise CreateFailed(_UNUSABLE) from error
        raise
    return chain
