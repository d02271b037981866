"""Coins on a devnet node and the means to spend them in every wrong way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import P2A_SCRIPT, OutPoint, Tx, TxIn, TxOut
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node

_KEY = SecretKey(sha256(b"purse"))

#: What the coins of a purse pay to.
SCRIPT = p2tr_script(_KEY.public_key.x_only)

#: The value of a coin.
COIN_SAT = 100_000

REPLACEABLE = 0xFFFF_FFFD


@dataclass(frozen=True, slots=True)
class Coin:
    outpoint: OutPoint
    output: TxOut

    @property
    def value_sat(self) -> int:
        return self.output.value_sat


def pay(value_sat: int, script: bytes = SCRIPT) -> TxOut:
    return TxOut(value_sat, script)


def anchor(value_sat: int = 0) -> TxOut:
    return TxOut(value_sat, P2A_SCRIPT)


def coin_of(tx: Tx, vout: int) -> Coin:
    return Coin(tx.outpoint(vout), tx.outputs[vout])


def spend(
    coins: Sequence[Coin],
    outputs: Sequence[TxOut],
    *,
    version: int = 2,
    locktime: int = 0,
    sequence: int = REPLACEABLE,
    break_signature: bool = False,
    anchor_witness: tuple[bytes, ...] = (),
    aux: bytes = bytes(32),
) -> Tx:
    """A transaction, signed where the coin is the purse's own."""
    unsigned = Tx(
        version, tuple(TxIn(coin.outpoint, sequence=sequence) for coin in coins), tuple(outputs), locktime
    )
    spent = [coin.output for coin in coins]
    inputs = []
    for index, (tx_in, output) in enumerate(zip(unsigned.inputs, spent, strict=True)):
        witness = anchor_witness
        if output.script_pubkey == SCRIPT:
            signature = _KEY.sign_schnorr(taproot_key_spend_sighash(unsigned, index, spent), aux)
            if break_signature:
                signature = signature[:-1] + bytes((signature[-1] ^ 1,))
            witness = (signature,)
        inputs.append(replace(tx_in, witness=witness))
    return replace(unsigned, inputs=tuple(inputs))


def exit_parent(coin: Coin, *, anchor_sat: int = 0, fee_sat: int = 0, version: int = 3) -> Tx:
    """A transaction as Ark has them: one output, and an anchor through which a child pays."""
    return spend([coin], [pay(coin.value_sat - anchor_sat - fee_sat), anchor(anchor_sat)], version=version)


def exit_child(
    parent: Tx,
    funding: Coin,
    *,
    fee_sat: int = 1000,
    version: int = 3,
    anchor_witness: tuple[bytes, ...] = (),
) -> Tx:
    """The child that spends a parent's last output, its anchor, and pays for both."""
    coins = [coin_of(parent, len(parent.outputs) - 1), funding]
    total_sat = sum(coin.value_sat for coin in coins)
    return spend(coins, [pay(total_sat - fee_sat)], version=version, anchor_witness=anchor_witness)


class Purse:
    """Confirmed coins of `COIN_SAT` each, on a node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._coins: list[Coin] = []

    async def fill(self, count: int) -> None:
        """Get so many more coins, in one block."""
        tx = await faucet.pay(self.node, [pay(COIN_SAT)] * count)
        await self.node.mine()
        self._coins.extend(coin_of(tx, vout) for vout in range(count))

    async def rich_coin(self, value_sat: int) -> Coin:
        """One coin of any value, in a block of its own."""
        tx = await faucet.pay(self.node, [pay(value_sat)])
        await self.node.mine()
        return coin_of(tx, 0)

    def coin(self) -> Coin:
        """A coin that nothing has spent."""
        return self._coins.pop()

    def coins(self, count: int) -> list[Coin]:
        return [self.coin() for _ in range(count)]

    async def broadcast(self, *txs: Tx) -> None:
        """Put transactions into the mempool one by one."""
        for tx in txs:
            await self.node.broadcast(tx.serialize().hex())

    async def submit(self, *txs: Tx) -> dict[str, object]:
        """Submit a package."""
        return await self.node.submit_package([tx.serialize().hex() for tx in txs])
