"""Money for everybody: a key whose secret is no secret receives every block reward and pays from it.

Source: sheet 11 §4 (the subsidy halves every 150 blocks, so early rewards are spent first).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import P2A_SCRIPT, OutPoint, Tx, TxIn, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.devnet.chain.block import COINBASE_MATURITY
from barkd_py.devnet.chain.index import script_hash
from barkd_py.devnet.chain.node import RPC_TRANSACTION_REJECTED, Node, NodeRefusal
from barkd_py.errors import InsufficientFunds, InvalidInput

_KEY = SecretKey(sha256(b"barkd devnet faucet"))
_KEY_SPEND_WITNESS = (bytes(64),)
_SEQUENCE = 0xFFFF_FFFD

#: What every block of devnet pays.
FAUCET_SCRIPT = p2tr_script(_KEY.public_key.x_only)

_SCRIPT_HASH = script_hash(FAUCET_SCRIPT)
_FEE_RATE = FeeRate.from_sat_per_vb(2)

#: What a replacement pays more, over itself and its parent.
_RELAY_INCREMENT = FeeRate.from_sat_per_vb(1)


@dataclass(frozen=True, slots=True)
class _FaucetCoin:
    outpoint: OutPoint
    output: TxOut


class FaucetEmpty(InsufficientFunds):
    """The faucet has less than it was asked for. More blocks give it more."""

    def __init__(self, needed_sat: int, available_sat: int) -> None:
        super().__init__(f"the faucet has {available_sat} sat, {needed_sat} sat are needed: mine some blocks")
        self.needed_sat = needed_sat
        self.available_sat = available_sat


async def pay(node: Node, outputs: Sequence[TxOut]) -> Tx:
    """Pay outputs from the faucet and broadcast; the transaction, whose first outputs are these.

    Raises FaucetEmpty, or NodeRefusal (an output that does not relay, say).
    """
    await node.refresh()
    tx = _build(node, outputs)
    await node.broadcast(tx.serialize().hex())
    return tx


async def pay_for(node: Node, parent: Tx, fee_rate: FeeRate = _FEE_RATE) -> Tx:
    """Pay for a transaction that has a fee anchor, as its child; the child.

    The parent may be unknown to the node, wait in its pool (then another child is replaced), or be confirmed.
    Both then have the fee rate, and what it takes to replace the other child. Raises InvalidInput if the
    parent has no anchor, FaucetEmpty, or NodeRefusal.
    """
    await node.refresh()
    child = _build_child(node, parent, fee_rate)
    if node.index.tx(parent.txid) is not None:
        await node.broadcast(child.serialize().hex())
        return child
    answer = await node.submit_package([parent.serialize().hex(), child.serialize().hex()])
    if answer["package_msg"] != "success":
        reasons = [result["error"] for result in answer["tx-results"].values() if "error" in result]
        raise NodeRefusal(RPC_TRANSACTION_REJECTED, ", ".join((answer["package_msg"], *reasons)))
    return child


def _build_child(node: Node, parent: Tx, fee_rate: FeeRate) -> Tx:
    """A version 3 child: the anchor, and one confirmed coin that pays for everything."""
    anchor = _anchor_of(parent)
    least_sat = 0
    if (other := node.pool.spend(anchor.outpoint)) is not None:
        entry = node.pool.get(other.txid)
        assert entry is not None
        least_sat = entry.fee_sat
    for coin in _coins(node):
        if node.index.tx(coin.outpoint.txid) is None:
            break
        draft = _child(anchor, coin, 0)
        weight_wu = parent.weight_wu + draft.weight_wu
        fee_sat = max(fee_rate.fee_wu(weight_wu), least_sat + _RELAY_INCREMENT.fee_wu(weight_wu))
        output_sat = anchor.output.value_sat + coin.output.value_sat - fee_sat
        if output_sat >= DUST_SAT:
            return _sign(_child(anchor, coin, output_sat), [anchor.output, coin.output])
    raise FaucetEmpty(DUST_SAT, 0)


def _anchor_of(parent: Tx) -> _FaucetCoin:
    for vout, output in enumerate(parent.outputs):
        if output.script_pubkey == P2A_SCRIPT:
            return _FaucetCoin(parent.outpoint(vout), output)
    raise InvalidInput(f"transaction {parent.txid} has no fee anchor")


def _child(anchor: _FaucetCoin, coin: _FaucetCoin, output_sat: int) -> Tx:
    inputs = (
        TxIn(anchor.outpoint),
        TxIn(coin.outpoint, sequence=_SEQUENCE, witness=_KEY_SPEND_WITNESS),
    )
    return Tx(3, inputs, (TxOut(output_sat, FAUCET_SCRIPT),))


def _build(node: Node, outputs: Sequence[TxOut]) -> Tx:
    target_sat = sum(output.value_sat for output in outputs)
    chosen: list[_FaucetCoin] = []
    available_sat = 0
    needed_sat = target_sat
    for coin in _coins(node):
        chosen.append(coin)
        available_sat += coin.output.value_sat
        draft = _unsigned(chosen, (*outputs, TxOut(0, FAUCET_SCRIPT)))
        needed_sat = target_sat + _FEE_RATE.fee_wu(draft.weight_wu) + DUST_SAT
        if available_sat >= needed_sat:
            change = TxOut(available_sat - needed_sat + DUST_SAT, FAUCET_SCRIPT)
            return _sign(_unsigned(chosen, (*outputs, change)), [coin.output for coin in chosen])
    raise FaucetEmpty(needed_sat, available_sat)


def _coins(node: Node) -> Iterator[_FaucetCoin]:
    """What may be spent now: confirmed coins, oldest first, then unconfirmed change."""
    for txid in node.index.script_txids(_SCRIPT_HASH):
        confirmed = node.index.tx(txid)
        assert confirmed is not None
        confirmations = node.index.tip_height - confirmed.height + 1
        if not confirmed.is_coinbase or confirmations >= COINBASE_MATURITY:
            yield from _unspent(node, confirmed.tx)
    for txid in node.pool.script_txids(_SCRIPT_HASH):
        entry = node.pool.get(txid)
        assert entry is not None
        yield from _unspent(node, entry.tx)


def _unspent(node: Node, tx: Tx) -> Iterator[_FaucetCoin]:
    for vout, output in enumerate(tx.outputs):
        outpoint = tx.outpoint(vout)
        is_spent = node.index.spend(outpoint) is not None or node.pool.spend(outpoint) is not None
        if output.script_pubkey == FAUCET_SCRIPT and not is_spent:
            yield _FaucetCoin(outpoint, output)


def _unsigned(coins: Sequence[_FaucetCoin], outputs: Sequence[TxOut]) -> Tx:
    """A transaction of the final size: its witnesses are placeholders."""
    inputs = tuple(TxIn(coin.outpoint, sequence=_SEQUENCE, witness=_KEY_SPEND_WITNESS) for coin in coins)
    return Tx(2, inputs, tuple(outputs))


def _sign(tx: Tx, spent: Sequence[TxOut]) -> Tx:
    """With the witnesses of the faucet's own inputs; an anchor needs none."""
    inputs = []
    for index, (tx_in, output) in enumerate(zip(tx.inputs, spent, strict=True)):
        if output.script_pubkey == FAUCET_SCRIPT:
            signature = _KEY.sign_schnorr(taproot_key_spend_sighash(tx, index, spent), bytes(32))
            tx_in = replace(tx_in, witness=(signature,))
        inputs.append(tx_in)
    return replace(tx, inputs=tuple(inputs))
