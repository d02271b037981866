"""Which coins a transaction may spend. Pure; choosing among the allowed ones is BDK's work.

Two rules that upstream does not have:

* An output of an unconfirmed version 3 transaction (the change of an exit's fee child) must not be spent by a
  version 2 transaction: no node relays that (TRUC, BIP-431).
* Unconfirmed payments from others are spent only if nothing else is enough: the sender may still replace
  them, and everything built on them would be gone.

Source: sheet 06 §4.4, §7.4.
"""

from collections.abc import Iterable, Mapping

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.onchain.types import OnchainUtxo

TRUC_VERSION = 3


def truc_coins(coins: Iterable[OnchainUtxo], unconfirmed: Mapping[Txid, Tx]) -> frozenset[OutPoint]:
    """The coins that only a version 3 transaction may spend now.

    unconfirmed: every transaction of the wallet that is not confirmed.
    """
    return frozenset(
        coin.outpoint
        for coin in coins
        if (tx := unconfirmed.get(coin.outpoint.txid)) is not None and tx.version == TRUC_VERSION
    )


def untrusted_coins(
    coins: Iterable[OnchainUtxo],
    unconfirmed: Mapping[Txid, Tx],
    ours: frozenset[OutPoint],
) -> frozenset[OutPoint]:
    """The unconfirmed coins that somebody else can make disappear.

    A transaction is trusted if it is confirmed, or if it spends nothing but outputs of ours in trusted
    transactions. ours: every output that was ever ours, spent ones too.
    """
    trusted: dict[Txid, bool] = {}

    def is_trusted(txid: Txid) -> bool:
        if txid not in unconfirmed:
            return True
        if txid not in trusted:
            trusted[txid] = all(
                tx_in.prevout in ours and is_trusted(tx_in.prevout.txid) for tx_in in unconfirmed[txid].inputs
            )
        return trusted[txid]

    return frozenset(coin.outpoint for coin in coins if not is_trusted(coin.outpoint.txid))
