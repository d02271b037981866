"""Money for everybody: a key whose secret is no secret receives every block reward and pays from it.

Source: sheet 11 §4 (the subsidy halves every 150 blocks, so early rewards are spent first).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.devnet.block import COINBASE_MATURITY
from barkd_py.devnet.index import script_hash
from barkd_py.devnet.node import Node
from barkd_py.errors import InsufficientFunds

_KEY = SecretKey(sha256(b"barkd devnet faucet"))
_KEY_SPEND_WITNESS = (bytes(64),)
_SEQUENCE = 0xFFFF_FFFD

#: What every block of devnet pays.
FAUCET_SCRIPT = p2tr_script(_KEY.public_key.x_only)

_SCRIPT_HASH = script_hash(FAUCET_SCRIPT)
_FEE_RATE = FeeRate.from_sat_per_vb(2)


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
    return replace(
        tx,
        inputs=tuple(
            replace(
                tx_in, witness=(_KEY.sign_schnorr(taproot_key_spend_sighash(tx, index, spent), bytes(32)),)
            )
            for index, tx_in in enumerate(tx.inputs)
        ),
    )
