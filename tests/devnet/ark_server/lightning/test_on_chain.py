"""HTLC VTXOs that get on chain: whoever may take them, takes them."""

from collections.abc import Sequence

from barkd_py.ark.claim import ClaimInput, build_claim_tx, sign_claim_tx
from barkd_py.ark.policy import ServerHtlcReceivePolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.watch.watchman import Patrol, Watchman
from barkd_py.devnet.lightning.behaviour import Behaviour
from barkd_py.devnet.lightning.outside import InvoiceTerms, Outside
from tests.devnet.ark_server.lightning.client import LightningClient
from tests.devnet.ark_server.lightning.test_receive import ASKED_SAT, pay
from tests.devnet.purse import SCRIPT
from tests.fakes.server_chain import FakeServerChain


async def exit_on_chain(vtxo: Vtxo, chain: FakeServerChain, server: ArkServer) -> None:
    """Mine all exit transactions of a VTXO, and its anchor if it is not there yet."""
    anchor = vtxo.anchor_point.txid
    if anchor in chain.mempool:
        chain.mine(chain.mempool[anchor])
    for tx in vtxo.exit_transactions():
        chain.mine(tx)
    await server.follower.catch_up()


def claim(vtxo: Vtxo, user: LightningClient, clause_index: int, height: int, preimage: bytes | None) -> Tx:
    """The transaction with which a user takes an output alone."""
    claims: Sequence[ClaimInput] = [
        ClaimInput(
            vtxo.point,
            vtxo.output,
            vtxo.clauses[clause_index],
            vtxo.output_taproot.control_block(clause_index),
            preimage,
        )
    ]
    unsigned = build_claim_tx(claims, [TxOut(vtxo.amount_sat - 500, SCRIPT)], locktime=height)
    return sign_claim_tx(unsigned, claims, lambda pubkey: user.secret)


async def patrol(server: ArkServer) -> Patrol:
    async def push(tx: Tx) -> None:
        raise AssertionError(f"nothing to push: {tx.txid}")

    watchman: Watchman = server.watchman(push)
    await server.follower.catch_up()
    return await watchman.patrol()


async def test_preimage_on_chain_settles_with_the_payer(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    (granted,) = await alice.grant(receive.payment_hash)
    await exit_on_chain(granted, chain, server)
    policy = granted.policy
    assert isinstance(policy, ServerHtlcReceivePolicy)
    chain.mine(claim(granted, alice, 0, (await chain.tip()).height, receive.preimage))
    await server.follower.catch_up()
    await server.lightning.sweep()
    assert (await outside.outcome(payment)).preimage == receive.preimage


async def test_server_takes_a_grant_back_that_nobody_claims(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    (granted,) = await alice.grant(receive.payment_hash)
    await exit_on_chain(granted, chain, server)
    policy = granted.policy
    assert isinstance(policy, ServerHtlcReceivePolicy)
    chain.mine(count=policy.htlc_expiry_height - (await chain.tip()).height - 1)
    assert granted.id not in {
        each for reaction in (await patrol(server)).reactions for each in reaction.outputs
    }
    chain.mine()
    (reaction,) = [each for each in (await patrol(server)).reactions if granted.id in each.outputs]
    taken = chain.mempool[reaction.txid]
    assert granted.point in {tx_in.prevout for tx_in in taken.inputs}


async def test_server_takes_the_htlc_of_a_settled_payment(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    invoice = await outside.invoice(InvoiceTerms(amount_msat=10_000_000), Behaviour())
    (htlc,) = await alice.start_payment(invoice.text, invoice.payment_hash, 10_000)
    await alice.payment_status(invoice.payment_hash, wait=True)
    await exit_on_chain(htlc, chain, server)
    assert (await patrol(server)).reactions == ()
    chain.mine(count=server.settings.vtxo_exit_delta)
    (reaction,) = (await patrol(server)).reactions
    assert reaction.outputs == (htlc.id,)


async def test_server_leaves_the_htlc_of_a_failed_payment_to_its_user(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    invoice = await outside.invoice(InvoiceTerms(amount_msat=10_000_000), Behaviour(never=True))
    (htlc,) = await alice.start_payment(invoice.text, invoice.payment_hash, 10_000)
    await exit_on_chain(htlc, chain, server)
    policy = htlc.policy
    assert isinstance(policy, ServerHtlcSendPolicy)
    chain.mine(count=400)
    assert (await patrol(server)).reactions == ()
    chain.mine(claim(htlc, alice, 1, (await chain.tip()).height, None))
    await server.follower.catch_up()
    assert htlc.id not in {problem.output for problem in (await patrol(server)).problems}
