"""What a server can do to a wallet that no other flow shows: knobs of sheet 10 §14.

Connections that die in the middle of a call, a server that speaks the older protocol, one that takes a VTXO
for exited, one that hands out what users cannot hold, and one that answers differently the second time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.policy import ServerOwnedPolicy
from barkd_py.ark.vtxo import ServerVtxo
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.ark_server.chain import NodeChain
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import BarkdError, ServerRejected, chain_text
from barkd_py.server_rpc.api import RoundParticipation
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.lightning.send.service import SendState
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.recovery.report import RecoveryOutcome
from barkd_py.wallet.rounds.service import NotStored
from barkd_py.wallet.rounds.states import Issued
from barkd_py.wallet.vtxos.selection import NotEnoughVtxos
from tests.faults.tcp import Wire, wire_to
from tests.support.processes import until
from tests.wallet.flows.conftest import ALICE, Net, Owner
from tests.wallet.flows.liar import between
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.recoveries import recovery_with
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, refreshes, settle, stored_rounds
from tests.wallet.flows.test_arkoor_send import AMOUNT_SAT, assert_settled, impatient_sends, sends
from tests.wallet.flows.test_hostile_recovery import Server, no_xpub, run
from tests.wallet.flows.test_lightning_lies import assert_receives, hits
from tests.wallet.flows.test_lightning_send import ends_as
from tests.wallet.flows.test_lightning_send import pay as pay_invoice
from tests.wallet.flows.test_recovery import BOTH, found, pay, reborn, spendable


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


# --- connections that die in the middle of a call


@pytest.fixture
async def wire(net: Net) -> AsyncIterator[Wire]:
    async with wire_to(net.devnet.urls.ark_server_url.removeprefix("http://")) as wire:
        yield wire


@pytest.fixture
async def remote(net: Net, wire: Wire) -> AsyncIterator[Owner]:
    """Alice, who reaches the server over a wire that can be cut."""
    async with net.owner("alice", ALICE, server_address=wire.url) as owner:
        yield owner


@pytest.mark.parametrize("stage", ["before", "after-commit"])
@pytest.mark.parametrize("end", ["cut", "goaway"])
async def test_a_connection_that_ends_in_the_middle_of_a_call(
    net: Net, remote: Owner, bob: Owner, wire: Wire, stage: str, end: str
) -> None:
    """The server has cosigned, or not: the wallet cannot know, asks again, and pays once.

    cut: the stream is dropped. goaway: the server says that it goes, and ends the call half done.
    """
    before_sat = await remote.spendable_sat()
    address = await bob.wallet.new_address()
    number = net.fault("RequestArkoorCosign", stage=stage, kind="delay", seconds=20)
    task = asyncio.create_task(impatient_sends(remote.wallet).send(address, AMOUNT_SAT))

    async def is_in_the_call() -> bool:
        return hits(net, number) == 1

    await until(is_in_the_call)
    if end == "cut":
        await wire.cut()
        await wire.mend()
    else:
        await net.restart_ark_server()
    async with asyncio.timeout(60):
        with suppress(BarkdError):
            await task
    net.honest()
    await remote.wallet.arkoor.drive_all()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await remote.spendable_sat() == before_sat - AMOUNT_SAT
    assert len(await sends(remote.wallet)) == 1
    await assert_settled(remote.wallet)


@pytest.mark.parametrize("rpc", ["RequestArkoorCosign", "RegisterVtxoTransactions", "PostArkoorMessage"])
async def test_an_answer_after_the_deadline_is_asked_for_again(
    net: Net, alice: Owner, bob: Owner, rpc: str
) -> None:
    """The deadline of a call is ten minutes, here seconds; the server does everything, and says it later."""
    server: Any = alice.wallet.server
    connection = server._connection
    connection._settings = replace(connection._settings, call_timeout_seconds=3.0)
    await server.info()
    before_sat = await alice.spendable_sat()
    number = net.fault(rpc, stage="after-commit", kind="delay", seconds=600)
    with suppress(BarkdError):
        await impatient_sends(alice.wallet).send(await bob.wallet.new_address(), AMOUNT_SAT)
    assert hits(net, number) == 1
    net.honest()
    connection._settings = replace(connection._settings, call_timeout_seconds=600.0)
    await alice.wallet.arkoor.drive_all()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await alice.spendable_sat() == before_sat - AMOUNT_SAT
    assert len(await sends(alice.wallet)) == 1
    await assert_settled(alice.wallet)


# --- answers of another size


MIB = 2**20


@pytest.mark.parametrize("size", [5 * MIB, 70 * MIB])
async def test_a_proposal_of_a_round_that_is_too_large(net: Net, alice: Owner, size: int) -> None:
    """Five MiB are received, and are no transaction; seventy are not received at all. The round is not
    signed, the wallet lives on, and takes part in the next one.
    """
    before_sat = await alice.spendable_sat()
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    number = net.fault(
        "SubscribeRounds",
        stage="stream",
        message="vtxo_proposal",
        kind="mutate",
        path="vtxo_proposal.unsigned_round_tx",
        mutation="set",
        value="00" * size,
    )
    with pytest.raises(BarkdError) as refused:
        await hold_round(net, alice)
    assert hits(net, number) == 1
    assert ("larger than max" in chain_text(refused.value)) == (size > 64 * MIB)
    assert liar.calls["provide_vtxo_signatures"] == 0
    assert (await alice.wallet.balance()).total_sat == before_sat
    net.honest()
    await net.restart_ark_server()
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await alice.spendable_sat() == before_sat - movement.offchain_fee_sat


async def test_a_mailbox_page_that_is_too_large(net: Net, alice: Owner, bob: Owner) -> None:
    """Garbage of five MiB is a bad VTXO like any other; of seventy, a page that cannot be had for now."""
    for size in (5 * MIB, 70 * MIB):
        before_sat = await bob.spendable_sat()
        number = net.fault(
            "ReadMailbox",
            stage="reply",
            kind="mutate",
            path="messages.0.arkoor.vtxos.0",
            mutation="set",
            value="00" * size,
        )
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
        if size > 64 * MIB:
            with pytest.raises(BarkdError, match="larger than max"):
                await bob.wallet.sync_mailbox()
        else:
            await bob.wallet.sync_mailbox()
        assert hits(net, number) == 1
        assert await bob.spendable_sat() == before_sat
        net.honest()
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
        await bob.wallet.sync_mailbox()
        await bob.wallet.recovery.start()  # what was garbage is found
        assert await bob.spendable_sat() == before_sat + 2 * AMOUNT_SAT


# --- protocol versions


async def test_a_server_of_the_older_protocol(net: Net, alice: Owner, bob: Owner) -> None:
    """Boards and payments work; what needs hash locks is refused, and nothing is locked by that."""
    net.fault(
        "Handshake",
        stage="reply",
        kind="mutate",
        path="max_protocol_version",
        mutation="set",
        value=4,
        count=None,
    )
    await alice.restart()
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    before_sat = await alice.spendable_sat()
    await alice.board(30_000)
    balance = await alice.wallet.balance()
    assert balance.spendable_sat > before_sat

    with pytest.raises(ServerRejected, match="client version is too old"):
        await alice.wallet.lightning.create_invoice(10_000)
    with pytest.raises(NotStored) as refused:
        await alice.wallet.rounds.refresh_delegated(
            [vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)]
        )
    assert "client version is too old" in chain_text(refused.value)
    assert await alice.wallet.balance() == balance
    await assert_nothing_stuck(alice)

    net.honest()  # the server was brought up to date
    await alice.restart()
    await assert_receives(alice, Outside(net), balance.spendable_sat)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("max_protocol_version", 3, "Client min is: 4, server max is: 3"),
        ("min_protocol_version", 6, "Client max is: 5, server min is: 6"),
    ],
)
async def test_a_server_without_a_common_protocol(
    net: Net, alice: Owner, bob: Owner, field: str, value: int, problem: str
) -> None:
    """Nothing is asked of it. What needs no server works, an exit among that."""
    before_sat = await alice.spendable_sat()
    net.fault("Handshake", stage="reply", kind="mutate", path=field, mutation="set", value=value, count=None)
    await alice.restart()
    with pytest.raises(BarkdError, match=problem):
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
    assert await alice.spendable_sat() == before_sat
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.exits.start([vtxo.id])
    (exit_,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert exit_.vtxo_id == vtxo.id


# --- the books of the server are wrong


async def test_a_vtxo_that_the_server_takes_for_exited(net: Net, alice: Owner, bob: Owner) -> None:
    """It is not paid with until that is mended, and stays in sight; other money is paid with meanwhile."""
    (flagged,) = await alice.wallet.list_vtxos(include_all=False)
    await net.devnet.ark_server.flag_exited(flagged.id, 110)
    address = await bob.wallet.new_address()
    before = await alice.wallet.balance()
    for _ in range(2):
        with pytest.raises(NotEnoughVtxos) as refused:
            await alice.wallet.send_arkoor(address, AMOUNT_SAT)
        assert f"vtxo {flagged.id} has exited onchain" in chain_text(refused.value)
        assert await alice.wallet.balance() == before
        await assert_settled(alice.wallet)
    await alice.board(20_000)
    await alice.wallet.send_arkoor(address, AMOUNT_SAT)
    assert flagged.id in {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)}

    await net.devnet.ark_server.flag_exited(flagged.id, None)
    await alice.wallet.send_arkoor(address, flagged.amount_sat)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT + flagged.amount_sat


@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT"])
async def test_a_vtxo_that_the_server_says_is_spent_and_is_not(
    net: Net, alice: Owner, bob: Owner, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """Only its words say so, the state that it answers with does not: nothing is lost by them."""
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    before = await alice.wallet.balance()
    address = await bob.wallet.new_address()
    number = net.fault(
        "RequestArkoorCosign",
        stage="before",
        kind="error",
        code=code,
        text=f"vtxo {vtxo.id} is already spent",
        identifiers=str(vtxo.id) if code == "INVALID_ARGUMENT" else None,
        count=None,
    )
    with pytest.raises(BarkdError) as refused:
        await impatient_sends(alice.wallet, wait_secs=5).send(address, AMOUNT_SAT)
    assert f"vtxo {vtxo.id} is already spent" in chain_text(refused.value) + caplog.text
    assert 0 < hits(net, number) < 100
    assert (await alice.wallet.balance()).total_sat == before.total_sat
    assert await alice.wallet.encoded_vtxo(vtxo.id)  # it could still exit
    net.honest()
    await alice.wallet.arkoor.drive_all()
    await alice.wallet.recovery.retry()
    if not await sends(alice.wallet):  # refused, and so undone
        await alice.wallet.send_arkoor(address, AMOUNT_SAT)
    await assert_settled(alice.wallet)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await alice.spendable_sat() == before.spendable_sat - AMOUNT_SAT


async def test_a_payment_that_is_taken_and_never_delivered(net: Net, alice: Owner, bob: Owner) -> None:
    """The payer cannot tell: OK, says the server. The recipient hears nothing, and finds it by his keys."""
    before_sat = await alice.spendable_sat()
    number = net.fault("PostArkoorMessage", stage="before", kind="swallow", count=None)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
    assert hits(net, number) >= 1
    net.honest()
    await assert_settled(alice.wallet)
    assert await alice.spendable_sat() == before_sat - AMOUNT_SAT
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 0
    await bob.wallet.recovery.start()
    assert await bob.spendable_sat() == AMOUNT_SAT
    await bob.wallet.send_arkoor(await alice.wallet.new_address(), AMOUNT_SAT)


async def test_signatures_that_are_taken_and_thrown_away(net: Net, alice: Owner) -> None:
    """OK, says the server, and goes on without whoever has not signed: that costs a round, and no more."""
    before = await alice.wallet.balance()
    vtxos = {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)}
    await alice.wallet.rounds.refresh_all()
    number = net.fault("ProvideVtxoSignatures", stage="before", kind="swallow", count=None)
    await hold_round(net, alice)
    assert hits(net, number) >= 1
    net.honest()
    assert (await alice.wallet.balance()).total_sat == before.total_sat
    assert {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=True)} == vtxos
    for _ in range(3):
        await hold_round(net, alice)
        await settle(net, alice)
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await alice.spendable_sat() == before.spendable_sat - movement.offchain_fee_sat


async def test_a_payment_that_the_server_cancels_after_the_grant(net: Net, bob: Owner) -> None:
    """The answer with the grant is lost, and next the server says that it will not take the payment."""
    outside = Outside(net)
    claims = net.fault("ClaimLightningReceive", stage="before", kind="delay", count=None)
    number = net.fault(
        "PrepareLightningReceiveClaim", stage="after-commit", kind="error", code="UNAVAILABLE", count=None
    )
    await outside.pay(await bob.wallet.lightning.create_invoice(10_000))

    async def is_granted() -> bool:
        with suppress(BarkdError):
            await bob.wallet.lightning.resume()
        return hits(net, number) >= 1

    await until(is_granted)
    canceled = {"path": "status", "mutation": "set", "value": 4, "count": None}
    net.fault("CheckLightningReceive", stage="reply", kind="mutate", **canceled)

    async def is_over() -> bool:
        await bob.wallet.lightning.resume()
        return await bob.wallet.lightning.receives() == []

    await until(is_over)
    assert hits(net, claims) == 0
    assert await outside.incoming() == ["held"], "the payer's money is not the server's"
    assert await bob.wallet.balance() == Balance()
    await assert_settled(bob.wallet)
    net.honest()
    await assert_receives(bob, outside, 0)


@BOTH
async def test_a_lookup_that_answers_with_the_servers_own_output(net: Net, alice: Owner, bob: Owner) -> None:
    """Of the kinds that users cannot hold: it is no VTXO to us, and hides no other."""
    await pay(alice, bob, 10_000)
    await pay(bob, alice, 3_000)
    before = await spendable(alice)
    poisoned = min(before)
    async with alice.wallet.store.read() as tx:
        (real,) = await tx.vtxos.bodies([poisoned])
    internal = ServerVtxo(
        amount_sat=real.amount_sat,
        expiry_height=real.expiry_height,
        server_pubkey=real.server_pubkey,
        exit_delta=real.exit_delta,
        anchor_point=real.anchor_point,
        genesis=real.genesis,
        policy=ServerOwnedPolicy(),
        point=real.point,
    )
    async with reborn(net, alice) as again:
        told = {"stage": "reply", "kind": "mutate", "mutation": "set", "value": internal.encode().hex()}
        numbers = [
            net.fault(rpc, path=path, contains=bytes(poisoned).hex(), count=None, **told)
            for rpc, path in (("GetVtxo", "vtxo"), ("GetVtxosByIds", "vtxos.0"))
        ]
        server = Server(again.wallet)
        server.xpub, server.regular = no_xpub, []
        report = await run(recovery_with(again.wallet, server))
        assert sum(hits(net, number) for number in numbers) > 0
        # Of several that are asked for at once, the first answer is the poisoned one, whosever it was; that
        # one may be had when it is asked for alone.
        failed = found(report, RecoveryOutcome.FAILED)
        assert before - failed <= await spendable(again) <= before
        assert report.is_complete is not bool(failed)
        net.honest()
        await again.wallet.recovery.retry()
        assert await spendable(again) == before


# --- another answer to the same question


def _short(told: RoundParticipation) -> RoundParticipation:
    """Other outputs under the same hash: a satoshi less each, and consistent in itself."""
    changed = [
        replace(vtxo, amount_sat=vtxo.amount_sat - 1).with_computed_point() for vtxo in told.output_vtxos
    ]
    return replace(told, output_vtxos=tuple(changed))


async def test_a_second_answer_about_a_round_changes_nothing(net: Net, alice: Owner) -> None:
    """The wallet has stored what the round gave it; asked again, the server tells of other VTXOs."""
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    (state,) = await stored_rounds(alice)
    assert isinstance(state, Issued)
    first = {vtxo.id for vtxo in state.vtxos}
    liar.lies["round_participation_status"] = _short
    for _ in range(2):
        await alice.wallet.rounds.on_completed(state.unlock_hash)
        await alice.wallet.rounds.sync()
        (now,) = await stored_rounds(alice)
        assert isinstance(now, Issued)
        assert {vtxo.id for vtxo in now.vtxos} == first
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    assert {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)} == first


# --- a server that is elsewhere on the chain


class Elsewhere(NodeChain):
    """The chain as a server sees it whose height is wrong by some blocks."""

    def __init__(self, node: Node, offset: int) -> None:
        super().__init__(node)
        self._offset = offset

    async def tip(self) -> BlockRef:
        await asyncio.sleep(0.01)  # the server's follower asks until it is there, which it never is
        real = await super().tip()
        return BlockRef(real.height + self._offset, real.hash)


async def move_server(net: Net, offset: int) -> None:
    """Restart the server with another height than the chain's."""
    old = net.devnet.ark_server
    await old.stop()
    new = await ArkServer.start(
        net.directory / "devnet" / "ark-server",
        Elsewhere(net.devnet.node, offset),
        settings=old.settings,
        faults=old.faults,
        address=f"127.0.0.1:{old.port}",
        admin_address=f"127.0.0.1:{old.admin_port}",
        clock=net.devnet.clock,
        lightning_node=old._lightning_parts.node,
    )
    net.devnet = replace(net.devnet, ark_server=new)


@pytest.mark.parametrize(("offset", "is_signed"), [(-10, False), (-3, True), (20, True)])
async def test_a_server_that_is_not_at_our_height(
    net: Net, alice: Owner, bob: Owner, offset: int, is_signed: bool
) -> None:
    """Payments do not mind. A round of a server far behind gives too short a life, and is not signed. One of
    a server that is ahead cannot be confirmed yet, and nothing is forfeited for it before it is.
    """
    await move_server(net, offset)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    before_sat = await alice.spendable_sat()
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    assert (liar.calls["provide_vtxo_signatures"] > 0) == is_signed
    if not is_signed:
        assert await alice.spendable_sat() == before_sat
        await net.restart_ark_server()
        await hold_round(net, alice)
    if offset > 0:
        await settle(net, alice)
        (state,) = await stored_rounds(alice)
        assert isinstance(state, Issued)
        assert liar.calls["forfeit_vtxos"] == 0
        await net.mine(offset)
        await alice.wallet.chain.fetch_tip()
        await alice.wallet.rounds.sync()  # broadcasts
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await alice.spendable_sat() == before_sat - movement.offchain_fee_sat


@pytest.mark.parametrize("offset", [-3, 20])
async def test_boards_and_lightning_with_a_server_that_is_not_at_our_height(
    net: Net, alice: Owner, offset: int
) -> None:
    """What it refuses costs nothing; and all works once it is where we are."""
    await move_server(net, offset)
    before_sat = await alice.spendable_sat()
    invoice = await Outside(net).invoice(AMOUNT_SAT)
    if offset > 0:
        with pytest.raises(BarkdError) as refused:
            await pay_invoice(alice, invoice)
        assert "requested expiry is too low" in chain_text(refused.value)
        assert await alice.spendable_sat() == before_sat
        await assert_settled(alice.wallet)
    else:
        await ends_as(alice, await pay_invoice(alice, invoice), SendState.PAID)
    await alice.board(50_000)

    await move_server(net, 0)
    if offset > 0:
        await ends_as(alice, await pay_invoice(alice, invoice), SendState.PAID)
    await alice.wallet.boards.drive_all()
    balance = await alice.wallet.balance()
    movements = await alice.wallet.list_movements()
    assert {each.status for each in movements if each.effective_balance_sat} == {MovementStatus.SUCCESSFUL}
    assert balance.total_sat == sum(each.effective_balance_sat for each in movements)
    paid_sat = AMOUNT_SAT + sum(each.offchain_fee_sat for each in movements[:2])
    assert balance == Balance(spendable_sat=before_sat + 50_000 - paid_sat)
    await assert_settled(alice.wallet)
