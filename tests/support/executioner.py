"""Kills a daemon at a chosen network call: the victim behind proxies, and the gate that strikes.

A flow is run once undisturbed, which tells the calls that it makes; then once for each `KillPoint`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import Daemon, Devnet, esplora
from tests.support.proxies import Dropped, NetworkCall, ark_server_proxy, esplora_proxy

# What follows a call of the same name and kind in one flow is more of the same.
OCCURRENCES = 2

# Streams and look-ups that belong to no flow: they come whenever they come.
UNRELATED = {"Handshake", "GetArkInfo", "SubscribeRounds", "SubscribeMailbox", "ReadMailbox", "NextRoundTime"}

COINS = 4
COIN_SAT = 2_000_000


@dataclass(frozen=True, slots=True)
class KillPoint:
    """The nth call (from 0) of this name, before or after it."""

    call: NetworkCall
    nth: int


@dataclass
class Executioner:
    """A gate that counts calls, and kills the daemon at one of them."""

    daemon: Daemon
    armed: KillPoint | None = None
    seen: Counter[NetworkCall] = field(default_factory=Counter)
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self, point: KillPoint | None) -> None:
        self.armed = point
        self.seen.clear()
        self.killed.clear()

    async def __call__(self, call: NetworkCall) -> None:
        nth = self.seen[call]
        self.seen[call] += 1
        if self.armed == KillPoint(call, nth) and not self.killed.is_set():
            self.daemon.process.kill()
            self.killed.set()
            raise Dropped

    def points(self) -> list[KillPoint]:
        """Where the flow that was just seen can be interrupted."""
        return [
            KillPoint(call, nth)
            for call, count in sorted(self.seen.items(), key=lambda item: (item[0].name, item[0].phase))
            if call.name not in UNRELATED
            for nth in range(min(count, OCCURRENCES))
        ]


@dataclass(frozen=True, slots=True)
class Victim:
    """A daemon behind proxies whose gate is the executioner."""

    daemon: Daemon
    gate: Executioner
    devnet: Devnet

    async def interrupted(self, point: KillPoint | None, flow: Callable[[], Awaitable[Any]]) -> bool:
        """Run the flow with the executioner armed; restart the daemon if it struck. Whether it did."""
        self.gate.arm(point)
        try:
            await flow()
        except httpx.TransportError:
            assert self.gate.killed.is_set(), self.daemon.process.tail()
        self.gate.armed = None
        if not self.gate.killed.is_set():
            return False
        await self.daemon.start()
        return True


@asynccontextmanager
async def running_victim(datadir: Path, devnet: Devnet) -> AsyncIterator[Victim]:
    """A running victim, whose wallet has confirmed coins on the chain."""
    daemon = Daemon(datadir)
    gate = Executioner(daemon)
    async with AsyncExitStack() as stack:
        ark_url = await stack.enter_async_context(ark_server_proxy(devnet.ark_server_target, gate))
        esplora_url = await stack.enter_async_context(esplora_proxy(devnet.esplora_url, gate))
        await daemon.start()
        stack.push_async_callback(daemon.close)
        await daemon.create_wallet(ark_url, esplora(esplora_url))
        for _ in range(COINS):
            address = (await daemon.post("/onchain/addresses/next"))["address"]
            await devnet.fund(address, COIN_SAT)
        await daemon.post("/onchain/sync")
        yield Victim(daemon, gate, devnet)
