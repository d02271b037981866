"""Devnet as a whole: one directory, its levers, restarts, and the command."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from click.testing import CliRunner

from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.command import devnet as devnet_command
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from barkd_py.devnet.state_dir import DirectoryInUse, DirectoryState, PortInUse, read_state
from barkd_py.errors import InvalidInput
from barkd_py.server_rpc.protos import bark_server_pb2
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import ArkServiceStub
from tests.devnet.levers import levers_of, pull
from tests.devnet.purse import SCRIPT, Purse, exit_parent, pay, spend

ADDRESS = address_from_script(SCRIPT, Network.REGTEST)


@pytest.fixture
def options(tmp_path: Path) -> DevnetOptions:
    return DevnetOptions(tmp_path / "devnet")


@pytest.fixture
async def running(options: DevnetOptions) -> AsyncIterator[Devnet]:
    async with running_devnet(options) as devnet:
        yield devnet


@pytest.fixture
async def levers(running: Devnet) -> AsyncIterator[httpx.AsyncClient]:
    async with levers_of(running) as levers:
        yield levers


async def get(levers: httpx.AsyncClient, path: str) -> Any:
    return (await levers.get(path)).json()


async def protocol_versions(url: str) -> tuple[int, int]:
    async with grpc.aio.insecure_channel(url.removeprefix("http://")) as channel:
        stub: Any = ArkServiceStub(channel)  # type: ignore[no-untyped-call]
        reply = await stub.Handshake(bark_server_pb2.HandshakeRequest(bark_version="0.8.0"))
        return reply.min_protocol_version, reply.max_protocol_version


# -- levers --------------------------------------------------------------------------------------------


async def test_all_parts_answer(running: Devnet, levers: httpx.AsyncClient) -> None:
    status = await get(levers, "/status")
    assert status["height"] == running.node.index.tip_height == 120
    assert status["mempool"] == []
    assert status["esplora_url"] == running.urls.esplora_url
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
        tip = await client.get(running.urls.esplora_url + "/blocks/tip/height")
    assert tip.text == "120"
    assert await protocol_versions(running.urls.ark_server_url) == (4, 5)


async def test_mining(running: Devnet, levers: httpx.AsyncClient) -> None:
    mined = await pull(levers, "/mine", blocks=3)
    assert mined["height"] == 123
    assert len(mined["blocks"]) == 3
    assert mined["blocks"][-1] == mined["tip_hash"] == str(running.node.index.tip.hash)
    await pull(levers, "/mine", address=ADDRESS)
    coinbase = running.node.index.tx(running.node.index.tip.txids[0])
    assert coinbase is not None
    assert coinbase.tx.outputs[0].script_pubkey == SCRIPT


async def test_mining_exactly_these(running: Devnet, levers: httpx.AsyncClient) -> None:
    purse = Purse(running.node)
    await purse.fill(2)
    waiting, other = (spend([purse.coin()], [pay(90_000)]) for _ in range(2))
    await purse.broadcast(waiting)
    await pull(levers, "/mine", transactions=[other.serialize().hex()])
    assert running.node.index.tx(other.txid) is not None
    assert waiting.txid in running.node.pool


async def test_funding(running: Devnet, levers: httpx.AsyncClient) -> None:
    funded = await pull(levers, "/fund", address=ADDRESS, amount_sat=12_345)
    assert funded["height"] == 121
    (txid, vout) = funded["txid"], funded["vout"]
    (tx,) = [
        tx
        for tx in map(running.node.index.tx, running.node.index.tip.txids)
        if tx and str(tx.tx.txid) == txid
    ]
    assert tx.tx.outputs[vout] == pay(12_345)
    await pull(levers, "/fund", address=ADDRESS, amount_sat=1000, mine=False)
    assert len((await get(levers, "/status"))["mempool"]) == 1


async def test_reorganising(running: Devnet, levers: httpx.AsyncClient) -> None:
    funded = await pull(levers, "/fund", address=ADDRESS, amount_sat=12_345)
    tip = await pull(levers, "/reorg", depth=1)
    assert tip["height"] == funded["height"] + 1
    assert (await get(levers, "/status"))["mempool"] == [funded["txid"]]


async def test_a_stranger_pays_for_a_transaction(running: Devnet, levers: httpx.AsyncClient) -> None:
    purse = Purse(running.node)
    await purse.fill(1)
    parent = exit_parent(purse.coin())
    first = (await pull(levers, "/cpfp", transaction=parent.serialize().hex()))["txid"]
    assert (await get(levers, "/status"))["mempool"] == [str(parent.txid), first]
    # Another stranger pays more for the same one.
    second = (await pull(levers, "/cpfp", txid=str(parent.txid), sat_per_vb=10))["txid"]
    assert set((await get(levers, "/status"))["mempool"]) == {str(parent.txid), second}
    await pull(levers, "/mine")
    assert (await get(levers, "/status"))["mempool"] == []


async def test_an_anchor_can_be_spent_after_its_block(running: Devnet, levers: httpx.AsyncClient) -> None:
    purse = Purse(running.node)
    await purse.fill(1)
    parent = exit_parent(purse.coin())
    await pull(levers, "/mine", transactions=[parent.serialize().hex()])
    child = (await pull(levers, "/cpfp", txid=str(parent.txid)))["txid"]
    assert (await get(levers, "/status"))["mempool"] == [child]


async def test_a_transaction_without_an_anchor_has_no_such_child(
    running: Devnet, levers: httpx.AsyncClient
) -> None:
    funded = await pull(levers, "/fund", address=ADDRESS, amount_sat=10_000)
    answer = await levers.post("/cpfp", json={"txid": funded["txid"]})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": f"transaction {funded['txid']} has no fee anchor"},
    )


async def test_the_mempool_forgets_a_transaction_and_its_heirs(
    running: Devnet, levers: httpx.AsyncClient
) -> None:
    purse = Purse(running.node)
    await purse.fill(1)
    parent = exit_parent(purse.coin())
    await pull(levers, "/cpfp", transaction=parent.serialize().hex())
    assert await pull(levers, "/evict", txid=str(parent.txid)) == {"mempool": []}
    assert (await levers.post("/evict", json={"txid": str(parent.txid)})).status_code == 400


async def test_a_stopped_ark_server_is_gone_and_the_chain_goes_on(
    running: Devnet, levers: httpx.AsyncClient
) -> None:
    assert await pull(levers, "/sweep") == {"transactions": [], "problems": []}
    await pull(levers, "/ark-server/stop")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await protocol_versions(running.urls.ark_server_url)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    answer = await levers.post("/sweep")
    assert (answer.status_code, answer.json()) == (400, {"error": "the Ark server is stopped"})
    await pull(levers, "/mine")


async def test_an_ark_server_comes_back_where_it_was(running: Devnet, levers: httpx.AsyncClient) -> None:
    before = (await levers.get("/ark-server")).json()
    for stops in (False, True):
        if stops:
            await pull(levers, "/ark-server/stop")
        await pull(levers, "/ark-server/start")
        assert await protocol_versions(running.urls.ark_server_url)
        assert (await levers.get("/ark-server")).json()["balance_sat"] == before["balance_sat"] > 0
        assert await pull(levers, "/sweep") == {"transactions": [], "problems": []}


async def test_time_moves_blocks_and_nothing_else(running: Devnet, levers: httpx.AsyncClient) -> None:
    before = running.node.index.tip.header.time
    assert (await pull(levers, "/time", advance_seconds=600))["offset_seconds"] == 600
    assert (await pull(levers, "/time", advance_seconds=60))["offset_seconds"] == 660
    await pull(levers, "/mine")
    assert running.node.index.tip.header.time >= before + 600
    assert (await pull(levers, "/time", offset_seconds=0))["offset_seconds"] == 0


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/mine", {"blocks": 0}, "blocks must be a number from 1"),
        ("/mine", {"blocks": "3"}, "blocks must be a number from 1"),
        ("/mine", {"address": "nonsense"}, "base58 error"),
        ("/mine", {"transactions": ["zz"]}, "transactions must be an array of hex strings"),
        ("/mine", [], "the body is not a JSON object"),
        ("/fund", {"amount_sat": 1000}, "address must be a text"),
        ("/fund", {"address": ADDRESS}, "amount_sat must be a number"),
        ("/fund", {"address": ADDRESS, "amount_sat": 329}, "dust, tx with dust output must be 0-fee"),
        ("/fund", {"address": ADDRESS, "amount_sat": 2_000_000_000_000}, "the faucet has"),
        (
            "/fund",
            {"address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "amount_sat": 1000},
            "is not valid on regtest",
        ),
        ("/reorg", {"depth": 1000}, "there are not 1000 blocks to replace"),
        ("/auto-mine", {"interval_seconds": 0}, "interval_seconds must be above 0"),
        ("/auto-mine", {"interval_seconds": -1}, "interval_seconds must be above 0"),
        ("/time", {"advance_seconds": "x"}, "advance_seconds must be a number"),
        ("/faults", {"target": "moon"}, "no fault target 'moon'; there are: esplora, ark-server"),
        ("/faults", {"target": "esplora", "kind": "explode"}, "invalid fault"),
        ("/faults", {"target": "esplora", "path": "/tx", "kind": "explode"}, "there are: error, drop, delay"),
        (
            "/faults",
            {"target": "esplora", "path": "/tx", "kind": "drop", "colour": 1},
            "unknown key 'colour'",
        ),
        ("/faults", {"target": "ark-server", "rpc": "GetVtox", "kind": "drop"}, "unknown rpc 'GetVtox'"),
        ("/mine", {"block": 3}, "unknown key 'block'; there are: blocks, address, transactions"),
        ("/fund", {"address": ADDRESS, "amount": 1000}, "unknown key 'amount'"),
        ("/time", {"advance": 3}, "unknown key 'advance'"),
        ("/round", {"go-on": True}, "unknown key 'go-on'"),
        ("/lightning/invoice", {"amount": 3}, "unknown key 'amount'"),
        ("/lightning/offer", {"amount_sat": 3, "held": True}, "unknown key 'held'"),
        ("/lightning/address", {"name": "a", "min": 3}, "unknown key 'min'"),
    ],
)
async def test_wrong_requests_say_what_is_wrong(
    levers: httpx.AsyncClient, path: str, body: Any, text: str
) -> None:
    before = await get(levers, "/status")
    answer = await levers.post(path, json=body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert await get(levers, "/status") == before


async def test_faults_of_the_chain_source(running: Devnet, levers: httpx.AsyncClient) -> None:
    set_ = await pull(levers, "/faults", target="esplora", path="/fee-estimates", kind="error", code=503)
    async with httpx.AsyncClient(base_url=running.urls.esplora_url, trust_env=False, timeout=60.0) as client:
        assert (await client.get("/fee-estimates")).status_code == 503
        assert (await client.get("/fee-estimates")).status_code == 200
    (listed,) = (await get(levers, "/faults"))["esplora"]
    assert (listed["id"], listed["hits"]) == (set_["id"], 1)
    assert (await levers.delete(f"/faults/esplora/{set_['id']}")).status_code == 200
    assert (await levers.delete(f"/faults/esplora/{set_['id']}")).status_code == 404


async def test_faults_of_the_ark_server(running: Devnet, levers: httpx.AsyncClient) -> None:
    await pull(levers, "/faults", target="ark-server", rpc="Handshake", kind="error", code="UNAVAILABLE")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await protocol_versions(running.urls.ark_server_url)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await protocol_versions(running.urls.ark_server_url) == (4, 5)
    await pull(levers, "/faults", target="ark-server", rpc="*", kind="error")
    assert (await levers.delete("/faults")).status_code == 200
    assert await get(levers, "/faults") == {"esplora": [], "ark-server": []}


async def wait_for_height(devnet: Devnet, height: int) -> None:
    async with asyncio.timeout(60):
        while devnet.node.index.tip_height < height:
            await devnet.node.changed.wait()


async def test_mining_when_a_transaction_waits(running: Devnet, levers: httpx.AsyncClient) -> None:
    await pull(levers, "/auto-mine", on_transaction=True)
    funded = await pull(levers, "/fund", address=ADDRESS, amount_sat=1000, mine=False)
    await wait_for_height(running, 121)
    assert funded["txid"] in {str(txid) for txid in running.node.index.tip.txids}
    await pull(levers, "/auto-mine")
    await pull(levers, "/fund", address=ADDRESS, amount_sat=1000, mine=False)
    assert len(running.node.pool) == 1


async def test_mining_at_intervals(running: Devnet, levers: httpx.AsyncClient) -> None:
    await pull(levers, "/auto-mine", interval_seconds=0.01)
    await wait_for_height(running, 123)
    settings = await pull(levers, "/auto-mine")
    assert settings == {"interval_seconds": None, "on_transaction": False}


# -- the directory -------------------------------------------------------------------------------------


async def test_restart_keeps_chain_server_and_addresses(options: DevnetOptions) -> None:
    async with running_devnet(options) as first:
        await first.node.mine(5)
        urls, tip, key = first.urls, first.node.index.tip.ref, first.ark_server.keys.server_pubkey
    async with running_devnet(options) as second:
        assert second.urls == urls
        assert second.node.index.tip.ref == tip
        assert second.ark_server.keys.server_pubkey == key


async def test_second_devnet_in_a_directory_is_refused(running: Devnet, options: DevnetOptions) -> None:
    with pytest.raises(DirectoryInUse, match="another devnet is running in"):
        async with running_devnet(options):
            pass
    assert running.node.index.tip_height == 120


async def test_ports_are_none_that_outgoing_connections_take(running: Devnet, options: DevnetOptions) -> None:
    """Whoever stops and comes back would sometimes find his own taken."""
    state = read_state(options.directory)
    assert state is not None
    lowest = 32_768  # of Linux; other systems begin higher
    assert set(state["ports"]) == {"esplora", "control", "ark", "ark-admin"}
    assert all(1024 <= port < lowest for port in state["ports"].values())


@pytest.mark.parametrize("part", ["ark", "ark-admin"])
async def test_a_port_that_is_taken_just_before_its_use(
    options: DevnetOptions, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Between the look for a free one and its use: another is taken."""
    claim = DirectoryState.claim_port
    with socket.socket() as thief:

        def claim_and_lose(self: DirectoryState, host: str, of: str, asked: int | None) -> int:
            port = claim(self, host, of, asked)
            if of == part and thief.getsockname()[1] == 0:
                thief.bind((host, port))
                thief.listen()
            return port

        monkeypatch.setattr(DirectoryState, "claim_port", claim_and_lose)
        async with running_devnet(options) as devnet:
            assert await protocol_versions(devnet.urls.ark_server_url) == (4, 5)
            state = read_state(options.directory)
            assert state is not None
            assert state["ports"][part] != thief.getsockname()[1] > 0


async def test_port_in_use_is_named(options: DevnetOptions) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} of 127.0.0.1 is in use: .* --control-port"):
            async with running_devnet(replace(options, control_port=port)):
                pass
    async with running_devnet(options):
        pass


async def test_chain_of_the_other_kind_of_node_is_refused(options: DevnetOptions) -> None:
    async with running_devnet(options):
        pass
    with pytest.raises(InvalidInput, match="was made by the built-in node, not bitcoind"):
        async with running_devnet(replace(options, bitcoind=Path("/nowhere"))):
            pass


async def test_state_file_tells_others_where_it_is(running: Devnet, options: DevnetOptions) -> None:
    state = read_state(options.directory)
    assert state is not None
    assert state["urls"] == running.urls.to_json()


# -- the command ---------------------------------------------------------------------------------------

_COMMAND = [sys.executable, "-c", "from barkd_py.devnet.command import devnet; devnet()"]


def start(directory: Path, *arguments: str) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
    process = subprocess.Popen(
        [*_COMMAND, "--dir", str(directory), "--json", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def stop(process: "subprocess.Popen[str]", number: signal.Signals) -> int:
    process.send_signal(number)
    code = process.wait(60)
    assert process.stdout is not None
    process.stdout.close()
    return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_runs_until_a_signal_and_kills_lose_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process, urls = start(tmp_path)
    with httpx.Client(base_url=urls["control_url"], trust_env=False, timeout=60.0) as levers:
        tip = levers.post("/mine", json={"blocks": 4}).json()
        funded = levers.post("/fund", json={"address": ADDRESS, "amount_sat": 5000, "mine": False}).json()
    assert stop(process, signal.SIGKILL) == -signal.SIGKILL

    process, again = start(tmp_path)
    assert again == urls
    with httpx.Client(base_url=urls["control_url"], trust_env=False, timeout=60.0) as levers:
        status = levers.get("/status").json()
    assert status["tip_hash"] == tip["tip_hash"]
    assert status["mempool"] == [funded["txid"]]
    assert stop(process, number) == 0


async def run_subcommand(options: DevnetOptions, *arguments: str) -> tuple[int, str]:
    result = await asyncio.to_thread(
        CliRunner().invoke, devnet_command, ["--dir", str(options.directory), *arguments]
    )
    return result.exit_code, result.output


async def test_subcommands_pull_the_levers(running: Devnet, options: DevnetOptions) -> None:
    code, output = await run_subcommand(options, "mine", "2")
    assert (code, json.loads(output)["height"]) == (0, 122)
    code, output = await run_subcommand(options, "fund", str(ADDRESS), "5000")
    assert (code, json.loads(output)["height"]) == (0, 123)
    code, output = await run_subcommand(options, "reorg", "1")
    assert (code, json.loads(output)["height"]) == (0, 124)
    code, output = await run_subcommand(options, "status")
    assert (code, len(json.loads(output)["mempool"])) == (0, 1)
    code, output = await run_subcommand(options, "reorg", "5000")
    assert (code, output) == (1, "Error: there are not 5000 blocks to replace\n")


async def test_subcommand_without_a_devnet_says_so(options: DevnetOptions) -> None:
    code, output = await run_subcommand(options, "mine")
    assert code == 1
    assert "no devnet in" in output
    async with running_devnet(options):
        pass
    code, output = await run_subcommand(options, "mine")
    assert code == 1
    assert "does not answer; is it running?" in output


def test_missing_extra_is_named() -> None:
    without_kernel = "import sys; sys.modules['pbk'] = None; from barkd_py.devnet.command import devnet; "
    result = subprocess.run(
        [sys.executable, "-c", without_kernel + "devnet()"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "pip install '.[devnet]'" in result.stderr
    # A real node does not need it.
    subprocess.run([sys.executable, "-c", without_kernel + "import barkd_py.devnet.runner"], check=True)


async def test_faults_of_the_documentation_can_be_set(levers: httpx.AsyncClient) -> None:
    page = (Path(__file__).parents[2] / "docs" / "devnet.md").read_text()
    read = json.JSONDecoder().raw_decode
    examples = [read(page, start.start())[0] for start in re.finditer(r'^\{"target"', page, re.MULTILINE)]
    assert len(examples) == page.count('{"target"') == 8
    for example in examples:
        await pull(levers, "/faults", **example)
    listed = await get(levers, "/faults")
    assert (len(listed["esplora"]), len(listed["ark-server"])) == (2, 6)
