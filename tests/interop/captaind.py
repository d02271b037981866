"""The real Ark server, captaind, beside a devnet that runs on a real bitcoind.

Only where `CAPTAIND_EXEC` names its executable and `CAPTAIND_CONFIG` its default configuration file: it is
not published as a package. With it, every test that asks for the fixture `devnet` runs against it.
"""

import json
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import tomli_w

from tests.support.postgres import require_binaries, run_cluster
from tests.support.processes import START_DEADLINE_SECS, Devnet, Process, free_port

# What a test cannot wait for is shorter than in production; everything else is the server's default.
_QUICK: dict[str, Any] = {
    "network": "regtest",
    "vtxo_exit_delta": 12,
    "required_board_confirmations": 1,
    "min_trusted_confs": 1,
    "round_interval": "20s",
    "round_submit_time": "1s",
    "round_sign_time": "2s",
    "txindex_check_interval": "200ms",
    "transaction_rebroadcast_interval": "2s",
}


@contextmanager
def captaind_on(devnet: Devnet, executable: str, default_config: str, directory: Path) -> Iterator[Devnet]:
    """Run captaind on the devnet's bitcoind; yields the devnet with captaind in place of its Ark server."""
    with run_cluster(require_binaries()) as cluster:
        ports = [free_port() for _ in range(3)]
        config = directory / "captaind.toml"
        config.write_text(tomli_w.dumps(_config(devnet, default_config, directory, cluster.port, ports)))
        subprocess.run(
            [executable, "create", "--config", config], check=True, capture_output=True, timeout=60
        )
        process = Process([executable, "start", "--config", str(config)], directory / "captaind.log")
        process.launch()
        try:
            address = _wallet_address(executable, ports[1], process)
            with httpx.Client(base_url=devnet.control_url, timeout=60) as levers:
                for _ in range(3):
                    levers.post("/fund", json={"address": address, "amount_sat": 100_000_000})
                levers.post("/mine", json={"blocks": 3})
            yield replace(devnet, ark_server_url=f"http://127.0.0.1:{ports[0]}")
        finally:
            process.kill()


def _config(
    devnet: Devnet, default_config: str, directory: Path, postgres_port: int, ports: list[int]
) -> dict[str, Any]:
    config = tomllib.loads(Path(default_config).read_text())
    config.update(_QUICK, data_dir=str(directory / "captaind"))
    public, admin, integration = (f"127.0.0.1:{port}" for port in ports)
    config["rpc"] = {
        "public_address": public,
        "admin_address": admin,
        "integration_address": integration,
    }
    config["postgres"].update(
        host="127.0.0.1", port=postgres_port, name="ark", user="postgres", password="unused"
    )
    assert devnet.bitcoind_url is not None
    assert devnet.bitcoind_cookie is not None
    url = urlsplit(devnet.bitcoind_url)
    config["bitcoind"] = {
        "url": f"http://{url.hostname}:{url.port}",
        "cookie": devnet.bitcoind_cookie,
    }
    config["vtxopool"]["vtxo_targets"] = []
    return config


def _wallet_address(executable: str, admin_port: int, process: Process) -> str:
    """The address of the wallet that pays for rounds; waits until the server answers."""
    command = [executable, "rpc", "--addr", f"127.0.0.1:{admin_port}", "wallet"]
    deadline = time.monotonic() + START_DEADLINE_SECS
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0:
            address: str = json.loads(done.stdout)["rounds"]["address"]
            return address
        if not process.running or time.monotonic() > deadline:
            raise AssertionError(f"captaind did not start: {process.tail()}")
        time.sleep(0.1)
