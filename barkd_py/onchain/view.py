"""The BDK wallet that is built from the stored rows, and everything that is asked of it.

BDK decides which transactions count (conflicts), selects coins, builds and signs. It is rebuilt from the rows
whenever a confirmation changes; unconfirmed transactions are added in place. A new tip alone needs neither:
what depends on it (locktime, maturity) is told per call.

Everything here blocks, and a `BdkView` is used by one thread at a time.

Source: sheet 06 §8.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import bdkpython as bdk

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import MAX_MONEY_SAT, BlockRef, FeeRate, Network
from barkd_py.onchain.cpfp import MAX_CHILD_VSIZE, ChildPlan
from barkd_py.onchain.errors import (
    NoRecipients,
    OnchainInsufficientFunds,
    OutputBelowDust,
    TxBuildFailed,
    UnexpectedBuildError,
)
from barkd_py.onchain.keychain import KEYCHAIN, LOOKAHEAD, bdk_network
from barkd_py.onchain.store import OnchainState, TransactionRow
from barkd_py.onchain.types import OnchainBalance, OnchainTransaction, OnchainUtxo, SignedTx


class BdkView:
    """descriptor: with the private key."""

    def __init__(self, descriptor: bdk.Descriptor, network: Network, state: OnchainState) -> None:
        persister = bdk.Persister.custom(_Rows(change_set(descriptor, network, state)))
        self._wallet = bdk.Wallet.load_single(descriptor, persister, LOOKAHEAD)

    @property
    def last_revealed(self) -> int | None:
        """Higher than in the rows after a build that needed a new address for its change."""
        index: int | None = self._wallet.derivation_index(KEYCHAIN)
        return index

    # --- rows that need no rebuild ---

    def reveal(self, index: int) -> None:
        self._wallet.reveal_addresses_to(KEYCHAIN, index)

    def add_unconfirmed(self, rows: Iterable[TransactionRow]) -> None:
        """Add or refresh rows that have no confirmation but were seen."""
        self._wallet.apply_unconfirmed_txs(
            [
                bdk.UnconfirmedTx(tx=bdk.Transaction(row.raw), last_seen=row.last_seen)
                for row in rows
                if row.last_seen is not None
            ]
        )

    def add_output(self, outpoint: OutPoint, output: TxOut) -> None:
        """A foreign output, so that the fee of what spends it is known."""
        self._wallet.insert_txout(_bdk_outpoint(outpoint), _bdk_output(output))

    # --- reading ---

    def balance(self) -> OnchainBalance:
        balance = self._wallet.balance()
        return OnchainBalance(
            confirmed_sat=balance.confirmed.to_sat(),
            trusted_pending_sat=balance.trusted_pending.to_sat(),
            untrusted_pending_sat=balance.untrusted_pending.to_sat(),
            immature_sat=balance.immature.to_sat(),
        )

    def utxos(self) -> tuple[OnchainUtxo, ...]:
        """Every unspent output, in a stable order."""
        coins = [
            OnchainUtxo(
                outpoint=_outpoint(coin.outpoint),
                output=TxOut(coin.txout.value.to_sat(), coin.txout.script_pubkey.to_bytes()),
                confirmation_height=None if (block := _block(coin.chain_position)) is None else block.height,
            )
            for coin in self._wallet.list_unspent()
        ]
        return tuple(sorted(coins, key=lambda coin: coin.outpoint))

    def transactions(self) -> tuple[OnchainTransaction, ...]:
        """Every transaction that counts, unordered."""
        return tuple(self._transaction(canonical) for canonical in self._wallet.transactions())

    def _transaction(self, canonical: bdk.CanonicalTx) -> OnchainTransaction:
        moved = self._wallet.sent_and_received(canonical.transaction)
        return OnchainTransaction(
            tx=Tx.parse(canonical.transaction.serialize()),
            onchain_fee_sat=self._fee_sat(canonical.transaction),
            balance_change_sat=moved.received.to_sat() - moved.sent.to_sat(),
            confirmation=_block(canonical.chain_position),
        )

    def _fee_sat(self, tx: bdk.Transaction) -> int | None:
        if tx.is_coinbase():
            return None
        try:
            fee_sat: int = self._wallet.calculate_fee(tx).to_sat()
        except bdk.CalculateFeeError:
            return None
        return fee_sat

    # --- building ---

    def build_tx(
        self,
        recipients: Sequence[TxOut],
        fee_rate: FeeRate,
        change_script: bytes,
        *,
        tip_height: int,
        unspendable: Iterable[OutPoint] = (),
    ) -> SignedTx:
        """Pay the recipients in this order; change comes last. Raises TxBuildFailed."""
        if not recipients:
            raise TxBuildFailed from NoRecipients()
        total_sat = sum(recipient.value_sat for recipient in recipients)
        if total_sat > MAX_MONEY_SAT:
            available_sat = self.balance().total_sat
            raise TxBuildFailed from OnchainInsufficientFunds.of(available_sat, total_sat)
        builder = self._builder(fee_rate, tip_height, unspendable).ordering(bdk.TxOrdering.UNTOUCHED)
        for recipient in recipients:
            script = bdk.Script(recipient.script_pubkey)
            builder = builder.add_recipient(script, bdk.Amount.from_sat(recipient.value_sat))
        return self._finish(builder.drain_to(bdk.Script(change_script)))

    def build_drain(
        self,
        script_pubkey: bytes,
        fee_rate: FeeRate,
        *,
        tip_height: int,
        unspendable: Iterable[OutPoint] = (),
    ) -> SignedTx:
        """Every coin to one output. Raises TxBuildFailed."""
        builder = self._builder(fee_rate, tip_height, unspendable)
        return self._finish(builder.drain_wallet().drain_to(bdk.Script(script_pubkey)))

    def lowest_unused_script(self) -> bytes:
        """Of the lowest revealed address that is unused; reveals one if there is none."""
        return bytes(self._wallet.next_unused_address(KEYCHAIN).address.script_pubkey().to_bytes())

    def build_child(
        self, anchor: tuple[OutPoint, TxOut], plan: ChildPlan, change_script: bytes, *, tip_height: int
    ) -> SignedTx:
        """The fee child of a plan, checked against it. Raises TxBuildFailed."""
        outpoint, output = anchor
        builder = (
            bdk.TxBuilder()
            .version(3)
            .add_foreign_utxo(_bdk_outpoint(outpoint), _foreign_input(output), _ANCHOR_SATISFACTION_WU)
            .only_witness_utxo()
            .manually_selected_only()
            .add_utxos([_bdk_outpoint(coin.outpoint) for coin in plan.coins])
            .fee_absolute(bdk.Amount.from_sat(plan.fee_sat))
            .current_height(tip_height)
            .nlocktime(bdk.LockTime.BLOCKS(tip_height))
            .drain_to(bdk.Script(change_script))
        )
        child = self._finish(builder)
        spent = {outpoint, *(coin.outpoint for coin in plan.coins)}
        is_planned = (
            child.tx.version == 3
            and {tx_in.prevout for tx_in in child.tx.inputs} == spent
            and child.tx.outputs == (TxOut(plan.output_sat, change_script),)
            and child.fee_sat == plan.fee_sat
            and child.tx.weight_wu == plan.weight_wu
            and child.tx.vsize <= MAX_CHILD_VSIZE
        )
        if not is_planned:
            raise TxBuildFailed from UnexpectedBuildError("the fee child is not the one that was planned")
        return child

    def _builder(self, fee_rate: FeeRate, tip_height: int, unspendable: Iterable[OutPoint]) -> bdk.TxBuilder:
        return (
            bdk.TxBuilder()
            .version(2)
            .fee_rate(bdk.FeeRate.from_sat_per_kwu(fee_rate.sat_per_kwu))
            .current_height(tip_height)
            .nlocktime(bdk.LockTime.BLOCKS(tip_height))
            .unspendable([_bdk_outpoint(outpoint) for outpoint in unspendable])
            .only_witness_utxo()
        )

    def _finish(self, builder: bdk.TxBuilder) -> SignedTx:
        try:
            psbt = builder.finish(self._wallet)
        except bdk.CreateTxError as error:
            raise TxBuildFailed from _build_error(error)
        return self._sign(psbt)

    def _sign(self, psbt: bdk.Psbt) -> SignedTx:
        try:
            if not self._wallet.sign(psbt, SIGN_OPTIONS):
                raise TxBuildFailed from UnexpectedBuildError("an input could not be signed")
            tx = psbt.extract_tx()
        except (bdk.SignerError, bdk.ExtractTxError) as error:
            raise TxBuildFailed from UnexpectedBuildError(type(error).__name__)
        return SignedTx(
            tx=Tx.parse(tx.serialize()),
            psbt=base64.b64decode(psbt.serialize()),
            fee_sat=psbt.fee(),
        )


_ANCHOR_SATISFACTION_WU = 1
"""The count of an empty witness."""

SIGN_OPTIONS = bdk.SignOptions(
    trust_witness_utxo=True,  # a taproot signature commits to the amount, so a wrong one cannot cost us
    assume_height=None,
    allow_all_sighashes=False,
    try_finalize=True,
    sign_with_tap_internal_key=True,
    allow_grinding=True,
)


def _build_error(error: bdk.CreateTxError) -> Exception:
    match error:
        case bdk.CreateTxError.CoinSelection():
            return OnchainInsufficientFunds(error.error_message)
        case bdk.CreateTxError.InsufficientFunds():
            return OnchainInsufficientFunds.of(error.available, error.needed)
        case bdk.CreateTxError.OutputBelowDustLimit():
            return OutputBelowDust(error.index)
        case bdk.CreateTxError.NoRecipients():
            return NoRecipients()
        case _:
            return UnexpectedBuildError(f"{type(error).__name__}: {error}")


# --- rows to BDK --------------------------------------------------------------------------------------------


@dataclass
class _Rows(bdk.Persistence):  # type: ignore[misc]
    """Hands the rows to BDK once. What BDK would store is dropped: the rows are the truth."""

    rows: bdk.ChangeSet

    def initialize(self) -> bdk.ChangeSet:
        return self.rows

    def persist(self, changeset: bdk.ChangeSet) -> None:
        pass


def change_set(descriptor: bdk.Descriptor, network: Network, state: OnchainState) -> bdk.ChangeSet:
    """All rows as one BDK change set."""
    last_revealed = state.wallet.last_revealed
    anchors = []
    last_seen = {}
    for row in state.transactions.values():
        if row.confirmation is not None:
            block = _block_id(row.confirmation.height, row.confirmation.block_hash)
            anchors.append(
                bdk.Anchor(
                    confirmation_block_time=bdk.ConfirmationBlockTime(
                        block_id=block, confirmation_time=row.confirmation.time
                    ),
                    txid=bdk.Txid.from_bytes(bytes(row.txid)),
                )
            )
        elif row.last_seen is not None:
            last_seen[bdk.Txid.from_bytes(bytes(row.txid))] = row.last_seen
    return bdk.ChangeSet.from_aggregate(
        descriptor,
        None,
        bdk_network(network),
        bdk.LocalChainChangeSet(
            changes=[
                bdk.ChainChange(height=height, hash=bdk.BlockHash.from_bytes(bytes(block_hash)))
                for height, block_hash in sorted(state.blocks.items())
            ]
        ),
        bdk.TxGraphChangeSet(
            txs=[bdk.Transaction(row.raw) for row in state.transactions.values()],
            txouts={
                bdk.HashableOutPoint(_bdk_outpoint(OutPoint(Txid(txid), vout))): _bdk_output(
                    TxOut(row.value_sat, row.script_pubkey)
                )
                for (txid, vout), row in state.outputs.items()
            },
            anchors=anchors,
            last_seen=last_seen,
            first_seen={},
            last_evicted={},
        ),
        bdk.IndexerChangeSet(
            last_revealed={} if last_revealed is None else {descriptor.descriptor_id(): last_revealed}
        ),
    )


def _block_id(height: int, block_hash: bytes) -> bdk.BlockId:
    return bdk.BlockId(height=height, hash=bdk.BlockHash.from_bytes(bytes(block_hash)))


def _bdk_outpoint(outpoint: OutPoint) -> bdk.OutPoint:
    return bdk.OutPoint(txid=bdk.Txid.from_bytes(bytes(outpoint.txid)), vout=outpoint.vout)


def _bdk_output(output: TxOut) -> bdk.TxOut:
    return bdk.TxOut(
        value=bdk.Amount.from_sat(output.value_sat), script_pubkey=bdk.Script(output.script_pubkey)
    )


def _foreign_input(output: TxOut) -> bdk.Input:
    """A PSBT input that needs no signature; it is final with an empty witness."""
    nothing: dict[object, object] = {}
    return bdk.Input(
        witness_utxo=_bdk_output(output),
        final_script_witness=[],
        final_script_sig=None,
        non_witness_utxo=None,
        sighash_type=None,
        redeem_script=None,
        witness_script=None,
        tap_key_sig=None,
        tap_internal_key=None,
        tap_merkle_root=None,
        partial_sigs=nothing,
        bip32_derivation=nothing,
        ripemd160_preimages=nothing,
        sha256_preimages=nothing,
        hash160_preimages=nothing,
        hash256_preimages=nothing,
        tap_script_sigs=nothing,
        tap_scripts=nothing,
        tap_key_origins=nothing,
        proprietary=nothing,
        unknown=nothing,
    )


# --- BDK to our types ---------------------------------------------------------------------------------------


def _outpoint(outpoint: bdk.OutPoint) -> OutPoint:
    return OutPoint(Txid(outpoint.txid.serialize()), outpoint.vout)


def _block(position: bdk.ChainPosition) -> BlockRef | None:
    if isinstance(position, bdk.ChainPosition.CONFIRMED):
        block = position.confirmation_block_time.block_id
        return BlockRef(block.height, BlockHash(block.hash.serialize()))
    return None
