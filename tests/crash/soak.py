"""Random payments between four wallets under random faults, for a while; in the end the sum is what it was.

    python -m tests.crash.soak [--minutes 30] [--seed S] [--keep-document]

Each wallet pays, refreshes, boards, offboards, receives over Lightning; meanwhile daemons are killed and
started again, the Ark server refuses, forgets answers and dawdles, the chain source fails, blocks and rounds
come and go. Then all is made well again, and must come to rest with not a satoshi missing, and each wallet
must own what its history tells.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.crash import report
from tests.crash.books import Books
from tests.support.processes import Daemon, Devnet, esplora, start_devnet
from tests.support.secret_watch import assert_no_secrets

WALLETS = ("alice", "bob", "carol", "dave")
COIN_SAT = 2_000_000
COINS = 2
BOARD_SAT = 500_000

_SERVER_FAULTS = (
    {"kind": "error", "code": "INTERNAL"},
    {"kind": "error", "code": "UNAVAILABLE", "stage": "after-commit"},
    {"kind": "drop", "stage": "after-commit"},
    {"kind": "drop"},
    {"kind": "delay", "seconds": 2.0},
)
_CHAIN_FAULTS = ({"kind": "error"}, {"kind": "drop"}, {"kind": "delay", "seconds": 1.0})


@dataclass
class Soak:
    """tried, done: by what was attempted. faults: by what was done to them."""

    devnet: Devnet
    daemons: dict[str, Daemon]
    chance: random.Random
    tried: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float) -> None:
        """Everybody lives beside everybody's troubles."""
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for name in self.daemons:
                tasks.create_task(self._live(name, deadline))
            tasks.create_task(self._trouble(deadline))
            tasks.create_task(self._pass_time(deadline))

    # --- what people do

    async def _live(self, name: str, deadline: float) -> None:
        ways = (
            (self._pay, 10),
            (self._pay_over_lightning, 2),
            (self._refresh, 2),
            (self._board, 1),
            (self._offboard, 1),
            (self._look, 2),
        )
        while time.monotonic() < deadline:
            (way,) = self.chance.choices([each for each, _ in ways], [weight for _, weight in ways])
            what = way.__name__.removeprefix("_").replace("_", " ")
            self.tried[what] += 1
            try:
                await way(self.daemons[name])
            except (httpx.HTTPError, AssertionError):
                continue  # refused, or killed meanwhile: whatever it was, the books will tell
            finally:
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            self.done[what] += 1

    def _somebody_else(self, daemon: Daemon) -> Daemon:
        return self.chance.choice([each for each in self.daemons.values() if each is not daemon])

    async def _pay(self, daemon: Daemon) -> None:
        payee = self._somebody_else(daemon)
        address = (await payee.post("/wallet/addresses/next"))["address"]
        amount_sat = self.chance.choice((self.chance.randint(1, 1_000), self.chance.randint(1_000, 50_000)))
        await daemon.post("/wallet/send", {"destination": address, "amount_sat": amount_sat})

    async def _pay_over_lightning(self, daemon: Daemon) -> None:
        amount_sat = self.chance.randint(1_000, 20_000)
        body = {"amount_sat": amount_sat}
        invoice = (await self._somebody_else(daemon).post("/lightning/receives/invoice", body))["invoice"]
        await daemon.post("/lightning/pay", {"destination": invoice})

    async def _some_vtxos(self, daemon: Daemon, count: int) -> list[str]:
        vtxos = await daemon.get("/wallet/vtxos")
        fit = [each["id"] for each in vtxos if each["state"]["type"] == "spendable"]
        assert fit, "nothing to spare"
        return self.chance.sample(fit, min(count, len(fit)))

    async def _refresh(self, daemon: Daemon) -> None:
        way = self.chance.choice(("/wallet/refresh/vtxos", "/wallet/refresh/delegated/vtxos"))
        await daemon.post(way, {"vtxos": await self._some_vtxos(daemon, 3)})

    async def _board(self, daemon: Daemon) -> None:
        await daemon.post("/boards/board-amount", {"amount_sat": self.chance.randint(20_000, 100_000)})

    async def _offboard(self, daemon: Daemon) -> None:
        await daemon.post("/wallet/offboard/vtxos", {"vtxos": await self._some_vtxos(daemon, 1)})

    async def _look(self, daemon: Daemon) -> None:
        await daemon.post("/wallet/sync")
        await daemon.post("/onchain/sync")

    # --- what happens to them

    async def _trouble(self, deadline: float) -> None:
        ways: Sequence[Callable[[], Awaitable[None]]] = (self._kill, self._hurt_server, self._hurt_chain)
        while time.monotonic() < deadline:
            await self.chance.choices(ways, (2, 4, 1))[0]()
            await asyncio.sleep(self.chance.uniform(0.5, 3))

    async def _kill(self) -> None:
        self.faults["daemon killed"] += 1
        daemon = self.chance.choice(list(self.daemons.values()))
        daemon.process.kill()
        await asyncio.sleep(self.chance.uniform(0, 1))
        await daemon.start()

    async def _hurt_server(self) -> None:
        fault = self.chance.choice(_SERVER_FAULTS)
        self.faults[f"server: {fault['kind']}, {fault.get('stage', 'before')}"] += 1
        skip, count = self.chance.randint(0, 5), self.chance.randint(1, 4)
        await self.devnet.pull("/faults", target="ark-server", rpc="*", skip=skip, count=count, **fault)

    async def _hurt_chain(self) -> None:
        fault = self.chance.choice(_CHAIN_FAULTS)
        self.faults[f"chain source: {fault['kind']}"] += 1
        count = self.chance.randint(1, 10)
        await self.devnet.pull("/faults", target="esplora", path="/*", count=count, **fault)

    async def _pass_time(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            await self.devnet.mine()
            if self.chance.random() < 0.3:
                await self.devnet.pull("/round")
            await asyncio.sleep(self.chance.uniform(1, 4))


async def soak(seconds: float, seed: int) -> str:
    """One soak, from a devnet of its own to the books in balance; what happened. Raises AssertionError."""
    async with AsyncExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="barkd-soak-", ignore_cleanup_errors=True)
        )
        directory = Path(name)
        devnet = start_devnet(directory / "devnet", "--vtxo-lifetime", "16000", "--round-interval", "20")
        stack.callback(devnet.process.kill)
        daemons: dict[str, Daemon] = {}
        foreign = set()
        for each in WALLETS:
            daemons[each] = daemon = Daemon(directory / each, env={"BARK_DAEMON_SYNC_INTERVAL_SECS": "5"})
            stack.push_async_callback(daemon.close)
            await daemon.start()
            await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
            for _ in range(COINS):
                address = (await daemon.post("/onchain/addresses/next"))["address"]
                foreign.add((await devnet.pull("/fund", address=address, amount_sat=COIN_SAT))["txid"])
            await daemon.post("/onchain/sync")
            await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
        chain = await stack.enter_async_context(httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60))
        books = Books(devnet, daemons, foreign, chain)
        books.wealth_sat = len(WALLETS) * COINS * COIN_SAT
        await books.settle()

        life = Soak(devnet, daemons, random.Random(seed))
        await life.run(seconds)
        await devnet.clear_faults()
        began = time.monotonic()
        await books.settle()
        assert_no_secrets(directory)
        kinds: Counter[str] = Counter()
        for daemon in daemons.values():
            for movement in await daemon.get("/history"):
                kinds[f"{movement['subsystem']['name']} {movement['status']}"] += 1
        return _summary(life, kinds, seconds, seed, time.monotonic() - began, books.wealth_sat)


def _summary(
    life: Soak, kinds: Counter[str], seconds: float, seed: int, settled_secs: float, wealth_sat: int
) -> str:
    lines = [
        f"{seconds / 60:.0f} minutes, seed {seed}: {life.tried.total()} attempts of four wallets,"
        f" {life.done.total()} answered with success, under {life.faults.total()} faults. At rest"
        f" {settled_secs:.0f} s after the last fault, with all of the {wealth_sat:,} sat accounted for, and"
        " each wallet owns what its history tells.",
        "",
        "| attempted | times | answered with success |",
        "|---|---:|---:|",
        *(f"| {what} | {count} | {life.done[what]} |" for what, count in sorted(life.tried.items())),
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {what} | {count} |" for what, count in sorted(life.faults.items())),
        "",
        "| in the histories | times |",
        "|---|---:|",
        *(f"| {what} | {count} |" for what, count in sorted(kinds.items())),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None, help="a new one each time by default")
    parser.add_argument("--keep-document", action="store_true", help="do not write docs/reliability.md")
    options = parser.parse_args()
    commit = report.current_commit()
    seed = random.SystemRandom().randint(0, 99_999) if options.seed is None else options.seed
    print(f"soak: {options.minutes} minutes, seed {seed}", flush=True)
    try:
        summary = asyncio.run(soak(options.minutes * 60, seed))
    except AssertionError as error:
        print(f"soak FAILED with seed {seed}: {error}", flush=True)
        sys.exit(1)
    print(summary)
    if not options.keep_document:
        day = datetime.now(UTC).date().isoformat()
        command = f"python -m tests.crash.soak --minutes {options.minutes:g} --seed {seed}"
        report.record_soak(report.Soaked(command, commit, day, summary))
        report.write_document()


if __name__ == "__main__":
    main()
