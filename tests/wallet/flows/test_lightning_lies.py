"""Lightning with a server that lies, all of it real: a wallet, devnet's Ark server, and nodes outside.

Every lie of sheet 10 §14 about Lightning that devnet can tell. The wallet says what is wrong, keeps its
preimage or its money, and pays or is paid once the server is honest again. The same lies, and finer ones, are
told to the machines alone in `tests/wallet/lightning/test_receive_lies` and `test_send_lies`.
"""

import logging
from typing import Any

import pytest

from barkd_py.ark.lightning_receive import InvoiceMismatch
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.errors import ProtocolViolation
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.receive.errors import UnknownReceive, UnreadableInvoice
from barkd_py.wallet.lightning.receive.machine import MAX_REFUSALS
from barkd_py.wallet.lightning.send.service import SendState
from barkd_py.wallet.movements import LIGHTNING_RECEIVE
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.test_lightning_receive import FEE_SAT, NET_SAT, claimed, hash_of
from tests.wallet.flows.test_lightning_send import AMOUNT_SAT, assert_paid, driven, pay

ASKED_SAT = NET_SAT + FEE_SAT
STRANGER = SecretKey(bytes([9]) * 32).public_key.data.hex()

Lie = dict[str, Any]


@pytest.fixture
def outside(net: Net) -> Outside:
    return Outside(net)


def lie(net: Net, point: str, **mutation: Any) -> int:
    """The server's own work comes out wrong, and so all that follows from it fits together."""
    return net.fault(point, stage="engine", kind="mutate", **{"count": None, **mutation})


def hits(net: Net, number: int) -> int:
    return next(int(each["hits"]) for each in net.devnet.ark_server.faults.list() if each["id"] == number)


async def assert_receives(owner: Owner, outside: Outside, before_sat: int) -> None:
    """With a server that is honest by now."""
    text = await owner.wallet.lightning.create_invoice(ASKED_SAT)
    await outside.pay(text)
    await until(lambda: claimed(owner, text))
    assert await owner.wallet.balance() == Balance(spendable_sat=before_sat + NET_SAT)


# --- the invoice that the server makes for us

INVOICE_LIES: dict[str, tuple[Lie, str]] = {
    "less than asked": (
        {"path": "amount_msat", "mutation": "add", "value": -1_000},
        f"invoice over {ASKED_SAT * 1000 - 1000} msat, expected {ASKED_SAT * 1000}",
    ),
    "more than asked": (
        {"path": "amount_msat", "mutation": "add", "value": 1},
        f"invoice over {ASKED_SAT * 1000 + 1} msat",
    ),
    "a hash of its own": (
        {"path": "payment_hash", "mutation": "set", "value": "07" * 32},
        "payment hash 0707.*, expected ",
    ),
    "another network": (
        {"path": "network", "mutation": "set", "value": "mainnet"},
        "another network than regtest",
    ),
    "another description": (
        {"path": "description", "mutation": "set", "value": "a yacht"},
        "another description",
    ),
}


@pytest.mark.parametrize("name", INVOICE_LIES)
async def test_another_invoice_is_not_given_out(net: Net, alice: Owner, outside: Outside, name: str) -> None:
    told, complaint = INVOICE_LIES[name]
    before = await alice.wallet.balance()
    number = lie(net, "lightning.invoice", **told)
    with pytest.raises(InvoiceMismatch, match=complaint):
        await alice.wallet.lightning.create_invoice(ASKED_SAT, description="a coffee")
    assert hits(net, number) == 1
    assert await alice.wallet.lightning.receives() == []
    assert await alice.movements(LIGHTNING_RECEIVE) == []
    assert await alice.wallet.balance() == before
    net.honest()
    await assert_receives(alice, outside, before.spendable_sat)


async def test_what_is_no_invoice_is_not_given_out(net: Net, alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    net.fault(
        "StartLightningReceive", stage="reply", kind="mutate", path="bolt11", mutation="set", value="lnbc1"
    )
    with pytest.raises(UnreadableInvoice):
        await alice.wallet.lightning.create_invoice(ASKED_SAT)
    assert await alice.wallet.lightning.receives() == []
    await assert_receives(alice, outside, before_sat)


# --- what it grants for a payment that has come

GRANT_LIES: dict[str, tuple[Lie, str]] = {
    "one satoshi short": (
        {"path": "amount_sat", "mutation": "add", "value": -1},
        "return enough VTXOs to cover invoice amount",
    ),
    "another key": (
        {"path": "policy.user_pubkey", "mutation": "set", "value": STRANGER},
        "for another user key",
    ),
    "another hash": (
        {"path": "policy.payment_hash", "mutation": "flip"},
        "for another payment hash",
    ),
    "the old hash lock": (
        {"path": "policy.lock", "mutation": "set", "value": 0},
        "invalid HTLC VTXO policy: server-htlc-receive",
    ),
    "an earlier expiry": (
        {"path": "policy.htlc_expiry_height", "mutation": "add", "value": -30},
        "leave no time to claim it unilaterally",
    ),
    "a longer delay for us": (
        {"path": "policy.htlc_expiry_delta", "mutation": "add", "value": 30},
        "leave no time to claim it unilaterally",
    ),
}


@pytest.mark.parametrize("name", GRANT_LIES)
async def test_a_bad_grant_does_not_buy_the_preimage(
    net: Net, alice: Owner, outside: Outside, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is offered again and again, and then given up; the server cannot take what it holds."""
    told, complaint = GRANT_LIES[name]
    before = await alice.wallet.balance()
    coins = {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=True)}
    claims = net.fault("ClaimLightningReceive", stage="before", kind="delay", count=None)
    number = lie(net, "lightning.grant", **told)
    text = await alice.wallet.lightning.create_invoice(ASKED_SAT)
    assert (await outside.pay(text))["status"] == "held"

    async def is_given_up() -> bool:
        await alice.wallet.lightning.resume()
        return await alice.wallet.lightning.receives() == []

    with caplog.at_level(logging.WARNING, "barkd_py.wallet.lightning"):
        await until(is_given_up)
    assert hits(net, number) == 1, "devnet grants once and then repeats itself"
    assert any("ended: " in line and complaint in line for line in caplog.messages), caplog.messages
    assert hits(net, claims) == 0
    with pytest.raises(UnknownReceive):
        await alice.wallet.lightning.receive(hash_of(text))
    assert await alice.movements(LIGHTNING_RECEIVE) == []
    assert await alice.wallet.balance() == before
    assert {vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=True)} == coins
    assert await outside.incoming() == ["held"], "the sender's money is not the server's"
    net.honest()
    await assert_receives(alice, outside, before.spendable_sat)


async def test_a_better_grant_is_taken_while_there_is_time(net: Net, alice: Owner, outside: Outside) -> None:
    """The same payment, granted twice: the first falls short, the second is as it should be."""
    before_sat = await alice.spendable_sat()
    lie(net, "lightning.grant", path="amount_sat", mutation="add", value=-1, count=1)
    repeated = net.fault("lightning.repeat-grant", stage="engine", kind="swallow")
    text = await alice.wallet.lightning.create_invoice(ASKED_SAT)
    await outside.pay(text)
    await until(lambda: claimed(alice, text))
    assert hits(net, repeated) == 1
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat + NET_SAT)


async def test_two_grants_for_one_payment_are_counted_once(net: Net, alice: Owner, outside: Outside) -> None:
    """The answer with the first is lost, and asked again the server grants other VTXOs."""
    before_sat = await alice.spendable_sat()
    net.fault("PrepareLightningReceiveClaim", stage="after-commit", kind="error", code="UNAVAILABLE")
    repeated = net.fault("lightning.repeat-grant", stage="engine", kind="swallow")
    text = await alice.wallet.lightning.create_invoice(ASKED_SAT)
    await outside.pay(text)
    await until(lambda: claimed(alice, text))
    assert hits(net, repeated) == 1
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat + NET_SAT)
    (movement,) = await alice.movements(LIGHTNING_RECEIVE)
    assert movement.effective_balance_sat == NET_SAT


async def test_an_empty_pool_is_waited_for(net: Net, alice: Owner, outside: Outside) -> None:
    """Longer than a refusal would be: the server may have something to grant at any time."""
    before_sat = await alice.spendable_sat()
    number = net.fault(
        "PrepareLightningReceiveClaim",
        stage="before",
        kind="error",
        code="INTERNAL",
        text="vtxopool error: vtxo pool is empty",
        count=MAX_REFUSALS + 1,
    )
    text = await alice.wallet.lightning.create_invoice(ASKED_SAT)
    await outside.pay(text)
    await until(lambda: claimed(alice, text))
    assert hits(net, number) == MAX_REFUSALS + 1
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat + NET_SAT)


async def test_a_claim_that_is_not_cosigned_is_repeated(net: Net, alice: Owner, outside: Outside) -> None:
    """The preimage is out by then: nothing counts as money that is none, and nothing is given up."""
    before_sat = await alice.spendable_sat()
    number = net.fault(
        "ClaimLightningReceive",
        stage="reply",
        kind="mutate",
        path="parts.0.server_partial_sigs.0",
        count=None,
    )
    text = await alice.wallet.lightning.create_invoice(ASKED_SAT)
    await outside.pay(text)

    async def was_told_twice() -> bool:
        await alice.wallet.lightning.resume()
        return hits(net, number) >= 2

    await until(was_told_twice)
    assert await alice.wallet.balance() == Balance(
        spendable_sat=before_sat, claimable_lightning_receive_sat=NET_SAT
    )
    assert (await alice.wallet.lightning.receive(hash_of(text))).state == "preimage-revealed"
    net.honest()
    await until(lambda: claimed(alice, text))
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat + NET_SAT)


# --- paying


@pytest.mark.parametrize("path", ["parts.0.server_partial_sigs.0", "parts.0.server_partial_sigs.1"])
async def test_htlcs_that_are_not_cosigned_are_not_paid_with(
    net: Net, alice: Owner, outside: Outside, path: str
) -> None:
    before = await alice.wallet.balance()
    net.fault("RequestLightningPayHtlcCosign", stage="reply", kind="mutate", path=path)
    initiated = net.fault("InitiateLightningPayment", stage="before", kind="delay", count=None)
    text = await outside.invoice(AMOUNT_SAT)
    with pytest.raises(ProtocolViolation, match="Invalid partial signature"):
        await pay(alice, text)
    assert hits(net, initiated) == 0
    assert (await outside.books())["payments"] == []
    assert (await alice.wallet.balance()).total_sat == before.total_sat
    await assert_paid(alice, before.spendable_sat, Bolt11Invoice.parse(text).payment_hash)


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_payment_that_is_called_begun_and_is_not_is_begun_again(
    net: Net, alice: Owner, outside: Outside, restarts: bool
) -> None:
    """OK, says the server, and has no attempt; asked how it goes it knows nothing of a payment."""
    before = await alice.wallet.balance()
    number = net.fault("lightning.initiate", stage="engine", kind="swallow", count=None)
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT))
    if restarts:
        await alice.restart()

    async def is_begun_again() -> bool:
        await driven(alice, payment_hash)
        return hits(net, number) >= 3

    await until(is_begun_again)
    assert (await outside.books())["payments"] == []
    balance = await alice.wallet.balance()
    assert balance.total_sat == before.total_sat
    assert balance.pending_lightning_send_sat >= AMOUNT_SAT
    net.honest()
    await assert_paid(alice, before.spendable_sat, payment_hash)
    assert [each["status"] for each in (await outside.books())["payments"]] == ["succeeded"]


async def test_a_wrong_preimage_pays_nothing(net: Net, alice: Owner, outside: Outside) -> None:
    """Success, says the server, but what it shows does not open the lock: the money is not gone."""
    before = await alice.wallet.balance()
    number = net.fault(
        "CheckLightningPayment",
        stage="reply",
        kind="mutate",
        message="success",
        path="success.preimage",
        count=None,
    )
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT))

    async def was_told_twice() -> bool:
        await driven(alice, payment_hash)
        return hits(net, number) >= 2

    await until(was_told_twice)
    found = await alice.wallet.lightning.send(payment_hash)
    assert (found.state, found.preimage) == (SendState.PAYMENT_INITIATED, None)
    balance = await alice.wallet.balance()
    assert balance.total_sat == before.total_sat
    assert balance.pending_lightning_send_sat >= AMOUNT_SAT
    net.honest()
    await assert_paid(alice, before.spendable_sat, payment_hash)
