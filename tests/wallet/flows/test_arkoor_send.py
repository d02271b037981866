"""Payments that meet crashes, outages, refusals and lies: the coins come out right, once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.address import ArkAddress, MailboxDelivery
from barkd_py.ark.arkoor import ArkoorPart, ChangeToDestination
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.errors import (
    InvalidInput,
    ProtocolViolation,
    ServerRejected,
    StoreError,
    chain_text,
)
from barkd_py.wallet.actions.bad_answers import MAX_BAD_ANSWERS
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.actions.failures import StillPending
from barkd_py.wallet.arkoor.errors import DeliveryFailed, UnusableMailbox, ZeroAmount
from barkd_py.wallet.arkoor.machine import ArkoorSendMachine
from barkd_py.wallet.arkoor.service import ArkoorSends
from barkd_py.wallet.movements import ARKOOR_SEND, Movement, MovementStatus
from barkd_py.wallet.vtxo_states import Locked, StateKind
from barkd_py.wallet.vtxos.selection import NotEnoughVtxos
from barkd_py.wallet.wallet import Wallet
from tests.wallet.flows.conftest import ALICE, Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, FailingStore, Twice, When, opener

AMOUNT_SAT = 5_000


def impatient_sends(wallet: Wallet, machine: object = None, *, wait_secs: float = 30) -> ArkoorSends:
    """As the wallet's own, but pauses take no time."""

    async def no_time(_: float) -> None:
        await asyncio.sleep(0)

    own = ArkoorSendMachine(
        wallet.store, wallet.keychain, wallet.server, wallet.chain, wallet.registration, exit_margin=12
    )
    return ArkoorSends(
        wallet.store,
        ActionExecutor(wallet.store, wallet.locks, sleep=no_time),
        own if machine is None else machine,  # type: ignore[arg-type]
        wallet.keychain,
        wallet.server,
        wallet.chain,
        network=wallet.network,
        change_split_factor=2,
        wait_secs=wait_secs,
    )


async def sends(wallet: Wallet) -> list[Movement]:
    return [movement for movement in await wallet.list_movements() if movement.subsystem == ARKOOR_SEND]


async def assert_settled(wallet: Wallet) -> None:
    """No action is left, and nothing is locked."""
    async with wallet.store.read() as tx:
        assert await tx.actions.list() == ()
        assert await tx.vtxos.list([StateKind.LOCKED]) == ()


# --- what is refused before anything happens


async def test_an_amount_of_zero_is_refused(alice: Owner, bob: Owner) -> None:
    with pytest.raises(ZeroAmount):
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), 0)
    await assert_settled(alice.wallet)


async def test_an_address_in_capitals_is_the_one_in_small_letters(alice: Owner, bob: Owner) -> None:
    address = await bob.wallet.new_address()
    await alice.wallet.send_arkoor(address.upper(), 10_000)
    (sent,) = await sends(alice.wallet)
    assert [paid.method.value for paid in sent.sent_to] == [address]


async def test_more_than_there_is_is_refused(alice: Owner, bob: Owner) -> None:
    address = await bob.wallet.new_address()
    keys_before = await _next_index(alice.wallet)
    with pytest.raises(
        NotEnoughVtxos, match=r"Insufficient money available\. Needed 1 BTC but 0\.00499400 BTC"
    ):
        await alice.wallet.send_arkoor(address, 100_000_000)
    await assert_settled(alice.wallet)
    assert await _next_index(alice.wallet) == keys_before  # no key was burnt
    assert await sends(alice.wallet) == []


async def test_an_address_of_another_server_is_refused(net: Net, alice: Owner, bob: Owner) -> None:
    mine = ArkAddress.parse(await bob.wallet.new_address())
    other = ArkAddress.build(
        server_pubkey=SecretKey(bytes([9] * 32)).public_key,
        policy=mine.policy,
        deliveries=mine.deliveries,
        network=alice.wallet.network,
    )
    with pytest.raises(InvalidInput, match=r"^Ark address is for different server$"):
        await alice.wallet.send_arkoor(other.encode(), AMOUNT_SAT)


async def test_what_is_built_for_an_address_has_the_pinned_key_of_the_server(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """An address says four bytes of its server's key: enough to notice a mistake, not an attack.

    So they are no part of what is built.
    """
    pinned = (await alice.wallet.server.info()).server_pubkey
    address = ArkAddress.parse(await bob.wallet.new_address())
    asked: list[ArkoorPart] = []

    class Listening:
        """The server; notes what it is asked to sign."""

        def __getattr__(self, name: str) -> Any:
            return getattr(alice.wallet.server, name)

        async def request_arkoor_cosign(self, parts: Any) -> Any:
            asked.extend(each.part for each in parts)
            return await alice.wallet.server.request_arkoor_cosign(parts)

    wallet = alice.wallet
    listening: Any = Listening()
    machine = ArkoorSendMachine(
        wallet.store, wallet.keychain, listening, wallet.chain, wallet.registration, exit_margin=12
    )
    await impatient_sends(wallet, machine).send(address.encode(), AMOUNT_SAT)
    (part,) = asked
    for vtxo in part.unsigned_vtxos:
        assert vtxo.server_pubkey == pinned
        taproot = vtxo.policy.taproot(pinned, vtxo.exit_delta, vtxo.expiry_height)
        assert vtxo.output.script_pubkey == taproot.script_pubkey
    assert address.policy in [vtxo.policy for vtxo in part.unsigned_vtxos]
    await assert_settled(wallet)


async def test_a_mailbox_that_no_server_could_find_is_refused(alice: Owner, bob: Owner) -> None:
    mine = ArkAddress.parse(await bob.wallet.new_address())
    lost = ArkAddress.build(
        server_pubkey=(await alice.wallet.server.info()).server_pubkey,
        policy=mine.policy,
        deliveries=(MailboxDelivery(b"\x02" + b"\xff" * 32),),
        network=alice.wallet.network,
    )
    with pytest.raises(UnusableMailbox):
        await alice.wallet.send_arkoor(lost.encode(), AMOUNT_SAT)
    await assert_settled(alice.wallet)


async def test_paying_the_key_that_would_be_the_change_is_refused(alice: Owner) -> None:
    wallet = alice.wallet
    async with wallet.store.read() as tx:
        key = await wallet.keychain.peek_in(tx)
    server = await wallet.server.info()
    address = ArkAddress.for_vtxo_key(
        wallet.keychain.secret(key),
        server_pubkey=server.server_pubkey,
        server_mailbox_pubkey=server.mailbox_pubkey,
        mailbox_id=wallet.keychain.mailbox_key.public_key,
        network=wallet.network,
    ).encode()
    with pytest.raises(ChangeToDestination):
        await wallet.send_arkoor(address, AMOUNT_SAT)
    await assert_settled(wallet)


# --- amounts


@pytest.mark.parametrize("amount_sat", [1, 329, 330, 331, 250_000, 499_400])
async def test_amounts_of_every_size_arrive(alice: Owner, bob: Owner, amount_sat: int) -> None:
    before = await alice.spendable_sat()
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), amount_sat)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == amount_sat
    assert await alice.spendable_sat() == before - amount_sat
    await assert_settled(alice.wallet)


async def test_concurrent_payments_never_share_a_coin(net: Net, alice: Owner, bob: Owner) -> None:
    for _ in range(3):
        await alice.board(30_000)
    addresses = [await bob.wallet.new_address() for _ in range(3)]
    sending = (alice.wallet.send_arkoor(address, 20_000) for address in addresses)
    await asyncio.gather(*sending)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 60_000
    await assert_settled(alice.wallet)


# --- crashes


@pytest.mark.both_stores
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_commit_pays_once_or_not_at_all(
    net: Net, alice: Owner, bob: Owner, when: When
) -> None:
    paid = 0
    for number in range(10):
        stores: list[CrashingStore] = []
        await alice.wallet.close()
        wallet = await alice.open(opener(stores))
        await wallet.server.info()
        before = await alice.spendable_sat()
        movements_before = len(await sends(wallet))
        address = await bob.wallet.new_address()
        stores[0].arm(number, when)
        crashed = False
        try:
            await wallet.arkoor.send(address, AMOUNT_SAT)
        except Crash:
            crashed = True
        wallet = await alice.restart()
        await wallet.arkoor.drive_all()
        await assert_settled(wallet)
        await bob.wallet.sync_mailbox()
        received = await bob.spendable_sat() - paid
        assert received in (0, AMOUNT_SAT)
        assert received == AMOUNT_SAT or (number, when) == (0, "before")
        assert await alice.spendable_sat() == before - received
        movements = await sends(wallet)
        assert len(movements) - movements_before == (1 if received else 0)
        assert all(movement.status is MovementStatus.SUCCESSFUL for movement in movements)
        paid += received
        if not crashed:
            break
    else:
        pytest.fail("a payment has more commits than this test expects")
    assert number == 3  # chosen, cosigned, done; and one run without a crash


@pytest.mark.both_stores
@pytest.mark.parametrize("number", [0, 1, 2])  # chosen, cosigned, done
async def test_a_payment_whose_commit_fails_is_called_failed_only_if_it_will_never_be(
    alice: Owner, bob: Owner, number: int
) -> None:
    stores: list[CrashingStore] = []
    await alice.wallet.close()
    wallet = await alice.open(opener(stores, FailingStore))
    await wallet.server.info()
    before = await alice.spendable_sat()
    address = await bob.wallet.new_address()
    stores[0].arm(number)
    with pytest.raises(StoreError if number == 0 else StillPending):
        await wallet.arkoor.send(address, AMOUNT_SAT)
    assert stores[0].commits > number
    stores[0].arm(None)
    await wallet.arkoor.drive_all()
    await assert_settled(wallet)
    await bob.wallet.sync_mailbox()
    paid = 0 if number == 0 else AMOUNT_SAT
    assert await bob.spendable_sat() == paid
    assert await alice.spendable_sat() == before - paid
    assert len(await sends(wallet)) == (1 if paid else 0)


async def test_every_step_may_run_twice(alice: Owner, bob: Owner) -> None:
    wallet = alice.wallet
    before = await alice.spendable_sat()
    machine = Twice(
        ArkoorSendMachine(
            wallet.store, wallet.keychain, wallet.server, wallet.chain, wallet.registration, exit_margin=12
        )
    )
    await impatient_sends(wallet, machine).send(await bob.wallet.new_address(), AMOUNT_SAT)
    assert machine.steps == ["Cosigning", "Delivering"]
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await alice.spendable_sat() == before - AMOUNT_SAT
    assert len(await sends(wallet)) == 1
    await assert_settled(wallet)


# --- outages


@pytest.mark.parametrize("stage", ["before", "after-commit"])
@pytest.mark.parametrize("rpc", ["RegisterVtxoTransactions", "RequestArkoorCosign", "PostArkoorMessage"])
@pytest.mark.parametrize("kind", ["drop", "error"])
async def test_a_lost_call_is_made_again(
    net: Net, alice: Owner, bob: Owner, rpc: str, stage: str, kind: str
) -> None:
    before = await alice.spendable_sat()
    address = await bob.wallet.new_address()
    number = net.fault(rpc, stage=stage, kind=kind, count=2)
    await impatient_sends(alice.wallet).send(address, AMOUNT_SAT)
    (fault,) = [fault for fault in net.devnet.ark_server.faults.list() if fault["id"] == number]
    assert fault["hits"] == 2
    net.honest()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await alice.spendable_sat() == before - AMOUNT_SAT
    assert len(await sends(alice.wallet)) == 1
    await assert_settled(alice.wallet)


async def test_a_caller_waits_a_while_and_the_payment_goes_on(net: Net, alice: Owner, bob: Owner) -> None:
    address = await bob.wallet.new_address()
    net.fault("PostArkoorMessage", kind="error", count=None, code="UNAVAILABLE")
    impatient = impatient_sends(alice.wallet, wait_secs=0.3)
    with pytest.raises(StillPending):
        await impatient.send(address, AMOUNT_SAT)
    async with asyncio.timeout(60):
        # the whole input, until the change is stored
        while (await alice.wallet.balance()).pending_arkoor_send_sat <= AMOUNT_SAT:
            await asyncio.sleep(0.01)
        while [movement.status for movement in await sends(alice.wallet)] != [MovementStatus.PENDING]:
            await asyncio.sleep(0.01)
    await impatient.close()
    net.honest()
    wallet = await alice.restart()
    await wallet.sync()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert (await sends(wallet))[0].status is MovementStatus.SUCCESSFUL
    await assert_settled(wallet)


async def test_a_caller_that_goes_away_does_not_stop_the_payment(net: Net, alice: Owner, bob: Owner) -> None:
    address = await bob.wallet.new_address()
    net.fault("RequestArkoorCosign", kind="delay", seconds=600)
    task = asyncio.create_task(alice.wallet.send_arkoor(address, AMOUNT_SAT))
    async with asyncio.timeout(60):
        while not (await alice.wallet.balance()).pending_arkoor_send_sat:
            await asyncio.sleep(0.01)
        task.cancel()
        net.honest()
        while (await alice.wallet.balance()).pending_arkoor_send_sat:
            await asyncio.sleep(0.01)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT


# --- refusals and lies


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND"])
async def test_a_refused_payment_is_undone(net: Net, alice: Owner, bob: Owner, code: str) -> None:
    before = await alice.spendable_sat()
    net.fault("RequestArkoorCosign", kind="error", code=code, text="no way")
    with pytest.raises(ServerRejected, match="no way"):
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
    assert await alice.spendable_sat() == before
    assert await sends(alice.wallet) == []
    await assert_settled(alice.wallet)
    net.honest()
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)


@pytest.mark.parametrize(
    ("path", "mutation"),
    [
        ("parts.0.server_partial_sigs.0", "flip"),
        ("parts.0.server_partial_sigs.2", "flip"),
        ("parts.0.server_pub_nonces.1", "flip"),
        ("parts.0.server_pub_nonces.0", "drop"),
        ("parts.0.server_partial_sigs.0", "drop"),
        ("parts.0", "drop"),
        ("parts", "clear"),
    ],
)
async def test_a_server_that_lies_once_is_asked_again(
    net: Net, alice: Owner, bob: Owner, path: str, mutation: str
) -> None:
    net.fault("RequestArkoorCosign", stage="reply", kind="mutate", path=path, mutation=mutation)
    await impatient_sends(alice.wallet).send(await bob.wallet.new_address(), AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT


def keep_lying(net: Net) -> int:
    """The server spends the inputs in its books, but its signatures are wrong."""
    return net.fault(
        "RequestArkoorCosign",
        stage="reply",
        kind="mutate",
        path="parts.0.server_partial_sigs.1",
        mutation="flip",
        count=None,
    )


def hits(net: Net, number: int) -> int:
    (fault,) = [fault for fault in net.devnet.ark_server.faults.list() if fault["id"] == number]
    return int(fault["hits"])


async def test_a_server_that_keeps_lying_is_given_up_if_it_spent_nothing(
    net: Net, alice: Owner, bob: Owner
) -> None:
    before = await alice.spendable_sat()
    number = keep_lying(net)
    net.fault(
        "GetVtxosStatusByIds",
        stage="reply",
        kind="mutate",
        path="vtxos.0.spend_state",
        mutation="set",
        value=1,
    )
    with pytest.raises(ProtocolViolation, match="Invalid partial signature at index 1"):
        await impatient_sends(alice.wallet).send(await bob.wallet.new_address(), AMOUNT_SAT)
    assert hits(net, number) == MAX_BAD_ANSWERS
    assert await alice.spendable_sat() == before
    assert await sends(alice.wallet) == []
    await assert_settled(alice.wallet)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_payment_that_a_lying_server_has_booked_waits_until_it_is_mended(
    net: Net, alice: Owner, bob: Owner, is_silent: bool
) -> None:
    """The inputs can be used for nothing else any more; so the payment is not undone but finished later."""
    before = await alice.spendable_sat()
    address = await bob.wallet.new_address()
    number = keep_lying(net)
    if is_silent:
        net.fault("GetVtxosStatusByIds", kind="error", code="INTERNAL", count=None)
    with pytest.raises(StillPending) as failure:
        await impatient_sends(alice.wallet).send(address, AMOUNT_SAT)
    assert chain_text(failure.value) == (
        "arkoor send is not finished yet and continues in the background: "
        "Invalid partial signature at index 1"
    )
    assert hits(net, number) == MAX_BAD_ANSWERS
    assert (await alice.wallet.balance()).pending_arkoor_send_sat == before
    wallet = await alice.restart()
    await wallet.sync()
    assert hits(net, number) == MAX_BAD_ANSWERS + 1  # once more per sync, and no more
    net.honest()
    await wallet.sync()
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    assert await alice.spendable_sat() == before - AMOUNT_SAT
    assert [movement.status for movement in await sends(wallet)] == [MovementStatus.SUCCESSFUL]
    await assert_settled(wallet)


async def test_amounts_that_were_cosigned_for_others_are_refused_for_good(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """Another wallet of the same seed paid as much; the server says so with a failure, not a refusal."""
    async with net.wallet("twin", ALICE) as twin:
        (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
        await twin.wallet.import_vtxos([Vtxo.decode(await alice.wallet.encoded_vtxo(vtxo.id))])
        await twin.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
        before = await alice.spendable_sat()
        with pytest.raises(NotEnoughVtxos) as refused:
            await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT)
        assert "is already spent" in chain_text(refused.value)
        assert await sends(alice.wallet) == []
        assert (await alice.wallet.get_vtxo(vtxo.id)).state == Locked(None)  # its exit is open
        with pytest.raises(NotEnoughVtxos):
            await alice.wallet.send_arkoor(await bob.wallet.new_address(), AMOUNT_SAT + 1)
        await twin.wallet.registration.catch_up()
        await alice.wallet.recovery.start()  # the twin's change is as much alice's
        assert await alice.spendable_sat() == before - AMOUNT_SAT
        await assert_settled(alice.wallet)


async def test_an_address_without_a_mailbox_is_paid_and_nobody_is_told(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """Its owner fetches the payment by other means."""
    address = replace(ArkAddress.parse(await bob.wallet.new_address()), deliveries=())
    number = net.fault("PostArkoorMessage", kind="error", count=None)
    await alice.wallet.send_arkoor(address.encode(), AMOUNT_SAT)
    assert hits(net, number) == 0
    assert [movement.status for movement in await sends(alice.wallet)] == [MovementStatus.SUCCESSFUL]
    await assert_settled(alice.wallet)


async def test_one_mailbox_of_several_is_enough(net: Net, alice: Owner, bob: Owner) -> None:
    mine = ArkAddress.parse(await bob.wallet.new_address())
    foreign = MailboxDelivery(SecretKey(bytes([7] * 32)).public_key.data)
    address = replace(mine, deliveries=(foreign, *mine.deliveries))
    (delivery,) = mine.deliveries
    assert isinstance(delivery, MailboxDelivery)
    net.fault(
        "PostArkoorMessage",
        kind="error",
        code="INVALID_ARGUMENT",
        contains=foreign.blinded_id.hex(),
        count=None,
    )
    await alice.wallet.send_arkoor(address.encode(), AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT
    await assert_settled(alice.wallet)


async def test_a_delivery_that_every_mailbox_refuses_ends_and_the_change_is_ours(
    net: Net, alice: Owner, bob: Owner
) -> None:
    before = await alice.spendable_sat()
    address = await bob.wallet.new_address()
    net.fault("PostArkoorMessage", kind="error", code="INVALID_ARGUMENT", count=None)
    with pytest.raises(DeliveryFailed):
        await impatient_sends(alice.wallet).send(address, AMOUNT_SAT)
    (movement,) = await sends(alice.wallet)
    assert movement.status is MovementStatus.FAILED
    assert movement.metadata["undelivered_vtxos"]
    assert await alice.spendable_sat() == before - AMOUNT_SAT
    await assert_settled(alice.wallet)


async def test_registration_that_is_refused_does_not_keep_the_payment_from_its_recipient(
    net: Net, alice: Owner, bob: Owner
) -> None:
    address = await bob.wallet.new_address()
    net.fault("RegisterVtxoTransactions", kind="error", code="INVALID_ARGUMENT", count=1)
    await alice.wallet.send_arkoor(address, AMOUNT_SAT)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == AMOUNT_SAT


async def _next_index(wallet: Wallet) -> int:
    async with wallet.store.read() as tx:
        return await tx.keys.next_index()
