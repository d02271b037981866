"""Keys that are stored before they are used, gap scans, and the pinned server."""

import asyncio

import pytest

from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.wallet.keychain import (
    GapLimitTooHigh,
    Keychain,
    ServerKeyChanged,
    ServerMailboxKeyChanged,
    UnknownKey,
)
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.keys import UnknownKeyIndex, VtxoKey
from barkd_py.wallet.store.properties import WalletProperties
from tests.support.vectors import cases

WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
STRANGER = SecretKey(b"\x07" * 32).public_key


@pytest.fixture
def keys() -> WalletKeys:
    return WalletKeys(parse_mnemonic(WORDS))


@pytest.fixture
async def keychain(sqlite_store: Store, keys: WalletKeys) -> Keychain:
    return Keychain(keys, sqlite_store)


async def stored(store: Store) -> int:
    """How many indexes are revealed; they have no holes."""
    async with store.read() as tx:
        count = await tx.keys.next_index()
        for index in range(count):
            await tx.keys.get(index)
    return count


async def test_keys_are_those_of_the_vectors(keychain: Keychain) -> None:
    (wallet,) = [case for case in cases("keys", kind="wallet") if case["mnemonic"] == WORDS][:1]
    expected = [entry["pubkey"] for entry in wallet["vtxo_keys"] if entry["index"] < 2]
    assert [str((await keychain.reserve()).public_key) for _ in expected] == expected


async def test_a_reserved_key_is_stored_and_never_handed_out_again(
    keychain: Keychain, sqlite_store: Store
) -> None:
    first, second = await keychain.reserve(), await keychain.reserve()
    assert (first.index, second.index) == (0, 1)
    async with sqlite_store.read() as tx:
        assert await tx.keys.find(first.public_key) == first


async def test_tasks_that_reserve_at_the_same_time_get_different_keys(keychain: Keychain) -> None:
    reserved = await asyncio.gather(*(keychain.reserve() for _ in range(20)))
    assert sorted(key.index for key in reserved) == list(range(20))
    assert len({key.public_key for key in reserved}) == 20


async def test_peeking_takes_nothing(keychain: Keychain, sqlite_store: Store) -> None:
    async with sqlite_store.transaction() as tx:
        peeked = await keychain.peek_in(tx)
        assert await keychain.peek_in(tx) == peeked
        assert await keychain.reserve_in(tx) == peeked
    assert await keychain.at(peeked.index) == peeked


async def test_a_key_reserved_in_a_failed_transaction_is_free_again(
    keychain: Keychain, sqlite_store: Store
) -> None:
    async def fail() -> None:
        async with sqlite_store.transaction() as tx:
            await keychain.reserve_in(tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (await keychain.reserve()).index == 0


async def test_an_index_that_was_not_handed_out_has_no_address(keychain: Keychain) -> None:
    await keychain.reserve()
    with pytest.raises(UnknownKeyIndex, match=r"^VTXO key 1 does not exist, please derive it first$"):
        await keychain.at(1)


async def test_secrets_are_found_by_public_key_and_not_derived_ahead(
    keychain: Keychain, keys: WalletKeys
) -> None:
    ours = [await keychain.reserve() for _ in range(3)]
    wanted = [ours[2].public_key, ours[0].public_key, ours[2].public_key]
    assert [secret.public_key for secret in await keychain.secrets_for(wanted)] == wanted
    assert await keychain.find(ours[1].public_key) == ours[1]

    for foreign in (STRANGER, keys.vtxo_pubkey(3)):
        assert await keychain.find(foreign) is None
        with pytest.raises(UnknownKey):
            await keychain.secret_for(foreign)


# --- gap scan


@pytest.mark.parametrize(
    ("index", "gap", "is_found"), [(0, 0, True), (1, 0, False), (5, 5, True), (6, 5, False)]
)
async def test_an_untouched_store_tests_as_many_misses_as_the_gap(
    keychain: Keychain, sqlite_store: Store, keys: WalletKeys, index: int, gap: int, is_found: bool
) -> None:
    wanted = keys.vtxo_pubkey(index)
    assert await keychain.gap_scan({wanted}, gap) == ({wanted} if is_found else frozenset())
    assert await stored(sqlite_store) == (index + 1 if is_found else 0)


async def test_each_match_opens_a_new_gap(keychain: Keychain, sqlite_store: Store, keys: WalletKeys) -> None:
    wanted = {keys.vtxo_pubkey(index) for index in (3, 7, 12)}
    assert await keychain.gap_scan(wanted, 3) == {keys.vtxo_pubkey(3), keys.vtxo_pubkey(7)}
    assert await stored(sqlite_store) == 8


async def test_a_scan_starts_behind_the_stored_keys(
    keychain: Keychain, sqlite_store: Store, keys: WalletKeys
) -> None:
    known = [await keychain.reserve() for _ in range(4)]
    wanted = {known[1].public_key, keys.vtxo_pubkey(6), STRANGER}
    assert await keychain.gap_scan(wanted, 2) == {known[1].public_key, keys.vtxo_pubkey(6)}
    assert await stored(sqlite_store) == 7


async def test_a_scan_without_match_stores_nothing(keychain: Keychain, sqlite_store: Store) -> None:
    assert await keychain.gap_scan({STRANGER}, 700) == frozenset()
    assert await stored(sqlite_store) == 0


async def test_a_scan_goes_on_beyond_one_batch(
    keychain: Keychain, sqlite_store: Store, keys: WalletKeys
) -> None:
    wanted = {keys.vtxo_pubkey(499), keys.vtxo_pubkey(500), keys.vtxo_pubkey(1_100)}
    assert await keychain.gap_scan(wanted, 600) == wanted
    assert await stored(sqlite_store) == 1_101


async def test_the_gap_has_a_limit(keychain: Keychain) -> None:
    with pytest.raises(GapLimitTooHigh, match=r"^vtxo key gap limit 100001 is above the maximum of 100000$"):
        await keychain.gap_scan({STRANGER}, 100_001)


async def test_keys_up_to_an_index_are_stored(keychain: Keychain, sqlite_store: Store) -> None:
    await keychain.reserve()
    await keychain.store_up_to(620)
    await keychain.store_up_to(10)
    assert await stored(sqlite_store) == 621


async def test_scanning_and_reserving_at_the_same_time_share_no_key(
    keychain: Keychain, sqlite_store: Store, keys: WalletKeys
) -> None:
    scan = keychain.gap_scan({keys.vtxo_pubkey(40)}, 60)
    _, *reserved = await asyncio.gather(scan, *(keychain.reserve() for _ in range(5)))
    assert len({key.index for key in reserved if isinstance(key, VtxoKey)}) == 5
    async with sqlite_store.read() as tx:
        for key in reserved:
            assert isinstance(key, VtxoKey)
            assert await tx.keys.get(key.index) == key


# --- the server


SERVER, MAILBOX = (SecretKey(bytes([number]) * 32).public_key for number in (1, 2))
OTHER = SecretKey(b"\x03" * 32).public_key


async def make_wallet(
    store: Store, server: PublicKey | None = None, mailbox: PublicKey | None = None
) -> None:
    async with store.transaction() as tx:
        await tx.properties.create(WalletProperties("regtest", "1a2b3c4d", server, mailbox))


async def test_the_first_server_is_pinned(keychain: Keychain, sqlite_store: Store) -> None:
    await make_wallet(sqlite_store)
    assert await keychain.pinned_server() is None
    await keychain.pin_server(SERVER, MAILBOX)
    assert await keychain.pinned_server() == (SERVER, MAILBOX)


async def test_the_same_server_writes_nothing(keychain: Keychain, sqlite_store: Store) -> None:
    await make_wallet(sqlite_store, SERVER, MAILBOX)
    revision = sqlite_store.revision
    await keychain.pin_server(SERVER, MAILBOX)
    assert sqlite_store.revision == revision


async def test_a_missing_key_is_pinned_later(keychain: Keychain, sqlite_store: Store) -> None:
    await make_wallet(sqlite_store, server=SERVER)
    assert await keychain.pinned_server() is None
    await keychain.pin_server(SERVER, MAILBOX)
    assert await keychain.pinned_server() == (SERVER, MAILBOX)


async def test_another_server_is_refused_with_a_warning_to_exit(
    keychain: Keychain, sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await make_wallet(sqlite_store, server=SERVER)
    with pytest.raises(
        ServerKeyChanged, match=r"^Server public key has changed\. You should exit all your VTXOs!$"
    ):
        await keychain.pin_server(OTHER, MAILBOX)
    assert await keychain.pinned_server() is None  # nothing of the wrong server was stored
    assert str(SERVER) in caplog.text
    assert str(OTHER) in caplog.text


async def test_another_mailbox_key_is_refused(keychain: Keychain, sqlite_store: Store) -> None:
    await make_wallet(sqlite_store, mailbox=MAILBOX)
    with pytest.raises(ServerMailboxKeyChanged, match=r"^Server mailbox public key has changed\.$"):
        await keychain.pin_server(SERVER, OTHER)
    async with sqlite_store.read() as tx:
        assert (await tx.properties.get()).server_pubkey is None
