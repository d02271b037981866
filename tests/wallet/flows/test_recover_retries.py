"""Asking again for what nobody could tell: how much at a time, and what follows from the answers."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.api import VtxoLookup
from barkd_py.server_rpc.errors import ConnectFailed
from barkd_py.wallet.recovery import service
from barkd_py.wallet.recovery.service import NoRecovery
from barkd_py.wallet.vtxo_states import Locked, Spendable
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.recoveries import recovery_with
from tests.wallet.flows.test_mailbox import delivered
from tests.wallet.flows.test_mailbox import pay as send
from tests.wallet.flows.test_recovery import pay, reborn, spendable
from tests.wallet.flows.test_recovery_lightning import pay as pay_invoice


class Server:
    """The real server. It says nothing of some VTXOs, and is away when it is asked for one of others."""

    def __init__(self, server: Any, silent: Collection[VtxoId] = (), away: Collection[VtxoId] = ()) -> None:
        self._server = server
        self.silent = silent
        self.away = away
        self.asked: list[VtxoId] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def get_vtxos(self, ids: Sequence[VtxoId]) -> VtxoLookup:
        if not set(ids).isdisjoint(self.away):
            raise ConnectFailed
        self.asked += ids
        return await self._server.get_vtxos([each for each in ids if each not in self.silent])  # type: ignore[no-any-return]


class Chain:
    """The real chain source, which does not know some transactions."""

    def __init__(self, chain: Any, unknown: Collection[Txid]) -> None:
        self._chain = chain
        self.unknown = set(unknown)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def get_tx(self, txid: Txid) -> Tx | None:
        return None if txid in self.unknown else await self._chain.get_tx(txid)


def made_up(numbers: range) -> list[VtxoId]:
    return [VtxoId.of(OutPoint(Txid(number.to_bytes(32, "big")), 0)) for number in numbers]


async def hears_of(owner: Owner, ids: Sequence[VtxoId]) -> None:
    """As from the mailbox."""
    async with owner.wallet.store.transaction() as tx:
        await tx.recovery.add_pending(ids)


def at_once(monkeypatch: pytest.MonkeyPatch, batch: int, most: int) -> None:
    monkeypatch.setattr(service, "BATCH", batch)
    monkeypatch.setattr(service, "MAX_UNKNOWN_PER_RETRY", most)


async def test_what_is_made_up_is_asked_for_some_at_a_time_and_hides_nothing(
    alice: Owner, bob: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new ones by turns with the old ones, and of those each in its turn."""
    at_once(monkeypatch, 2, 4)
    await send(alice, bob, 1_000)
    (paid,) = [Vtxo.decode(blob).id for blob in await delivered(bob)]
    flood, more = made_up(range(9)), made_up(range(100, 200))
    server = Server(bob.wallet.server, {*flood, *more})
    recovery = recovery_with(bob.wallet, server, monotonic=lambda: 0.0)
    await hears_of(bob, [*flood, paid])

    async def tick() -> set[VtxoId]:
        server.asked.clear()
        await recovery.tick()
        assert len(server.asked) <= 6
        return set(server.asked)

    seen: set[VtxoId] = set()
    for _ in range(5):
        seen |= await tick()
    assert seen == {*flood, paid}
    assert await spendable(bob) == {paid}
    assert await tick() == set()  # nothing is new, and it is not time yet
    recovery.note_block()
    assert len(await tick()) == 4
    await hears_of(bob, more)
    again: set[VtxoId] = set()
    for _ in range(5):
        asked = await tick()
        assert len(asked) == 4
        assert len(asked & set(more)) >= 2
        again |= asked
    assert again >= set(flood)


async def test_what_is_not_asked_for_yet_does_not_wait_longer_and_longer(
    bob: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the list is, each is asked for as often as one comes to it, a minute apart."""
    at_once(monkeypatch, 1, 1)
    flood = made_up(range(3))
    server = Server(bob.wallet.server, flood)
    seconds = 0.0
    recovery = recovery_with(bob.wallet, server, monotonic=lambda: seconds)
    await hears_of(bob, flood)
    for _ in range(9):
        await recovery.tick()
        seconds += service.FIRST_RETRY_SECS
    assert [server.asked.count(each) for each in flood] == [3, 3, 3]


async def test_htlcs_of_one_payment_are_asked_back_together(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else there is to ask for between them: the server gives back all of them or none."""
    outside = Outside(net)
    await alice.board(60_000)
    await pay_invoice(alice, await outside.invoice(520_000, hold=True))
    htlc_sat = (await alice.wallet.balance()).pending_lightning_send_sat
    assert htlc_sat > 500_000  # more than one of them
    anchors = {each.anchor_point.txid for each in await alice.wallet.list_vtxos(include_all=True)}
    await alice.wallet.registration.catch_up()
    await alice.wallet.close()
    async with reborn(net, alice) as again:
        chain = Chain(again.wallet.chain, anchors)
        recovery = recovery_with(again.wallet, again.wallet.server, chain)
        await recovery.resume()
        chain.unknown.clear()
        at_once(monkeypatch, 1, 1)
        under_way = []
        for _ in range(4):
            await recovery.retry()
            under_way.append((await again.wallet.balance()).pending_lightning_send_sat)
        assert under_way[0] == 0
        assert set(under_way) == {0, htlc_sat}


# --- coins


class Looks:
    """A search for coins that comes to its end when it is let."""

    def __init__(self) -> None:
        self.count = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        self.has_begun.set()
        await self.may_end.wait()


async def test_a_server_that_takes_its_word_back_makes_nobody_look_for_coins(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """A wallet that was never recovered: nobody has denied it coins, and there is nothing to forget."""
    await pay(alice, bob, 1_000)
    (paid,) = await spendable(bob)
    looks = Looks()
    looks.may_end.set()
    recovery = recovery_with(bob.wallet, bob.wallet.server, rescan_onchain=looks)
    with pytest.raises(NoRecovery):
        await recovery.report()
    await net.devnet.ark_server.set_vtxo_state(paid, SpendState.SPENT)
    await recovery.look_at([paid])
    assert (await bob.wallet.get_vtxo(paid)).state == Locked(None)
    await net.devnet.ark_server.set_vtxo_state(paid, SpendState.SPENDABLE)
    await recovery.catch_up()
    assert (await bob.wallet.get_vtxo(paid)).state == Spendable()
    assert looks.count == 0


async def test_coins_are_looked_for_once_more_though_the_server_went_away_meanwhile(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain source came to know more while somebody looked, and the asking broke off after that."""
    await alice.board(50_000)
    await alice.board(60_000)
    await alice.wallet.registration.catch_up()
    anchors = {each.id: each.anchor_point.txid for each in await alice.wallet.list_vtxos(include_all=False)}
    first, second, third = sorted(anchors, key=str)
    async with reborn(net, alice) as again:
        looks = Looks()
        server = Server(again.wallet.server)
        chain = Chain(again.wallet.chain, anchors.values())
        recovery = recovery_with(again.wallet, server, chain, rescan_onchain=looks)
        await recovery.resume()
        assert looks.count == 0
        at_once(monkeypatch, 1, 100)
        chain.unknown.discard(anchors[first])
        await recovery.retry()
        await looks.has_begun.wait()
        chain.unknown.discard(anchors[second])
        server.away = {third}
        with pytest.raises(ConnectFailed):
            await recovery.retry()
        assert await spendable(again) == {first, second}
        assert looks.count == 1
        looks.may_end.set()
        server.away = ()
        await recovery.catch_up()
        assert looks.count == 2
        await recovery.close()
