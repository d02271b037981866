"""What others put on the chain to take what they have paid with: through a whole devnet."""

import pytest

from barkd_py.ark.claim import build_claim_tx, claim_input, sign_claim_tx
from barkd_py.ark.genesis import ArkoorTransition
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import Tx, Txid, TxOut
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.daemon.loops import Daemon
from barkd_py.errors import ChainUnavailable
from barkd_py.wallet.exits.states import ExitFilter, VtxoSwept
from barkd_py.wallet.movements import EXIT_START, MovementStatus
from barkd_py.wallet.rounds.service import NothingToRefresh
from barkd_py.wallet.vtxo_states import StateKind, WalletVtxo
from barkd_py.wallet.vtxos.selection import NotEnoughVtxos
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.test_exits import deliver, exit_all, exit_ids, own_fees_sat, total_sat
from tests.wallet.flows.test_lightning_receive import claimed

EXIT_DELTA = 12


async def body_of(owner: Owner, vtxo: WalletVtxo) -> Vtxo:
    async with owner.wallet.store.read() as tx:
        return await tx.vtxos.body(vtxo.id)


async def publish(net: Net, *txs: Tx) -> None:
    for tx in txs:
        await net.devnet.node.mine_exactly([tx])


async def pass_blocks(net: Net, owner: Owner, count: int) -> None:
    """Blocks come, and the owner's daemon does what it does with each."""
    for _ in range(count):
        await owner.wallet.exits.tick()
        await net.mine()
    await owner.wallet.exits.tick()


def height_of(net: Net, txid: Txid) -> int:
    found = net.devnet.node.index.tx(txid)
    assert found is not None
    return found.height


async def take_back(owner: Owner, spent: Vtxo) -> None:
    """Claim the output of a VTXO that was paid away. Raises BroadcastError."""
    assert spent.user_pubkey is not None
    (secret,) = await owner.wallet.keychain.secrets_for([spent.user_pubkey])
    claim = claim_input(spent, is_ours=lambda key: key == secret.public_key, find_preimage=lambda _: None)
    output = TxOut(spent.amount_sat - 1_000, p2tr_script(secret.public_key.x_only))
    tip = await owner.wallet.chain.fetch_tip()
    unsigned = build_claim_tx([claim], [output], locktime=tip.height)
    await owner.wallet.chain.broadcast(sign_claim_tx(unsigned, [claim], lambda _: secret))


async def assert_is_not_paid_with(net: Net, owner: Owner, lost: WalletVtxo, payee: Owner) -> None:
    """What somebody else has taken is shown as spendable still, and chosen for nothing."""
    (status,) = await owner.wallet.exits.statuses(ExitFilter.FINISHED)
    assert isinstance(status.state, VtxoSwept)
    (listed,) = await owner.wallet.list_vtxos(include_all=False)
    assert (listed.id, listed.state.kind) == (lost.id, StateKind.SPENDABLE)
    await net.restart_ark_server()
    address = await payee.wallet.new_address()
    with pytest.raises(NotEnoughVtxos) as refusal:
        await owner.wallet.arkoor.send(address, 1_000)
    assert refusal.value.available_sat == 0
    with pytest.raises(NothingToRefresh):
        await owner.wallet.rounds.refresh_all()
    assert (await owner.wallet.balance()).spendable_sat == lost.amount_sat


@pytest.mark.parametrize("is_watching", [True, False])
async def test_a_payer_publishes_what_he_has_paid_with(
    net: Net, alice: Owner, bob: Owner, is_watching: bool
) -> None:
    """The server is gone, or of his party. Only the payee's daemon keeps him from having it both ways."""
    (coin,) = await alice.wallet.list_vtxos(include_all=False)
    spent = await body_of(alice, coin)
    await deliver(net, alice, bob, 100_000)
    (bobs,) = await bob.wallet.list_vtxos(include_all=False)
    for _ in range(3):
        await bob.fund_onchain(30_000)
    await net.devnet.ark_server.stop()
    before_sat = await total_sat(bob)

    await publish(net, *spent.exit_transactions())
    if not is_watching:
        await net.mine(EXIT_DELTA - 1)
        await take_back(alice, spent)
        await pass_blocks(net, bob, 9)
        await assert_is_not_paid_with(net, bob, bobs, alice)
        return
    await pass_blocks(net, bob, EXIT_DELTA - 1)
    with pytest.raises(BroadcastError) as refusal:
        await take_back(alice, spent)
    assert refusal.value.kind is BroadcastErrorKind.MISSING_OR_SPENT
    ids = await exit_all(net, bob)
    assert ids == (bobs.id,)
    assert await total_sat(bob) == before_sat - await own_fees_sat(net, bob.wallet, ids)
    (out,) = await bob.movements(EXIT_START)
    assert out.status is MovementStatus.SUCCESSFUL


@pytest.mark.parametrize("up_to", ["pool", "htlc"])
async def test_a_server_publishes_what_a_lightning_payment_came_from(
    net: Net, bob: Owner, up_to: str
) -> None:
    """Its own coin of the pool, which it may take after the exit delta, or the HTLC, which it may take soon
    after that has expired: either way the payee's next transaction is in a block before.
    """
    text = await bob.wallet.lightning.create_invoice(20_000, description="a coffee")
    await Outside(net).pay(text)
    await until(lambda: claimed(bob, text))
    (vtxo, *_) = await bob.wallet.list_vtxos(include_all=False)
    body = await body_of(bob, vtxo)
    for _ in range(4):
        await bob.fund_onchain(30_000)
    await bob.wallet.exits.tick()
    assert await exit_ids(bob.wallet) == []

    txs = body.exit_transactions()
    async with bob.wallet.store.read() as tx:
        ours = await tx.keys.find_many([key for keys in body.past_arkoor_pubkeys for key in keys])
    former = [
        isinstance(item.transition, ArkoorTransition)
        and any(k in ours for k in item.transition.client_pubkeys)
        for item in body.genesis
    ]
    spends_htlc = former.index(True)
    frontier = spends_htlc if up_to == "htlc" else 1
    assert 1 < spends_htlc < len(txs)
    await publish(net, *txs[:frontier])
    published_at = net.devnet.node.index.tip_height
    await pass_blocks(net, bob, EXIT_DELTA - 1)
    assert height_of(net, txs[frontier].txid) < published_at + EXIT_DELTA
    ids = await exit_all(net, bob)
    assert vtxo.id in ids


async def test_an_honest_server_spares_the_payee_the_exit(net: Net, alice: Owner, bob: Owner) -> None:
    """It publishes the checkpoint; the payee's coin stays what it was, and can be paid with."""
    (coin,) = await alice.wallet.list_vtxos(include_all=False)
    spent = await body_of(alice, coin)
    await deliver(net, alice, bob, 100_000)
    await bob.fund_onchain(30_000)
    await publish(net, *spent.exit_transactions())
    outside = Outside(net)
    for _ in range(2 * EXIT_DELTA):
        await pass_blocks(net, bob, 1)
        await outside.sweep()
    (bobs,) = await bob.wallet.list_vtxos(include_all=False)
    body = await body_of(bob, bobs)
    assert height_of(net, body.exit_transactions()[1].txid)
    assert await bob.wallet.exits.statuses(ExitFilter.ALL) == []
    assert bobs.state.kind is StateKind.SPENDABLE
    await deliver(net, bob, alice, 40_000)
    assert await bob.spendable_sat() == 60_000


async def test_trouble_with_watching_does_not_hold_up_the_exits_under_way(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await alice.fund_onchain(30_000)
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.exits.start([vtxo.id])

    async def trouble(*_: object) -> None:
        raise ChainUnavailable("esplora answered with HTTP status 403")

    monkeypatch.setattr(alice.wallet.exits, "notice_forced", trouble)
    for _ in range(4):
        await net.mine()
        with pytest.raises(ChainUnavailable):
            await alice.wallet.exits.tick()
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert status.state.type != "start"


async def test_a_board_that_the_server_did_not_take_exits_while_it_is_away(net: Net, alice: Owner) -> None:
    await alice.fund_onchain(150_000)
    await alice.fund_onchain(50_000)
    net.fault("RegisterBoardVtxo", kind="error", code="INTERNAL", client="barkd", count=None)
    pending = await alice.wallet.board_amount(100_000)
    await net.mine()
    await alice.wallet.boards.drive_all()
    (vtxo_id,) = pending.vtxo_ids
    expiry_height = (await alice.wallet.get_vtxo(vtxo_id)).expiry_height
    await net.devnet.ark_server.stop()
    daemon = Daemon(alice.wallet)
    tip_height = (await alice.wallet.chain.fetch_tip()).height
    await net.mine(expiry_height - 5 - tip_height)
    await alice.wallet.chain.fetch_tip()
    assert not daemon.connected
    await daemon.sync_once()
    assert vtxo_id in [status.vtxo_id for status in await alice.wallet.exits.statuses(ExitFilter.ALL)]


async def until_expiry(net: Net, owner: Owner, vtxo: WalletVtxo) -> None:
    """Blocks up to the VTXO's expiry, with what the daemon does at each of the last."""
    await net.devnet.ark_server.stop()
    tip_height = (await owner.wallet.chain.fetch_tip()).height
    await net.mine(vtxo.expiry_height - 30 - tip_height)
    for _ in range(30):
        await net.mine()
        await owner.wallet.chain.fetch_tip()
        if owner.wallet.onchain is not None:
            await owner.wallet.onchain.sync()
        await owner.wallet.exits.tick()


async def test_what_the_server_does_not_refresh_leaves_before_it_expires(net: Net, alice: Owner) -> None:
    for _ in range(2):
        await alice.fund_onchain(30_000)
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    await until_expiry(net, alice, vtxo)
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert status.vtxo_id == vtxo.id
    exit_txids = [tx.txid for tx in (await body_of(alice, vtxo)).exit_transactions()]
    assert all(height_of(net, txid) < vtxo.expiry_height for txid in exit_txids)


async def test_without_coins_for_an_exit_nothing_begins_that_would_end_the_hope_for_a_refresh(
    net: Net, bob: Owner, alice: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver(net, alice, bob, 50_000)
    (vtxo,) = await bob.wallet.list_vtxos(include_all=False)
    await until_expiry(net, bob, vtxo)
    assert not await bob.wallet.exits.statuses(ExitFilter.ALL)
    (kept,) = await bob.wallet.list_vtxos(include_all=False)
    assert kept.state.kind is StateKind.SPENDABLE
    assert caplog.text.count("no confirmed coins pay for its exit") == 1
