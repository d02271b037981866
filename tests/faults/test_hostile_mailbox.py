"""A server that lies about mailboxes and the state of VTXOs: it takes nothing, and hides nothing for long."""

from typing import Any

import pytest

from tests.faults.conftest import Owner
from tests.faults.test_lying_server import books, hits, lie
from tests.support.processes import Devnet, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SENT_SAT = 4_321
SPENT = 2


async def arrived(bob: Owner, before_sat: int) -> None:
    """Exactly one more payment is there, once."""

    async def synced_sat() -> int:
        await bob.daemon.http.post("/wallet/sync")
        return await bob.spendable_sat()

    await eventually(synced_sat, lambda sat: sat == before_sat + SENT_SAT)


async def receives(bob: Owner) -> list[Any]:
    return [each for each in await bob.daemon.get("/history") if each["subsystem"]["kind"] == "receive"]


async def test_a_server_that_calls_everything_spent_takes_nothing(devnet: Devnet, alice: Owner) -> None:
    """Its word is a hint: our own history decides, the coin stays, and pays."""
    before = await books(alice)
    for rpc, path in (("GetVtxosStatusByIds", "vtxos.0.spend_state"), ("GetVtxoStatus", "spend_state")):
        await lie(devnet, rpc, path, "set", value=SPENT)
    await alice.daemon.post("/wallet/sync")
    await alice.daemon.post("/wallet/sync/mailbox")
    assert await books(alice) == before
    await devnet.clear_faults()
    await alice.send(await alice.address(), 1_000)


async def lie_about_checkpoints(devnet: Devnet, value: int) -> None:
    await lie(devnet, "ReadMailbox", "messages.0.checkpoint", "set", value=value, count=2)
    await lie(devnet, "SubscribeMailbox", "checkpoint", "set", value=value, count=2, stage="stream")


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, 2**64 - 1])
async def test_messages_with_checkpoints_that_cannot_be(
    devnet: Devnet, alice: Owner, bob: Owner, value: int
) -> None:
    """Nothing is credited twice, and what comes later is heard of."""
    before_sat, seen = await bob.spendable_sat(), len(await receives(bob))
    await lie_about_checkpoints(devnet, value)
    await alice.send(await bob.address(), SENT_SAT)
    await bob.daemon.http.post("/wallet/sync/mailbox")
    await devnet.clear_faults()
    await arrived(bob, before_sat)
    assert len(await receives(bob)) == seen + 1

    await alice.send(await bob.address(), SENT_SAT)
    await arrived(bob, before_sat + SENT_SAT)


async def test_a_mailbox_that_is_read_to_us_from_the_beginning(
    devnet: Devnet, alice: Owner, bob: Owner
) -> None:
    """Checkpoints that look new, on payments that are known: nothing is credited twice."""
    await alice.send(await bob.address(), SENT_SAT)
    before_sat = await bob.spendable_sat()
    await eventually(lambda: receives(bob), lambda found: len(found) > 0)
    await arrived_all(bob)
    before = await books(bob)
    number = await lie(devnet, "ReadMailbox", "have_more", "set", value=True)
    for _ in range(3):
        await bob.daemon.http.post("/wallet/sync/mailbox")
    assert await hits(devnet, number) > 0
    assert await books(bob) == before
    assert before_sat <= await bob.spendable_sat()


async def arrived_all(bob: Owner) -> None:
    await bob.daemon.post("/wallet/sync")
    await bob.daemon.post("/wallet/sync/mailbox")


async def test_a_mailbox_that_refuses_every_authorization(devnet: Devnet, alice: Owner, bob: Owner) -> None:
    """As if our clock were wrong: it is reported, nothing is lost, and later everything is there."""
    before_sat = await bob.spendable_sat()
    await devnet.pull(
        "/faults",
        target="ark-server",
        rpc="ReadMailbox",
        kind="error",
        code="INVALID_ARGUMENT",
        text="authorization expired",
        count=None,
    )
    await alice.send(await bob.address(), SENT_SAT)
    refused = await bob.refused("POST", "/wallet/sync/mailbox")
    assert refused.status == 500
    assert "authorization expired" in refused.message
    assert await bob.spendable_sat() == before_sat
    await devnet.clear_faults()
    await arrived(bob, before_sat)


async def test_a_registration_that_never_works_keeps_nothing_from_anybody(
    devnet: Devnet, alice: Owner, bob: Owner
) -> None:
    before_sat = await bob.spendable_sat()
    await devnet.pull(
        "/faults",
        target="ark-server",
        rpc="RegisterVtxoTransactions",
        kind="error",
        code="INVALID_ARGUMENT",
        skip=1,
        count=None,
    )
    await alice.send(await bob.address(), SENT_SAT)
    await arrived(bob, before_sat)
    await devnet.clear_faults()
    await alice.daemon.post("/wallet/sync")


async def test_an_isolated_part_of_an_answer_for_another(devnet: Devnet, alice: Owner, bob: Owner) -> None:
    """A whole part of the answer missing: nothing of the others is signed."""
    before_sat, bobs_sat = await alice.spendable_sat(), await bob.spendable_sat()
    number = await lie(devnet, "RequestArkoorCosign", "parts.0", "drop", count=1)
    await alice.send(await bob.address(), SENT_SAT)  # asked again, it answers
    assert await hits(devnet, number) == 1
    assert await alice.spendable_sat() == before_sat - SENT_SAT
    await arrived(bob, bobs_sat)


async def test_recovery_posts_that_fail_do_not_hold_up_payments(
    devnet: Devnet, alice: Owner, bob: Owner
) -> None:
    await devnet.pull(
        "/faults", target="ark-server", rpc="PostRecoveryVtxoIds", kind="error", code="INTERNAL", count=None
    )
    before_sat = await bob.spendable_sat()
    await alice.send(await bob.address(), SENT_SAT)
    await arrived(bob, before_sat)
