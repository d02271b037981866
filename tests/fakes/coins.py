"""Transactions of a stranger, who has money on a devnet node and signs what tests need."""

from collections.abc import Sequence
from dataclasses import replace

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node


class Stranger:
    """Holds coins by a plain taproot key without tweak."""

    def __init__(self, name: str = "stranger") -> None:
        self._key = SecretKey(sha256(name.encode()))
        self.script = p2tr_script(self._key.public_key.x_only)

    async def fund(self, node: Node, amount_sat: int) -> tuple[OutPoint, TxOut]:
        """A confirmed coin."""
        output = TxOut(amount_sat, self.script)
        tx = await faucet.pay(node, [output])
        await node.mine()
        return tx.outpoint(tx.outputs.index(output)), output

    def spend(
        self,
        coins: Sequence[tuple[OutPoint, TxOut]],
        outputs: Sequence[TxOut],
        *,
        version: int = 2,
        anchors: Sequence[tuple[OutPoint, TxOut]] = (),
    ) -> Tx:
        """A signed transaction. anchors: inputs that need no witness."""
        spent = [*coins, *anchors]
        inputs = tuple(TxIn(outpoint, sequence=0xFFFF_FFFD) for outpoint, _ in spent)
        tx = Tx(version, inputs, tuple(outputs))
        prevouts = [output for _, output in spent]
        signed = [
            replace(
                tx_in,
                witness=(self._key.sign_schnorr(taproot_key_spend_sighash(tx, index, prevouts)),),
            )
            if index < len(coins)
            else tx_in
            for index, tx_in in enumerate(inputs)
        ]
        return Tx(version, tuple(signed), tx.outputs)
