"""Settings of a wallet: `config.toml` in the data directory, over it `BARK_*` in the environment.

A value comes from the environment, else from the file, else from the default of the network. Keys that this
program does not know are passed over, so a file written by another version stays usable. The file is written
once, when a wallet is created, and then belongs to the user.

Source: protocol sheet 07 §9.7; sheet 09 §8.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from barkd_py.bitcoin.units import Network
from barkd_py.datadir import FileFailure, write_private
from barkd_py.errors import BarkdError

GAP_LIMIT_MAX: Final = 100_000
ENVIRONMENT_PREFIX: Final = "BARK_"

_TRUE: Final = frozenset({"1", "true", "on", "yes"})
_FALSE: Final = frozenset({"0", "false", "off", "no"})


class ConfigError(BarkdError):
    """The settings cannot be used."""


def _boolean(value: object) -> object:
    """The words for true and false that the environment may use."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    return value


Blocks = Annotated[int, Field(ge=0, le=0xFFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]
RestContract = Literal["auto", "0.1.4", "0.8.0"]


class WalletConfig(BaseModel):
    """The settings with every default filled in. See docs/configuration.md for what each one does."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    server_address: str = "http://127.0.0.1:3535"
    server_access_token: str | None = Field(default=None, repr=False)
    user_agent: str | None = None
    esplora_address: str | None = None
    bitcoind_address: str | None = None
    bitcoind_cookiefile: Path | None = None
    bitcoind_user: str | None = Field(default=None, repr=False)
    bitcoind_pass: str | None = Field(default=None, repr=False)
    bitcoind_zmq_address: str | None = None
    socks5_proxy: str | None = None
    vtxo_refresh_expiry_threshold: Blocks
    vtxo_refresh_max_fee_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Ours, not upstream's: what a refresh may cost that nobody asked for."""
    vtxo_exit_margin: Blocks = 12
    htlc_recv_claim_delta: Blocks = 18
    lightning_receive_claim_retries: Annotated[int, Field(ge=0, le=0xFF)] = 5
    fallback_fee_rate: U64
    """sat/kwu, used until the chain source gives an estimate."""
    round_tx_required_confirmations: Blocks = 1
    offboard_required_confirmations: Blocks
    offboard_lost_tx_grace_period_secs: U64 = 3600
    daemon_sync_interval_secs: Annotated[int, Field(ge=1, le=0xFFFF_FFFF_FFFF_FFFF)] = 60
    daemon_manual_sync: Annotated[bool, BeforeValidator(_boolean)] = False
    change_vtxo_split_factor: Annotated[int, Field(ge=0, le=0xFF)] = 2
    vtxo_key_gap_limit: Annotated[int, Field(ge=0, le=0xFFFF_FFFF)] = 250
    rest_contract: RestContract = "auto"
    """Ours, not upstream's: the version whose vocabulary REST clients get that do not name theirs."""

    def check(self) -> None:
        """Refuse values that the field types alone let pass. Raises ConfigError."""
        if self.change_vtxo_split_factor not in (1, 2, 3):
            raise ConfigError(
                f"change_vtxo_split_factor must be 1, 2 or 3, got {self.change_vtxo_split_factor}"
            )
        if self.vtxo_key_gap_limit > GAP_LIMIT_MAX:
            raise ConfigError(
                f"vtxo_key_gap_limit {self.vtxo_key_gap_limit} is above the maximum of {GAP_LIMIT_MAX}"
            )


_TEXTS: Final = frozenset(
    name
    for name, field in WalletConfig.model_fields.items()
    if field.annotation is str or str in get_args(field.annotation)
)


def _network_defaults(network: Network) -> dict[str, int]:
    if network is Network.MAINNET:
        return {
            "vtxo_refresh_expiry_threshold": 144,
            "fallback_fee_rate": 500,
            "offboard_required_confirmations": 2,
        }
    return {
        "vtxo_refresh_expiry_threshold": 12,
        "fallback_fee_rate": 250,
        "offboard_required_confirmations": 0,
    }


def load_config(path: Path, network: Network, environment: Mapping[str, str] | None = None) -> WalletConfig:
    """Read the settings of a wallet. A missing file counts as an empty one.

    environment: defaults to the environment of the process. Raises ConfigError.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {**_network_defaults(network), **_read_toml(path)}
    values |= _from_environment(environment)
    try:
        config = WalletConfig.model_validate(values, strict=False)
    except ValidationError as error:
        raise ConfigError(f"error building config: {_first_problem(error)}") from None
    config.check()
    return config


def write_config(path: Path, values: Mapping[str, str | int]) -> None:
    """Write a new config.toml with exactly these keys, readable by the owner only."""
    unknown = values.keys() - WalletConfig.model_fields.keys()
    assert not unknown, f"not settings: {unknown}"
    write_private(path, tomli_w.dumps(dict(values)).encode())


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in WalletConfig.model_fields:
        text = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            found[name] = text if name in _TEXTS else text.strip()
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"error building config: {path} is not UTF-8") from error
    except OSError as error:
        raise ConfigError("error building config") from FileFailure(error)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"error building config: {_toml_problem(text, error)} in {path}") from None


def _toml_problem(text: str, error: tomllib.TOMLDecodeError) -> str:
    """Where the file stops being TOML, shown with its line, unless that line may hold a secret."""
    message = str(error)
    reason, _, place = message.partition(" (at ")
    digits = [int(part) for part in place.replace(",", " ").replace(")", " ").split() if part.isdigit()]
    if len(digits) != 2:
        return f"TOML parse error: {message}\n"
    line, column = digits
    gutter = " " * len(str(line))
    lines = text.splitlines()
    shown = lines[line - 1] if line <= len(lines) else ""
    if any(word in shown for word in ("pass", "token", "user")):
        shown = shown.partition("=")[0] + "= …"
    return (
        f"TOML parse error at line {line}, column {column}\n"
        f"{gutter} |\n{line} | {shown}\n{gutter} | {' ' * (column - 1)}^\n{reason}\n"
    )


def _first_problem(error: ValidationError) -> str:
    """Names the setting and what is wrong with it, never its value: it may be a password."""
    problem = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"
