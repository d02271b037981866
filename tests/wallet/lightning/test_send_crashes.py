"""Whoever pays dies: around every call of the server and the chain, and around every commit.

Whatever happened, the wallet that is opened again ends where the server ended: the payment was made once, or
the money is back, to the satoshi.
"""

from contextlib import suppress
from typing import Literal

import pytest

from barkd_py.errors import BarkdError
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.send.states import Initiated, Stuck
from barkd_py.wallet.movements import MovementStatus
from tests.fakes.pay_server import PayServer
from tests.wallet.flows.crashes import Crash, Twice, When
from tests.wallet.flows.liar import Doom
from tests.wallet.lightning.payer import PREIMAGE, Payer, open_payer
from tests.wallet.lightning.test_send import (
    AMOUNT_SAT,
    COIN_SAT,
    FEE_SAT,
    HASH,
    assert_paid,
    assert_refunded,
)

# What is asked of server and chain until the server has been told, and then for each ending.
START = (
    "info",
    "tip",
    "register_vtxo_transactions",
    "request_lightning_pay_htlc_cosign",
    "get_tx",
    "register_vtxo_transactions",
    "initiate_lightning_payment",
    "check_lightning_payment",
    "tip",
)
SETTLING = ("check_lightning_payment",)
REVOKING = (
    "check_lightning_payment",
    "tip",
    "check_lightning_payment",
    "register_vtxo_transactions",
    "request_lightning_pay_htlc_revocation",
)
COMMITS = ("planned and locked", "funded", "initiated")  # who only waits writes nothing

Ending = Literal["paid", "failed"]


def end(server: PayServer, ending: Ending) -> None:
    """The server finishes what it was told, if it was."""
    if HASH in server.attempts:
        if ending == "paid":
            server.settle(PREIMAGE)
        else:
            server.fail(HASH)


async def pay_until_dead(payer: Payer, ending: Ending) -> None:
    """Pay, and look at the end; the process dies on the way."""

    async def live() -> None:
        await payer.pay()
        end(payer.server, ending)
        await payer.drive()

    with pytest.raises(Crash):
        await live()


async def settled_after_all(database: str, server: PayServer, ending: Ending) -> None:
    """Whatever was begun is finished, and begun at all if it had not been."""
    async with open_payer(database, server) as payer:
        for _ in range(3):
            with suppress(BarkdError):
                await payer.drive()
            end(server, ending)
        await payer.drive()
        if not await payer.movements():  # it died before there was anything
            await payer.assert_even(COIN_SAT)
            await payer.pay()
            end(server, ending)
            await payer.drive()
        assert len(server.attempts[HASH]) == 1
        await (assert_paid(payer) if ending == "paid" else assert_refunded(payer))


async def test_what_is_asked(payer: Payer) -> None:
    """The lists above are what happens."""
    doom = Doom()
    payer.liar._doom = doom
    payer.sends._chain._doom = payer.machine._chain._doom = doom  # type: ignore[attr-defined]
    payer.store.arm(None)
    await payer.pay()
    assert tuple(doom.calls) == START
    assert payer.store.commits == len(COMMITS)
    payer.server.fail(HASH)
    doom.calls.clear()
    await payer.drive()
    assert tuple(doom.calls) == REVOKING


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(START) + len(SETTLING)))
async def test_killed_around_a_call_of_a_payment_that_is_made(
    sqlite_database: str, pay_server: PayServer, number: int, when: When
) -> None:
    await _killed_around_a_call(sqlite_database, pay_server, number, when, "paid")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(START), len(START) + len(REVOKING)))
async def test_killed_around_a_call_of_a_payment_that_fails(
    sqlite_database: str, pay_server: PayServer, number: int, when: When
) -> None:
    await _killed_around_a_call(sqlite_database, pay_server, number, when, "failed")


async def _killed_around_a_call(
    database: str, server: PayServer, number: int, when: When, ending: Ending
) -> None:
    doom = Doom()
    async with open_payer(database, server, doom=doom) as payer:
        await payer.add_coin()
        doom.calls.clear()
        doom.at, doom.when = number, when
        await pay_until_dead(payer, ending)
    await settled_after_all(database, server, ending)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(COMMITS) + 1))
async def test_killed_around_a_commit_of_a_payment_that_is_made(
    sqlite_database: str, pay_server: PayServer, number: int, when: When
) -> None:
    await _killed_around_a_commit(sqlite_database, pay_server, number, when, "paid")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(COMMITS), len(COMMITS) + 2))
async def test_killed_around_a_commit_of_a_payment_that_fails(
    sqlite_database: str, pay_server: PayServer, number: int, when: When
) -> None:
    await _killed_around_a_commit(sqlite_database, pay_server, number, when, "failed")


async def _killed_around_a_commit(
    database: str, server: PayServer, number: int, when: When, ending: Ending
) -> None:
    async with open_payer(database, server) as payer:
        await payer.add_coin()
        payer.store.arm(number, when)
        await pay_until_dead(payer, ending)
    await settled_after_all(database, server, ending)


async def test_every_step_may_be_repeated(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    machine = Twice(payer.machine)
    await payer.executor.drive(machine, send_action_id(HASH))
    assert machine.steps == ["Initiated", "Revocable"]
    await assert_refunded(payer)


async def test_every_step_of_a_success_may_be_repeated(sqlite_database: str, pay_server: PayServer) -> None:
    doom = Doom()
    async with open_payer(sqlite_database, pay_server, doom=doom) as payer:
        await payer.add_coin()
        doom.calls.clear()
        doom.at, doom.when = START.index("request_lightning_pay_htlc_cosign"), "before"
        with pytest.raises(Crash):
            await payer.pay()
    async with open_payer(sqlite_database, pay_server) as payer:
        machine = Twice(payer.machine)
        await payer.executor.drive(machine, send_action_id(HASH))
        pay_server.settle(PREIMAGE)
        await payer.executor.drive(machine, send_action_id(HASH))
        assert machine.steps == ["Locked", "Funded", "Initiated", "Initiated"]
        await assert_paid(payer)


async def test_blocks_went_by_while_it_was_dead(sqlite_database: str, pay_server: PayServer) -> None:
    """Opened again long after everything expired, the money is back."""
    async with open_payer(sqlite_database, pay_server) as payer:
        await payer.add_coin()
        await payer.pay()
        state = await payer.state()
        assert isinstance(state, Initiated)
    pay_server.chain.height = state.payment.htlc_expiry_height + 1
    async with open_payer(sqlite_database, pay_server) as payer:
        await payer.drive()
        await assert_refunded(payer)


async def test_it_was_paid_while_it_was_dead(sqlite_database: str, pay_server: PayServer) -> None:
    """Even if everything expired meanwhile: the preimage decides."""
    async with open_payer(sqlite_database, pay_server) as payer:
        await payer.add_coin()
        await payer.pay()
        state = await payer.state()
        assert isinstance(state, Initiated)
    pay_server.settle(PREIMAGE)
    pay_server.chain.height = state.payment.htlc_expiry_height + 100
    async with open_payer(sqlite_database, pay_server) as payer:
        await payer.drive()
        await assert_paid(payer)


async def test_exits_that_were_started_are_not_forgotten(sqlite_database: str, pay_server: PayServer) -> None:
    """It dies between the exit and the note of it."""
    async with open_payer(sqlite_database, pay_server) as payer:
        await payer.add_coin()
        await payer.pay()
        state = await payer.state()
        assert isinstance(state, Initiated)
        pay_server.away |= {"check_lightning_payment", "request_lightning_pay_htlc_revocation"}
        pay_server.chain.height = state.payment.htlc_expiry_height + 7
        payer.store.arm(1, "before")
        with pytest.raises(Crash):
            await payer.drive()
        assert len(payer.exits.started) == 1
        exits = payer.exits
    async with open_payer(sqlite_database, pay_server, exits=exits) as payer:
        await payer.drive()
        assert len(exits.started) == 1
        assert (await payer.movement()).status is MovementStatus.FAILED
        assert (await payer.balance()).pending_lightning_send_sat == AMOUNT_SAT + FEE_SAT
        await payer.mark_exited(exits.started)
        await payer.drive()
        stuck = await payer.state()
        assert isinstance(stuck, Stuck)
        assert list(stuck.exiting) == exits.started
