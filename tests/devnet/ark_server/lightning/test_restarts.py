"""The server is restarted in the middle of payments, and goes on where its books are."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import Emulation, ServerSettings
from barkd_py.devnet.lightning import rows
from barkd_py.devnet.lightning.outside import Outside
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.conftest import SettableClock
from tests.devnet.ark_server.lightning.client import LightningClient
from tests.devnet.ark_server.lightning.conftest import POOL_SAT, SETTINGS
from tests.devnet.ark_server.lightning.test_receive import ASKED_SAT, pay
from tests.devnet.ark_server.lightning.test_send import PAID_SAT, ask
from tests.fakes.server_chain import FakeServerChain


class Restarts:
    """Starts the server again, with the same users."""

    def __init__(
        self,
        directory: Path,
        chain: FakeServerChain,
        clock: SettableClock,
        node: ServerNode,
        stack: AsyncExitStack,
    ) -> None:
        self._directory = directory
        self._chain = chain
        self._clock = clock
        self._node = node
        self._stack = stack

    async def restart_with_node(self, server: ArkServer) -> None:
        """The node is started again too; whoever took their time has no reason for that any more."""
        await server.stop()
        await self._node.close()
        directory = self._directory.parent / "lightning"
        self._node = await ServerNode.open(directory, self._chain, self._clock)
        self._stack.push_async_callback(self._node.close)
        await self._node.store.transact(
            lambda connection: connection.exec_driver_sql("UPDATE outside_invoice SET behaviour = '{}'")
        )
        await self.restart(server)
        running = asyncio.create_task(self._node.run())
        self._stack.callback(running.cancel)

    async def restart(self, server: ArkServer) -> ArkServer:
        await server.stop()
        again = await ArkServer.start(
            self._directory,
            self._chain,
            settings=SETTINGS,
            clock=self._clock,
            lightning_node=self._node,
            address=f"127.0.0.1:{server.port}",
        )
        self._stack.push_async_callback(again.stop)
        return again


@pytest.fixture
def restarts(
    tmp_path: Path,
    chain: FakeServerChain,
    clock: SettableClock,
    node: ServerNode,
    stack: AsyncExitStack,
    server: ArkServer,
) -> Restarts:
    return Restarts(tmp_path / "ark", chain, clock, node, stack)


async def test_payment_that_came_while_the_server_was_down(
    alice: LightningClient, outside: Outside, server: ArkServer, restarts: Restarts
) -> None:
    receive = await alice.receive(ASKED_SAT)
    await server.stop()
    payment = await outside.pay(receive.text)
    again = await restarts.restart(server)
    status = await alice.receive_status(receive.payment_hash, wait=True)
    assert status.status == pb.ACCEPTED
    await alice.claim(receive, await alice.grant(receive.payment_hash))
    assert (await outside.outcome(payment)).state == "settled"
    assert await again.pool.balance_sat() < sum(POOL_SAT)


async def test_grant_is_the_same_after_a_restart(
    alice: LightningClient, outside: Outside, server: ArkServer, restarts: Restarts
) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    await restarts.restart(server)
    again = await alice.grant(receive.payment_hash)
    assert [vtxo.id for vtxo in again] == [vtxo.id for vtxo in granted]
    await alice.claim(receive, again)


async def test_payer_is_settled_with_after_a_restart(
    alice: LightningClient, outside: Outside, server: ArkServer, node: ServerNode, restarts: Restarts
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    node.is_online = False
    await alice.claim(receive, await alice.grant(receive.payment_hash))
    await server.stop()
    node.is_online = True
    await (await restarts.restart(server)).lightning.sweep()
    assert (await outside.outcome(payment)).state == "settled"
    assert (await alice.receive_status(receive.payment_hash)).status == pb.SETTLED


async def test_payment_that_arrived_while_the_server_was_down(
    alice: LightningClient, outside: Outside, server: ArkServer, restarts: Restarts
) -> None:
    invoice = await ask(outside, hold=True)
    await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    await server.stop()
    preimage = await outside.settle(invoice.payment_hash)
    await restarts.restart(server)
    status = await alice.payment_status(invoice.payment_hash, wait=True)
    assert status.success.preimage == preimage
    (note,) = await alice.notes()
    assert note.lightning_send_finished.preimage == preimage


async def test_payment_that_was_under_way_when_the_node_went_down(
    alice: LightningClient, outside: Outside, server: ArkServer, restarts: Restarts
) -> None:
    invoice = await ask(outside, delay_secs=3600)
    await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    assert (await alice.payment_status(invoice.payment_hash)).HasField("pending")
    await restarts.restart_with_node(server)
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("success")


async def test_payment_whose_caller_died_while_it_was_written(
    alice: LightningClient, outside: Outside, node: ServerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, may_go_on = threading.Event(), threading.Event()
    insert = rows.insert_payment

    def slowly(*args: Any) -> int:
        number = insert(*args)
        is_written.set()
        assert may_go_on.wait(30)
        return number

    monkeypatch.setattr(rows, "insert_payment", slowly)
    invoice = await ask(outside)
    start = alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    caller = asyncio.create_task(start)
    assert await asyncio.to_thread(is_written.wait, 30)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await alice.call(alice.ark.Handshake, pb.HandshakeRequest())  # by then the server has heard of it
    may_go_on.set()
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("success")


class TestOlderServer:
    """The older server does not say why a payment failed."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(pool_amounts_sat=POOL_SAT, emulate=Emulation.V0_6)

    async def test_no_reasons(self, alice: LightningClient, outside: Outside) -> None:
        invoice = await ask(outside, fail="destination-rejected")
        await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
        status = await alice.payment_status(invoice.payment_hash, wait=True)
        assert (status.HasField("failed"), status.failed.reason) == (True, 0)
        (note,) = await alice.notes()
        assert not note.lightning_send_finished.HasField("failure")
