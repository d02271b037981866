"""Offboards with a server that lies: nothing is forfeited for anything but what was asked for.

One test per line of sheet 03 §8.6-8.8 and §3.5.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError, ProtocolViolation
from barkd_py.server_rpc.api import PreparedOffboard
from barkd_py.wallet.actions.bad_answers import MAX_BAD_ANSWERS
from barkd_py.wallet.movements import OFFBOARD, SEND_ONCHAIN, MovementStatus
from barkd_py.wallet.offboards.states import Prepared, Splitting
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import between_offboards
from tests.wallet.flows.offboards import SESSION_SECS, assert_settled, onchain_sat, target_of
from tests.wallet.flows.test_offboard_trouble import assert_left_once, state_of


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(offboard_session_secs=SESSION_SECS)


Proposal = Callable[[PreparedOffboard], PreparedOffboard]


def _outputs(change: Callable[[tuple[TxOut, ...]], tuple[TxOut, ...]]) -> Proposal:
    return lambda prepared: replace(
        prepared, unsigned_tx=replace(prepared.unsigned_tx, outputs=change(prepared.unsigned_tx.outputs))
    )


def _added(index: int, sat: int) -> Proposal:
    def change(outputs: tuple[TxOut, ...]) -> tuple[TxOut, ...]:
        output = replace(outputs[index], value_sat=outputs[index].value_sat + sat)
        return (*outputs[:index], output, *outputs[index + 1 :])

    return _outputs(change)


PROPOSALS: dict[str, Proposal] = {
    "a satoshi less": _added(0, -1),
    "a satoshi more": _added(0, 1),
    "to somebody else": _outputs(
        lambda outputs: (replace(outputs[0], script_pubkey=b"\x51" * 34), *outputs[1:])
    ),
    "a small connector": _added(1, -1),
    "a large connector": _added(1, 1),
    "no connector": _outputs(lambda outputs: outputs[:1]),
    "no outputs": _outputs(lambda outputs: ()),
    "the outputs swapped": _outputs(lambda outputs: (outputs[1], outputs[0], *outputs[2:])),
}


MALFORMED = (
    {"path": "forfeit_cosign_nonces.0", "mutation": "drop"},
    {"path": "forfeit_cosign_nonces.0", "mutation": "set", "value": "00" * 66},
    {"path": "forfeit_cosign_nonces.0", "mutation": "set", "value": "02" * 65},
    {"path": "offboard_tx", "mutation": "set", "value": "0200"},
)


async def test_nothing_is_forfeited_for_another_transaction(net: Net, alice: Owner, bob: Owner) -> None:
    liars = between_offboards(alice)
    before_sat = await alice.spendable_sat()
    for nth, (name, lie) in enumerate(PROPOSALS.items(), 1):
        liars.server.lies["prepare_offboard"] = lie
        with pytest.raises(ProtocolViolation, match="received invalid offboard tx from server"):
            await alice.wallet.offboards.offboard_all(await target_of(bob))
        net.devnet.clock.offset_seconds += SESSION_SECS + 1  # so the server's session is over
        await assert_settled(alice)
        assert await alice.spendable_sat() == before_sat, name
        movements = await alice.movements(OFFBOARD)
        assert [movement.status for movement in movements] == [MovementStatus.FAILED] * nth, name
    assert liars.server.calls["finish_offboard"] == 0


async def test_a_malformed_proposal_is_refused(net: Net, alice: Owner, bob: Owner) -> None:
    liars = between_offboards(alice)
    before_sat = await alice.spendable_sat()
    for mutation in MALFORMED:
        net.fault("PrepareOffboard", stage="reply", kind="mutate", **mutation)
        with pytest.raises(ProtocolViolation):
            await alice.wallet.offboards.offboard_all(await target_of(bob))
        net.devnet.clock.offset_seconds += SESSION_SECS + 1
        await assert_settled(alice)
        assert await alice.spendable_sat() == before_sat, mutation
    assert liars.server.calls["finish_offboard"] == 0


def _other_tx(tx: Tx) -> Tx:
    return replace(tx, locktime=tx.locktime + 1)


def _unsigned(tx: Tx) -> Tx:
    return replace(tx, inputs=tuple(replace(tx_in, witness=()) for tx_in in tx.inputs))


@pytest.mark.parametrize("lie", [_other_tx, _unsigned])
async def test_what_the_forfeits_were_for_is_asked_for_until_it_is_there(
    net: Net, alice: Owner, bob: Owner, lie: Callable[[Tx], Tx]
) -> None:
    net.fault("offboard.broadcast", stage="engine", kind="swallow", count=None)
    liars = between_offboards(alice)
    liars.server.lies["finish_offboard"] = lie
    with pytest.raises(ProtocolViolation):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    await alice.wallet.offboards.drive_all()
    assert isinstance(await state_of(alice), Prepared)
    assert liars.chain.calls["broadcast"] == 0
    liars.server.lies.clear()
    await alice.wallet.offboards.drive_all()
    await assert_left_once(net, alice, bob)


async def test_a_proposal_that_lies_after_forfeits_releases_nothing(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """The session is lost, and the next one is a lie: the first transaction may still come."""
    net.fault("offboard.broadcast", stage="engine", kind="swallow", count=None)
    net.fault(
        "FinishOffboard", stage="before", kind="error", code="INVALID_ARGUMENT", text="unknown offboard txid"
    )
    liars = between_offboards(alice)
    told = 0

    def lie(prepared: PreparedOffboard) -> PreparedOffboard:
        nonlocal told
        told += 1
        return prepared if told == 1 else PROPOSALS["a satoshi less"](prepared)

    liars.server.lies["prepare_offboard"] = lie
    with pytest.raises(ProtocolViolation):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    balance = await alice.wallet.balance()
    assert balance.total_sat == balance.pending_offboard_sat > 0
    net.honest()
    liars.server.lies.clear()
    await alice.wallet.offboards.drive_all()
    await assert_left_once(net, alice, bob)


async def test_badly_cosigned_splits_are_undone_only_if_the_server_has_not_booked_them(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """The devnet server books what it cosigns: so it is asked until it is honest."""
    before_sat = await alice.spendable_sat()
    net.fault(
        "RequestArkoorCosign",
        stage="reply",
        kind="mutate",
        path="parts.0.server_partial_sigs.0",
        mutation="flip",
        count=None,
    )
    with pytest.raises(BarkdError):
        await alice.wallet.offboards.send(50_000, await target_of(bob))
    for _ in range(MAX_BAD_ANSWERS):
        await alice.wallet.offboards.drive_all()
        assert isinstance(await state_of(alice), Splitting)
    net.honest()
    await alice.wallet.offboards.drive_all()
    await net.mine()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    (movement,) = await alice.movements(SEND_ONCHAIN)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await onchain_sat(bob) == 50_000
    assert await alice.spendable_sat() == before_sat - 50_000 - movement.offchain_fee_sat


async def test_badly_cosigned_splits_that_are_not_booked_are_undone(
    net: Net, alice: Owner, bob: Owner
) -> None:
    before_sat = await alice.spendable_sat()
    liars = between_offboards(alice)

    async def never_asked(*_: object) -> None:
        raise ProtocolViolation("rubbish")

    liars.server.answers["request_arkoor_cosign"] = never_asked
    with pytest.raises(ProtocolViolation):
        await alice.wallet.offboards.send(50_000, await target_of(bob))
    for _ in range(MAX_BAD_ANSWERS - 1):
        await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    assert await alice.spendable_sat() == before_sat
    (movement,) = await alice.movements(SEND_ONCHAIN)
    assert movement.status is MovementStatus.FAILED
