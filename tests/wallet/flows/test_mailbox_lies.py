"""What a mailbox delivers is perfect but for one thing: each check is alone between it and the balance."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from barkd_py.ark.policy import Policy, ServerHtlcReceivePolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.server_rpc.api import ArkoorDelivery
from barkd_py.wallet.vtxos.anchors import Anchors
from tests.wallet.flows.conftest import Owner
from tests.wallet.flows.test_mailbox import MailboxServer, delivered, mailbox, pay

STRANGER = SecretKey(b"\x44" * 32).public_key


async def test_what_another_server_has_cosigned_is_no_money(alice: Owner, bob: Owner) -> None:
    """Ours, and on the chain; but it expires and is spent at the will of somebody else."""
    await pay(alice, bob, 1_000)
    delivery = ArkoorDelivery(await delivered(bob))
    info = await bob.wallet.server.info()
    server = MailboxServer(bob.wallet.server, (9, delivery))
    server.announced = replace(info, server_pubkey=STRANGER)
    assert await mailbox(bob.wallet, server).sync() == 9
    assert await bob.wallet.list_vtxos(include_all=True) == ()
    assert await bob.wallet.list_movements() == ()
    assert await mailbox(bob.wallet, MailboxServer(bob.wallet.server, (10, delivery))).sync() == 10
    assert await bob.spendable_sat() == 1_000


@pytest.mark.parametrize(
    "policy",
    [
        lambda key: ServerHtlcSendPolicy(key, bytes(32), 1_000),
        lambda key: ServerHtlcReceivePolicy(key, bytes(32), 1_000, 10),
    ],
)
async def test_an_htlc_is_no_payment(
    alice: Owner, bob: Owner, policy: Callable[[PublicKey], Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is ours; and its chain, as far as anybody here can tell, is as it should be."""
    await pay(alice, bob, 1_000)
    (blob,) = await delivered(bob)
    paid = Vtxo.decode(blob)
    htlc = replace(paid, policy=policy(paid.user_pubkey)).with_computed_point()
    monkeypatch.setattr(Anchors, "validate", _sound)
    server = MailboxServer(bob.wallet.server, (9, ArkoorDelivery((htlc.encode(),))))
    assert await mailbox(bob.wallet, server).sync() == 9
    assert await bob.wallet.list_vtxos(include_all=True) == ()
    assert await bob.wallet.list_movements() == ()


async def _sound(_: object, vtxos: object) -> None:
    """Whatever it is."""
