"""Bitcoin Core's own script interpreter, to say whether witnesses satisfy the outputs they spend."""

from collections.abc import Sequence

import pbk
from pbk.script import PrecomputedTransactionData, ScriptVerificationFlags

from barkd_py.bitcoin.tx import Tx, TxOut

# Every soft fork that is active today.
_FLAGS = (
    ScriptVerificationFlags.P2SH
    | ScriptVerificationFlags.DERSIG
    | ScriptVerificationFlags.NULLDUMMY
    | ScriptVerificationFlags.CHECKLOCKTIMEVERIFY
    | ScriptVerificationFlags.CHECKSEQUENCEVERIFY
    | ScriptVerificationFlags.WITNESS
    | ScriptVerificationFlags.TAPROOT
)


def is_spend_valid(tx: Tx, prevouts: Sequence[TxOut]) -> bool:
    """Whether all inputs' witnesses satisfy the spent outputs, given in the inputs' order."""
    transaction = pbk.Transaction(tx.serialize())
    spent = [
        pbk.TransactionOutput(pbk.ScriptPubkey(prevout.script_pubkey), prevout.value_sat)
        for prevout in prevouts
    ]
    precomputed = PrecomputedTransactionData(transaction, spent)
    return all(
        pbk.ScriptPubkey(prevout.script_pubkey).verify(
            prevout.value_sat, transaction, precomputed, index, _FLAGS
        )
        for index, prevout in enumerate(prevouts)
    )
