"""The server's own money: a small wallet that funds rounds and offboards.

Its coins are taproot outputs that one key each spends (BIP-86 style, the key path only), so the id of a
transaction is known before it is signed. A draft locks its coins in memory until it is recorded or dropped.
Transactions are version 2, with the tip's height as lock time, and the change last if it is worth an output.

Source: sheet 10 §1 (keys), §5.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sqlalchemy import Connection

from barkd_py.bitcoin.bip32 import ExtendedKey
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate, format_btc
from barkd_py.devnet.ark_server.chain import ChainBlock, ServerChain
from barkd_py.devnet.ark_server.store import coin_rows
from barkd_py.devnet.ark_server.store.coin_rows import Coin
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.errors import ChainError, InsufficientFunds

log = logging.getLogger(__name__)

_SEQUENCE = 0xFFFF_FFFD
_KEY_SPEND_WITNESS = (bytes(64),)

#: How many keys beyond those handed out are looked for in blocks.
_LOOK_AHEAD = 20

_RETRY_SECS = 1.0


class TreasuryEmpty(InsufficientFunds):
    """The server's wallet cannot pay for a transaction."""

    def __init__(self, needed_sat: int, available_sat: int) -> None:
        super().__init__(
            f"Insufficient funds: {format_btc(available_sat)} available of {format_btc(needed_sat)} needed"
        )
        self.needed_sat = needed_sat
        self.available_sat = available_sat


@dataclass(frozen=True, slots=True)
class Draft:
    """An unsigned transaction of the server's. coins: what its inputs spend. change: key index by output."""

    tx: Tx
    coins: tuple[Coin, ...]
    change: Mapping[int, int]


class Treasury:
    """The wallet. key: the parent of its keys, at m/1856555996'."""

    def __init__(self, key: ExtendedKey, store: Store, chain: ServerChain) -> None:
        self._keys = _Keys(key)
        self._store = store
        self._chain = chain
        self._locked: set[OutPoint] = set()
        self._withheld: set[Txid] = set()

    # --- receiving

    async def new_script(self) -> bytes:
        """An output script to pay the server with."""
        return self._keys.script(await self._store.transact(coin_rows.take_key))

    async def balance_sat(self) -> int:
        """What can be spent now, including what drafts have locked."""
        return sum(each.value_sat for each in await self._store.transact(coin_rows.spendable))

    # --- spending

    async def draft(self, outputs: Sequence[TxOut], fee_rate: FeeRate) -> Draft:
        """A transaction that pays these outputs first, with its coins locked. Raises TreasuryEmpty."""
        change_index = await self._store.transact(coin_rows.take_key)
        tip = await self._chain.tip()
        # Nothing is awaited between reading the coins and locking them.
        coins = await self._store.transact(coin_rows.spendable)
        free = [each for each in coins if each.outpoint not in self._locked]
        draft = _draft(free, outputs, fee_rate, tip.height, change_index, self._keys.script(change_index))
        self._locked.update(each.outpoint for each in draft.coins)
        return draft

    def release(self, draft: Draft) -> None:
        """Unlock a draft's coins: it was recorded, or it will never be. Safe to repeat."""
        self._locked.difference_update(each.outpoint for each in draft.coins)

    def sign(self, draft: Draft) -> Tx:
        """The signed transaction; it is not recorded by this."""
        spent = [TxOut(each.value_sat, self._keys.script(each.script_index)) for each in draft.coins]
        return replace(
            draft.tx,
            inputs=tuple(
                replace(
                    tx_in,
                    witness=(
                        self._keys.secret(each.script_index).sign_schnorr(
                            taproot_key_spend_sighash(draft.tx, index, spent)
                        ),
                    ),
                )
                for index, (tx_in, each) in enumerate(zip(draft.tx.inputs, draft.coins, strict=True))
            ),
        )

    @staticmethod
    def record(connection: Connection, draft: Draft, signed: Tx | None = None) -> None:
        """Book a draft; again when it is signed."""
        coin_rows.record(connection, signed or draft.tx, draft.change, is_signed=signed is not None)

    async def draft_of(self, tx: Tx) -> Draft:
        """A recorded transaction as a draft, to sign it again. Raises KeyError if its coins are unknown."""
        outpoints = [tx_in.prevout for tx_in in tx.inputs]
        coins = await self._store.transact(lambda connection: coin_rows.find(connection, outpoints))
        return Draft(tx, tuple(coins), {})

    async def double_spend(self, tx: Tx, fee_rate: FeeRate) -> Tx:
        """A transaction that pays the server what another of its transactions spends; it is not recorded."""
        original = await self.draft_of(tx)
        script = await self.new_script()
        conflicting = _unsigned(original.coins, (TxOut(0, script),), tx.locktime)
        value_sat = _total(original.coins) - fee_rate.fee_wu(conflicting.weight_wu)
        return self.sign(
            replace(original, tx=_unsigned(original.coins, (TxOut(value_sat, script),), tx.locktime))
        )

    # --- following the chain

    def process(self, connection: Connection, block: ChainBlock) -> None:
        """Take a block into account; called inside the transaction that stores it."""
        watched = coin_rows.keys_used(connection) + _LOOK_AHEAD
        coin_rows.process(connection, self._keys.scripts(watched), block)

    def roll_back(self, connection: Connection, height: int) -> None:
        coin_rows.roll_back(connection, height)

    async def run(self) -> None:
        """Keep the server's transactions in the mempool until they confirm, also over restarts."""
        while True:
            try:
                await self.broadcast_unconfirmed()
                await self._chain.changed()
            except ChainError:
                log.exception("broadcasting the server's transactions failed")
                await asyncio.sleep(_RETRY_SECS)

    def withhold(self, txid: Txid) -> None:
        """Do not broadcast a transaction before the next start, for a server that does not keep its word."""
        self._withheld.add(txid)

    async def broadcast_unconfirmed(self) -> None:
        for tx in await self._store.transact(coin_rows.unconfirmed):
            if tx.txid not in self._withheld and await self._chain.get_tx(tx.txid) is None:
                try:
                    await self._chain.broadcast(tx)
                except ChainError as error:
                    log.info("transaction %s is not accepted: %s", tx.txid, error)


class _Keys:
    """The keys of the wallet, ``tr(key/0/*)``."""

    def __init__(self, key: ExtendedKey) -> None:
        self._chain = key.child(0)
        # A cache per wallet: the keys must not outlive it.
        self._secret = lru_cache(maxsize=None)(lambda index: self._chain.child(index).secret_key)
        self._taproot = lru_cache(maxsize=None)(
            lambda index: TaprootOutput(self._secret(index).public_key.x_only)
        )

    def secret(self, index: int) -> SecretKey:
        """The key that spends the output of this index."""
        return self._secret(index).x_only_tweak_add(self._taproot(index).tweak)

    def script(self, index: int) -> bytes:
        return self._taproot(index).script_pubkey

    def scripts(self, count: int) -> dict[bytes, int]:
        return {self.script(index): index for index in range(count)}


def _draft(
    coins: Iterable[Coin],
    outputs: Sequence[TxOut],
    fee_rate: FeeRate,
    locktime: int,
    change_index: int,
    change_script: bytes,
) -> Draft:
    target_sat = sum(output.value_sat for output in outputs)
    chosen: list[Coin] = []
    needed_sat = target_sat
    for each in coins:
        chosen.append(each)
        fee_sat = fee_rate.fee_wu(_unsigned(chosen, outputs, locktime).weight_wu)
        needed_sat = target_sat + fee_sat
        if _total(chosen) < needed_sat:
            continue
        with_change = _unsigned(chosen, (*outputs, TxOut(0, change_script)), locktime)
        change_sat = _total(chosen) - target_sat - fee_rate.fee_wu(with_change.weight_wu)
        if change_sat <= DUST_SAT:
            return Draft(_bare(_unsigned(chosen, outputs, locktime)), tuple(chosen), {})
        tx = _unsigned(chosen, (*outputs, TxOut(change_sat, change_script)), locktime)
        return Draft(_bare(tx), tuple(chosen), {len(outputs): change_index})
    raise TreasuryEmpty(needed_sat, _total(chosen))


def _total(coins: Iterable[Coin]) -> int:
    return sum(each.value_sat for each in coins)


def _unsigned(coins: Sequence[Coin], outputs: Sequence[TxOut], locktime: int) -> Tx:
    """A transaction of its final size: the witnesses are placeholders."""
    inputs = tuple(TxIn(each.outpoint, sequence=_SEQUENCE, witness=_KEY_SPEND_WITNESS) for each in coins)
    return Tx(2, inputs, tuple(outputs), locktime)


def _bare(tx: Tx) -> Tx:
    """Without witnesses, as it is shown to clients."""
    return replace(tx, inputs=tuple(replace(tx_in, witness=()) for tx_in in tx.inputs))
