"""What somebody asks a new wallet to be, and the settings that come of it.

A request names as much as it likes; the network's defaults fill the rest. What is already in the data
directory's `config.toml` is never mixed with what a request names: one of the two speaks. Nothing here
touches any other file.
Source: protocol sheet 07 §6.2.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from barkd_py.bitcoin.bip32 import InvalidMnemonic, parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import GAP_LIMIT_MAX, ConfigError, WalletConfig, load_config, write_config
from barkd_py.daemon.errors import BadMnemonic, CreateRefused

log = logging.getLogger(__name__)

_DEFAULT_ESPLORA: Mapping[Network, str] = {
    Network.MAINNET: "https://mempool.second.tech/api",
    Network.SIGNET: "https://esplora.signet.2nd.dev/",
    Network.MUTINYNET: "https://mutinynet.com/api",
}
_DEFAULT_ARK_SERVER: Mapping[Network, str] = {
    Network.MAINNET: "https://ark.second.tech/",
    Network.SIGNET: "https://ark.signet.2nd.dev/",
}


@dataclass(frozen=True, slots=True)
class Esplora:
    url: str


@dataclass(frozen=True, slots=True)
class CookieAuth:
    cookie_file: str


@dataclass(frozen=True, slots=True)
class UserPassAuth:
    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bitcoind:
    url: str
    auth: CookieAuth | UserPassAuth


@dataclass(frozen=True, slots=True)
class CreateWallet:
    """What somebody wants a wallet to be. None: the default of the network, or of the settings."""

    network: Network
    ark_server: str | None = None
    access_token: str | None = field(default=None, repr=False)
    chain_source: Esplora | Bitcoind | None = None
    mnemonic: str | None = field(default=None, repr=False)
    birthday_height: int | None = None
    gap_limit: int | None = None
    force: bool = False


def check_mnemonic(phrase: str) -> None:
    """Raises BadMnemonic."""
    try:
        parse_mnemonic(phrase)
    except InvalidMnemonic as error:
        raise BadMnemonic from error


def check_birthday(request: CreateWallet, config: WalletConfig) -> None:
    """Only a recovery has a birthday, and only a recovery from bitcoind needs one."""
    if request.mnemonic is None:
        if request.birthday_height is not None:
            raise CreateRefused("Can't set --birthday-height if --mnemonic is not set.")
    elif request.birthday_height is None:
        if config.bitcoind_address is not None:
            raise CreateRefused("You need to set the --birthday-height field when recovering from mnemonic.")
    elif config.esplora_address is not None:
        log.warning("The given --birthday-height will be ignored because you're using Esplora.")


def settle_config(
    request: CreateWallet, path: Path, *, existed: bool, environment: Mapping[str, str] | None
) -> WalletConfig:
    """The settings of the new wallet: those of the file that is there, else the request's, written down.

    path: of config.toml. environment: see `Runtime`. Raises CreateRefused or ConfigError.
    """
    given = _given_settings(request)
    if existed:
        if given:
            raise CreateRefused("Cannot provide an existing config file and config flags")
        try:
            return load_config(path, request.network, environment)
        except ConfigError as error:
            raise ConfigError(f"error loading existing config file at {path}") from error
    write_config(path, _complete_settings(request, given))
    try:
        return load_config(path, request.network, environment)
    except ConfigError as error:
        raise ConfigError("problematic config flags provided") from error


def _given_settings(request: CreateWallet) -> dict[str, str | int]:
    """The settings that the request itself names."""
    given: dict[str, str | int | None] = {
        "server_address": request.ark_server,
        "server_access_token": request.access_token,
        "vtxo_key_gap_limit": request.gap_limit,
    }
    match request.chain_source:
        case Esplora(url):
            given["esplora_address"] = url
        case Bitcoind(url, CookieAuth(cookie_file)):
            given |= {"bitcoind_address": url, "bitcoind_cookiefile": cookie_file}
        case Bitcoind(url, UserPassAuth(user, password)):
            given |= {"bitcoind_address": url, "bitcoind_user": user, "bitcoind_pass": password}
    return {key: value for key, value in given.items() if value is not None}


def _complete_settings(request: CreateWallet, given: dict[str, str | int]) -> dict[str, str | int]:
    """What goes into a new config.toml: what was given, and the defaults of the network."""
    settings = dict(given)
    if request.chain_source is None and request.network in _DEFAULT_ESPLORA:
        settings["esplora_address"] = _DEFAULT_ESPLORA[request.network]
    if request.ark_server is None and request.network in _DEFAULT_ARK_SERVER:
        settings["server_address"] = _DEFAULT_ARK_SERVER[request.network]
    if not settings.keys() & {"esplora_address", "bitcoind_address"}:
        raise ConfigError("invalid config options") from ConfigError(
            "You need to provide a chain source using either --esplora or --bitcoind"
        )
    if request.gap_limit is not None and request.gap_limit > GAP_LIMIT_MAX:
        raise ConfigError("invalid config options") from ConfigError(
            f"--gap-limit {request.gap_limit} is above the maximum of {GAP_LIMIT_MAX}"
        )
    if "server_address" not in settings:
        raise CreateRefused("missing --ark arg")
    for key, name, scheme in (
        ("server_address", "ark server", "https"),
        ("esplora_address", "esplora", "https"),
        ("bitcoind_address", "bitcoind", "http"),
    ):
        if key in settings:
            settings[key] = _complete_url(str(settings[key]), name, scheme)
    return settings


def _complete_url(url: str, name: str, scheme: str) -> str:
    """The URL, with a scheme if it had none. Raises ConfigError for what is no URL."""
    problem = None
    complete = url if "://" in url else f"{scheme}://{url}"
    if not url:
        problem = "empty string"
    else:
        try:
            parts = urlsplit(complete)
            if not parts.hostname or (parts.port is not None and not 0 <= parts.port <= 0xFFFF):
                problem = "invalid authority"
        except ValueError:
            problem = "invalid authority"
        if any(character.isspace() or not character.isprintable() for character in url):
            problem = "invalid uri character"
    if problem is not None:
        raise ConfigError(f"invalid {name} URL") from ConfigError(f"invalid url: {problem}")
    return complete
