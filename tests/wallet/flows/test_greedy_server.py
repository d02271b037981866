"""A server that turns our coins into fees, or into VTXOs that are worth less: nothing that nobody asked for.

It may announce other terms at any time, and it may hold rounds that it has made up.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.attestations import attest, delegated_participation_message
from barkd_py.ark.fees import PpmExpiryFeeEntry, RefreshFees
from barkd_py.ark.info import ArkInfo, UnsafeServer
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import chain_text
from barkd_py.server_rpc.api import RoundFailed, RoundFinished, RoundInput, RoundParticipation, VtxoRequest
from barkd_py.wallet.rounds.maintenance import QUIET_BLOCKS
from barkd_py.wallet.rounds.recovery import CONFIRMATION_BLOCKS
from barkd_py.wallet.rounds.service import NotBuilt
from tests.wallet.flows.conftest import BOB, Net, Owner
from tests.wallet.flows.liar import Liar, between
from tests.wallet.flows.rounds import hold_round, refreshes, settle, stored_rounds

LIFETIME = 4320


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60, vtxo_lifetime=LIFETIME
    )


def fee_sat(amount_sat: int) -> int:
    """What the server publishes for a VTXO that lives long."""
    return 150 + -(-amount_sat * 8 // 1000)


async def reannounce(net: Net, owner: Owner, **changes: Any) -> None:
    """Other terms, which the wallet hears of. Raises what it makes of them."""
    server = net.devnet.ark_server
    server.settings = replace(server.settings, **changes)
    await net.restart_ark_server()
    await owner.wallet.server.refresh()


def announce(liar: Liar, change: Callable[[ArkInfo], ArkInfo]) -> None:
    """As info that has passed every check of the connection. Everything must be refreshed."""
    liar.lies["info"] = lambda info: change(replace(info, max_vtxo_exit_depth=1))


def with_fees(base_fee_sat: int, ppm: int) -> Callable[[ArkInfo], ArkInfo]:
    fees = RefreshFees(base_fee_sat, (PpmExpiryFeeEntry(0, ppm),))
    return lambda info: replace(info, fees=replace(info.fees, refresh=fees))


# --- terms that change


REFUSED: dict[str, tuple[Callable[[ArkInfo], ArkInfo], str]] = {
    "everything": (with_fees(0, 999_000), "a fee of 0.00498901 BTC for a refresh of 0.00499400 BTC"),
    "1 % and 1 sat": (with_fees(1, 10_000), "a fee of 0.00004995 BTC .* more than 0.00004994 BTC"),
    "exits that take two days": (
        lambda info: replace(info, vtxo_exit_delta=288),
        "exit delta is 288 blocks, that of the VTXOs 12",
    ),
    "a short life": (lambda info: replace(info, vtxo_lifetime=23), "live for 23 blocks"),
    "no time for two exits": (
        lambda info: replace(info, vtxo_lifetime=59),
        "live for 59 blocks, less than the 60 that it takes to exit these, and then the new ones",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_is_refreshed_unasked_at_bad_terms(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    change, reason = REFUSED[name]
    liar = between(alice)
    old = await alice.only_vtxo()
    announce(liar, change)
    assert await alice.wallet.rounds.start_maintenance() == []
    assert await refreshes(alice) == []
    assert (await alice.only_vtxo()).id == old.id
    (record,) = [each for each in caplog.records if "are not refreshed" in each.getMessage()]
    assert record.levelname == "ERROR"
    assert re.search(reason, record.getMessage())
    liar.lies.clear()  # not tried again at once
    announce(liar, lambda info: info)
    assert await alice.wallet.rounds.start_maintenance() == []
    await net.mine(QUIET_BLOCKS)
    await alice.wallet.chain.fetch_tip()
    assert len(await alice.wallet.rounds.start_maintenance()) == 1


FAIR: dict[str, Callable[[ArkInfo], ArkInfo]] = {
    "1 %": with_fees(0, 10_000),
    "1,000 sat of an amount of which that is more than 1 %": with_fees(1_000, 0),
    "exits that take a day": lambda info: replace(info, vtxo_exit_delta=144),
}


@pytest.mark.parametrize("name", FAIR)
async def test_fair_terms_are_taken_unasked(net: Net, bob: Owner, name: str) -> None:
    await bob.board(50_000)
    announce(between(bob), FAIR[name])
    assert len(await bob.wallet.rounds.start_maintenance()) == 1


@pytest.mark.parametrize("max_fee_ppm", [None, 1_000_000])
async def test_a_server_that_takes_all_as_a_fee(net: Net, max_fee_ppm: int | None) -> None:
    """What the daemon does alone, with the schedule that it hears of; and the setting is the bound."""
    setting = {} if max_fee_ppm is None else {"vtxo_refresh_max_fee_ppm": max_fee_ppm}
    async with net.owner("bob", BOB, **setting) as bob:
        await reannounce(net, bob, vtxo_lifetime=100)
        await bob.board(500_000)
        old = await bob.only_vtxo()
        tip = await bob.wallet.chain.fetch_tip()
        await net.mine(old.expiry_height - 5 - tip.height)
        await bob.wallet.chain.fetch_tip()
        settings = net.devnet.ark_server.settings
        fees = replace(settings.fees, refresh=RefreshFees(0, (PpmExpiryFeeEntry(0, 998_000),)))
        await reannounce(net, bob, fees=fees)
        assert isinstance(await hold_round(net, bob), RoundFailed if max_fee_ppm is None else RoundFinished)
        await settle(net, bob)
        assert ((await bob.only_vtxo()).id == old.id) == (max_fee_ppm is None)


async def test_a_refresh_that_somebody_asked_for_has_a_bound_too(net: Net, alice: Owner) -> None:
    """5 % and 10,000 sat: 34,970 of 499,400; and time for two exits."""
    old = await alice.only_vtxo()
    liar = between(alice)
    announce(liar, with_fees(34_971, 0))
    with pytest.raises(NotBuilt) as refused:
        await alice.wallet.rounds.refresh([old.id])
    assert "a fee of 0.00034971 BTC for a refresh of 0.00499400 BTC" in chain_text(refused.value)
    announce(liar, lambda info: replace(info, vtxo_lifetime=59))
    with pytest.raises(NotBuilt) as refused:
        await alice.wallet.rounds.refresh([old.id])
    assert "59 blocks, less than the 60 that it takes to exit these" in chain_text(refused.value)
    announce(liar, lambda info: with_fees(34_970, 0)(replace(info, vtxo_lifetime=60)))
    await alice.wallet.rounds.refresh([old.id])
    assert len(await stored_rounds(alice)) == 1


async def test_what_is_left_of_a_refresh_costs_no_more_than_was_agreed(net: Net, bob: Owner) -> None:
    """One of the inputs is spent while it waits, and the server has raised its fees."""
    liar = between(bob)
    for _ in range(2):
        await bob.board(50_000)
    spent, kept = await bob.wallet.list_vtxos(include_all=False)
    await bob.wallet.rounds.refresh([spent.id, kept.id])
    async with bob.wallet.store.transaction() as tx:
        await tx.vtxos.mark_spent([spent.id])
    liar.lies["info"] = with_fees(0, 500_000)
    await hold_round(net, bob)
    await settle(net, bob)
    assert [vtxo.id for vtxo in await bob.wallet.list_vtxos(include_all=False)] == [kept.id]


@pytest.mark.parametrize("change", [{"vtxo_exit_delta": 2_017}, {"max_vtxo_exit_depth": 1}])
async def test_a_server_of_which_nothing_can_be_had_is_refused(
    net: Net, alice: Owner, change: dict[str, int]
) -> None:
    old = await alice.only_vtxo()
    with pytest.raises(UnsafeServer):
        await reannounce(net, alice, **change)
    await settle(net, alice)
    assert (await alice.only_vtxo()).id == old.id


# --- rounds that it has made up


async def make_up_a_round(net: Net, alice: Owner, keep_sat: int) -> None:
    """What a server can do alone; devnet's asks for the attestation, which costs a real one nothing."""
    old = await alice.only_vtxo()
    async with alice.wallet.store.read() as tx:
        body = await tx.vtxos.body(old.id)
    await alice.wallet.server.register_vtxo_transactions([body])
    key = await alice.wallet.keychain.reserve()
    (secret,) = await alice.wallet.keychain.secrets_for([old.user_pubkey])
    requests = [VtxoRequest(keep_sat, PubkeyPolicy(key.public_key))]
    await alice.wallet.server.submit_round_participation(
        [RoundInput(old.id, attest(delegated_participation_message(old.id, requests), secret))],
        requests,
        mailbox_id=alice.wallet.keychain.mailbox_key.public_key,
        scheduled_height=None,
    )
    await hold_round(net)


async def hear_of_it(net: Net, alice: Owner) -> None:
    await alice.wallet.sync_mailbox()  # does not stop there
    for _ in range(3):
        await settle(net, alice)


async def test_a_round_that_nobody_asked_for_is_not_ours(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even one at the server's usual fee."""
    old = await alice.only_vtxo()
    await make_up_a_round(net, alice, old.amount_sat - fee_sat(old.amount_sat))
    await hear_of_it(net, alice)
    assert (await alice.only_vtxo()).id == old.id
    assert await refreshes(alice) == []
    assert "dropping a round of a mailbox message: we did not ask for it" in caplog.text
    caplog.clear()
    await hear_of_it(net, alice)  # the message was dealt with
    assert "dropping a round" not in caplog.text


async def test_a_recovery_lets_a_server_make_up_one_round_per_vtxo(net: Net, alice: Owner) -> None:
    """A wallet that has lost its database may have asked for a round. It has not asked for two."""
    first = await alice.only_vtxo()
    await alice.wallet.recovery.start()
    await make_up_a_round(net, alice, first.amount_sat - fee_sat(first.amount_sat))
    await hear_of_it(net, alice)
    second = await alice.only_vtxo()
    assert second.amount_sat == first.amount_sat - fee_sat(first.amount_sat)
    await alice.wallet.registration.catch_up()
    await make_up_a_round(net, alice, second.amount_sat - fee_sat(second.amount_sat))
    await hear_of_it(net, alice)
    assert (await alice.only_vtxo()).id == second.id


@pytest.mark.parametrize("more_sat", [0, 1])
async def test_a_refused_input_may_have_been_refreshed_at_the_usual_fee(
    net: Net, alice: Owner, more_sat: int
) -> None:
    """Perhaps the server has it from us. 1 % of 499,400 sat, whatever is published."""
    old = await alice.only_vtxo()
    async with alice.wallet.store.transaction() as tx:
        await tx.recovery.add_pending([old.id])
    liar = between(alice)
    announce(liar, with_fees(0, 40_000))
    await make_up_a_round(net, alice, old.amount_sat - fee_sat(old.amount_sat))
    (held,) = await net.devnet.ark_server.participations()

    def dear(told: RoundParticipation) -> RoundParticipation:
        (vtxo,) = told.output_vtxos
        return replace(told, output_vtxos=(replace(vtxo, amount_sat=old.amount_sat - 4_994 - more_sat),))

    liar.lies["round_participation_status"] = dear
    await alice.wallet.rounds.on_completed(held.swap.unlock_hash)
    assert len(await stored_rounds(alice)) == 1 - more_sat


async def test_a_round_does_not_shorten_a_life(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    old = await alice.only_vtxo()
    await alice.wallet.recovery.start()
    await reannounce(net, alice, vtxo_lifetime=LIFETIME // 2)
    await make_up_a_round(net, alice, old.amount_sat - fee_sat(old.amount_sat))
    await hear_of_it(net, alice)
    assert (await alice.only_vtxo()).id == old.id
    assert "its VTXOs expire too soon" in caplog.text


async def test_a_round_gives_the_published_lifetime(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """A longer one than that of the inputs, by now."""
    old = await alice.only_vtxo()
    liar = between(alice)
    alice.wallet.mailbox.on_round_completed = alice.wallet.rounds.on_completed
    await alice.wallet.recovery.start()
    liar.lies["info"] = lambda info: replace(info, vtxo_lifetime=LIFETIME + CONFIRMATION_BLOCKS + 1)
    await make_up_a_round(net, alice, old.amount_sat - fee_sat(old.amount_sat))
    await hear_of_it(net, alice)
    assert (await alice.only_vtxo()).id == old.id
    assert "its VTXOs expire too soon" in caplog.text


@pytest.mark.parametrize("change", [{"vtxo_lifetime": LIFETIME // 2}, {"vtxo_exit_delta": 140}])
async def test_a_round_is_held_on_the_terms_of_when_it_was_agreed_to(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture, change: dict[str, int]
) -> None:
    """What is announced between the participation and the tree is signed by nobody who did not see it."""
    old = await alice.only_vtxo()
    await alice.wallet.rounds.refresh([old.id])
    await reannounce(net, alice, **change)
    await hold_round(net, alice)
    assert (await alice.only_vtxo()).id == old.id
    assert "refusing to sign round" in caplog.text
