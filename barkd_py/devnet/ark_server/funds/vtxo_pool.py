"""The pool: VTXOs of the server's own, out of which it pays those who receive over Lightning.

They are boards of the server with itself: it plays the user too, with a key per VTXO. A grant spends some of
them at once, without checkpoint, into the receiver's HTLC and change; the change goes back to the pool while
its exit chain is short.

Receivers want the root of what they get confirmed. So the pool fills itself up from the server's wallet
early, when it is half empty, and what it adds counts from the next block on.

Source: sheet 10 §9.4.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    ArkoorPart,
    finish_part,
    generate_part_nonces,
    server_cosign_part,
    split_package,
)
from barkd_py.ark.board import (
    BoardTemplate,
    board_server_vtxos,
    finish_board,
    generate_board_nonce,
    server_cosign_board,
)
from barkd_py.ark.policy import Policy, PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import DUST_SAT
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.funds.treasury import Treasury, TreasuryEmpty
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.tables import pool_coin, vtxo
from barkd_py.devnet.ark_server.vtxos.arkoor import book_transactions

log = logging.getLogger(__name__)


class PoolEmpty(Failure):
    """There is not enough in the pool, at least until the next block."""

    def __init__(self) -> None:
        super().__init__("vtxo pool is empty")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A VTXO of the pool, before it is looked at more closely."""

    vtxo_id: VtxoId
    amount_sat: int
    expiry_height: int


@dataclass(frozen=True, slots=True)
class PoolCoin:
    """A VTXO of the pool and the key that plays its user."""

    vtxo: Vtxo
    secret: SecretKey


@dataclass(frozen=True, slots=True)
class Grant:
    """A payment out of the pool, signed. parts: one per spent coin, each with its new VTXOs.

    change_key: of whatever is not the receiver's.
    """

    parts: tuple[tuple[ArkoorPart, tuple[Vtxo, ...]], ...]
    policy: Policy
    change_key: SecretKey

    @property
    def vtxos(self) -> tuple[Vtxo, ...]:
        """What the receiver gets."""
        return tuple(each for _, new in self.parts for each in new if each.policy == self.policy)

    @property
    def change(self) -> tuple[Vtxo, ...]:
        return tuple(each for _, new in self.parts for each in new if each.policy != self.policy)


class VtxoPool:
    """See the module."""

    def __init__(
        self,
        settings: ServerSettings,
        keys: ServerKeys,
        store: Store,
        chain: ServerChain,
        treasury: Treasury,
        fee_rates: FeeRates,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._chain = chain
        self._treasury = treasury
        self._fee_rates = fee_rates
        # One at a time: two grants would choose the same coins.
        self._busy = asyncio.Lock()
        self._is_used = False

    # --- filling

    async def fill_up(self) -> None:
        """Issue new VTXOs if less than half of what there should be is left. Raises TreasuryEmpty."""
        async with self._busy:
            await self._fill_up(self._settings.pool_amounts_sat)

    async def fill_up_after_use(self) -> None:
        """The same, if there was a grant since the last time; it does not matter if there is no money."""
        if not self._is_used:
            return
        self._is_used = False
        try:
            await self.fill_up()
        except TreasuryEmpty as error:
            log.warning("the pool cannot be filled: %s", error)

    async def _fill_up(self, amounts_sat: Sequence[int]) -> None:
        entries = await self._entries(confirmed=False)
        is_poor = 2 * sum(entry.amount_sat for entry in entries) < sum(amounts_sat)
        if is_poor or 2 * len(entries) < len(amounts_sat):
            await self._issue(amounts_sat)

    async def balance_sat(self) -> int:
        """What grants can be made of now."""
        return sum(entry.amount_sat for entry in await self._entries())

    async def _issue(self, amounts_sat: Sequence[int]) -> None:
        """Fund new VTXOs with one transaction. Raises TreasuryEmpty."""
        if not amounts_sat:
            return
        expiry_height = (await self._chain.tip()).height + self._settings.pool_lifetime
        secrets = [SecretKey.generate() for _ in amounts_sat]

        def templates(txid: Txid) -> list[BoardTemplate]:
            return [
                BoardTemplate(
                    user_pubkey=secret.public_key,
                    server_pubkey=self._keys.server_pubkey,
                    amount_sat=amount_sat,
                    fee_sat=0,
                    expiry_height=expiry_height,
                    exit_delta=self._settings.vtxo_exit_delta,
                    utxo=OutPoint(txid, vout),
                )
                for vout, (amount_sat, secret) in enumerate(zip(amounts_sat, secrets, strict=True))
            ]

        outputs = [template.funding_output for template in templates(Txid(bytes(32)))]
        draft = await self._treasury.draft(outputs, self._fee_rates.regular)
        try:
            funding_tx = self._treasury.sign(draft)
            coins = [
                PoolCoin(self._signed_board(template, secret), secret)
                for template, secret in zip(templates(funding_tx.txid), secrets, strict=True)
            ]

            def write(connection: Connection) -> None:
                self._treasury.record(connection, draft, funding_tx)
                _insert_boards(connection, coins, funding_tx)

            await self._store.transact(write)
        finally:
            self._treasury.release(draft)
        await self._treasury.broadcast_unconfirmed()
        log.info("pool: %d VTXOs issued by %s", len(coins), funding_tx.txid)

    def _signed_board(self, template: BoardTemplate, secret: SecretKey) -> Vtxo:
        sec_nonce, pub_nonce = generate_board_nonce(template, secret)
        answer = server_cosign_board(template, self._keys.server, pub_nonce)
        return finish_board(template, secret, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)

    async def _entries(self, *, confirmed: bool = True) -> list[_Entry]:
        """What can be given out, soonest expiry first and then the largest."""
        tip_height = (await self._chain.tip()).height
        expiry_height = tip_height + self._settings.pool_pre_expiry
        return await self._store.transact(partial(_entries, expiry_height=expiry_height, confirmed=confirmed))

    # --- granting

    async def grant(self, amount_sat: int, policy: Policy) -> Grant:
        """Choose coins and sign; `book` it before it is shown to anybody, and before the next grant.

        Hold `granting` around this and the booking. Raises PoolEmpty.
        """
        chosen = _choose(await self._entries(), amount_sat)
        if chosen is None:
            await self._ask_for_more(amount_sat)
            raise PoolEmpty
        coins = await self._store.transact(partial(_coins, entries=chosen))
        change_key = SecretKey.generate()
        outputs = [ArkoorDestination(amount_sat, policy)]
        change_sat = sum(coin.vtxo.amount_sat for coin in coins) - amount_sat
        if change_sat:
            outputs.append(ArkoorDestination(change_sat, PubkeyPolicy(change_key.public_key)))
        parts = split_package([coin.vtxo for coin in coins], outputs, use_checkpoint=False)
        signed = [(part, self._sign(part, coin.secret)) for part, coin in zip(parts, coins, strict=True)]
        return Grant(tuple(signed), policy, change_key)

    async def _ask_for_more(self, amount_sat: int) -> None:
        """Issue what is missing, unless it has been issued and only waits for a block."""
        waiting = await self._entries(confirmed=False)
        if _choose(waiting, amount_sat) is not None:
            return
        try:
            await self._issue((*self._settings.pool_amounts_sat, 2 * amount_sat))
        except TreasuryEmpty as error:
            log.warning("the pool cannot be filled: %s", error)

    @property
    def granting(self) -> asyncio.Lock:
        return self._busy

    def _sign(self, part: ArkoorPart, secret: SecretKey) -> tuple[Vtxo, ...]:
        nonces = generate_part_nonces(part, secret)
        answer = server_cosign_part(part, self._keys.server, [pub_nonce for _, pub_nonce in nonces])
        return finish_part(part, secret, nonces, *answer)

    def book(self, connection: Connection, grant: Grant) -> None:
        """Write a grant. Raises Failure if a coin is gone."""
        self._is_used = True
        book_transactions(connection, [part for part, _ in grant.parts])
        for _, new in grant.parts:
            for each in new:
                vtxo_rows.put_virtual_txs(connection, [], signed=each.exit_transactions())
        vtxo_rows.insert_new(connection, grant.vtxos, SpendState.HTLC_RECV_UNCLAIMED)
        vtxo_rows.insert_new(connection, grant.change, SpendState.POOL)
        _forget_keys(connection, [part.input.id for part, _ in grant.parts])
        _put_keys(connection, [PoolCoin(each, grant.change_key) for each in self._reusable(grant.change)])

    def _reusable(self, change: Iterable[Vtxo]) -> Iterable[Vtxo]:
        max_depth = self._settings.pool_max_depth
        return (each for each in change if each.amount_sat >= DUST_SAT and each.exit_depth <= max_depth)


def _choose(entries: Sequence[_Entry], amount_sat: int) -> list[_Entry] | None:
    """The coins for an amount: walking the expiries, within each from the largest down, skipping what is
    more than needed as long as the next one is enough.
    """
    chosen: list[_Entry] = []
    missing_sat = amount_sat
    for index, entry in enumerate(entries):
        if missing_sat <= 0:
            break
        following = entries[index + 1] if index + 1 < len(entries) else None
        if (
            following is not None
            and following.expiry_height == entry.expiry_height
            and following.amount_sat >= missing_sat
        ):
            continue
        chosen.append(entry)
        missing_sat -= entry.amount_sat
    return sorted(chosen, key=lambda entry: entry.amount_sat) if missing_sat <= 0 else None


# --- the rows


def _entries(connection: Connection, expiry_height: int, confirmed: bool) -> list[_Entry]:
    anchor = vtxo.alias("anchor")
    query = (
        select(vtxo.c.id, vtxo.c.amount_sat, vtxo.c.expiry_height)
        .join(pool_coin, pool_coin.c.vtxo_id == vtxo.c.id)
        .where(
            vtxo.c.spend_state == SpendState.POOL.value,
            vtxo.c.expiry_height >= expiry_height,
            vtxo.c.confirmed_height.is_(None),
        )
        .order_by(vtxo.c.expiry_height, vtxo.c.amount_sat.desc(), vtxo.c.seq)
    )
    if confirmed:
        query = query.join(anchor, anchor.c.id == pool_coin.c.anchor)
        query = query.where(anchor.c.confirmed_height.is_not(None))
    return [_Entry(VtxoId(row.id), row.amount_sat, row.expiry_height) for row in connection.execute(query)]


def _coins(connection: Connection, entries: Sequence[_Entry]) -> list[PoolCoin]:
    """The VTXOs with their keys, in the order of the entries."""
    ids = [entry.vtxo_id for entry in entries]
    secrets = {
        VtxoId(row.vtxo_id): SecretKey(row.secret)
        for row in connection.execute(
            select(pool_coin).where(pool_coin.c.vtxo_id.in_([bytes(vtxo_id) for vtxo_id in ids]))
        )
    }
    rows = vtxo_rows.get_all(connection, ids)
    return [PoolCoin(row.user_vtxo(), secrets[row.id]) for row in rows]


def _insert_boards(connection: Connection, coins: Sequence[PoolCoin], funding_tx: Tx) -> None:
    vtxo_rows.put_virtual_txs(connection, [], signed=[funding_tx], is_funding=True)
    for coin in coins:
        funding_output, _ = board_server_vtxos(coin.vtxo)
        (exit_tx,) = coin.vtxo.exit_transactions()
        vtxo_rows.put_virtual_txs(connection, [], signed=[exit_tx])
        vtxo_rows.insert_spent(connection, funding_output, exit_tx.txid, is_frontier=True)
    vtxo_rows.insert_new(connection, [coin.vtxo for coin in coins], SpendState.POOL)
    _put_keys(connection, coins)


def _put_keys(connection: Connection, coins: Sequence[PoolCoin]) -> None:
    rows = [
        {
            "vtxo_id": bytes(coin.vtxo.id),
            "secret": coin.secret.secret_bytes,
            "anchor": coin.vtxo.anchor_point.to_bytes(),
        }
        for coin in coins
    ]
    if rows:
        connection.execute(insert(pool_coin).on_conflict_do_nothing(), rows)


def _forget_keys(connection: Connection, vtxo_ids: Iterable[VtxoId]) -> None:
    connection.execute(delete(pool_coin).where(pool_coin.c.vtxo_id.in_([bytes(each) for each in vtxo_ids])))
