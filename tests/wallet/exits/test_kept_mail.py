"""Exits of payments that were no money when they came, which the mailbox keeps and the history does not tell.

What somebody owns is what the history tells, whatever becomes of such an exit.
"""

from collections.abc import Mapping, Sequence

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import ServerUnavailable
from barkd_py.wallet.balance import BalanceReader
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.exits.states import Claimable, Claimed, ExitFilter
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.mailbox.receipts import KeptMail, note_receipt
from barkd_py.wallet.movements import ARKOOR_RECEIVE, EXIT_START, Movement, MovementStatus
from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome
from barkd_py.wallet.vtxo_states import Locked
from tests.wallet.exits.conftest import World
from tests.wallet.exits.test_losses import balance_sat, history_sat
from tests.wallet.exits.test_reorgs import PAYEE

AMOUNT_SAT = 100_000


async def kept(world: World, *, expiry_height: int = 2_000) -> Vtxo:
    world.mint.expiry_height = expiry_height
    vtxo = await world.mint.deep(AMOUNT_SAT, payments=1)
    await world.hold(vtxo, state=Locked(None))
    async with world.store.transaction() as tx:
        await tx.recovery.add_pending([vtxo.id])
    await world.fund(*[50_000] * 4)
    return vtxo


async def receipts(world: World) -> list[Movement]:
    return [each for each in await world.movements() if each.subsystem == ARKOOR_RECEIVE]


async def claim(world: World, vtxo_id: VtxoId) -> None:
    await world.until_claimable(vtxo_id)
    await world.exits.claim([vtxo_id], PAYEE)
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimed)


@pytest.mark.parametrize("why", ["a user wants it", "it is about to expire", "others have published it"])
async def test_it_comes_when_it_gets_to_the_chain(world: World, why: str) -> None:
    vtxo = await kept(world, expiry_height=190)
    if why == "a user wants it":
        await world.exits.start([vtxo.id])
    elif why == "it is about to expire":
        await world.mine(190 - 12 - len(vtxo.exit_transactions()) - world.node.index.tip_height)
    else:
        await world.node.mine_exactly(vtxo.exit_transactions())
    await world.exits.tick()
    assert [each.vtxo_id for each in await world.exits.statuses(ExitFilter.LIVE)] == [vtxo.id]
    if why != "others have published it":
        assert await receipts(world) == []
    await world.until_claimable(vtxo.id)
    balance = await BalanceReader(world.store).balance(world.node.index.tip_height, None)
    assert balance.pending_exit_sat == AMOUNT_SAT
    await claim(world, vtxo.id)
    assert {each.subsystem for each in await world.movements()} == {EXIT_START, ARKOOR_RECEIVE}
    (receipt,) = await receipts(world)
    assert (receipt.status, receipt.output_vtxos) == (MovementStatus.SUCCESSFUL, (vtxo.id,))
    assert (receipt.intended_balance_sat, receipt.effective_balance_sat) == (AMOUNT_SAT, AMOUNT_SAT)
    assert [(each.method.value, each.amount_sat) for each in receipt.received_on] == [("ark1", AMOUNT_SAT)]
    assert await history_sat(world) == await balance_sat(world) == 0


async def test_it_comes_once_though_a_reorganisation_takes_it_back(world: World) -> None:
    vtxo = await kept(world)
    await world.exits.start([vtxo.id])
    await world.until_claimable(vtxo.id)
    await world.node.reorg(14)
    await world.exits.tick()
    assert not isinstance(await world.state(vtxo.id), Claimable)
    await claim(world, vtxo.id)
    assert len(await receipts(world)) == 1
    assert await history_sat(world) == await balance_sat(world) == 0


async def test_it_never_came_if_its_exit_is_called_off(world: World) -> None:
    vtxo = await kept(world)
    await world.exits.start([vtxo.id])
    await world.exits.cancel(vtxo.id)
    assert await receipts(world) == []
    assert await history_sat(world) == await balance_sat(world) == 0


async def test_what_was_released_while_its_exit_goes_on_does_not_come_again(world: World) -> None:
    vtxo = await kept(world)
    await world.exits.start([vtxo.id])
    await world.exits.tick()
    async with world.store.transaction() as tx:
        await tx.vtxos.release([vtxo.id], None)
        await note_receipt(tx, [vtxo], {vtxo.user_pubkey: "ark1"}, ())
    await claim(world, vtxo.id)
    assert len(await receipts(world)) == 1
    assert await history_sat(world) == await balance_sat(world) == 0


async def test_it_comes_though_nobody_can_say_on_which_address(world: World) -> None:
    """For that the server would have to be asked."""

    async def addresses_of(public_keys: Sequence[PublicKey]) -> Mapping[PublicKey, str]:
        raise ServerUnavailable("gone")

    vtxo = await kept(world)
    world.exits = Exits(
        world.store,
        world.chain,
        world.onchain,
        world.keychain,
        NamedLocks(),
        Network.REGTEST,
        late_income=KeptMail(world.store, addresses_of).on_chain,
    )
    await world.exits.start([vtxo.id])
    await claim(world, vtxo.id)
    (receipt,) = await receipts(world)
    assert (receipt.effective_balance_sat, receipt.received_on) == (AMOUNT_SAT, ())


@pytest.mark.parametrize("was", ["spendable", "brought by a recovery"])
async def test_what_is_held_for_other_reasons_does_not_come(world: World, was: str) -> None:
    vtxo = await world.mint.board(AMOUNT_SAT)
    await world.fund(50_000, 50_000)
    if was == "spendable":
        await world.hold(vtxo)
    else:
        await world.hold(vtxo, state=Locked(None))
    async with world.store.transaction() as tx:
        if was == "spendable":
            await tx.vtxos.lock([vtxo.id], None)
        else:
            await tx.recovery.put([RecoveryEntry(vtxo.id, RecoveryOutcome.LOCKED, AMOUNT_SAT)])
    await world.exits.start([vtxo.id])
    await claim(world, vtxo.id)
    assert await receipts(world) == []
