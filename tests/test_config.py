"""Settings of a wallet: file, environment, defaults."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.units import Network
from barkd_py.config import ConfigError, WalletConfig, load_config, write_config


def _load(path: Path, text: str = "", network: Network = Network.REGTEST, **environment: str) -> WalletConfig:
    file = path / "config.toml"
    file.write_text(text)
    return load_config(file, network, environment)


def test_defaults_differ_by_network(tmp_path: Path) -> None:
    test, main = _load(tmp_path), _load(tmp_path, network=Network.MAINNET)
    assert (test.vtxo_refresh_expiry_threshold, main.vtxo_refresh_expiry_threshold) == (12, 144)
    assert (test.fallback_fee_rate, main.fallback_fee_rate) == (250, 500)
    assert (test.offboard_required_confirmations, main.offboard_required_confirmations) == (0, 2)
    assert test.server_address == main.server_address == "http://127.0.0.1:3535"
    assert (test.daemon_sync_interval_secs, test.vtxo_key_gap_limit) == (60, 250)


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none", Network.REGTEST, {}) == _load(tmp_path)


def test_the_environment_beats_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    text = 'server_address = "http://file"\nvtxo_exit_margin = 5\ndaemon_manual_sync = true'
    config = _load(tmp_path, text, BARK_SERVER_ADDRESS="http://env", BARK_VTXO_KEY_GAP_LIMIT="7")
    assert config.server_address == "http://env"
    assert (config.vtxo_exit_margin, config.vtxo_key_gap_limit) == (5, 7)
    assert config.daemon_manual_sync


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("ON", True), ("yes", True), ("no", False), ("0", False)]
)
def test_booleans_of_the_environment(tmp_path: Path, text: str, value: bool) -> None:
    assert _load(tmp_path, BARK_DAEMON_MANUAL_SYNC=text).daemon_manual_sync is value


def test_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    _load(tmp_path, "daemon_fast_sync_interval_secs = 1\n[table]\nx = 1", BARK_UNKNOWN="x", BARK_LOG="debug")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vtxo_key_gap_limit = 100001", "vtxo_key_gap_limit 100001 is above the maximum of 100000"),
        ("change_vtxo_split_factor = 4", "change_vtxo_split_factor must be 1, 2 or 3, got 4"),
        ("change_vtxo_split_factor = 0", "change_vtxo_split_factor must be 1, 2 or 3, got 0"),
        ("vtxo_exit_margin = 65536", "error building config: vtxo_exit_margin: "),
        ('rest_contract = "0.2"', "error building config: rest_contract: "),
        ("daemon_sync_interval_secs = 0", "error building config: daemon_sync_interval_secs: "),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, text)
    assert str(refused.value).startswith(message)


def test_a_malformed_variable_is_refused_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="daemon_sync_interval_secs"):
        _load(tmp_path, BARK_DAEMON_SYNC_INTERVAL_SECS="soon")


def test_what_is_no_toml_is_shown_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, "x = 1\nthis is = not toml")
    message = str(refused.value)
    assert message.startswith("error building config: TOML parse error at line 2, column 6\n")
    assert "2 | this is = not toml\n" in message
    assert message.endswith(f" in {tmp_path}/config.toml")


@pytest.mark.parametrize(
    "text", ['bitcoind_pass = "hunter2', 'bitcoind_pass = ["hunter2"]', "server_access_token = {hunter2 = 1}"]
)
def test_secrets_are_in_no_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, text)
    assert "hunter2" not in str(refused.value)


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    config = _load(tmp_path, 'bitcoind_pass = "hunter2"\nserver_access_token = "hunter2"')
    assert config.bitcoind_pass == "hunter2"
    assert "hunter2" not in repr(config)


@given(st.text(max_size=30))
def test_any_value_survives_the_file(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    write_config(path, {"bitcoind_pass": value, "vtxo_key_gap_limit": 9})
    config = load_config(path, Network.REGTEST, {})
    assert (config.bitcoind_pass, config.vtxo_key_gap_limit) == (value, 9)
    assert config.server_address == "http://127.0.0.1:3535"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
