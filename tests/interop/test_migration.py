"""docs/migration.md, step by step: the wallet of a real barkd 0.8.0 goes on in ours."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.interop.conftest import program
from tests.support import raw_http
from tests.support.processes import Daemon, Devnet, Process, esplora, eventually, free_port

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parent.parent.parent
BLOCKS = [
    re.sub(r"(?m)^   ", "", block)
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "migration.md").read_text(), re.S)
]


def _shell(script: str, home: Path) -> str:
    """Run lines of the page with a home directory of their own, and our command installed where it says."""
    commands = home / "barkd" / "bin"
    commands.mkdir(exist_ok=True, parents=True)
    for name in ("barkd", "barkd-py"):
        command = commands / name
        command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m barkd_py.cli "$@"\n')
        command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        env={"HOME": str(home), "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def _answers(port: int) -> bool:
    try:
        return (await raw_http.request(port, "GET", "/ping")).status == 200
    except OSError:
        return False


async def _spendable_sat(daemon: Daemon) -> int:
    await daemon.post("/wallet/sync")
    return int((await daemon.get("/wallet/balance"))["spendable_sat"])


async def test_a_wallet_moves_as_the_page_says(tmp_path: Path, devnet: Devnet, daemon: Daemon) -> None:
    port = free_port()
    old_dir, new_dir = tmp_path / ".bark", tmp_path / ".barkd-py"
    real = Process(
        [program("BARKD_EXEC", "barkd"), "--datadir", str(old_dir), "--port", str(port)], tmp_path / "old.log"
    )
    real.launch()
    try:
        await eventually(partial(_answers, port), bool)
        old = Daemon(old_dir, token=(old_dir / "auth_token").read_text())  # only its client is used
        old.http.base_url = f"http://127.0.0.1:{port}/api/v1"
        fingerprint = await old.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
        await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
        for wallet in (old, daemon):
            await devnet.fund((await wallet.post("/onchain/addresses/next"))["address"], 500_000)
            await wallet.post("/onchain/sync")
            await wallet.post("/boards/board-amount", {"amount_sat": 200_000})
        await devnet.mine()
        for wallet in (old, daemon):
            await eventually(partial(_spendable_sat, wallet), lambda amount_sat: amount_sat > 0)
        address = (await old.post("/wallet/addresses/next"))["address"]
        await daemon.post("/wallet/send", {"destination": address, "amount_sat": 30_000})
        spendable_sat = await eventually(
            partial(_spendable_sat, old), lambda amount_sat: amount_sat > 220_000
        )
        await old.post("/onchain/sync")
        onchain_sat = (await old.get("/onchain/balance"))["total_sat"]

        write_down, start, create, bring = BLOCKS
        _shell(write_down.replace("127.0.0.1:3000", f"127.0.0.1:{port}"), tmp_path)
        assert len((tmp_path / "vtxos.json").read_text().splitlines()) == 2
    finally:
        await old.http.aclose()
        real.kill()

    copy_token, start_daemon = start.strip().splitlines()
    assert start_daemon == "~/barkd/bin/barkd-py --datadir ~/.barkd-py"
    _shell(copy_token, tmp_path)
    token = (old_dir / "auth_token").read_text()
    new = Daemon(new_dir, token=token)
    await new.start()
    try:
        settings = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": esplora(devnet.esplora_url),
        }
        named = json.dumps(settings)[1:-1].replace('"', '\\"')
        here = create.replace("127.0.0.1:3000", f"127.0.0.1:{new.port}").replace(
            '\\"network\\": \\"signet\\"', named
        )
        assert json.loads(_shell(here, tmp_path)) == {"fingerprint": fingerprint}
        functions = here.rpartition("new wallet/create")[0]
        # Three batches, one of which has a VTXO of another wallet, too.
        assert "split -l 50 " in bring
        foreign = await daemon.get(f"/wallet/vtxos/{(await daemon.get('/wallet/vtxos'))[0]['id']}/encoded")
        with (tmp_path / "vtxos.json").open("a") as written_down:
            written_down.write(json.dumps(foreign) + "\n")
        for _ in range(2):
            said = _shell(functions + bring.replace("split -l 50", "split -l 1"), tmp_path)
            assert said == "2 of 3 VTXOs are in the wallet\n"
        batches = [json.loads((tmp_path / f"imported.a{letter}").read_text()) for letter in "abc"]
        assert [len(batch) for batch in batches] == [1, 1, 0]
        assert sum(batch[0]["amount_sat"] for batch in batches[:2]) == spendable_sat
        assert not list(tmp_path.glob("batch.*"))
        assert await _spendable_sat(new) == spendable_sat
        assert (await new.get("/onchain/balance"))["total_sat"] == onchain_sat
        # It is a wallet to pay with.
        await new.post(
            "/wallet/send",
            {"destination": (await daemon.post("/wallet/addresses/next"))["address"], "amount_sat": 1_000},
        )
        assert await _spendable_sat(new) == spendable_sat - 1_000
    finally:
        await new.close()
