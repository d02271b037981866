"""The wallet's keys as they are used: indexes stored before a key leaves the wallet, and the pinned server.

An index is handed out once. Its row is committed before the key appears in an address, a transaction or a
request, so a crash burns an index and never shares a key. Whether a key is ours is asked of the stored rows;
only a gap scan derives ahead, to find keys that an earlier life of this seed has handed out.

Source: protocol sheet 02 §1.6-1.8.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence

from barkd_py.ark.mailbox import XpubRecoveryAuthorization
from barkd_py.ark.wallet_keys import MAX_VTXO_KEY_INDEX, WalletKeys
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.errors import InvalidInput, NotFound, ServerError
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.keys import VtxoKey

log = logging.getLogger(__name__)

MAX_GAP_LIMIT = 100_000

# Keys are derived in another thread, so many at a time.
_SCAN_BATCH = 500


class GapLimitTooHigh(InvalidInput):
    def __init__(self, gap_limit: int) -> None:
        super().__init__(f"vtxo key gap limit {gap_limit} is above the maximum of {MAX_GAP_LIMIT}")
        self.gap_limit = gap_limit


class UnknownKey(NotFound):
    """The public key is not one of ours, as far as stored keys go."""

    def __init__(self, public_key: PublicKey) -> None:
        super().__init__(f"the wallet has no key for {public_key}", (str(public_key),))
        self.public_key = public_key


class ServerKeyChanged(ServerError):
    """The server has another key than the one this wallet was made with: use nothing but exits."""

    def __init__(self) -> None:
        super().__init__("Server public key has changed. You should exit all your VTXOs!")


class ServerMailboxKeyChanged(ServerError):
    def __init__(self) -> None:
        super().__init__("Server mailbox public key has changed.")


class Keychain:
    """The keys of one wallet, and the store that remembers which ones are in use."""

    def __init__(self, keys: WalletKeys, store: Store) -> None:
        self._keys = keys
        self._store = store

    @property
    def fingerprint(self) -> str:
        return self._keys.fingerprint

    @property
    def mailbox_key(self) -> SecretKey:
        return self._keys.mailbox_key

    @property
    def recovery_mailbox_key(self) -> SecretKey:
        return self._keys.recovery_mailbox_key

    def authorize_xpub_search(
        self, *, server_pubkey: PublicKey, mainnet: bool, expiry: int
    ) -> tuple[bytes, bytes]:
        """The extended public key of the VTXO keys, 78 bytes, and the permission to search by it."""
        xpub = self._keys.account_xpub(mainnet=mainnet)
        authorization = XpubRecoveryAuthorization.sign(
            self._keys.account.secret_key, server_pubkey=server_pubkey, xpub=xpub, expiry=expiry
        )
        return xpub, authorization.encode()

    # --- handing out keys

    async def reserve(self) -> VtxoKey:
        """The next key; it is stored when this returns. A failed operation burns it."""
        async with self._store.transaction() as tx:
            return await self.reserve_in(tx)

    async def reserve_in(self, tx: Transaction) -> VtxoKey:
        """The next key, stored with the transaction: do not use it before the commit."""
        key = await self.peek_in(tx)
        await self.take_in(tx, key)
        return key

    async def peek_in(self, tx: Transaction) -> VtxoKey:
        """The key that `reserve_in` would return in this transaction; nothing is stored."""
        index = await tx.keys.next_index()
        return VtxoKey(index, self._keys.vtxo_pubkey(index))

    async def take_in(self, tx: Transaction, peeked: VtxoKey) -> None:
        """Store the key that `peek_in` has shown in this very transaction."""
        await tx.keys.store([peeked])

    async def at(self, index: int) -> VtxoKey:
        """A key that was handed out. Raises UnknownKeyIndex."""
        async with self._store.read() as tx:
            return await tx.keys.get(index)

    # --- our own keys

    async def find(self, public_key: PublicKey) -> VtxoKey | None:
        """Our key with this public key, if it was ever handed out."""
        async with self._store.read() as tx:
            return await tx.keys.find(public_key)

    async def secret_for(self, public_key: PublicKey) -> SecretKey:
        """Raises UnknownKey."""
        return (await self.secrets_for([public_key]))[0]

    async def secrets_for(self, public_keys: Sequence[PublicKey]) -> tuple[SecretKey, ...]:
        """In the order of the public keys. Raises UnknownKey."""
        async with self._store.read() as tx:
            found = await tx.keys.find_many(public_keys)
        return tuple(self._secret(public_key, found.get(public_key)) for public_key in public_keys)

    def secret(self, key: VtxoKey) -> SecretKey:
        return self._keys.vtxo_key(key.index)

    def _secret(self, public_key: PublicKey, key: VtxoKey | None) -> SecretKey:
        if key is None:
            raise UnknownKey(public_key)
        return self.secret(key)

    # --- keys of an earlier life

    async def gap_scan(self, wanted: Collection[PublicKey], gap_limit: int) -> frozenset[PublicKey]:
        """Find out which of the public keys are ours, deriving ahead of what is stored.

        gap_limit: how many misses in a row to bear. Every index up to the last match is stored, so that later
        keys are new ones; without a match nothing is. Returns those that are ours. Raises GapLimitTooHigh.
        """
        if gap_limit > MAX_GAP_LIMIT:
            raise GapLimitTooHigh(gap_limit)
        async with self._store.read() as tx:
            found = set(await tx.keys.find_many(list(wanted)))
            start = await tx.keys.next_index()
        missing = set(wanted) - found
        frontier = min(start + gap_limit, MAX_VTXO_KEY_INDEX)
        pending: list[VtxoKey] = []
        index = start
        while missing and index <= frontier:
            batch = range(index, min(index + _SCAN_BATCH, frontier + 1))
            for key in await asyncio.to_thread(self._derive, batch):
                pending.append(key)
                if key.public_key in missing:
                    await self._store_keys(pending)
                    pending = []
                    missing.remove(key.public_key)
                    found.add(key.public_key)
                    frontier = min(key.index + 1 + gap_limit, MAX_VTXO_KEY_INDEX)
                if not missing:
                    break
            index = batch.stop
        return frozenset(found)

    def is_at(self, public_key: PublicKey, index: int) -> bool:
        """Whether this is the key of an index, stored or not."""
        return 0 <= index <= MAX_VTXO_KEY_INDEX and self._keys.vtxo_pubkey(index) == public_key

    async def next_index(self) -> int:
        """The lowest index that was never handed out, nor any above it."""
        async with self._store.read() as tx:
            return await tx.keys.next_index()

    async def store_up_to(self, last_index: int) -> None:
        """Store every key up to and including this index; those that are stored stay."""
        async with self._store.read() as tx:
            start = await tx.keys.next_index()
        while start <= last_index:
            batch = range(start, min(start + _SCAN_BATCH, last_index + 1))
            await self._store_keys(await asyncio.to_thread(self._derive, batch))
            start = batch.stop

    async def _store_keys(self, keys: Sequence[VtxoKey]) -> None:
        async with self._store.transaction() as tx:
            await tx.keys.store(keys)

    def _derive(self, indexes: range) -> list[VtxoKey]:
        return [VtxoKey(index, self._keys.vtxo_pubkey(index)) for index in indexes]

    # --- the server that the wallet belongs to

    async def pinned_server(self) -> tuple[PublicKey, PublicKey] | None:
        """The server's key and its mailbox key, once both are pinned: addresses are built from them."""
        async with self._store.read() as tx:
            properties = await tx.properties.get()
        if properties.server_pubkey is None or properties.server_mailbox_pubkey is None:
            return None
        return properties.server_pubkey, properties.server_mailbox_pubkey

    async def pin_server(self, server_pubkey: PublicKey, mailbox_pubkey: PublicKey) -> None:
        """Compare the server's keys with the pinned ones, and pin those that are not yet.

        Call it whenever the server has introduced itself. Raises ServerKeyChanged, ServerMailboxKeyChanged;
        nothing was stored then.
        """
        async with self._store.read() as tx:
            properties = await tx.properties.get()
        if properties.server_pubkey not in (None, server_pubkey):
            log.error(
                "The Ark server has another public key than the one this wallet was created with.\n"
                "  pinned:     %s\n  advertised: %s\n"
                "It can no longer cooperate on your VTXOs: exit all of them before they expire.",
                properties.server_pubkey,
                server_pubkey,
            )
            raise ServerKeyChanged
        if properties.server_mailbox_pubkey not in (None, mailbox_pubkey):
            log.error(
                "The Ark server has another mailbox key than the pinned one: pinned %s, advertised %s.",
                properties.server_mailbox_pubkey,
                mailbox_pubkey,
            )
            raise ServerMailboxKeyChanged
        if properties.server_pubkey is not None and properties.server_mailbox_pubkey is not None:
            return
        async with self._store.transaction() as tx:
            if properties.server_pubkey is None:
                await tx.properties.pin_server_pubkey(server_pubkey)
            if properties.server_mailbox_pubkey is None:
                await tx.properties.pin_server_mailbox_pubkey(mailbox_pubkey)
