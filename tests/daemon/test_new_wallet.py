"""The settings of a new wallet: what was asked for, the network's defaults, and what makes no wallet."""

from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.errors import CreateRefused
from barkd_py.daemon.new_wallet import (
    Bitcoind,
    CookieAuth,
    CreateWallet,
    Esplora,
    check_birthday,
    settle_config,
)
from barkd_py.errors import BarkdError, chain_text
from tests.support.api_server import MNEMONIC

REQUEST = CreateWallet(
    Network.REGTEST, ark_server="http://127.0.0.1:3535", chain_source=Esplora("http://127.0.0.1:3000")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def settled(request: CreateWallet, path: Path) -> WalletConfig:
    return settle_config(request, path, existed=path.exists(), environment={})


@pytest.mark.parametrize(
    ("network", "server", "esplora"),
    [
        (Network.MAINNET, "https://ark.second.tech/", "https://mempool.second.tech/api"),
        (Network.SIGNET, "https://ark.signet.2nd.dev/", "https://esplora.signet.2nd.dev/"),
    ],
)
def test_networks_bring_their_defaults(path: Path, network: Network, server: str, esplora: str) -> None:
    config = settled(CreateWallet(network), path)
    assert (config.server_address, config.esplora_address) == (server, esplora)


def test_a_given_bitcoind_keeps_the_default_esplora_out(path: Path) -> None:
    config = settled(CreateWallet(Network.MAINNET, chain_source=Bitcoind("http://h", CookieAuth("/c"))), path)
    assert (config.esplora_address, str(config.bitcoind_cookiefile)) == (None, "/c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"chain_source": None},
            "invalid config options: You need to provide a chain source using either --esplora or --bitcoind",
        ),
        ({"ark_server": None}, "missing --ark arg"),
        ({"gap_limit": 100_001}, "invalid config options: --gap-limit 100001 is above the maximum of 100000"),
        ({"ark_server": ""}, "invalid ark server URL: invalid url: empty string"),
        ({"ark_server": "http://["}, "invalid ark server URL: invalid url: invalid authority"),
        ({"chain_source": Esplora("http://x:99999")}, "invalid esplora URL: invalid url: invalid authority"),
    ],
)
def test_settings_that_make_no_wallet(path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(BarkdError) as refused:
        settled(replace(REQUEST, **change), path)  # type: ignore[arg-type]
    assert chain_text(refused.value) == message
    assert not path.exists()


def test_settings_that_are_there_are_not_mixed_with_those_of_a_request(path: Path) -> None:
    text = 'server_address = "http://ark"\nesplora_address = "http://esplora"\n'
    path.write_text(text)
    with pytest.raises(CreateRefused):
        settled(REQUEST, path)
    assert settled(CreateWallet(Network.REGTEST), path).server_address == "http://ark"
    assert path.read_text() == text


def test_a_birthday_is_for_recoveries_and_needed_with_bitcoind(path: Path) -> None:
    with_esplora = settled(REQUEST, path)
    path.unlink()
    bitcoind = replace(REQUEST, chain_source=Bitcoind("http://h", CookieAuth("/c")))
    with_bitcoind = settled(bitcoind, path)
    with pytest.raises(CreateRefused, match="Can't set --birthday-height if --mnemonic is not set"):
        check_birthday(replace(REQUEST, birthday_height=5), with_esplora)
    with pytest.raises(CreateRefused, match="You need to set the --birthday-height field"):
        check_birthday(replace(bitcoind, mnemonic=MNEMONIC), with_bitcoind)
    check_birthday(replace(bitcoind, mnemonic=MNEMONIC, birthday_height=5), with_bitcoind)
    check_birthday(replace(REQUEST, mnemonic=MNEMONIC), with_esplora)
