"""Many rounds of several wallets, with faults drawn from a seed: what a bad year does to refreshes.

Each round, every wallet perhaps begins something (a refresh in person or delegated, a payment to another
wallet, a send on chain), and some of the faults below strike. Afterwards everybody is honest, blocks come,
and wallets that died are opened again, but nothing waits until all is settled: what is unfinished meets the
faults of the next round. Only the end is quiet.

What must hold: all that the wallets have, in Ark and on chain, and all that they paid in fees, is always the
same; and in the end nothing is locked, pending, or refused by the server.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import RoundEvent, RoundFailed, RoundFinished
from barkd_py.wallet.actions.server_books import are_spendable
from barkd_py.wallet.movements import ROUND_REFRESH, MovementStatus
from barkd_py.wallet.offboards.terms import OffboardTarget
from barkd_py.wallet.vtxo_states import StateKind, WalletVtxo
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, opener
from tests.wallet.flows.rounds import let_round_end

MAX_QUIET_ROUNDS = 12
"""How many undisturbed rounds may pass until everything is settled."""

CALLS = (
    "SubmitPayment",
    "ProvideVtxoSignatures",
    "SubmitRoundParticipation",
    "RoundParticipationStatus",
    "RequestLeafVtxoCosign",
    "RequestForfeitNonces",
    "ForfeitVtxos",
    "RegisterVtxoTransactions",
    "RequestArkoorCosign",
    "PostArkoorMessage",
    "PrepareOffboard",
    "FinishOffboard",
)
POINTS = (
    "round.book",
    "round.sign",
    "round.broadcast",
    "round.announce",
    "offboard.book",
    "offboard.broadcast",
)
BAD_SIGNATURES = (
    # The nonces that a wallet is told are wrong, so what it signs is.
    ("SubscribeRounds", "stream", "vtxo_proposal", "vtxo_proposal.vtxos_agg_nonces.0"),
    ("SubscribeRounds", "stream", "finished", "finished.vtxo_cosign_signatures.0"),
    ("RequestLeafVtxoCosign", "reply", "", "partial_signature"),
    ("ForfeitVtxos", "reply", "", "unlock_preimage"),
    ("RequestArkoorCosign", "reply", "", "parts.0.server_partial_sigs.0"),
)


@dataclass(eq=False)
class Player:
    """A wallet in the soak. deaf_from: the event of this round from which its stream is gone."""

    owner: Owner
    is_dead: bool = False
    deaf_from: int | None = None
    stores: list[CrashingStore] = field(default_factory=list)

    @property
    def store(self) -> CrashingStore:
        return self.stores[-1]

    async def reopen(self) -> None:
        if self.stores:
            self.store.arm(None)
        await self.owner.wallet.close()
        await self.owner.open(opener(self.stores))
        self.is_dead = False

    async def survive(self, work: Awaitable[object]) -> None:
        """Do something; what goes wrong is what the soak is about."""
        try:
            await work
        except Crash:
            self.is_dead = True
        except BarkdError:
            pass

    async def vtxos(self) -> list[WalletVtxo]:
        async with self.owner.wallet.store.read() as tx:
            return list(await tx.vtxos.list([StateKind.SPENDABLE]))


@dataclass
class Report:
    """What happened."""

    counts: Counter[str] = field(default_factory=Counter)
    fees_sat: int = 0
    quiet_rounds: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
        return f"{counts}; fees {self.fees_sat} sat; settled after {self.quiet_rounds} quiet rounds"


class Soak:
    """Runs it. The wallets must be open and at rest."""

    def __init__(self, net: Net, owners: Sequence[Owner], seed: int) -> None:
        self._net = net
        self._random = random.Random(seed)
        self.players = [Player(owner) for owner in owners]
        self.report = Report()
        self._begun_with_sat = 0
        self._restart_before: int | None = None
        self._reorg: str | None = None
        self._forget = False
        self._faults: dict[str, Callable[[], None]] = {
            "client killed": self._kill_client,
            "server killed": self._kill_server,
            "server restarted": self._restart_server,
            "stream dropped": self._drop_stream,
            "bad signature": self._spoil_signature,
            "call lost": self._lose_call,
            "reorg before swap": lambda: self._set_reorg("before"),
            "forgotten by the pool": self._forget_tx,
            "reorg after swap": lambda: self._set_reorg("after"),
        }

    async def run(self, nb_rounds: int) -> Report:
        for player in self.players:
            await player.reopen()
        self._begun_with_sat = await self.wealth_sat()
        for _ in range(nb_rounds):
            await self._disturbed_round()
            if await self._is_settled():
                await self._check_books()
        await self._come_to_rest()
        await self._check_books()
        self.report.fees_sat = sum([await self._fees_sat(player) for player in self.players])
        for player in self.players:
            movements = await player.owner.wallet.list_movements()
            refreshes = Counter(each.status for each in movements if each.subsystem == ROUND_REFRESH)
            self.report.counts.update({f"refreshes {status.value}": n for status, n in refreshes.items()})
        return self.report

    # --- one round

    async def _disturbed_round(self) -> None:
        for player in self.players:
            player.deaf_from = None
        # Most kills strike nothing, as their moment does not come, so they are drawn more often.
        drawn = [*self._faults, "client killed", "client killed"]
        for name in self._random.sample(drawn, k=self._random.choice([0, 1, 1, 2, 3])):
            self._faults[name]()
            self.report.counts[name] += 1
        for player in self.players:
            await player.survive(self._begin_something(player))
        await self._hold_round()
        await self._blocks()
        struck = sum(bool(fault["hits"]) for fault in self._net.devnet.ark_server.faults.list())
        self.report.counts["faults of the server that struck"] += struck
        self._net.honest()
        await self._everybody_up()
        for player in self.players:
            await self._sync(player)

    async def _begin_something(self, player: Player) -> None:
        wallet = player.owner.wallet
        vtxos = await player.vtxos()
        some = self._random.sample(vtxos, k=self._random.randint(0, len(vtxos)))
        amount_sat = self._random.randint(1_000, 20_000)
        match self._random.choice(["all", "some", "some", "delegated", "delegated", "pay", "leave"]):
            case "all" if vtxos:
                await wallet.rounds.refresh_all()
            case "some" if some:
                await wallet.rounds.refresh([vtxo.id for vtxo in some])
            case "delegated" if some:
                await wallet.rounds.refresh_delegated([vtxo.id for vtxo in some])
            case "pay":
                other = self._random.choice([each for each in self.players if each is not player])
                if not other.is_dead:
                    await wallet.send_arkoor(await other.owner.wallet.new_address(), amount_sat)
            case "leave":
                assert wallet.onchain is not None
                address = await wallet.onchain.next_address()
                target = OffboardTarget(address, parse_address(address, Network.REGTEST))
                await wallet.offboards.send(amount_sat, target)

    async def _hold_round(self) -> None:
        listening = {player: player.owner.wallet.server.subscribe_rounds() for player in self._alive()}
        engine = self._net.devnet.ark_server.rounds
        try:
            if engine.events.last is not None:
                await self._next_event(listening)  # what is told first is old
            first: dict[Player, asyncio.Future[RoundEvent]] = {}
            first |= {player: asyncio.ensure_future(anext(stream)) for player, stream in listening.items()}
            while engine.events.nb_subscribers < len(listening) and not self._engine_is_dead():
                await asyncio.sleep(0.001)
            engine.trigger()
            for step in range(20):
                events = await self._next_event(listening, first if step == 0 else None, step)
                if step == self._restart_before:
                    break
                if not events or any(isinstance(event, RoundFinished | RoundFailed) for event in events):
                    self.report.counts.update(type(event).__name__ for event in events[:1])
                    break
                engine.go_on()
        finally:
            for stream in listening.values():
                await stream.aclose()
        if self._restart_before is not None or self._engine_is_dead():
            self._restart_before = None
            await self._net.restart_ark_server()
        else:
            await let_round_end(self._net)

    async def _next_event(
        self,
        listening: dict[Player, AsyncGenerator[RoundEvent, None]],
        first: dict[Player, "asyncio.Future[RoundEvent]"] | None = None,
        step: int = -1,
    ) -> list[RoundEvent]:
        """Let everybody who listens deal with the next event; what they heard."""

        async def hear(player: Player) -> RoundEvent | None:
            stream = listening[player]
            waiting = asyncio.ensure_future(anext(stream)) if first is None else first[player]
            event = await self._heard(waiting)
            if event is not None and (player.deaf_from is None or step < player.deaf_from):
                await player.survive(player.owner.wallet.rounds.on_event(event))
            if event is None or player.is_dead or player.deaf_from == step:
                listening.pop(player)
                await stream.aclose()
            return event

        return [event for event in await asyncio.gather(*map(hear, list(listening))) if event is not None]

    async def _heard(self, waiting: "asyncio.Future[RoundEvent]") -> RoundEvent | None:
        """What the stream says; None if it has ended, or if nothing will ever come."""
        while not waiting.done() and not self._engine_is_dead():
            await asyncio.wait({waiting}, timeout=0.05)
        if not waiting.done():
            waiting.cancel()
        try:
            return await waiting
        except (BarkdError, StopAsyncIteration, asyncio.CancelledError):
            return None

    def _engine_is_dead(self) -> bool:
        """Whether an injected fault has stopped the server's round engine for good."""
        return not any(task.get_name() == "ark-server-rounds" for task in asyncio.all_tasks())

    async def _blocks(self) -> None:
        if self._forget:
            for entry in list(self._net.devnet.node.pool):
                if self._net.devnet.node.pool.get(entry.tx.txid) is not None:
                    await self._net.devnet.node.evict(entry.tx.txid)
            self._forget = False
        await self._net.mine()
        if self._reorg == "before":
            await self._net.devnet.node.reorg(1)
            await self._net.mine()
        for player in self._alive():
            await player.survive(self._look(player))
        if self._reorg == "after":
            await self._net.devnet.node.reorg(1)
        self._reorg = None

    async def _look(self, player: Player) -> None:
        wallet = player.owner.wallet
        await wallet.chain.fetch_tip()
        await wallet.rounds.sync()
        await wallet.offboards.drive_all()

    def _alive(self) -> list[Player]:
        return [player for player in self.players if not player.is_dead]

    async def _everybody_up(self) -> None:
        for player in self.players:
            if player.is_dead:
                self.report.counts["client died"] += 1
                await player.reopen()
            player.store.arm(None)

    async def _sync(self, player: Player) -> None:
        wallet = player.owner.wallet
        assert wallet.onchain is not None
        await wallet.sync()
        await wallet.onchain.sync()

    # --- faults

    def _kill_client(self) -> None:
        """At one of the next things that it stores."""
        player = self._random.choice(self.players)
        player.store.arm(self._random.randint(0, 4), self._random.choice(["before", "after"]))

    def _kill_server(self) -> None:
        self._net.fault(self._random.choice(POINTS), stage="engine", kind="drop")

    def _restart_server(self) -> None:
        self._restart_before = self._random.randint(0, 2)

    def _drop_stream(self) -> None:
        self._random.choice(self.players).deaf_from = self._random.randint(0, 2)

    def _spoil_signature(self) -> None:
        rpc, stage, message, path = self._random.choice(BAD_SIGNATURES)
        self._net.fault(rpc, stage=stage, message=message, kind="mutate", path=path, mutation="flip")

    def _lose_call(self) -> None:
        stage = self._random.choice(["before", "after-commit"])
        self._net.fault(self._random.choice(CALLS), stage=stage, kind="drop")

    def _forget_tx(self) -> None:
        """Whatever is unconfirmed when the round is over leaves the pool."""
        self._forget = True

    def _set_reorg(self, when: str) -> None:
        self._reorg = when

    # --- the end

    async def _come_to_rest(self) -> None:
        """Undisturbed rounds until everything is settled."""
        while not await self._is_settled():
            self.report.quiet_rounds += 1
            assert self.report.quiet_rounds <= MAX_QUIET_ROUNDS, await self._pending()
            await self._hold_round()
            await self._blocks()
            await self._everybody_up()
            for player in self.players:
                await self._sync(player)

    async def _is_settled(self) -> bool:
        return not await self._pending()

    async def _pending(self) -> list[object]:
        """Everything that is under way or locked."""
        found: list[object] = []
        for player in self.players:
            async with player.owner.wallet.store.read() as tx:
                found += [*await tx.rounds.list(), *await tx.actions.list()]
                found += await tx.vtxos.list([StateKind.LOCKED])
        return found

    async def wealth_sat(self) -> int:
        """What all have in Ark and on chain, and what they paid."""
        total_sat = 0
        for player in self.players:
            wallet = player.owner.wallet
            assert wallet.onchain is not None
            await wallet.onchain.sync()
            total_sat += (await wallet.balance()).total_sat + (await wallet.onchain.balance()).total_sat
            total_sat += await self._fees_sat(player)
        return total_sat

    async def _fees_sat(self, player: Player) -> int:
        movements = await player.owner.wallet.list_movements()
        return sum(each.offchain_fee_sat for each in movements if each.status is MovementStatus.SUCCESSFUL)

    async def _check_books(self) -> None:
        """Everything is there, and the server thinks so too."""
        for player in self.players:
            await player.owner.wallet.sync_mailbox()
        assert await self.wealth_sat() == self._begun_with_sat, str(self.report)
        for player in self.players:
            wallet = player.owner.wallet
            vtxo_ids = [vtxo.id for vtxo in await player.vtxos()]
            assert await are_spendable(wallet.store, wallet.keychain, wallet.server, vtxo_ids)
