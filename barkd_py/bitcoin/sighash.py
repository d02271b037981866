"""What taproot signatures sign, with the default sighash type and without an annex.

Source: BIP-341, BIP-342; sheet 01 §9.1.
"""

from collections.abc import Sequence

from barkd_py.bitcoin.hashes import sha256, tagged_hash
from barkd_py.bitcoin.tx import Tx, TxOut


def taproot_key_spend_sighash(tx: Tx, index: int, prevouts: Sequence[TxOut]) -> bytes:
    """The digest, 32 bytes, for spending input `index` with the output key.

    prevouts: the spent outputs of all inputs, in their order.
    """
    return tagged_hash("TapSighash", _signature_message(tx, index, prevouts, b"\x00"))


def taproot_script_spend_sighash(tx: Tx, index: int, prevouts: Sequence[TxOut], leaf_hash: bytes) -> bytes:
    """The digest, 32 bytes, for spending input `index` with a script leaf that has no code separator.

    prevouts: the spent outputs of all inputs, in their order.
    """
    extension = leaf_hash + b"\x00" + b"\xff\xff\xff\xff"
    return tagged_hash("TapSighash", _signature_message(tx, index, prevouts, b"\x02") + extension)


def _signature_message(tx: Tx, index: int, prevouts: Sequence[TxOut], spend_type: bytes) -> bytes:
    if len(prevouts) != len(tx.inputs):
        raise ValueError("one spent output per input is needed")
    if not 0 <= index < len(tx.inputs):
        raise ValueError("no such input")
    values = b"".join(prevout.value_sat.to_bytes(8, "little") for prevout in prevouts)
    # An output serialises as value (8 bytes) and script with its length.
    scripts = b"".join(prevout.to_bytes()[8:] for prevout in prevouts)
    return b"".join(
        (
            b"\x00",  # epoch
            b"\x00",  # sighash type: default
            tx.version.to_bytes(4, "little"),
            tx.locktime.to_bytes(4, "little"),
            sha256(b"".join(tx_in.prevout.to_bytes() for tx_in in tx.inputs)),
            sha256(values),
            sha256(scripts),
            sha256(b"".join(tx_in.sequence.to_bytes(4, "little") for tx_in in tx.inputs)),
            sha256(b"".join(tx_out.to_bytes() for tx_out in tx.outputs)),
            spend_type,
            index.to_bytes(4, "little"),
        )
    )
