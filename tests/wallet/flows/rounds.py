"""Holding rounds step by step: the server goes on when every wallet has dealt with what it announced."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from barkd_py.devnet.ark_server.rounds.events import AttemptStarted, TreeProposed
from barkd_py.server_rpc.api import RoundAttempt, RoundEvent, RoundFailed, RoundFinished, VtxoProposal
from barkd_py.server_rpc.client import ArkServer
from barkd_py.server_rpc.connection import ConnectionSettings
from barkd_py.wallet.movements import ROUND_REFRESH, Movement, MovementStatus
from barkd_py.wallet.rounds.states import RoundState, decode_round
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.flows.conftest import Net, Owner


class Listener:
    """One wallet's subscription. Events are fed by hand."""

    def __init__(self, owner: Owner, stream: AsyncGenerator[RoundEvent, None]) -> None:
        self._owner = owner
        self._stream = stream

    async def hear(self) -> RoundEvent:
        return await anext(self._stream)

    async def step(self) -> RoundEvent:
        """Let the wallet deal with the next event."""
        event = await self.hear()
        await self._owner.wallet.rounds.on_event(event)
        return event


class HeldRound:
    """A round under way. `step` lets everybody deal with one event."""

    def __init__(self, net: Net, listeners: list[Listener]) -> None:
        self._engine = net.devnet.ark_server.rounds
        self._listeners = listeners

    async def step(self) -> RoundEvent:
        events = await asyncio.gather(*(listener.step() for listener in self._listeners))
        if isinstance(events[0], RoundAttempt | VtxoProposal):
            self._engine.go_on()
        return events[0]

    async def hear(self) -> RoundEvent:
        """The next event, which no wallet gets to see."""
        events = await asyncio.gather(*(listener.hear() for listener in self._listeners))
        return events[0]

    async def finish(self) -> RoundEvent:
        """Go on to the end of the round."""
        while True:
            event = await self.step()
            if isinstance(event, RoundFinished | RoundFailed):
                return event


async def _attempt_after(round_seq: int | None, stream: AsyncGenerator[RoundEvent, None]) -> RoundAttempt:
    """How the next round begins; an earlier one may not be over yet."""
    while True:
        event = await anext(stream)
        if isinstance(event, RoundAttempt) and event.round_seq != round_seq:
            return event


@asynccontextmanager
async def round_of(net: Net, *owners: Owner, is_open: bool = False) -> AsyncIterator[HeldRound]:
    """A round that starts now, with these wallets listening. is_open: it still takes participants."""
    streams = [owner.wallet.server.subscribe_rounds() for owner in owners]
    listeners = [Listener(owner, stream) for owner, stream in zip(owners, streams, strict=True)]
    engine = net.devnet.ark_server.rounds
    heard = engine.events.last is not None
    try:
        before = None
        if heard:  # what is told first is old
            before = (await asyncio.gather(*(listener.step() for listener in listeners)))[0].round_seq
        first = [asyncio.ensure_future(_attempt_after(before, stream)) for stream in streams]
        while engine.events.nb_subscribers < len(owners):
            await asyncio.sleep(0.001)
        engine.trigger()
        events = await asyncio.gather(*first)
        await asyncio.gather(
            *(owner.wallet.rounds.on_event(event) for owner, event in zip(owners, events, strict=True))
        )
        if not is_open:
            engine.go_on()
        yield HeldRound(net, listeners)
    finally:
        for stream in streams:
            await stream.aclose()


async def hold_round(net: Net, *owners: Owner) -> RoundEvent:
    """A whole round; how it ended. Without owners, nobody listens."""
    if not owners:
        return await _hold_unheard_round(net)
    async with round_of(net, *owners) as held:
        return await held.finish()


async def _hold_unheard_round(net: Net) -> RoundEvent:
    stream = ArkServer(ConnectionSettings(net.devnet.urls.ark_server_url, "regtest", "test/1"))
    engine = net.devnet.ark_server.rounds
    events = stream.subscribe_rounds()
    try:
        if engine.events.last is not None:
            await anext(events)
        engine.trigger()
        while True:
            event = await anext(events)
            if isinstance(event, RoundFinished | RoundFailed):
                return event
            engine.go_on()
    finally:
        await events.aclose()
        await stream.close()


async def let_round_end(net: Net) -> None:
    """End the round that is being held, if there is one, however many attempts it takes."""
    engine = net.devnet.ark_server.rounds
    async with asyncio.timeout(60):
        while isinstance(engine.events.last, AttemptStarted | TreeProposed):
            engine.go_on()
            await asyncio.sleep(0.001)


async def settle(net: Net, *owners: Owner) -> None:
    """Confirm what was broadcast, and let the wallets finish."""
    await net.mine()
    for owner in owners:
        await owner.wallet.chain.fetch_tip()
        await owner.wallet.rounds.sync()


async def stored_rounds(owner: Owner) -> list[RoundState]:
    """The participations under way, without looking what became of them."""
    async with owner.wallet.store.read() as tx:
        return [decode_round(row.payload).state for row in await tx.rounds.list()]


async def refreshes(owner: Owner) -> list[Movement]:
    """The history of refreshes, newest first."""
    return await owner.movements(ROUND_REFRESH)


async def assert_nothing_stuck(owner: Owner) -> None:
    """No participation is left, and nothing is locked."""
    async with owner.wallet.store.read() as tx:
        assert await tx.rounds.list() == ()
        assert await tx.vtxos.list([StateKind.LOCKED]) == ()


async def assert_refreshed(owner: Owner) -> None:
    """By one refresh, and everything is over."""
    await assert_nothing_stuck(owner)
    (movement,) = await refreshes(owner)
    assert movement.status is MovementStatus.SUCCESSFUL
