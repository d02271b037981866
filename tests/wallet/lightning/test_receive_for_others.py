"""Invoices whose money goes to an Ark address, of this wallet or of another one."""

from dataclasses import replace

import pytest

from barkd_py.ark.address import AddressNotPayable, ArkAddress, MailboxDelivery
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import InvalidInput, ServerUnavailable
from barkd_py.wallet.arkoor.errors import UnusableMailbox
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.receive.states import Delivering
from barkd_py.wallet.movements import MovementStatus, PaymentMethod, PaymentMethodKind
from barkd_py.wallet.vtxo_states import StateKind
from tests.fakes.lightning_server import ReceiveServer
from tests.fakes.wallet import MAILBOX_SECRET, SERVER_SECRET
from tests.wallet.lightning.receiver import Receiver, open_receiver
from tests.wallet.lightning.test_receive import FEE_SAT, assert_paid

NET_SAT = 10_000 - FEE_SAT
BOB = SecretKey(b"\x51" * 32)


def address_of(key: SecretKey) -> ArkAddress:
    return ArkAddress.for_vtxo_key(
        key,
        server_pubkey=SERVER_SECRET.public_key,
        server_mailbox_pubkey=MAILBOX_SECRET.public_key,
        mailbox_id=SecretKey(b"\x52" * 32).public_key,
        network=Network.REGTEST,
    )


async def invoice_for(receiver: Receiver, address: ArkAddress) -> bytes:
    await receiver.receives.check_address(address)
    payment_hash = Bolt11Invoice.parse(await receiver.receives.create_for(address, 10_000)).payment_hash
    receiver.server.pay(payment_hash)
    return payment_hash


async def test_another_wallet_gets_the_money(receiver: Receiver) -> None:
    address = address_of(BOB)
    payment_hash = await invoice_for(receiver, address)
    await receiver.drive(payment_hash)
    ((blinded_id, vtxo_ids),) = receiver.server.delivered
    assert (blinded_id,) == address.mailbox_ids()
    assert set(vtxo_ids) <= receiver.server.registered
    assert {receiver.server.owners[vtxo_id] for vtxo_id in vtxo_ids} == {BOB.public_key}
    assert await receiver.balance() == Balance()
    assert {vtxo.state.kind for vtxo in await receiver.vtxos(*StateKind)} == {StateKind.SPENT}
    movement = await receiver.movement()
    assert movement.status is MovementStatus.SUCCESSFUL
    assert (movement.intended_balance_sat, movement.effective_balance_sat) == (10_000, 0)
    (destination,) = movement.sent_to
    assert destination.method == PaymentMethod(PaymentMethodKind.ARK, str(address))
    assert destination.amount_sat == NET_SAT
    assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_an_address_of_our_own_is_claimed_to_directly(receiver: Receiver) -> None:
    key = await receiver.keychain.reserve()
    payment_hash = await invoice_for(receiver, address_of(receiver.keychain.secret(key)))
    await receiver.drive(payment_hash)
    assert receiver.server.delivered == []
    (coin,) = await receiver.vtxos(StateKind.SPENDABLE)
    assert coin.user_pubkey == key.public_key
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_delivery_is_tried_until_it_works(receiver: Receiver) -> None:
    payment_hash = await invoice_for(receiver, address_of(BOB))
    receiver.server.away = {"post_arkoor_message"}
    for _ in range(10):
        with pytest.raises(ServerUnavailable):
            await receiver.drive(payment_hash)
    assert isinstance(await receiver.state(payment_hash), Delivering)
    (shown,) = await receiver.receives.pending()
    assert (shown.state, shown.htlc_vtxos) == ("delivering", ())
    assert await receiver.balance() == Balance()
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    assert len(receiver.server.delivered) == 1
    assert receiver.liar.calls["claim_lightning_receive"] == 1


async def test_a_delivery_whose_answer_was_lost_is_repeated(
    sqlite_database: str, server: ReceiveServer
) -> None:
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await invoice_for(receiver, address_of(BOB))
        receiver.liar.lost["post_arkoor_message"] = 1
        with pytest.raises(ServerUnavailable):
            await receiver.drive(payment_hash)
    async with open_receiver(sqlite_database, server) as receiver:
        await receiver.drive(payment_hash)
        first, second = server.delivered
        assert first == second
        assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_money_of_others_counts_nowhere(receiver: Receiver) -> None:
    payment_hash = await invoice_for(receiver, address_of(BOB))
    receiver.server.away = {"claim_lightning_receive"}
    with pytest.raises(ServerUnavailable):
        await receiver.drive(payment_hash)
    assert await receiver.balance() == Balance()
    assert (await receiver.movement()).effective_balance_sat == 0


# --- addresses that nothing can be delivered to


def address(**changes: object) -> ArkAddress:
    fields: dict[str, object] = {
        "server_pubkey": SERVER_SECRET.public_key,
        "policy": PubkeyPolicy(BOB.public_key),
        "deliveries": address_of(BOB).deliveries,
        "network": Network.REGTEST,
        **changes,
    }
    return ArkAddress.build(**fields)  # type: ignore[arg-type]


async def test_an_address_of_another_server_is_refused(receiver: Receiver) -> None:
    with pytest.raises(AddressNotPayable, match="Ark address is for different server"):
        await receiver.receives.check_address(address(server_pubkey=BOB.public_key))


async def test_an_address_of_another_network_is_refused(receiver: Receiver) -> None:
    with pytest.raises(AddressNotPayable, match="Ark address is for different network"):
        await receiver.receives.check_address(address(network=Network.MAINNET))


async def test_an_address_with_a_condition_is_refused(receiver: Receiver) -> None:
    policy = ServerHtlcSendPolicy(BOB.public_key, bytes(32), 500)
    with pytest.raises(AddressNotPayable, match="VTXO policy in address cannot be used"):
        await receiver.receives.check_address(address(policy=policy))


async def test_an_address_without_a_mailbox_is_refused(receiver: Receiver) -> None:
    """Upstream takes it, claims the money, and can never hand it over."""
    with pytest.raises(InvalidInput, match="no mailbox delivery mechanism configured on destination"):
        await receiver.receives.check_address(replace(address(), deliveries=()))


async def test_an_address_with_an_impossible_mailbox_is_refused(receiver: Receiver) -> None:
    with pytest.raises(UnusableMailbox):
        await receiver.receives.check_address(address(deliveries=(MailboxDelivery(b"\x02" + b"\xff" * 32),)))
