"""Exits on a real bitcoind after the Ark server has vanished, and exits of VTXOs that the real bark made.

Every satoshi is accounted for: what the wallet had, less the fees that the chain shows, is what it has then.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from barkd_py.ark.vtxo import Vtxo
from tests.support.processes import (
    Bark,
    Daemon,
    Devnet,
    bitcoind_with_cookie,
    esplora,
    eventually,
    start_devnet,
)

pytestmark = pytest.mark.interop

BOARD_SAT = 100_000
COIN_SAT = 60_000
#: How far blocks are apart for a daemon that looks by itself every second.
BLOCK_SECS = 3.0
COINS = 4

# Every exit transaction takes a call and a block, the exit delta of devnet 12 blocks more.
MOST_BLOCKS = 40


@pytest.fixture
def doomed_devnet(tmp_path: Path, bitcoind_exec: str) -> Iterator[Devnet]:
    """Devnet on a real bitcoind, for one test: its Ark server will be stopped for good."""
    running = start_devnet(tmp_path / "devnet", "--bitcoind", bitcoind_exec)
    yield running
    running.process.terminate()


def _source(kind: str, devnet: Devnet) -> dict[str, Any]:
    if kind == "esplora":
        return esplora(devnet.esplora_url)
    assert devnet.bitcoind_url is not None
    assert devnet.bitcoind_cookie is not None
    return bitcoind_with_cookie(devnet.bitcoind_url, devnet.bitcoind_cookie)


async def _fund(daemon: Daemon, devnet: Devnet) -> None:
    """Coins for a board, and others that pay for exit transactions."""
    for amount_sat in (BOARD_SAT + 10_000, *[COIN_SAT] * COINS):
        await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], amount_sat)
    await daemon.post("/onchain/sync")


async def _board(daemon: Daemon, devnet: Devnet) -> None:
    board = await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    await devnet.mine()

    async def synced_balance() -> Any:
        await daemon.post("/wallet/sync")
        return await daemon.get("/wallet/balance")

    await eventually(synced_balance, lambda got: got["spendable_sat"] == board["amount_sat"])


async def _confirmed_sat(daemon: Daemon) -> int:
    await daemon.post("/onchain/sync")
    balance = await daemon.get("/onchain/balance")
    assert balance["total_sat"] == balance["confirmed_sat"]
    return int(balance["confirmed_sat"])


async def _exit_to_claimable(daemon: Daemon, devnet: Devnet, vtxo_ids: Iterable[str]) -> None:
    """Start exits, and mine until all can be claimed."""
    if vtxos := list(vtxo_ids):
        started = await daemon.post("/exits/start/vtxos", {"vtxos": vtxos})
        assert started == {"message": "Exit started successfully"}
    for _ in range(MOST_BLOCKS):
        progress = await daemon.post("/exits/progress", {"fee_rate": 2_000})
        assert [exit_["error"] for exit_ in progress["exits"] if "error" in exit_] == []
        if progress["done"]:
            break
        await devnet.mine()
    live = await daemon.get("/exits/status/live")
    assert {exit_["state"]["type"] for exit_ in live} == {"claimable"}


async def _claim(daemon: Daemon, devnet: Devnet) -> str:
    """Claim everything to the wallet's own address, confirm it; the claim's id."""
    address = (await daemon.post("/onchain/addresses/next"))["address"]
    await daemon.post("/exits/claim/all", {"destination": address, "fee_rate": 2_000})
    await devnet.mine()
    progress = await daemon.post("/exits/progress", {})
    assert (progress["exits"], progress["done"]) == ([], True)
    finished = await daemon.get("/exits/status/finished")
    (claim_txid,) = {exit_["state"]["txid"] for exit_ in finished}
    assert {exit_["state"]["type"] for exit_ in finished} == {"claimed"}
    return str(claim_txid)


async def _fees_and_anchors_sat(daemon: Daemon, devnet: Devnet, claim_txid: str) -> tuple[int, int]:
    """What the exits' children and the claim paid, and what the anchors held, as the chain tells.

    Transactions that exits share are counted once, and those that others paid for not at all.
    """
    packages: dict[str, dict[str, Any]] = {}
    for exit_ in await daemon.get("/exits/status/all?transactions=true"):
        for package in exit_["transactions"]:
            packages[package["exit"]["txid"]] = package
    fees_sat = anchors_sat = 0
    async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as chain:
        for txid, package in packages.items():
            parent = (await chain.get(f"/tx/{txid}")).json()
            assert parent["status"]["confirmed"]
            assert parent["fee"] == 0
            if package["child"] is None or package["child"]["origin"]["type"] != "wallet":
                continue
            anchors_sat += parent["vout"][-1]["value"]
            child = (await chain.get(f"/tx/{package['child']['info']['txid']}")).json()
            assert child["status"]["confirmed"]
            fees_sat += child["fee"]
        claim = (await chain.get(f"/tx/{claim_txid}")).json()
        assert claim["status"]["confirmed"]
        fees_sat += claim["fee"]
    return fees_sat, anchors_sat


async def _exit_everything(daemon: Daemon, devnet: Devnet) -> None:
    """From the VTXOs that there are to coins on the chain, with the sums."""
    onchain_sat = await _confirmed_sat(daemon)
    vtxos = await daemon.get("/wallet/vtxos")
    vtxos_sat = sum(vtxo["amount_sat"] for vtxo in vtxos)
    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == vtxos_sat > 0

    await _exit_to_claimable(daemon, devnet, [vtxo["id"] for vtxo in vtxos])
    pending = await daemon.get("/wallet/balance")
    assert (pending["spendable_sat"], pending["pending_exit_sat"]) == (0, vtxos_sat)
    claim_txid = await _claim(daemon, devnet)

    fees_sat, anchors_sat = await _fees_and_anchors_sat(daemon, devnet, claim_txid)
    assert fees_sat > 0
    assert await _confirmed_sat(daemon) == onchain_sat + vtxos_sat + anchors_sat - fees_sat
    assert set((await daemon.get("/wallet/balance")).values()) == {0}
    history = await daemon.get("/history")
    exits = [
        movement for movement in history if movement["subsystem"] == {"name": "bark.exit", "kind": "start"}
    ]
    assert {movement["status"] for movement in exits} == {"successful"}
    assert sum(movement["effective_balance_sat"] for movement in exits) == -vtxos_sat
    assert {vtxo["state"]["type"] for vtxo in await daemon.get("/wallet/vtxos?all=true")} <= {
        "spent",
        "exited",
    }


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_a_board_exits_without_the_server(kind: str, daemon: Daemon, doomed_devnet: Devnet) -> None:
    devnet = doomed_devnet
    await daemon.create_wallet(devnet.ark_server_url, _source(kind, devnet))
    await _fund(daemon, devnet)
    await _board(daemon, devnet)
    await devnet.pull("/ark-server/stop")

    await _exit_everything(daemon, devnet)


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_a_payment_and_its_change_exit_without_the_server(
    kind: str, daemon: Daemon, doomed_devnet: Devnet
) -> None:
    """VTXOs of one board: they share the board's transaction and the payment's checkpoint."""
    devnet = doomed_devnet
    await daemon.create_wallet(devnet.ark_server_url, _source(kind, devnet))
    await _fund(daemon, devnet)
    await _board(daemon, devnet)
    own = (await daemon.post("/wallet/addresses/next"))["address"]
    await daemon.post("/wallet/send", {"destination": own, "amount_sat": 40_000})
    # What was paid, and the change in two pieces.
    vtxos = await eventually(lambda: daemon.get("/wallet/vtxos"), lambda got: len(got) == 3)
    assert {vtxo["exit_depth"] for vtxo in vtxos} == {3}
    await devnet.pull("/ark-server/stop")

    await _exit_everything(daemon, devnet)


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_packages_that_a_real_node_forgets_replaces_and_reorganises(
    kind: str, daemon: Daemon, doomed_devnet: Devnet
) -> None:
    """The node is restarted for the first of these, with another cookie."""
    devnet = doomed_devnet
    await daemon.create_wallet(devnet.ark_server_url, _source(kind, devnet))
    await _fund(daemon, devnet)
    await _board(daemon, devnet)
    onchain_sat = await _confirmed_sat(daemon)
    (vtxo,) = await daemon.get("/wallet/vtxos")
    await daemon.post("/exits/start/all")

    async def package() -> Any:
        await daemon.post("/exits/progress", {"fee_rate": 2_000})
        (exit_,) = await daemon.get("/exits/status/all?transactions=true")
        return exit_["transactions"][0]

    own = await package()
    exit_txid = own["exit"]["txid"]
    forgotten = await devnet.pull("/evict", txid=exit_txid)
    assert forgotten == {"mempool": []}
    assert (await package())["child"]["info"] == own["child"]["info"]
    assert set(await _mempool(devnet)) == {exit_txid, own["child"]["info"]["txid"]}

    foreign = (await devnet.pull("/cpfp", txid=exit_txid, sat_per_vb=50))["txid"]
    adopted = await package()
    assert (adopted["child"]["info"]["txid"], adopted["child"]["origin"]["type"]) == (foreign, "mempool")
    await devnet.mine()
    assert (await package())["child"]["origin"]["type"] == "block"

    await devnet.pull("/reorg", depth=1)
    assert (await package())["child"]["origin"]["type"] == "mempool"
    await _exit_to_claimable(daemon, devnet, ())
    claim_txid = await _claim(daemon, devnet)
    fees_sat, _ = await _fees_and_anchors_sat(daemon, devnet, claim_txid)
    assert await _confirmed_sat(daemon) == onchain_sat + vtxo["amount_sat"] - fees_sat


async def _mempool(devnet: Devnet) -> list[str]:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60) as http:
        return list((await http.get("/status")).json()["mempool"])


async def _refresh(devnet: Devnet, daemons: Sequence[Daemon]) -> None:
    """All that these wallets have becomes leaves of one round."""
    for daemon in daemons:
        await daemon.post("/wallet/refresh/all")
    await eventually(lambda: _server(devnet), lambda got: got["round_subscribers"] >= len(daemons))
    await devnet.pull("/round")

    async def settled() -> list[Any]:
        await devnet.mine()
        left: list[Any] = []
        for daemon in daemons:
            await daemon.post("/wallet/sync")
            left += await daemon.get("/wallet/rounds")
        return left

    await eventually(settled, lambda left: left == [])


async def _server(devnet: Devnet) -> Any:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60) as http:
        return (await http.get("/ark-server")).json()


async def test_leaves_of_one_round_exit_without_the_server(
    daemon: Daemon, tmp_path: Path, doomed_devnet: Devnet
) -> None:
    """Two wallets, one on each kind of chain source. They share the root, which the first one pays for."""
    devnet = doomed_devnet
    other = Daemon(tmp_path / "other")
    await other.start()
    try:
        for each, kind in ((daemon, "bitcoind"), (other, "esplora")):
            await each.create_wallet(devnet.ark_server_url, _source(kind, devnet))
            await _fund(each, devnet)
            await _board(each, devnet)
        await _refresh(devnet, (daemon, other))
        leaves = [(await each.get("/wallet/vtxos"))[0] for each in (daemon, other)]
        assert leaves[0]["chain_anchor"] == leaves[1]["chain_anchor"]
        assert {leaf["exit_depth"] for leaf in leaves} == {2}
        await devnet.pull("/ark-server/stop")

        await _exit_everything(daemon, devnet)
        await _exit_everything(other, devnet)
        (exit_,) = await other.get("/exits/status/all?transactions=true")
        assert [package["child"]["origin"]["type"] for package in exit_["transactions"]] == [
            "block",
            "wallet",
        ]
    finally:
        await other.close()


async def test_a_vtxo_of_the_real_bark_exits_through_our_daemon(
    bark: Bark, daemon: Daemon, doomed_devnet: Devnet
) -> None:
    """Its owner takes the words and the VTXOs of bark to us, when the server is gone."""
    devnet = doomed_devnet
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    for amount_sat in (BOARD_SAT + 10_000, *[COIN_SAT] * COINS):
        await devnet.fund(bark.run("onchain", "address")["address"], amount_sat)
    bark.run("onchain", "balance")
    bark.run("board", f"{BOARD_SAT} sat")
    await devnet.mine()
    bark.run("send", bark.run("address"), "30000 sat")
    vtxos = bark.run("vtxos")
    assert sum(vtxo["amount_sat"] for vtxo in vtxos) == bark.run("balance")["spendable_sat"] > 30_000
    encoded = [bark.run("raw-vtxo", vtxo["id"]) for vtxo in vtxos]
    mnemonic = (bark.datadir / "mnemonic").read_text().strip()

    await daemon.post(
        "/wallet/create",
        {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": esplora(devnet.esplora_url),
            "mnemonic": mnemonic,
        },
    )
    await devnet.pull("/ark-server/stop")
    imported = await daemon.post("/wallet/import-vtxo", {"vtxos": encoded, "skip_status_check": True})
    assert {vtxo["id"] for vtxo in imported} == {vtxo["id"] for vtxo in vtxos}

    await _exit_everything(daemon, devnet)


EXIT_DELTA = 12
"""Of devnet's server: so many blocks after his own coin is on the chain, a payer could take it back."""


@pytest.mark.parametrize("kind", ["bitcoind", "esplora"])
async def test_a_payee_exits_when_the_payer_publishes_what_was_paid_with(
    kind: str, daemon: Daemon, tmp_path: Path, doomed_devnet: Devnet
) -> None:
    """Nobody asks the payee's daemon for anything: it sees the payer's transaction in a block, and has its
    own behind it before the payer may spend; then what it was paid gets all the way to its coins.
    """
    devnet = doomed_devnet
    await daemon.create_wallet(devnet.ark_server_url, _source(kind, devnet))
    await _fund(daemon, devnet)
    await _board(daemon, devnet)
    (boarded,) = await daemon.get("/wallet/vtxos")
    encoded = (await daemon.get(f"/wallet/vtxos/{boarded['id']}/encoded"))["encoded"]
    (published,) = Vtxo.decode_hex(encoded).exit_transactions()
    payee = Daemon(tmp_path / "payee", env={"BARK_DAEMON_SYNC_INTERVAL_SECS": "1"})
    await payee.start()
    try:
        await payee.create_wallet(devnet.ark_server_url, _source(kind, devnet))
        for _ in range(COINS):
            address = (await payee.post("/onchain/addresses/next"))["address"]
            await devnet.fund(address, COIN_SAT)
        await payee.post("/onchain/sync")
        address = (await payee.post("/wallet/addresses/next"))["address"]
        await daemon.post("/wallet/send", {"destination": address, "amount_sat": 40_000})
        (paid,) = await eventually(lambda: payee.get("/wallet/vtxos"), bool)
        await daemon.close()
        await devnet.pull("/ark-server/stop")
        onchain_sat = await _confirmed_sat(payee)

        await devnet.pull("/mine", transactions=[published.serialize().hex()])
        began = (await payee.get("/bitcoin/tip"))["tip_height"]

        for _ in range(EXIT_DELTA - 1):
            await payee.post("/wallet/sync")
            await asyncio.sleep(BLOCK_SECS)
            await devnet.mine()
        (exit_,) = await payee.get("/exits/status/all?transactions=true")
        assert exit_["vtxo_id"] == paid["id"]
        checkpoint = exit_["transactions"][1]["exit"]["txid"]
        async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as chain:
            status = (await chain.get(f"/tx/{checkpoint}")).json()["status"]
        assert status["confirmed"]
        assert status["block_height"] < began + EXIT_DELTA

        await _exit_to_claimable(payee, devnet, ())
        claim_txid = await _claim(payee, devnet)
        fees_sat, anchors_sat = await _fees_and_anchors_sat(payee, devnet, claim_txid)
        assert await _confirmed_sat(payee) == onchain_sat + 40_000 + anchors_sat - fees_sat
    finally:
        await payee.close()
