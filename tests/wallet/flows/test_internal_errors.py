"""A server that fails inside at every call that there is, once at each or for ever: INTERNAL, it says, and
nobody knows what it has done. What was asked for is done in the end, or was never begun; no satoshi is lost.

Source: protocol sheet 10 §14, transport.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.protos import bark_server_pb2, mailbox_server_pb2
from barkd_py.wallet.movements import ARKOOR_SEND, SEND_ONCHAIN, MovementStatus
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.offboards import assert_settled, onchain_sat, target_of
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round
from tests.wallet.flows.test_arkoor_send import impatient_sends
from tests.wallet.flows.test_lightning_lies import hits
from tests.wallet.flows.test_lightning_send import pay
from tests.wallet.flows.test_recovery import reborn, spendable

PENDING = MovementStatus.PENDING
AMOUNT_SAT = 10_000
TRIES = 25
"""A flow makes fewer calls than that, so each may fail once."""

CONNECTING = {"Handshake", "GetArkInfo"}
"""Of these, `tests/server_rpc/test_connection` and `tests/faults/test_lying_server` tell."""

CALLS = {
    method.name
    for service in (
        bark_server_pb2.DESCRIPTOR.services_by_name["ArkService"],
        mailbox_server_pb2.DESCRIPTOR.services_by_name["MailboxService"],
    )
    for method in service.methods
    if not method.server_streaming
} - CONNECTING
NOT_MADE = {
    "RegisterVtxos",  # the old name of RegisterVtxoTransactions
    "LastRoundEvent",  # the stream begins with it
}

Step = Callable[[], Awaitable[object]]


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


class Incomplete(BarkdError):
    """Not everything was found."""


class Life:
    """What alice does with her wallet, one thing after the other."""

    def __init__(self, net: Net, alice: Owner, bob: Owner) -> None:
        self.net, self.alice, self.bob = net, alice, bob
        self.outside = Outside(net)

    def steps(self) -> dict[str, Step]:
        return {
            "board": self.board,
            "pay": self.pay,
            "be paid": self.be_paid,
            "refresh": self.refresh,
            "refresh, delegated": self.refresh_delegated,
            "send on chain": self.send_onchain,
            "pay over Lightning": self.pay_over_lightning,
            "pay an offer": self.pay_an_offer,
            "pay over Lightning what fails": self.fail_over_lightning,
            "be paid over Lightning": self.be_paid_over_lightning,
            "cancel an invoice": self.cancel_an_invoice,
            "look for what was forgotten": self.recover,
            "ask for the next round": self.alice.wallet.next_round_time,
        }

    async def drive(self) -> None:
        """As a daemon does when it is left alone for a minute."""
        if await self.alice.wallet.rounds.list():
            await hold_round(self.net, self.alice)
        if await self.waits_for_blocks():  # no others: payments over Lightning have no time to lose
            await self.net.mine()
            await self.alice.wallet.chain.fetch_tip()
        with suppress(BarkdError):
            await self.alice.wallet.sync()
        with suppress(BarkdError):
            await self.alice.wallet.registration.catch_up()

    async def waits_for_blocks(self) -> bool:
        wallet = self.alice.wallet
        return bool(
            await wallet.rounds.list()
            or await wallet.pending_boards()
            or [each for each in await self.alice.movements(SEND_ONCHAIN) if each.status is PENDING]
        )

    async def until(self, accept: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(TRIES):
            if await accept():
                return
            await self.drive()
        async with self.alice.wallet.store.read() as tx:
            left = await tx.actions.list()
        raise AssertionError(f"not over after {TRIES} tries: {left}")

    async def board(self) -> None:
        await self.alice.wallet.board_amount(50_000)

    async def pay(self) -> None:
        sends = impatient_sends(self.alice.wallet, wait_secs=2)
        await sends.send(await self.bob.wallet.new_address(), AMOUNT_SAT)

    async def be_paid(self) -> None:
        await self.alice.wallet.sync_mailbox()

    async def refresh(self) -> None:
        await self.alice.wallet.rounds.refresh_all()
        await hold_round(self.net, self.alice)

    async def refresh_delegated(self) -> None:
        vtxos = await self.alice.wallet.list_vtxos(include_all=False)
        await self.alice.wallet.rounds.refresh_delegated([vtxo.id for vtxo in vtxos[:1]])
        await hold_round(self.net)

    async def send_onchain(self) -> None:
        await self.alice.wallet.offboards.send(AMOUNT_SAT, await target_of(self.bob))

    async def pay_over_lightning(self) -> None:
        await pay(self.alice, await self.outside.invoice(AMOUNT_SAT))

    async def pay_an_offer(self) -> None:
        await pay(self.alice, await self.outside.offer(AMOUNT_SAT))

    async def fail_over_lightning(self) -> None:
        text = await self.outside.invoice(AMOUNT_SAT, fail="destination-rejected")
        await pay(self.alice, text, retry_for_secs=0)

    async def be_paid_over_lightning(self) -> None:
        await self.outside.pay(await self.alice.wallet.lightning.create_invoice(AMOUNT_SAT))

    async def cancel_an_invoice(self) -> None:
        await self.alice.wallet.lightning.create_invoice(AMOUNT_SAT)
        (receive,) = await self.alice.wallet.lightning.receives()
        await self.alice.wallet.lightning.cancel_receive(receive.payment_hash)

    async def recover(self) -> None:
        await self.alice.wallet.recovery.start()
        if not (await self.alice.wallet.recovery.report()).is_complete:
            raise Incomplete

    # --- how it stands

    async def nb_movements(self) -> int:
        return len(await self.alice.wallet.list_movements())

    async def is_over(self) -> bool:
        """Nothing is under way."""
        is_pending = any(movement.status is PENDING for movement in await self.alice.wallet.list_movements())
        async with self.alice.wallet.store.read() as tx:
            return not is_pending and await tx.actions.list() == ()

    async def assert_books(self) -> None:
        """What alice has is what her history says, and nothing is held for nobody."""
        movements = await self.alice.wallet.list_movements()
        assert sum(each.effective_balance_sat for each in movements) == (
            (await self.alice.wallet.balance()).total_sat
        )
        await assert_settled(self.alice)
        await assert_nothing_stuck(self.alice)


async def test_each_call_fails_once(net: Net, alice: Owner, bob: Owner) -> None:
    """As a person does, alice asks again if nothing was begun; what was begun goes on by itself."""
    await alice.fund_onchain(70_000)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 3 * AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    await bob.wallet.send_arkoor(await alice.wallet.new_address(), AMOUNT_SAT)
    numbers = {call: net.fault(call, stage="before", kind="error", code="INTERNAL") for call in CALLS}
    life = Life(net, alice, bob)
    bobs_sat, bobs_onchain_sat = await bob.spendable_sat(), await onchain_sat(bob)
    for name, step in life.steps().items():
        for _ in range(TRIES):
            begun = await life.nb_movements()
            try:
                await step()
                break
            except BarkdError:
                if await life.nb_movements() > begun:
                    break
        else:
            raise AssertionError(f"{name}: refused {TRIES} times")
        await life.until(life.is_over)
    await life.assert_books()
    # The bodies that a search by extended key brings are looked up by id where there is none.
    net.fault("RecoverVtxosByXpub", stage="before", kind="error", code="UNIMPLEMENTED", count=None)
    async with reborn(net, alice) as twin:
        for _ in range(TRIES):
            await twin.wallet.recovery.start()
            if (await twin.wallet.recovery.report()).is_complete:
                break
        assert await spendable(twin) == await spendable(alice)
    assert {call for call, number in numbers.items() if hits(net, number) == 0} == NOT_MADE
    with suppress(BarkdError):
        await bob.wallet.sync_mailbox()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == bobs_sat + AMOUNT_SAT
    assert await onchain_sat(bob) == bobs_onchain_sat + AMOUNT_SAT


async def test_every_call_fails_for_ever(net: Net, alice: Owner, bob: Owner) -> None:
    """Nothing leaves the wallet, whatever is asked for and however often; then the server is mended."""
    await alice.fund_onchain(70_000)
    await alice.wallet.server.info()  # it is connected, so every call is made
    before, before_onchain_sat = await alice.wallet.balance(), await onchain_sat(alice)
    life = Life(net, alice, bob)
    for call in CALLS:
        net.fault(call, stage="before", kind="error", code="INTERNAL", count=None)
    for name, step in life.steps().items():
        if name.startswith("refresh"):
            continue  # there are no rounds with such a server
        with pytest.raises(BarkdError):
            await step()
        await life.drive()
        assert (await alice.wallet.balance()).total_sat == before.total_sat, name
        assert await onchain_sat(alice) == before_onchain_sat, name
    net.honest()
    await life.until(life.is_over)
    await life.assert_books()
    await bob.wallet.sync_mailbox()
    sent = await alice.movements(ARKOOR_SEND)
    assert await bob.spendable_sat() == -sum(each.effective_balance_sat for each in sent)
