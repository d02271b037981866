"""Connectors: small outputs that tie a forfeit to a transaction that must exist first.

A forfeit that also spends a connector is worth nothing until the connector's transaction is on the chain. All
connectors of an offboard are made by one *fan-out* transaction.

Source: sheet 03 §3.6.
"""

from barkd_py.ark.vtxo import EXIT_TX_VERSION
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
