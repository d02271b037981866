"""Many exits at once, as the daemon bears them and as a person waits for them; and each one's share of CPU.

The daemons are as in `daemons`, with boards whose exits share nothing: for each there is a child to build, to
store and to broadcast. They only do what they are told to, so a tick is one POST of ``exits/progress``.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from barkd_py.ark.claim import find_clause
from barkd_py.ark.validation import verify_standard
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.wallet.exits.claim_tx import build_claim
from barkd_py.wallet.exits.starts import verify_chain
from barkd_py.wallet.store import Store
from tests.bench.core import DEPTHS, SAMPLES, make_vtxo, time_each
from tests.bench.daemons import Subject, cpu_ms, find_subjects, post_nothing
from tests.bench.report import OURS, Report
from tests.fakes.chains import Clock
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet
from tests.wallet.exits.conftest import World, source

EXITS = 200
BOARD_SAT = 30_000
BOARDS_PER_BLOCK = 10
FEE_COIN_SAT = 10_000
PAYMENTS_PER_BLOCK = 10
EXIT_DELTA = 12
RATE = FeeRate.from_sat_per_vb(2)
REQUEST_SECS = 900.0

MANUAL = {"BARK_DAEMON_MANUAL_SYNC": "true"}


async def measure_exits(report: Report) -> None:
    _measure_verification(report)
    await _measure_transactions(report)
    await _measure_daemons(report)


# --- CPU per exit


def _measure_verification(report: Report) -> None:
    """What the start of an exit checks, and what each start of the daemon builds from the stored VTXO."""
    for depth in DEPTHS:
        encoded = [make_vtxo(depth)[0].encode() for _ in range(SAMPLES)]
        decoded = list(map(Vtxo.decode, encoded))

        def verify(index: int, decoded: list[Vtxo] = decoded) -> None:
            verify_standard(decoded[index])
            verify_chain(decoded[index])

        def load(index: int, encoded: list[bytes] = encoded) -> tuple[Tx, ...]:
            return Vtxo.decode(encoded[index]).exit_transactions()

        report.add(f"exit: verify a chain of {depth}", OURS, time_each(verify, SAMPLES), "ms CPU")
        report.add(f"exit: load a chain of {depth}", OURS, time_each(load, SAMPLES), "ms CPU")


async def _measure_transactions(report: Report) -> None:
    """Children and claims, with a wallet that holds as many coins as there are exits."""
    with tempfile.TemporaryDirectory() as name:
        node = LocalNode(Path(name) / "chain")
        store = await Store.open(str(Path(name) / "db.sqlite"))
        clock = Clock()
        chain = source("esplora", node, clock)
        try:
            await node.mine(130)
            world = await World.create(node, chain, clock, store)
            (coin,) = await _coins(world, 1)
            await _coins(world, EXITS)
            parents = [make_vtxo(1)[0] for _ in range(SAMPLES)]
            await world.onchain.balance()  # after a block, the first to ask waits for BDK to read everything
            began = time.process_time()
            for vtxo in parents:
                await world.onchain.fund_child(vtxo.exit_transactions()[0], RATE)
            report.add(
                f"exit: build, sign and store a child, {EXITS} coins",
                OURS,
                1000 * (time.process_time() - began) / SAMPLES,
                "ms CPU",
            )
            vtxos = [await world.mint.board(BOARD_SAT) for _ in range(SAMPLES)]
            secrets = {vtxo.user_pubkey: await world.keychain.secret_for(vtxo.user_pubkey) for vtxo in vtxos}
            paths = [
                find_clause(vtxo, is_ours=lambda _: True, find_preimage=lambda _: None) for vtxo in vtxos
            ]
            claims = [path for path in paths if path is not None]
            taken = time_each(
                lambda _: build_claim(claims, coin, RATE, tip_height=200, find_secret=secrets.get), 5
            )
            report.add("exit: build and sign a claim, per input", OURS, taken / SAMPLES, "ms CPU")
        finally:
            await chain.close()
            await store.close()
            await node.close()


async def _coins(world: World, count: int) -> list[bytes]:
    scripts = [parse_address(await world.onchain.next_address(), Network.REGTEST) for _ in range(count)]
    await faucet.pay(world.node, [TxOut(FEE_COIN_SAT, script) for script in scripts])
    await world.mine()
    await world.onchain.sync()
    return scripts


# --- the daemons


async def _measure_daemons(report: Report) -> None:
    for subject in find_subjects():
        with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
            directory = Path(name)
            devnet = start_devnet(directory / "devnet", "--round-interval", "86400")
            daemon = subject.daemon(directory / "wallet", MANUAL)
            daemon.http.timeout = httpx.Timeout(REQUEST_SECS)
            try:
                await daemon.start()
                await _fill(daemon, devnet)
                await _Ticks(report, subject, daemon, devnet).measure()
            except (AssertionError, httpx.HTTPError) as error:
                if subject.name == OURS:
                    raise
                print(f"{subject.name} did not get through: {error}", file=sys.stderr)
            finally:
                await daemon.close()
                devnet.process.kill()


async def _fill(daemon: Daemon, devnet: Devnet) -> None:
    """Boards, and a coin for each exit."""
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    address = (await post_nothing(daemon, "/onchain/addresses/next"))["address"]
    for _ in range(EXITS // BOARDS_PER_BLOCK):
        await devnet.fund(address, BOARDS_PER_BLOCK * (BOARD_SAT + 2_000))
    for _ in range(EXITS // BOARDS_PER_BLOCK):
        await post_nothing(daemon, "/onchain/sync")
        for _ in range(BOARDS_PER_BLOCK):
            await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
        await devnet.mine()
    await devnet.mine(6)

    async def spendable() -> int:
        await post_nothing(daemon, "/wallet/sync")
        return sum(vtxo["state"]["type"] == "spendable" for vtxo in await daemon.get("/wallet/vtxos"))

    await eventually(spendable, lambda count: count == EXITS)
    for number in range(1, EXITS + 1):
        await devnet.pull(
            "/fund", address=address, amount_sat=FEE_COIN_SAT, mine=number % PAYMENTS_PER_BLOCK == 0
        )
    await post_nothing(daemon, "/onchain/sync")


class _Ticks:
    """One daemon's exits, from start to claimed."""

    def __init__(self, report: Report, subject: Subject, daemon: Daemon, devnet: Devnet) -> None:
        self._report = report
        self._who = subject.name
        self._daemon = daemon
        self._devnet = devnet

    async def measure(self) -> None:
        await self._measure("start all", self._post("/exits/start/all"))
        await self._tick("with a child for each", "awaiting-confirmation")
        await self._tick("with nothing new", "awaiting-confirmation")
        await self._devnet.mine()
        await self._tick("after the block of all", "awaiting-delta")
        await self._tick("while the delay runs", "awaiting-delta")
        await self._devnet.mine(EXIT_DELTA)
        await self._tick("when all may be claimed", "claimable")
        began = time.perf_counter()
        await self._daemon.get("/exits/status/all?history=true&transactions=true")
        self._add("status with history and transactions", 1000 * (time.perf_counter() - began), "ms")
        address = (await post_nothing(self._daemon, "/onchain/addresses/next"))["address"]
        await self._measure("claim all", self._post("/exits/claim/all", {"destination": address}))
        await self._devnet.mine()
        await self._tick("after the block of the claim", None)

    def _post(self, path: str, body: Any = None) -> "asyncio.Future[Any]":
        post = post_nothing(self._daemon, path) if body is None else self._daemon.post(path, body)
        return asyncio.ensure_future(post)

    async def _tick(self, what: str, expected: str | None) -> None:
        """expected: where all exits are afterwards; None if none is left."""
        cpu = cpu_ms(self._daemon.process.pid)
        began = time.perf_counter()
        progress = await self._daemon.post("/exits/progress")
        took = time.perf_counter() - began
        cpu = cpu_ms(self._daemon.process.pid) - cpu
        found = Counter(_where(exit_["state"]) for exit_ in progress["exits"])
        errors = Counter(str(exit_["error"]) for exit_ in progress["exits"] if exit_.get("error"))
        assert found == ({} if expected is None else {expected: EXITS}), (what, found, errors)
        self._add(f"tick {what}", 1000 * took, "ms")
        self._add(f"tick {what}, CPU per exit", cpu / EXITS, "ms CPU")

    async def _measure(self, what: str, call: "asyncio.Future[Any]") -> None:
        cpu = cpu_ms(self._daemon.process.pid)
        began = time.perf_counter()
        await call
        self._add(what, 1000 * (time.perf_counter() - began), "ms")
        self._add(f"{what}, CPU per exit", (cpu_ms(self._daemon.process.pid) - cpu) / EXITS, "ms CPU")

    def _add(self, what: str, value: float, unit: str) -> None:
        self._report.add(f"{EXITS} exits: {what}", self._who, value, unit)


def _where(state: dict[str, Any]) -> str:
    """The state, or that of its one transaction; in the words of 0.8.0 for both versions."""
    if state["type"] != "processing":
        return str(state["type"])
    (tx,) = state["transactions"]
    status = str(tx["status"]["type"])
    return "awaiting-confirmation" if status == "broadcast-with-cpfp" else status
