"""The victim, somebody to pay and be paid by, a devnet; and the books that must balance whatever happens."""

import resource
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from barkd_py.config import ENVIRONMENT_PREFIX
from barkd_py.datadir import DATABASE_FILE
from tests.crash.books import Books, Json
from tests.crash.doomed_daemon import CLOCK_FILE, DOOM_FILE
from tests.crash.nonces import NonceLog
from tests.support.nursery import ForkedProcess, Nursery
from tests.support.processes import Daemon, Devnet, esplora, eventually
from tests.support.proxies import (
    Dropped,
    HttpAnswer,
    HttpLiar,
    Liar,
    NetworkCall,
    ark_server_proxy,
    asked,
    esplora_proxy,
    honest,
)
from tests.support.secret_watch import assert_no_secrets

BOTH = ("victim", "peer")
DATABASE_URL = "BARKD_DATABASE_URL"

COIN_SAT = 5_000_000
COINS = 4
STOCK_SAT = 1_000_000
LEAST_SAT = 2_000_000
LEAST_STOCK_SAT = 200_000

# What a flow asks more often than this, it asks because it waits.
POLLS = 10

# Rounds are held when a flow asks for one; VTXOs outlive the blocks that the suite mines.
VTXO_LIFETIME = 16_000


def devnet_options(vtxo_lifetime: int) -> tuple[str, ...]:
    return ("--round-interval", "100000", "--vtxo-lifetime", str(vtxo_lifetime))


DEVNET_OPTIONS = devnet_options(VTXO_LIFETIME)


@dataclass(frozen=True, slots=True)
class KillPoint:
    """The nth (from 0) event of a kind, of which the daemon dies.

    what: a network call, or "commit". phase: before or after it.
    """

    what: str
    phase: str
    nth: int

    @property
    def is_look_up(self) -> bool:
        """Whether it only reads the chain."""
        return self.what.startswith("GET ")

    def __str__(self) -> str:
        return f"{self.phase} {self.what} #{self.nth + 1}"


@dataclass
class Gate:
    """Counts calls, kills the daemon at one of them, and lets a trouble strike the others."""

    daemon: Daemon
    armed: KillPoint | None = None
    seen: Counter[NetworkCall] = field(default_factory=Counter)
    trouble: Callable[[NetworkCall], Awaitable[None]] | None = None

    async def __call__(self, call: NetworkCall) -> None:
        nth = self.seen[call]
        self.seen[call] += 1
        if self.armed == KillPoint(call.name, call.phase, nth):
            self.armed = None
            self.daemon.process.kill()
            raise Dropped
        if self.trouble is not None:
            await self.trouble(call)


@dataclass
class Lies:
    """What the daemon is told instead of the truth, by the server and by the chain source."""

    server: Liar = honest
    chain: HttpLiar = asked


class _Limited(ForkedProcess):
    """Its files may be kept from growing; those of the next start as well."""

    _bytes: int | None = None

    def limit_files(self, nb_bytes: int | None) -> None:
        """None: as far as they like."""
        self._bytes = nb_bytes
        if self.running:
            self._apply()

    def launch(self) -> None:
        super().launch()
        if self._bytes is not None:
            self._apply()

    def _apply(self) -> None:
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(
            self.pid, resource.RLIMIT_FSIZE, (hard if self._bytes is None else self._bytes, hard)
        )


class DoomedDaemon(Daemon):
    """One of our daemons that a file can make kill itself around a commit. It starts quickly, and often.

    settings: environment variables of its next start.
    """

    def __init__(self, datadir: Path, nursery: Nursery, database_url: str | None = None) -> None:
        super().__init__(datadir)
        self.doom = datadir.with_name(f"{datadir.name}.doom")
        self.clock = datadir.with_name(f"{datadir.name}.clock")
        arguments = ("--datadir", str(datadir), "--port", str(self.port), "--no-auth")
        self.settings = {DOOM_FILE: str(self.doom), CLOCK_FILE: str(self.clock)}
        if database_url is not None:
            self.settings[DATABASE_URL] = database_url
        self.process: _Limited = _Limited(nursery, arguments, self.process.log, self.settings)

    async def start(self) -> None:
        """In PostgreSQL, what died may have the wallet a moment longer, and who comes stands by."""
        await super().start()
        if DATABASE_URL in self.settings and (self.datadir / "mnemonic").exists():
            await eventually(self._balance_status, lambda status: status == 200)

    async def _balance_status(self) -> int:
        return (await self.http.get("/wallet/balance")).status_code


@dataclass
class World:
    """See the module.

    ark_url, esplora_url: of the proxies. after_run: closed when a run is over. words, last_recovery,
    imported, encoded, forced, lost: what flows remember. rehearsed: the flow that ran undisturbed last, with
    commits_seen commits.
    """

    devnet: Devnet
    victim: DoomedDaemon
    peer: Daemon
    gate: Gate
    lies: Lies
    nonces: NonceLog
    books: Books
    nursery: Nursery
    ark_url: str
    esplora_url: str
    after_run: AsyncExitStack = field(default_factory=AsyncExitStack)
    words: str = ""
    last_recovery: str | None = None
    imported: str = ""
    encoded: str = ""
    forced: str = ""
    lost: tuple[str, str] = ("", "")
    rehearsed: str = ""
    commits_seen: int = 0
    _calls_seen: Counter[NetworkCall] = field(default_factory=Counter)

    # --- killing

    async def interrupted(self, point: KillPoint | None, act: Callable[[], Awaitable[None]]) -> bool:
        """Run the flow with death at a point, and start the daemon again if it came. Whether it did.

        Without a point, commits are counted; see `points_seen`.
        """
        self.gate.seen.clear()
        if point is None:
            self.victim.doom.write_text("count 0")
        elif point.what == "commit":
            self.victim.doom.write_text(f"{point.phase} {point.nth}")
        else:
            self.gate.armed = point
        try:
            await act()
        except httpx.TransportError:
            await eventually(self._is_dead, bool)
        self.gate.armed = None
        if point is None:
            self._calls_seen = Counter(self.gate.seen)
            self.commits_seen = int(self.victim.doom.read_text().split()[1])
        self.victim.doom.unlink(missing_ok=True)
        return await self._revive()

    async def _is_dead(self) -> bool:
        return not self.victim.process.running

    async def _revive(self) -> bool:
        """An answer proves that nobody is about to die: requests and commits take turns."""
        try:
            await self.victim.get("/wallet")
        except httpx.TransportError:
            await eventually(self._is_dead, bool)
            await self.victim.start()
            return True
        return False

    def points_seen(self, unrelated: frozenset[str]) -> list[KillPoint]:
        """Where the flow that was just counted can be interrupted."""
        calls = [
            KillPoint(call.name, call.phase, nth)
            for call, count in sorted(
                self._calls_seen.items(), key=lambda item: (item[0].name, item[0].phase)
            )
            if call.name not in unrelated
            for nth in range(min(count, POLLS))
        ]
        commits = [
            KillPoint("commit", phase, nth)
            for nth in range(self.commits_seen)
            for phase in ("before", "after")
        ]
        return calls + commits

    # --- what people do

    async def board(self, amount_sat: int = 30_000) -> str:
        """A new VTXO of the victim's; its id."""
        pending = await self.victim.post("/boards/board-amount", {"amount_sat": amount_sat})
        (vtxo_id,) = (vtxo if isinstance(vtxo, str) else vtxo["id"] for vtxo in pending["vtxos"])
        await self.settle()
        return str(vtxo_id)

    async def keep_in_funds(self) -> None:
        """Exits cost fees on the chain, a flow may have boarded everything, and payments go one way."""
        for daemon in (self.victim, self.peer):
            if (await daemon.get("/onchain/balance"))["total_sat"] < LEAST_SAT:
                await self._fund(daemon)
            if (await daemon.get("/wallet/balance"))["spendable_sat"] < LEAST_STOCK_SAT:
                await daemon.post("/boards/board-amount", {"amount_sat": STOCK_SAT})
                await self.settle()

    async def _fund(self, daemon: Daemon) -> None:
        address = (await daemon.post("/onchain/addresses/next"))["address"]
        paid = await self.devnet.pull("/fund", address=address, amount_sat=COIN_SAT)
        self.books.foreign.add(paid["txid"])
        self.books.wealth_sat += COIN_SAT
        await daemon.post("/onchain/sync")

    async def create_wallet(self, words: str | None = None) -> None:
        """The victim's; from these words, or new ones."""
        body = {"network": "regtest", "ark_server": self.ark_url, "chain_source": esplora(self.esplora_url)}
        await self.victim.post("/wallet/create", body if words is None else {**body, "mnemonic": words})

    async def stand_in(self) -> None:
        """A daemon without a wallet is the victim for the rest of this run."""
        victim = self.victim
        directory = TemporaryDirectory(prefix="barkd-newcomer-", ignore_cleanup_errors=True)
        self.after_run.callback(directory.cleanup)
        self.after_run.callback(assert_no_secrets, Path(directory.name))
        newcomer = DoomedDaemon(Path(directory.name) / "newcomer", self.nursery)

        def back() -> None:
            self.victim = self.gate.daemon = victim

        await newcomer.start()
        self.after_run.push_async_callback(newcomer.close)
        self.victim = self.gate.daemon = newcomer
        self.after_run.callback(back)

    async def start_with(self, **config: object) -> None:
        """Start the victim anew, with these settings for the rest of this run."""
        victim = self.victim
        names = {ENVIRONMENT_PREFIX + name.upper(): str(value) for name, value in config.items()}

        async def restart() -> None:
            victim.process.kill()
            await victim.start()

        async def back() -> None:
            for name in names:
                del victim.settings[name]
            await restart()

        victim.settings |= names
        self.after_run.push_async_callback(back)
        await restart()

    async def spare_vtxo(self) -> str:
        """Something small, but not dust, that the victim can do without."""
        vtxos = await self.victim.get("/wallet/vtxos")
        fit = [vtxo for vtxo in vtxos if 20_000 <= vtxo["amount_sat"] <= 50_000]
        if not fit:
            return await self.board()
        return str(min(fit, key=lambda vtxo: int(vtxo["amount_sat"]))["id"])

    async def hold_round(self, of: Daemon | None = None) -> None:
        """Let the server hold rounds until the part of one (the victim) in it is decided.

        Who is slow may miss one.
        """
        await self.devnet.pull("/round")

        async def undecided() -> list[Json]:
            infos = await (of or self.victim).get("/wallet/rounds")
            decided = ("unconfirmed", "confirmed", "failed", "canceled")
            if any(info["status"]["status"] == "sync-error" for info in infos):
                await self.devnet.pull("/round")
            return [info for info in infos if info["status"]["status"] not in decided]

        await eventually(undecided, lambda left: left == [])

    async def let_server_do_its_part(self) -> None:
        """Rounds with what it was asked to refresh, whether or not the victim knows that it took it on."""

        async def waiting() -> list[Json]:
            participations = (await self.books.read_devnet("/ark-server"))["participations"]
            return [each for each in participations if each["funding_txid"] is None]

        if await waiting():
            await self.devnet.pull("/round")
            await eventually(waiting, lambda left: left == [])
        await self.victim.post("/wallet/sync/mailbox")

    async def refresh_peer(self) -> None:
        """All that the peer has comes out of a new round."""
        await self.peer.post("/wallet/refresh/all")
        await self.hold_round(self.peer)
        await self.settle()

    async def settle(self) -> None:
        """Do what has to be done until nothing is pending, and the books balance."""
        await self.books.settle()

    async def history(self, kind: str, status: str = "successful", of: Daemon | None = None) -> list[Json]:
        """The movements of one kind in one status; the victim's unless of somebody else."""
        movements = await (of or self.victim).get("/history")
        return [each for each in movements if (each["subsystem"]["kind"], each["status"]) == (kind, status)]


@asynccontextmanager
async def running_world(
    directory: Path, devnet: Devnet, database_urls: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """A world in which both have money, and the victim lives behind proxies.

    database_urls: where they keep it, if not in their data directories.
    """
    urls = database_urls or {}
    directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        nursery = Nursery("tests.crash.doomed_daemon")
        stack.callback(nursery.close)
        victim, peer = (DoomedDaemon(directory / name, nursery, urls.get(name)) for name in BOTH)
        gate, lies, nonces = Gate(victim), Lies(), NonceLog()

        def lie(name: str, answer: bytes) -> bytes:
            return lies.server(name, answer)

        def lie_about_chain(method: str, path: str, body: bytes) -> HttpAnswer | None:
            return lies.chain(method, path, body)

        ark_url = await stack.enter_async_context(
            ark_server_proxy(devnet.ark_server_target, gate, nonces.note, lie)
        )
        esplora_url = await stack.enter_async_context(
            esplora_proxy(devnet.esplora_url, gate, lie_about_chain)
        )
        chain = await stack.enter_async_context(httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60))
        foreign = set()
        for daemon, ark, source in (
            (victim, ark_url, esplora_url),
            (peer, devnet.ark_server_url, devnet.esplora_url),
        ):
            await daemon.start()
            stack.push_async_callback(daemon.close)
            await daemon.create_wallet(ark, esplora(source))
            assert (daemon.datadir / DATABASE_FILE).exists() is (not urls)
            for _ in range(COINS):
                address = (await daemon.post("/onchain/addresses/next"))["address"]
                foreign.add((await devnet.pull("/fund", address=address, amount_sat=COIN_SAT))["txid"])
            await daemon.post("/onchain/sync")
            await daemon.post("/boards/board-amount", {"amount_sat": STOCK_SAT})
        books = Books(devnet, {"peer": peer, "victim": victim}, foreign, chain)
        await books.settle()
        books.wealth_sat = 2 * COINS * COIN_SAT
        await books.settle()
        yield World(devnet, victim, peer, gate, lies, nonces, books, nursery, ark_url, esplora_url)
