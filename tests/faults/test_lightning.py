"""Lightning with an Ark server or a payee that lies, all of it as it runs in the field: a daemon asked over
HTTP, and a devnet that does not tell it the truth.

What the machines make of finer lies is in `tests/wallet/lightning`; here is what the owner of the money sees.
"""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.faults.conftest import Owner
from tests.faults.test_lying_server import hits, lie, restart
from tests.support.processes import Daemon, Devnet, esplora, eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVNET_OPTIONS = ("--vtxo-lifetime", "600")
"""Short, so that a VTXO can be too old for a payment; alice's lives through all of the tests."""

AMOUNT_SAT = 10_000
SETTLED = 3
ABANDONED = "HTLC claim window closed, abandoning"


async def count(devnet: Devnet, rpc: str) -> int:
    """Have calls counted from now on; the number that tells `hits` which."""
    waits = {"stage": "before", "kind": "delay", "seconds": 0, "count": None}
    return int((await devnet.pull("/faults", target="ark-server", rpc=rpc, **waits))["id"])


async def away(devnet: Devnet, rpc: str) -> None:
    """The server does not answer such calls."""
    fails = {"kind": "error", "code": "UNAVAILABLE", "count": None}
    await devnet.pull("/faults", target="ark-server", rpc=rpc, **fails)


async def lightning_books(devnet: Devnet) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60.0) as http:
        books: dict[str, Any] = (await http.get("/lightning")).json()
    return books


async def incoming(devnet: Devnet, payment_hash: str) -> dict[str, Any]:
    """What the sender of a payment knows of it."""
    found = [
        each for each in (await lightning_books(devnet))["incoming"] if each["payment_hash"] == payment_hash
    ]
    assert len(found) == 1
    return dict(found[0])


async def payments(owner: Owner, kind: str) -> list[dict[str, Any]]:
    history = await owner.daemon.get("/history")
    return [each for each in history if each["subsystem"]["name"] == f"bark.lightning_{kind}"]


async def vtxo_ids(owner: Owner) -> set[str]:
    return {each["id"] for each in await owner.daemon.get("/wallet/vtxos")}


async def state_of(owner: Owner, payment_hash: str) -> str:
    return str((await owner.daemon.get(f"/lightning/sends/{payment_hash}"))["state"])


async def pays(owner: Owner, destination: str, **more: Any) -> str:
    """Begin to pay; the payment's hash."""
    begun = await owner.daemon.post("/lightning/pay", {"destination": destination, **more})
    return str(begun["payment_hash"])


async def invoice_of(owner: Owner) -> tuple[str, str, str]:
    """To be paid: the invoice, its hash and its preimage."""
    made = await owner.daemon.post("/lightning/receives/invoice", {"amount_sat": AMOUNT_SAT})
    (receive,) = [
        each for each in await owner.daemon.get("/lightning/receives") if each["invoice"] == made["invoice"]
    ]
    assert hashlib.sha256(bytes.fromhex(receive["payment_preimage"])).hexdigest() == receive["payment_hash"]
    return made["invoice"], receive["payment_hash"], receive["payment_preimage"]


def logs(owner: Owner) -> str:
    """Everything that a daemon has said, to the terminal and to its file."""
    files = [owner.daemon.process.log, *sorted(owner.daemon.datadir.glob("*.log"))]
    return "".join(file.read_text(errors="replace") for file in files)


async def receives_normally(devnet: Devnet, owner: Owner) -> None:
    """Nothing of what was before stands in the way."""
    before_sat = await owner.spendable_sat()
    fee_sat = (await owner.daemon.get(f"/fees/lightning/receive?amount_sat={AMOUNT_SAT}"))["fee_sat"]
    invoice, _, _ = await invoice_of(owner)
    await devnet.pull("/lightning/pay", invoice=invoice)
    await eventually(owner.spendable_sat, lambda now: now == before_sat + AMOUNT_SAT - fee_sat)


# --- paying


@pytest.mark.parametrize("asked_msat", [AMOUNT_SAT * 1000 + 1, AMOUNT_SAT * 2000, AMOUNT_SAT * 1000 - 1])
@pytest.mark.parametrize("by", ["address", "lnurl"])
async def test_a_service_that_asks_for_another_amount_is_not_paid(
    devnet: Devnet, alice: Owner, asked_msat: int, by: str
) -> None:
    told = await devnet.pull("/lightning/address", name="mallory", answer_msat=asked_msat)
    before, coins = await alice.daemon.get("/wallet/balance"), await vtxo_ids(alice)
    cosigned = await count(devnet, "RequestLightningPayHtlcCosign")
    answer = await alice.refused(
        "POST", "/lightning/pay", {"destination": told[by], "amount_sat": AMOUNT_SAT}
    )
    assert str(asked_msat) in answer.message
    assert await hits(devnet, cosigned) == 0
    assert await alice.daemon.get("/wallet/balance") == before
    assert await vtxo_ids(alice) == coins
    assert await payments(alice, "send") == []


async def test_a_fee_that_nobody_would_pay_is_not_paid(devnet: Devnet, alice: Owner) -> None:
    """The schedule is the server's: as much as the payment again, and 10,000 sat, is the end of it."""
    honest = (await alice.daemon.get(f"/fees/lightning/pay?amount_sat={AMOUNT_SAT}"))["fee_sat"]
    await lie(devnet, "GetArkInfo", "fees.lightning_send.base_fee_sat", "add", value=20_001 - honest)
    await restart(alice)
    before, coins = await alice.daemon.get("/wallet/balance"), await vtxo_ids(alice)
    cosigned = await count(devnet, "RequestLightningPayHtlcCosign")
    invoice = await devnet.pull("/lightning/invoice", amount_sat=AMOUNT_SAT)
    answer = await alice.refused("POST", "/lightning/pay", {"destination": invoice["invoice"]})
    assert answer.message == ("the server asks for a fee of 0.00020001 BTC for a payment of 0.00010000 BTC")
    assert await hits(devnet, cosigned) == 0
    assert await alice.daemon.get("/wallet/balance") == before
    assert await vtxo_ids(alice) == coins
    assert await payments(alice, "send") == []
    await devnet.clear_faults()
    await restart(alice)
    await eventually(lambda: state_of_paid(alice, invoice), lambda state: state == "paid")


async def state_of_paid(owner: Owner, invoice: dict[str, Any]) -> str:
    await owner.daemon.http.post("/lightning/pay", json={"destination": invoice["invoice"]})
    return await state_of(owner, invoice["payment_hash"])


async def test_what_was_paid_is_not_paid_again_whatever_the_server_forgets(
    devnet: Devnet, alice: Owner
) -> None:
    """Not after the daemon was killed either; and the server is not even asked."""
    invoice = await devnet.pull("/lightning/invoice", amount_sat=AMOUNT_SAT)
    payment_hash = await pays(alice, invoice["invoice"])
    await eventually(lambda: state_of(alice, payment_hash), lambda state: state == "paid")
    alice.daemon.process.kill()
    await alice.daemon.start()
    before, history = await alice.daemon.get("/wallet/balance"), await payments(alice, "send")
    cosigned = await count(devnet, "RequestLightningPayHtlcCosign")
    answer = await alice.refused("POST", "/lightning/pay", {"destination": invoice["invoice"]})
    assert "already been paid" in answer.message
    assert await hits(devnet, cosigned) == 0
    assert await alice.daemon.get("/wallet/balance") == before
    assert await payments(alice, "send") == history
    preimage = (await alice.daemon.get(f"/lightning/sends/{payment_hash}"))["preimage"]
    assert hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == payment_hash


async def test_a_wrong_preimage_in_a_notice_settles_nothing(devnet: Devnet, alice: Owner) -> None:
    """The mailbox says that it was paid, and shows what does not open the lock. Nobody else says anything."""
    invoice = await devnet.pull("/lightning/invoice", amount_sat=AMOUNT_SAT, hold=True)
    payment_hash = await pays(alice, invoice["invoice"])
    await eventually(lambda: state_of(alice, payment_hash), lambda state: state == "payment-initiated")
    await alice.daemon.post("/wallet/sync/mailbox")
    before = await alice.daemon.get("/wallet/balance")
    await away(devnet, "CheckLightningPayment")
    told = await lie(devnet, "ReadMailbox", "messages.0.lightning_send_finished.preimage")
    await devnet.pull("/lightning/settle", payment_hash=payment_hash)

    async def was_told() -> bool:
        """A page without messages cannot be changed, and fails instead."""
        await alice.daemon.http.post("/wallet/sync/mailbox")
        return f"the server's notice has a preimage for {payment_hash} that is none" in logs(alice)

    await until(was_told)
    assert await hits(devnet, told) > 0
    send = await alice.daemon.get(f"/lightning/sends/{payment_hash}")
    assert (send["state"], send["preimage"]) == ("payment-initiated", None)
    assert await alice.daemon.get("/wallet/balance") == before
    assert before["pending_lightning_send_sat"] > AMOUNT_SAT
    await devnet.clear_faults()
    await eventually(lambda: state_of(alice, payment_hash), lambda state: state == "paid")


# --- being paid


async def test_a_payment_that_we_never_released_is_not_called_settled(devnet: Devnet, bob: Owner) -> None:
    """Settled, says the server, without a preimage from us: then it cannot be."""
    before = await bob.daemon.get("/wallet/balance")
    claims = await count(devnet, "ClaimLightningReceive")
    invoice, payment_hash, _ = await invoice_of(bob)
    await lie(devnet, "CheckLightningReceive", "status", "set", value=SETTLED)
    await devnet.pull("/lightning/pay", invoice=invoice, wait=False)

    async def is_over() -> bool:
        pending = await bob.daemon.get("/lightning/receives")
        return payment_hash not in {each["payment_hash"] for each in pending}

    async def said_why() -> bool:
        return "payment already settled" in logs(bob)

    await until(is_over)
    await until(said_why)
    assert await hits(devnet, claims) == 0
    assert await bob.daemon.get("/wallet/balance") == before
    assert await payments(bob, "receive") == []
    assert (await incoming(devnet, payment_hash))["preimage"] is None
    await devnet.clear_faults()
    await receives_normally(devnet, bob)


async def test_the_preimage_stays_where_it_is_until_the_grant_is_there(devnet: Devnet, bob: Owner) -> None:
    """The sender has paid, the server has nothing to grant yet: until then the preimage is with its owner,
    who sees it on demand, and nowhere else.
    """
    empty = {"kind": "error", "code": "INTERNAL", "text": "vtxopool error: vtxo pool is empty", "count": None}
    number = (await devnet.pull("/faults", target="ark-server", rpc="PrepareLightningReceiveClaim", **empty))[
        "id"
    ]
    before_sat = await bob.spendable_sat()
    fee_sat = (await bob.daemon.get(f"/fees/lightning/receive?amount_sat={AMOUNT_SAT}"))["fee_sat"]
    invoice, payment_hash, preimage = await invoice_of(bob)
    await devnet.pull("/lightning/pay", invoice=invoice, wait=False)

    async def was_asked() -> bool:
        return await hits(devnet, number) >= 2

    await until(was_asked)
    shown = [
        logs(bob),
        (await bob.daemon.http.get("/history")).text,
        (await bob.daemon.http.get("/wallet/vtxos?all=true")).text,
        str(await lightning_books(devnet)),
    ]
    assert [preimage in text.lower() for text in shown] == [False] * len(shown)
    assert (await incoming(devnet, payment_hash))["status"] == "held"
    assert await bob.spendable_sat() == before_sat
    await devnet.clear_faults()

    async def is_settled() -> bool:
        return bool((await incoming(devnet, payment_hash))["status"] == "settled")

    await until(is_settled)
    await eventually(bob.spendable_sat, lambda now: now == before_sat + AMOUNT_SAT - fee_sat)
    assert (await incoming(devnet, payment_hash))["preimage"] == preimage
    assert preimage not in logs(bob)


async def test_the_preimage_is_kept_when_the_time_to_use_it_has_passed(devnet: Devnet, bob: Owner) -> None:
    """The grant is as promised, but with its answer so many blocks have come that it cannot be enforced."""
    before = await bob.daemon.get("/wallet/balance")
    claims = await count(devnet, "ClaimLightningReceive")
    held = {"stage": "after-commit", "kind": "delay", "seconds": 600}
    number = (await devnet.pull("/faults", target="ark-server", rpc="PrepareLightningReceiveClaim", **held))[
        "id"
    ]
    invoice, payment_hash, preimage = await invoice_of(bob)
    await devnet.pull("/lightning/pay", invoice=invoice, wait=False)

    async def is_granted() -> bool:
        return await hits(devnet, number) == 1

    await until(is_granted)
    await devnet.mine(30)
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60.0) as http:
        (await http.delete(f"/faults/ark-server/{number}")).raise_for_status()

    async def abandoned() -> bool:
        return ABANDONED in logs(bob)

    await until(abandoned)
    assert await hits(devnet, claims) == 0
    assert preimage not in logs(bob)
    assert await bob.daemon.get("/wallet/balance") == before
    (movement,) = [each for each in await payments(bob, "receive") if each["status"] != "successful"]
    assert (movement["status"], movement["effective_balance_sat"]) == ("canceled", 0)
    sender = await incoming(devnet, payment_hash)
    assert (sender["status"], sender["preimage"]) == ("held", None), "the sender's, not the server's"
    await receives_normally(devnet, bob)


@pytest.mark.parametrize("reported_sat", [0, 1, AMOUNT_SAT - 1, 2 * AMOUNT_SAT, 2**63 - 1])
async def test_a_fee_that_makes_no_sense_is_not_in_the_history(
    devnet: Devnet, bob: Owner, reported_sat: int
) -> None:
    """What the server says that was paid does not fit to what it grants: then the invoice says it."""
    told = await lie(devnet, "PrepareLightningReceiveClaim", "receive.amount_sat", "set", value=reported_sat)
    await receives_normally(devnet, bob)
    assert await hits(devnet, told) > 0
    fee_sat = (await bob.daemon.get(f"/fees/lightning/receive?amount_sat={AMOUNT_SAT}"))["fee_sat"]
    movement = (await payments(bob, "receive"))[0]
    assert movement["effective_balance_sat"] == AMOUNT_SAT - fee_sat
    assert movement["offchain_fee_sat"] == fee_sat


# --- inputs that expire before the HTLCs


@pytest_asyncio.fixture(loop_scope="module")
async def dave(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Owner]:
    """Has boarded so long ago that his VTXO expires before an HTLC of today would."""
    daemon = Daemon(tmp_path / "dave")
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    owner = Owner(daemon, devnet)
    try:
        await owner.board(3 * AMOUNT_SAT)
        await devnet.mine(345)
        yield owner
    finally:
        await daemon.close()


async def test_inputs_outlive_the_htlcs_that_they_become(devnet: Devnet, dave: Owner) -> None:
    """The payee keeps the payment waiting. The younger VTXO is paid with, though the older one would be first
    anywhere else; and when there is nothing but the older one, its HTLCs are on their way to the chain before
    the tree below them expires.
    """
    older = await dave.daemon.get("/wallet/vtxos")
    old = {each["id"] for each in older}
    await dave.board(3 * AMOUNT_SAT)
    (new,) = await vtxo_ids(dave) - old
    held = await devnet.pull("/lightning/invoice", amount_sat=AMOUNT_SAT, hold=True)
    payment_hash = await pays(dave, held["invoice"])
    (first,) = await payments(dave, "send")
    assert first["input_vtxos"] == [new]
    await devnet.pull("/lightning/settle", payment_hash=payment_hash)
    await eventually(lambda: state_of(dave, payment_hash), lambda state: state == "paid")

    rest_sat = await dave.spendable_sat()
    held = await devnet.pull("/lightning/invoice", amount_sat=rest_sat - 2_000, never=True)
    payment_hash = await pays(dave, held["invoice"])
    second = (await payments(dave, "send"))[0]
    assert old <= set(second["input_vtxos"])
    assert "an input expires before the HTLCs do" in logs(dave)

    async def exiting() -> set[str]:
        await devnet.mine(20)
        await dave.daemon.post("/wallet/sync")
        return {each["vtxo_id"] for each in await dave.daemon.get("/exits/status/all")}

    (expiry_height,) = {each["expiry_height"] for each in older}
    htlcs = {each["id"] for each in await dave.daemon.get("/wallet/vtxos") if each["id"] not in {*old, new}}
    leaving = await eventually(exiting, bool)
    tip_height = (await dave.daemon.get("/bitcoin/tip"))["tip_height"]
    assert leaving <= htlcs
    assert tip_height < expiry_height
