"""Connectors: small outputs that tie a forfeit to a transaction that must exist first.

A forfeit that also spends a connector is worth nothing until the connector's transaction is on the chain. All
connectors of an offboard are made by one *fan-out* transaction. A *chain* of transactions makes them one by
one; no flow of today uses chains, but their layout is part of the protocol.

    chain over an output of 330·L:   tx i:  0: the rest of the chain   1: connector i   2: fee anchor
                                     the last one has connectors at 0 and 1

Source: sheet 04 §27; sheet 03 §3.6.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from barkd_py.ark.policy import ServerOwnedPolicy
from barkd_py.ark.vtxo import EXIT_TX_VERSION, Vtxo
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import DUST_SAT

CONNECTOR_SAT = DUST_SAT
"""What each connector holds: the least that relays."""


def connector_taproot(pubkey: PublicKey) -> TaprootOutput:
    """The output that only this key spends."""
    return TaprootOutput(pubkey.x_only)


def fan_out_tx(prevout: OutPoint, script_pubkey: bytes, nb_connectors: int) -> Tx:
    """The unsigned transaction that splits an output of 330 sat per connector into its connectors."""
    connector = TxOut(CONNECTOR_SAT, script_pubkey)
    return Tx(EXIT_TX_VERSION, (TxIn(prevout),), (connector,) * nb_connectors + (fee_anchor(),))


@dataclass(frozen=True)
class ConnectorChain:
    """A chain of transactions that makes connectors one after the other.

    utxo: the output at its start, worth `budget_sat`. length: the number of connectors, at least one.
    """

    length: int
    utxo: OutPoint
    script_pubkey: bytes

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError("a chain has at least one connector")

    @property
    def budget_sat(self) -> int:
        return CONNECTOR_SAT * self.length

    @cached_property
    def txs(self) -> tuple[Tx, ...]:
        """The unsigned transactions, one less than there are connectors."""
        return tuple(self._walk())

    def _walk(self) -> Iterator[Tx]:
        prevout = self.utxo
        connector = TxOut(CONNECTOR_SAT, self.script_pubkey)
        for index in range(self.length - 1):
            rest = TxOut(CONNECTOR_SAT * (self.length - index - 1), self.script_pubkey)
            tx = Tx(EXIT_TX_VERSION, (TxIn(prevout),), (rest, connector, fee_anchor()))
            yield tx
            prevout = tx.outpoint(0)

    def spent_output(self, index: int) -> TxOut:
        """What transaction `index` spends."""
        return TxOut(CONNECTOR_SAT * (self.length - index), self.script_pubkey)

    @property
    def connectors(self) -> tuple[OutPoint, ...]:
        """Output 1 of each transaction, and output 0 of the last; the start itself if there is but one."""
        last = self.txs[-1].outpoint(0) if self.txs else self.utxo
        return (*(tx.outpoint(1) for tx in self.txs), last)


def connector_forfeit_tx(vtxo: Vtxo, connector: OutPoint) -> Tx:
    """A forfeit whose connector pays for its fee anchor, unsigned; not the one of offboards.

    Both inputs are spent by key path, the connector by its own key.
    """
    taproot = ServerOwnedPolicy().taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)
    outputs = (TxOut(vtxo.amount_sat, taproot.script_pubkey), fee_anchor(CONNECTOR_SAT))
    inputs = (TxIn(vtxo.point, sequence=0), TxIn(connector, sequence=0))
    return Tx(EXIT_TX_VERSION, inputs, outputs)
