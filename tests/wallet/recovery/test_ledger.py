"""What a batch of a recovery leaves in the wallet and in its history."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.server_rpc.api import VtxoSpendState
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.recovery.judgement import Facts, Proven, judge
from barkd_py.wallet.recovery.ledger import Ledger
from barkd_py.wallet.recovery.progress import Progress
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import Locked, NewVtxo, Spendable
from tests.wallet.samples import make_vtxo, user_vtxos

KEYS = tuple(dict.fromkeys(vtxo.user_pubkey for vtxo in user_vtxos()))


def paid_to(key: PublicKey, number: int, amount_sat: int) -> Vtxo:
    return replace(make_vtxo(number, amount_sat=amount_sat), policy=PubkeyPolicy(key))


async def received_on(vtxos: Sequence[Vtxo]) -> Mapping[PublicKey, str]:
    return {vtxo.user_pubkey: f"ark1{KEYS.index(vtxo.user_pubkey)}" for vtxo in vtxos}


def found(vtxo: Vtxo) -> Facts:
    return Facts(vtxo, is_ours=True, is_of_our_server=True, status=VtxoSpendState.SPENDABLE, proof=Proven())


async def test_late_payments_are_noted_one_by_one_as_far_as_they_were_stored(store: Store) -> None:
    """One of them is the mailbox's, which was faster, and has noted it."""
    first, second, taken = paid_to(KEYS[0], 1, 100), paid_to(KEYS[0], 2, 20), paid_to(KEYS[0], 3, 4_000)
    other = paid_to(KEYS[1], 4, 50_000)
    facts = {vtxo.id: found(vtxo) for vtxo in (first, other, taken, second)}
    verdicts = {vtxo_id: judge(each) for vtxo_id, each in facts.items()}
    async with store.transaction() as tx:
        await tx.vtxos.insert([NewVtxo(taken, Spendable())])
    await Ledger(store, received_on).write(facts, verdicts, None)
    async with store.read() as tx:
        assert {row.id for row in await tx.vtxos.list()} == {first.id, second.id, taken.id, other.id}
        movements = await tx.movements.list()
    assert {movement.status for movement in movements} == {MovementStatus.SUCCESSFUL}
    noted = {
        movement.output_vtxos: [(each.method.value, each.amount_sat) for each in movement.received_on]
        for movement in movements
    }
    assert noted == {(first.id, second.id): [("ark10", 120)], (other.id,): [("ark11", 50_000)]}
    assert sorted(movement.effective_balance_sat for movement in movements) == [120, 50_000]


@pytest.mark.parametrize("progress", [None, Progress()], ids=["retry", "recovery"])
async def test_what_the_mailbox_holds_meanwhile_is_looked_at_again_and_noted(
    store: Store, progress: Progress | None
) -> None:
    vtxo = paid_to(KEYS[0], 1, 100)
    facts = {vtxo.id: found(vtxo)}
    verdicts = {vtxo.id: judge(facts[vtxo.id])}
    async with store.transaction() as tx:
        await tx.vtxos.insert([NewVtxo(vtxo, Locked(None))])
        await tx.recovery.add_pending([vtxo.id])
    await Ledger(store, received_on).write(facts, verdicts, progress)
    async with store.read() as tx:
        assert await tx.recovery.pending_ids() == (vtxo.id,)
        assert await tx.movements.list() == ()
    facts = {vtxo.id: replace(facts[vtxo.id], state=Locked(None))}
    await Ledger(store, received_on).write(facts, {vtxo.id: judge(facts[vtxo.id])}, progress)
    async with store.read() as tx:
        assert (await tx.vtxos.get(vtxo.id)).state == Spendable()
        assert await tx.recovery.pending_ids() == ()
        (movement,) = await tx.movements.list()
    assert (movement.output_vtxos, movement.effective_balance_sat) == ((vtxo.id,), 100)
