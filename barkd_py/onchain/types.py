"""What the on-chain wallet tells about itself."""

from dataclasses import dataclass

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef


@dataclass(frozen=True, slots=True)
class OnchainBalance:
    """All amounts in satoshi.

    Our own change counts as untrusted while it is unconfirmed, because there is no separate keychain for it;
    so trusted_pending is always 0. Source: sheet 06 §7.2.
    """

    confirmed_sat: int = 0
    trusted_pending_sat: int = 0
    untrusted_pending_sat: int = 0
    immature_sat: int = 0

    @property
    def trusted_spendable_sat(self) -> int:
        return self.confirmed_sat + self.trusted_pending_sat

    @property
    def total_sat(self) -> int:
        return self.confirmed_sat + self.trusted_pending_sat + self.untrusted_pending_sat + self.immature_sat


@dataclass(frozen=True, slots=True)
class OnchainUtxo:
    """An unspent output of the wallet.

    confirmation_height: None while unconfirmed.
    """

    outpoint: OutPoint
    output: TxOut
    confirmation_height: int | None

    @property
    def amount_sat(self) -> int:
        return self.output.value_sat


@dataclass(frozen=True, slots=True)
class OnchainTransaction:
    """A transaction that pays to the wallet or spends from it.

    onchain_fee_sat: None if an input is not known (somebody else's transaction).
    balance_change_sat: what it adds to the wallet, negative if it takes.
    """

    tx: Tx
    onchain_fee_sat: int | None
    balance_change_sat: int
    confirmation: BlockRef | None

    @property
    def txid(self) -> Txid:
        return self.tx.txid

    @property
    def is_cpfp(self) -> bool:
        """Whether an input has neither witness nor script, as a fee anchor's has. Source: sheet 06 §7.5."""
        return any(not tx_in.witness and not tx_in.script_sig for tx_in in self.tx.inputs)


@dataclass(frozen=True, slots=True)
class SignedTx:
    """A built and signed transaction; not recorded and not broadcast.

    psbt: BIP-174 bytes, every input final and with its witness_utxo.
    """

    tx: Tx
    psbt: bytes
    fee_sat: int

    @property
    def unsigned_tx(self) -> Tx:
        """The same transaction, with the same id, without its witnesses."""
        inputs = tuple(type(tx_in)(tx_in.prevout, sequence=tx_in.sequence) for tx_in in self.tx.inputs)
        return Tx(self.tx.version, inputs, self.tx.outputs, self.tx.locktime)
