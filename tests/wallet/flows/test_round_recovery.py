"""Rounds that only the server tells of: taken over if all of it is ours at a bearable fee, else dropped.

Source: sheet 04 §19, §23.11.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.fees import PpmExpiryFeeEntry, RefreshFees
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import ServerError
from barkd_py.server_rpc.api import RoundParticipation
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.service import NotStored
from barkd_py.wallet.rounds.states import Delegated
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import Liar, between
from tests.wallet.flows.offboards import wealth_sat
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, refreshes, settle, stored_rounds

STRANGER = SecretKey(bytes([9]) * 32).public_key

Lie = Callable[[RoundParticipation], RoundParticipation]


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


async def forgotten(net: Net, alice: Owner) -> tuple[Liar, bytes]:
    """A delegated refresh that was held, and that the wallet knows nothing of any more; its unlock hash."""
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    info = await alice.wallet.rounds.refresh_delegated([old.id])
    assert isinstance(info.round.state, Delegated)
    async with alice.wallet.store.transaction() as tx:
        await tx.rounds.delete(info.id)
        assert info.movement_id is not None
        await tx.movements.finish(info.movement_id, MovementStatus.FAILED)
    await alice.wallet.recovery.start()
    await hold_round(net)
    return between(alice), info.round.state.unlock_hash


LIES: dict[str, Lie] = {
    "somebody else's VTXO": lambda told: replace(
        told,
        output_vtxos=tuple(
            replace(vtxo, policy=replace(vtxo.policy, user_pubkey=STRANGER)) for vtxo in told.output_vtxos
        ),
    ),
    "another server's VTXO": lambda told: replace(
        told, output_vtxos=tuple(replace(vtxo, server_pubkey=STRANGER) for vtxo in told.output_vtxos)
    ),
    "a fee of more than 5 %": lambda told: replace(
        told,
        output_vtxos=tuple(
            replace(vtxo, amount_sat=vtxo.amount_sat * 94 // 100) for vtxo in told.output_vtxos
        ),
    ),
    "more than we gave": lambda told: replace(
        told, output_vtxos=tuple(replace(vtxo, amount_sat=vtxo.amount_sat * 2) for vtxo in told.output_vtxos)
    ),
    "an input twice": lambda told: replace(told, input_vtxo_ids=told.input_vtxo_ids * 2),
    "an input that nobody knows": lambda told: replace(
        told, input_vtxo_ids=(*told.input_vtxo_ids, VtxoId(bytes(36)))
    ),
    "no inputs": lambda told: replace(told, input_vtxo_ids=()),
    "no outputs": lambda told: replace(told, output_vtxos=()),
    "no transaction": lambda told: replace(told, funding_tx=None),
}


@pytest.mark.both_stores
async def test_a_round_that_cannot_be_ours_is_dropped(net: Net, alice: Owner) -> None:
    liar, unlock_hash = await forgotten(net, alice)
    before = await alice.wallet.balance()
    for name, lie in LIES.items():
        liar.lies["round_participation_status"] = lie
        await alice.wallet.rounds.on_completed(unlock_hash)  # a bad one never holds the mailbox up
        assert await stored_rounds(alice) == [], name
        assert await alice.wallet.balance() == before, name
    liar.lies.clear()
    await alice.wallet.rounds.on_completed(unlock_hash)
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    found, _ = await refreshes(alice)
    assert found.status is MovementStatus.SUCCESSFUL
    assert (
        found.effective_balance_sat
        == -found.offchain_fee_sat
        == await alice.spendable_sat() - before.total_sat
    )
    # What is told again is known.
    await alice.wallet.rounds.on_completed(unlock_hash)
    assert len(await refreshes(alice)) == 2


PUBLISHED_FEE_SAT = 150 + 3_996
"""Of 499,400 sat: 0.8 % at the most."""


@pytest.mark.parametrize("more_sat", [0, 1])
@pytest.mark.parametrize("is_dear", [False, True])
async def test_the_published_fee_or_five_percent_is_the_most(
    net: Net, alice: Owner, is_dear: bool, more_sat: int
) -> None:
    """To the satoshi: nothing else about the round is wrong when the bound is looked at."""
    liar, unlock_hash = await forgotten(net, alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    assert old.amount_sat == 499_400
    left_sat = old.amount_sat - PUBLISHED_FEE_SAT - more_sat
    if is_dear:
        dear_fees = RefreshFees(0, (PpmExpiryFeeEntry(0, 999_000),))
        liar.lies["info"] = lambda info: replace(info, fees=replace(info.fees, refresh=dear_fees))
        left_sat = old.amount_sat - old.amount_sat * 5 // 100 - more_sat

    def dear(told: RoundParticipation) -> RoundParticipation:
        (vtxo,) = told.output_vtxos
        return replace(told, output_vtxos=(replace(vtxo, amount_sat=left_sat),))

    liar.lies["round_participation_status"] = dear
    await alice.wallet.rounds.on_completed(unlock_hash)
    assert len(await stored_rounds(alice)) == 1 - more_sat


async def test_a_round_that_cannot_be_looked_up_is_told_again(net: Net, alice: Owner) -> None:
    """What only failed now must come again: the message is not acknowledged."""
    liar, unlock_hash = await forgotten(net, alice)
    liar.lost["round_participation_status"] = 1
    with pytest.raises(ServerError):
        await alice.wallet.rounds.on_completed(unlock_hash)
    await alice.wallet.rounds.on_completed(unlock_hash)
    assert len(await stored_rounds(alice)) == 1


async def test_a_round_that_the_server_does_not_know_is_dropped(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.on_completed(bytes(32))
    assert await stored_rounds(alice) == []


async def test_a_round_that_was_held_is_found_while_its_participation_ends(net: Net, alice: Owner) -> None:
    """The answer to handing it over was lost. Now it is handed over again, which is refused as the round was
    held, and at the same moment the mailbox tells of that round."""
    total_sat = await wealth_sat(alice)
    liar = between(alice)
    liar.lost["submit_round_participation"] = 1
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(NotStored):
        await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net)
    (held,) = await net.devnet.ark_server.participations()
    mail: list[asyncio.Task[None]] = []

    async def submit(*arguments: Any, **options: Any) -> bytes:
        mail.append(asyncio.create_task(alice.wallet.rounds.on_completed(held.swap.unlock_hash)))
        while liar.calls["round_participation_status"] == 0:
            await asyncio.sleep(0)
        answer: bytes = await alice.wallet.server.submit_round_participation(*arguments, **options)
        return answer

    liar.answers["submit_round_participation"] = submit
    await alice.wallet.rounds.sync()
    await mail[0]
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    assert {movement.status for movement in await refreshes(alice)} >= {MovementStatus.SUCCESSFUL}
    (new,) = await alice.wallet.list_vtxos(include_all=False)
    assert new.id != old.id
    assert await wealth_sat(alice) == total_sat
