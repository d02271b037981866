"""The paying half of a wallet on a database of its own, with everything around it in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.payloads import encode_state
from barkd_py.wallet.exits.rows import apply_consequences, row_after
from barkd_py.wallet.exits.states import ExitState
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.send.invoices import InvoiceSource
from barkd_py.wallet.lightning.send.lnurl import LnurlClient
from barkd_py.wallet.lightning.send.machine import LightningSendMachine
from barkd_py.wallet.lightning.send.service import LightningSends, SendRules
from barkd_py.wallet.lightning.send.states import FORMAT, State
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import EXIT_START, LIGHTNING_SEND, Movement, MovementUpdate
from barkd_py.wallet.payments.request import InvoiceDestination
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.vtxos.anchors import Anchors
from barkd_py.wallet.vtxos.registration import Registration
from tests.fakes.pay_server import PayServer
from tests.wallet.flows.liar import Doom, Liar
from tests.wallet.lightning.half import Clocks, Half, nothing_due, open_half

THRESHOLD = 12
EXIT_MARGIN = 12
COIN_EXPIRY_HEIGHT = 1_000
PREIMAGE = b"\x61" * 32
# When the invoices for offers were written.
OFFERED_AT = 1_700_000_000
PAYEE_SECRET = SecretKey(b"\x62" * 32)


def bolt11(amount_sat: int | None = 10_000, preimage: bytes = PREIMAGE, **changes: Any) -> Bolt11Invoice:
    fields: dict[str, Any] = {
        "network": Network.REGTEST,
        "amount_msat": None if amount_sat is None else amount_sat * 1000,
        "payment_hash": sha256(preimage),
        "payment_secret": b"\x63" * 32,
        "timestamp": 1_800_000_000,
        **changes,
    }
    return create_invoice(PAYEE_SECRET, **fields)


@dataclass
class Exits:
    """started: exits that were asked for. refuses: those that cannot exit."""

    started: list[VtxoId] = field(default_factory=list)
    refuses: set[VtxoId] = field(default_factory=set)

    async def start(self, vtxo_id: VtxoId) -> None:
        if vtxo_id in self.refuses:
            raise BarkdError("too small to exit")
        if vtxo_id not in self.started:
            self.started.append(vtxo_id)


@dataclass
class Payer(Half):
    """Somebody who pays. liar: between the wallet and the server."""

    server: PayServer
    liar: Liar
    exits: Exits
    executor: ActionExecutor
    machine: LightningSendMachine
    sends: LightningSends
    registration: Registration

    async def pay(
        self, invoice: Bolt11Invoice | None = None, amount_sat: int | None = None, **options: Any
    ) -> bytes:
        return await self.sends.pay(InvoiceDestination(invoice or bolt11()), amount_sat, **options)

    async def drive(self, payment_hash: bytes | None = None) -> None:
        """Raises what the drive ends or pauses with."""
        await self.executor.drive(self.machine, send_action_id(payment_hash or sha256(PREIMAGE)))

    async def state(self, payment_hash: bytes | None = None) -> State | None:
        async with self.store.read() as tx:
            row = await tx.actions.find(send_action_id(payment_hash or sha256(PREIMAGE)))
        return None if row is None else FORMAT.decode(row.payload)

    async def name(self) -> str:
        """The state as clients see it."""
        return (await self.sends.find(sha256(PREIMAGE))).state.value

    async def movements(self) -> Sequence[Movement]:
        return await self.movements_of(LIGHTNING_SEND)

    async def movement(self) -> Movement:
        (movement,) = await self.movements()
        return movement

    async def balance(self) -> Balance:
        return await self.balance_at(self.server.chain.height)

    async def mark_exited(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """Their exits are confirmed."""
        async with self.store.transaction() as tx:
            await tx.vtxos.mark_exited(vtxo_ids)

    async def exit(self, vtxo_id: VtxoId, state: ExitState) -> None:
        """What the exits do when one has come so far; the first time makes its movement."""
        async with self.store.transaction() as tx:
            row = await tx.exits.find(vtxo_id)
            if row is None:
                amount_sat = (await tx.vtxos.get(vtxo_id)).amount_sat
                movement = await tx.movements.create(
                    EXIT_START, MovementUpdate(effective_balance_sat=-amount_sat, input_vtxos=(vtxo_id,))
                )
                row = ExitRow(vtxo_id, state.type, encode_state(state), "[]", movement.id)
            row = row_after(row, state, ())
            await tx.exits.save(row)
            await apply_consequences(tx, row, state)

    async def exit_movements(self) -> Sequence[Movement]:
        return await self.movements_of(EXIT_START)

    async def add_coin(self, amount_sat: int = 100_000, expiry_height: int = COIN_EXPIRY_HEIGHT) -> VtxoId:
        """A spendable VTXO, which the server knows."""
        key = await self.keychain.reserve()
        return await self.hold(self.server.user_coin(self.keychain.secret(key), amount_sat, expiry_height))

    async def assert_even(self, expected_sat: int) -> None:
        """Nothing is locked or under way, and both sides agree about what there is."""
        balance = await self.balance()
        assert balance.spendable_sat + balance.needs_refresh_sat == expected_sat
        assert self.server.unspent_sat() == expected_sat
        async with self.store.read() as tx:
            assert await tx.actions.list() == ()
            assert await tx.vtxos.list([StateKind.LOCKED]) == ()


@asynccontextmanager
async def open_payer(
    database: str,
    server: PayServer,
    *,
    doom: Doom | None = None,
    exits: Exits | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Payer]:
    """A wallet on this database; it is made if it is not there."""
    async with (
        open_half(database, Clocks()) as half,
        _paying(half, server, doom, exits or Exits(), transport) as payer,
    ):
        yield payer


@asynccontextmanager
async def _paying(
    half: Half,
    server: PayServer,
    doom: Doom | None,
    exits: Exits,
    transport: httpx.AsyncBaseTransport | None,
) -> AsyncIterator[Payer]:
    store, keychain, clock = half.store, half.keychain, half.clock
    liar = Liar(server, doom)
    asked: Any = liar
    chain: Any = Liar(server.chain, doom)
    honest: Any = server
    registration = Registration(store, honest, keychain, nothing_due, now=clock)
    await registration.close()  # it works behind the payments, and would commit at times of its own

    async def no_time(_: float) -> None:
        await asyncio.sleep(0)

    executor = ActionExecutor(store, NamedLocks(), sleep=no_time)
    machine = LightningSendMachine(
        store,
        keychain,
        asked,
        chain,
        registration,
        Anchors(chain),
        threshold=THRESHOLD,
        exit_margin=EXIT_MARGIN,
        start_exit=exits.start,
    )
    lnurl = LnurlClient(Network.REGTEST, transport=transport)
    sends = LightningSends(
        store,
        executor,
        machine,
        keychain,
        asked,
        chain,
        InvoiceSource(asked, lnurl, Network.REGTEST, now=lambda: OFFERED_AT),
        network=Network.REGTEST,
        rules=SendRules(change_split_factor=2, exit_margin=EXIT_MARGIN),
        wakeup=asyncio.Event(),
        wait_secs=300,  # nothing fails because a machine is slow
        change_wait_secs=300,
        now=clock,
        monotonic=clock,
    )
    try:
        yield Payer(store, keychain, clock, server, liar, exits, executor, machine, sends, registration)
    finally:
        await sends.close()
        await registration.close()
