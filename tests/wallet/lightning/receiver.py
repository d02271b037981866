"""The receiving half of a wallet on a database of its own, with everything around it in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from barkd_py.ark.lightning_receive import ClaimWindow
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.units import Network
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.ids import receive_action_id
from barkd_py.wallet.lightning.receive.machine import (
    ExitSeam,
    LightningReceiveMachine,
    ReceiveSettings,
)
from barkd_py.wallet.lightning.receive.service import LightningReceives
from barkd_py.wallet.lightning.receive.states import FORMAT, State
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import LIGHTNING_RECEIVE, Movement
from barkd_py.wallet.vtxos.anchors import Anchors
from barkd_py.wallet.vtxos.registration import Registration
from tests.fakes.lightning_server import ReceiveServer
from tests.wallet.flows.liar import Doom, Liar
from tests.wallet.lightning.half import Clocks, Half, nothing_due, open_half

WINDOW = ClaimWindow(exit_margin=12, claim_delta=18)


@dataclass
class Exits(ExitSeam):
    """Exits that a test moves. started, claimed: what was asked."""

    started: list[VtxoId] = field(default_factory=list)
    claimed: list[VtxoId] = field(default_factory=list)

    async def start(self, vtxo_id: VtxoId) -> None:
        self.started.append(vtxo_id)

    async def claim(self, vtxo_ids: Sequence[VtxoId]) -> None:
        self.claimed += vtxo_ids


@dataclass
class Receiver(Half):
    """Somebody who is to be paid. liar: between the wallet and the server, chain_liar and the chain."""

    server: ReceiveServer
    liar: Liar
    chain_liar: Liar
    exits: Exits
    executor: ActionExecutor
    machine: LightningReceiveMachine
    receives: LightningReceives
    registration: Registration
    locks: NamedLocks

    async def invoice(self, amount_sat: int = 10_000, **options: Any) -> bytes:
        """The payment hash of a new one."""
        return Bolt11Invoice.parse(await self.receives.create(amount_sat, **options)).payment_hash

    async def paid_invoice(self, amount_sat: int = 10_000, **options: Any) -> bytes:
        payment_hash = await self.invoice(amount_sat, **options)
        self.server.pay(payment_hash)
        return payment_hash

    async def drive(self, payment_hash: bytes) -> None:
        """Raises what the drive ends or pauses with."""
        await self.executor.drive(self.machine, receive_action_id(payment_hash))

    async def state(self, payment_hash: bytes) -> State | None:
        async with self.store.read() as tx:
            row = await tx.actions.find(receive_action_id(payment_hash))
        return None if row is None else FORMAT.decode(row.payload)

    async def movements(self) -> Sequence[Movement]:
        return await self.movements_of(LIGHTNING_RECEIVE)

    async def movement(self) -> Movement:
        (movement,) = await self.movements()
        return movement

    async def balance(self) -> Balance:
        return await self.balance_at(self.server.chain.height)

    async def preimage(self, payment_hash: bytes) -> bytes:
        return (await self.receives.find(payment_hash)).preimage.data

    async def add_coin(self, amount_sat: int = 5_000, **options: Any) -> VtxoId:
        """A spendable VTXO, which the server knows."""
        key = await self.keychain.reserve()
        return await self.hold(self.server.coin(self.keychain.secret(key), amount_sat, **options))


@asynccontextmanager
async def open_receiver(
    database: str,
    server: ReceiveServer,
    *,
    doom: Doom | None = None,
    claim_retries: int = 5,
) -> AsyncIterator[Receiver]:
    """A wallet on this database; it is made if it is not there."""
    async with (
        open_half(database, Clocks()) as half,
        _receiving(half, server, doom, claim_retries) as receiver,
    ):
        yield receiver


@asynccontextmanager
async def _receiving(
    half: Half, server: ReceiveServer, doom: Doom | None, claim_retries: int
) -> AsyncIterator[Receiver]:
    store, keychain, clock = half.store, half.keychain, half.clock
    liar, chain_liar = Liar(server, doom), Liar(server.chain, doom)
    asked: Any = liar
    asked_chain: Any = chain_liar
    honest: Any = server
    registration = Registration(store, honest, keychain, nothing_due, now=clock)
    locks, exits = NamedLocks(), Exits()
    executor = ActionExecutor(store, locks)
    machine = LightningReceiveMachine(
        store,
        keychain,
        asked,
        asked_chain,
        registration,
        Anchors(asked_chain),
        ReceiveSettings(WINDOW, claim_retries),
        exits=exits,
        now=clock,
    )
    receives = LightningReceives(
        store,
        executor,
        machine,
        keychain,
        asked,
        locks,
        network=Network.REGTEST,
        window=WINDOW,
        wakeup=asyncio.Event(),
        now=clock,
        monotonic=clock,
    )
    receiver = Receiver(
        store,
        keychain,
        clock,
        server,
        liar,
        chain_liar,
        exits,
        executor,
        machine,
        receives,
        registration,
        locks,
    )
    try:
        yield receiver
    finally:
        await receives.poller.close()
        await registration.close()
