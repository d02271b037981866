"""The smaller entities: what is permanent, what only grows, what is unique."""

from dataclasses import replace

import pytest

from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import Txid
from barkd_py.errors import StoreError
from barkd_py.onchain.store import (
    BlockRow,
    Confirmation,
    OnchainChange,
    OnchainState,
    OutputRow,
    TransactionRow,
    WalletRow,
)
from barkd_py.wallet.movements import BOARD, ROUND_REFRESH
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionCheckpoint, ActionKind
from barkd_py.wallet.store.exits import ExitChildRow, ExitRow
from barkd_py.wallet.store.keys import KeyIndexTaken, UnknownKeyIndex, VtxoKey
from barkd_py.wallet.store.lightning import PaidInvoice, SettledReceive
from barkd_py.wallet.store.mailbox import CheckpointNotAdvanced, CheckpointOutOfRange
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.store.properties import ServerKeyPinned, WalletExists, WalletProperties
from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome
from barkd_py.wallet.store.rounds import RoundRow, UnknownRound
from tests.wallet.samples import Clock, make_id


def public_key(number: int) -> PublicKey:
    return SecretKey(number.to_bytes(32, "big")).public_key


# --- properties


async def test_a_database_holds_one_wallet(store: Store) -> None:
    properties = WalletProperties("regtest", "1a2b3c4d", server_pubkey=public_key(1), recovery_pending=True)
    async with store.transaction() as tx:
        assert await tx.properties.find() is None
        with pytest.raises(StoreError, match="holds no wallet"):
            await tx.properties.get()
        await tx.properties.create(properties)
        with pytest.raises(WalletExists):
            await tx.properties.create(properties)
    async with store.read() as tx:
        assert await tx.properties.get() == properties


async def test_server_keys_are_written_once(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.properties.create(WalletProperties("regtest", "1a2b3c4d"))
        await tx.properties.pin_server_pubkey(public_key(1))
        await tx.properties.pin_server_mailbox_pubkey(public_key(2))
        with pytest.raises(ServerKeyPinned, match=r"^failed to store server pubkey"):
            await tx.properties.pin_server_pubkey(public_key(3))
        with pytest.raises(ServerKeyPinned, match=r"^failed to store server mailbox pubkey"):
            await tx.properties.pin_server_mailbox_pubkey(public_key(2))
    async with store.read() as tx:
        assert await tx.properties.get() == WalletProperties(
            "regtest", "1a2b3c4d", public_key(1), public_key(2)
        )


async def test_recovery_remembers_what_is_left_to_do(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.properties.create(WalletProperties("regtest", "1a2b3c4d", recovery_pending=True))
        await tx.recovery.add_pending([make_id(1), make_id(2), make_id(1)])
        await tx.recovery.add_pending([make_id(2), make_id(3)])
        await tx.recovery.remove_pending([make_id(1), make_id(9)])
        await tx.properties.set_recovery_pending(False)
    async with store.read() as tx:
        assert set(await tx.recovery.pending_ids()) == {make_id(2), make_id(3)}
        assert not (await tx.properties.get()).recovery_pending


async def test_a_recovery_is_noted_and_begun_anew(store: Store) -> None:
    first = RecoveryEntry(make_id(1), RecoveryOutcome.FAILED, None, "no answer")
    second = RecoveryEntry(make_id(2), RecoveryOutcome.RECOVERED, 2**40)
    async with store.transaction() as tx:
        assert await tx.recovery.run() is None
        await tx.recovery.begin("one")
        await tx.recovery.put([first, second])
        await tx.recovery.put([RecoveryEntry(make_id(1), RecoveryOutcome.SKIPPED, 5, "spent")])
    async with store.transaction() as tx:
        found = await tx.recovery.run()
        assert found is not None
        assert (found.payload, found.finished_at) == ("one", None)
        assert await tx.recovery.outcomes([make_id(1), make_id(3)]) == {make_id(1): RecoveryOutcome.SKIPPED}
        assert await tx.recovery.entries(RecoveryOutcome.RECOVERED) == (second,)
        assert await tx.recovery.count() == 2
        await tx.recovery.save("two", finished=True)
    async with store.transaction() as tx:
        found = await tx.recovery.run()
        assert found is not None
        assert found.payload == "two"
        assert found.finished_at is not None
        await tx.recovery.begin("three")
        assert await tx.recovery.entries() == ()
        found = await tx.recovery.run()
        assert found is not None
        assert found.finished_at is None


# --- keys


async def test_indexes_are_handed_out_in_order(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.keys.next_index() == 0
        await tx.keys.store([VtxoKey(0, public_key(1)), VtxoKey(5, public_key(2))])
        assert await tx.keys.next_index() == 6
        assert await tx.keys.get(5) == VtxoKey(5, public_key(2))
        with pytest.raises(UnknownKeyIndex, match=r"^VTXO key 3 does not exist, please derive it first$"):
            await tx.keys.get(3)


async def test_an_index_belongs_to_one_key(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.keys.store([VtxoKey(0, public_key(1))])
        await tx.keys.store([VtxoKey(0, public_key(1))])
        with pytest.raises(
            KeyIndexTaken, match=r"^vtxo key index 0 already stored under a different public key$"
        ):
            await tx.keys.store([VtxoKey(7, public_key(3)), VtxoKey(0, public_key(2))])
    async with store.read() as tx:
        assert await tx.keys.find(public_key(3)) is None
        assert await tx.keys.next_index() == 1
    with pytest.raises(StoreError):
        async with store.transaction() as tx:
            await tx.keys.store([VtxoKey(1, public_key(1))])


async def test_our_keys_are_found(store: Store) -> None:
    ours = [VtxoKey(index, public_key(index + 1)) for index in range(4)]
    async with store.transaction() as tx:
        await tx.keys.store(ours)
    async with store.read() as tx:
        assert await tx.keys.find(public_key(3)) == ours[2]
        assert await tx.keys.find(public_key(99)) is None
        assert await tx.keys.find_many([public_key(1), public_key(99), public_key(4)]) == {
            public_key(1): ours[0],
            public_key(4): ours[3],
        }


# --- mailbox


async def test_the_checkpoint_only_grows(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.mailbox.checkpoint() == 0
        with pytest.raises(CheckpointNotAdvanced):
            await tx.mailbox.advance(0)
        await tx.mailbox.advance(5)
        for value in (5, 4, 0):
            with pytest.raises(
                CheckpointNotAdvanced,
                match=r"^Checkpoint not advanced - another thread may have a higher value$",
            ):
                await tx.mailbox.advance(value)
        await tx.mailbox.advance(2**53 + 1)
    async with store.read() as tx:
        assert await tx.mailbox.checkpoint() == 2**53 + 1


async def test_a_checkpoint_is_taken_back_but_never_forward(store: Store, clock: Clock) -> None:
    then = clock.now
    async with store.transaction() as tx:
        assert await tx.mailbox.advanced_at() == then
        await tx.mailbox.advance(2**63 - 1)
    clock.advance(days=1)
    async with store.transaction() as tx:
        for value in (7, 9):
            await tx.mailbox.take_back(value)
            assert await tx.mailbox.checkpoint() == 7
        assert await tx.mailbox.advanced_at() == then


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
async def test_checkpoints_that_cannot_be_are_refused(store: Store, value: int) -> None:
    async with store.transaction() as tx:
        with pytest.raises(CheckpointOutOfRange):
            await tx.mailbox.advance(value)
        assert await tx.mailbox.checkpoint() == 0


# --- actions


async def test_actions_keep_their_place_when_they_advance(store: Store, clock: Clock) -> None:
    began = clock.now
    async with store.transaction() as tx:
        await tx.actions.save("b", ActionKind.BOARD, '{"state":1}', [make_id(1)])
        await tx.actions.save("a", ActionKind.ARKOOR_SEND, "{}")
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        await tx.actions.save("b", ActionKind.BOARD, '{"state":2}', [make_id(2), make_id(2)])

    async with store.read() as tx:
        b = ActionCheckpoint("b", ActionKind.BOARD, '{"state":2}', began, clock.now)
        a = ActionCheckpoint("a", ActionKind.ARKOOR_SEND, "{}", began, began)
        assert await tx.actions.list() == (b, a)
        assert await tx.actions.list(ActionKind.ARKOOR_SEND) == (a,)
        assert await tx.actions.find("b") == b
        assert await tx.actions.find("c") is None


async def test_an_action_that_comes_back_is_the_youngest(store: Store) -> None:
    async with store.transaction() as tx:
        for action_id in ("a", "b"):
            await tx.actions.save(action_id, ActionKind.BOARD, "{}", [make_id(1)])
        await tx.actions.delete("a")
        await tx.actions.save("a", ActionKind.BOARD, "{}", [make_id(1)])
        assert [action.id for action in await tx.actions.list()] == ["b", "a"]


# --- rounds


async def test_rounds(store: Store) -> None:
    async with store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
        first = await tx.rounds.insert("{}", [make_id(1), make_id(1)], movement_id=movement.id)
        second = await tx.rounds.insert("{}", [], unlock_hash=b"\x07" * 32)
        await tx.rounds.update(RoundRow(first, '{"x":1}', movement.id, b"\x08" * 32))
    async with store.read() as tx:
        assert await tx.rounds.list() == (
            RoundRow(first, '{"x":1}', movement.id, b"\x08" * 32),
            RoundRow(second, "{}", None, b"\x07" * 32),
        )
        assert await tx.rounds.has_unlock_hash(b"\x08" * 32)
        assert not await tx.rounds.has_unlock_hash(b"\x09" * 32)
        assert await tx.rounds.find(99) is None


async def test_a_deleted_round_does_not_come_back_and_leaves_its_id_unused(store: Store) -> None:
    async with store.transaction() as tx:
        first = await tx.rounds.insert("{}", [make_id(1)])
        row = await tx.rounds.find(first)
        assert row is not None
        await tx.rounds.delete(first)
        with pytest.raises(UnknownRound):
            await tx.rounds.update(row)
        assert await tx.rounds.insert("{}", [make_id(1)]) > first


# --- Lightning


async def test_payments_are_permanent_and_the_first_record_wins(store: Store, clock: Clock) -> None:
    began = clock.now
    payment_hash, first, second = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
    async with store.transaction() as tx:
        await tx.lightning.record_paid(payment_hash, first)
        await tx.lightning.record_settled(payment_hash, first, "lnbcrt1", 10)
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        await tx.lightning.record_paid(payment_hash, second)
        await tx.lightning.record_settled(payment_hash, second, "lnbcrt2", 20)
        await tx.lightning.record_settled(b"\x09" * 32, second, "lnbcrt2", 20)
    async with store.read() as tx:
        settled = SettledReceive(payment_hash, first, "lnbcrt1", 10, began)
        assert await tx.lightning.find_paid(payment_hash) == PaidInvoice(payment_hash, first, began)
        assert await tx.lightning.find_paid(b"\x09" * 32) is None
        assert await tx.lightning.find_settled(payment_hash) == settled
        assert await tx.lightning.find_settled(b"\x09" * 32) is not None


# --- exits


async def test_exits(store: Store) -> None:
    async with store.transaction() as tx:
        movement = await tx.movements.create(BOARD)
        first = ExitRow(make_id(1), "start", '{"tip_height":1}', "[]", movement.id)
        advanced = replace(first, kind="claimed", state='{"tip_height":2}', history='[{"tip_height":1}]')
        other = ExitRow(make_id(2), "processing", "{}", "[]", None)
        for row in (first, other, advanced):
            await tx.exits.save(row)
    async with store.read() as tx:
        assert await tx.exits.find(make_id(1)) == advanced
        assert await tx.exits.find_many([make_id(3), make_id(1)]) == {make_id(1): advanced}
        assert set(await tx.exits.list()) == {advanced, other}
        assert await tx.exits.list(only_live=True) == (other,)


async def test_the_child_of_an_exit_transaction_is_replaced(store: Store) -> None:
    txid = Txid(bytes(range(32)))
    async with store.transaction() as tx:
        assert await tx.exits.find_children([txid]) == ()
        await tx.exits.save_child(ExitChildRow(txid, b"one", '{"type":"wallet"}'))
        await tx.exits.save_child(ExitChildRow(txid, b"two", '{"type":"mempool"}'))
        assert await tx.exits.find_children([txid]) == (ExitChildRow(txid, b"two", '{"type":"mempool"}'),)


# --- on-chain wallet

WALLET = WalletRow("regtest", "tr(…)", None)
SEEN = TransactionRow(b"\x01" * 32, b"raw", None, 100, 200)


async def test_the_onchain_wallet_is_stored_as_it_was_changed(store: Store) -> None:
    tables = OnchainTables(store)
    assert await tables.load() is None
    changes = [
        OnchainChange(wallet=WALLET),
        OnchainChange(
            blocks=(BlockRow(1, b"a" * 32), BlockRow(2, b"b" * 32)),
            transactions=(SEEN, TransactionRow(b"\x02" * 32, b"other", None, None, None)),
            outputs=(OutputRow(b"\x05" * 32, 0, 7, b"script"), OutputRow(b"\x05" * 32, 1, 8, b"")),
        ),
        OnchainChange(
            wallet=replace(WALLET, last_revealed=3),
            blocks=(BlockRow(2, None), BlockRow(3, b"c" * 32), BlockRow(9, None)),
            transactions=(replace(SEEN, confirmation=Confirmation(3, b"c" * 32, 1_700_000_000)),),
            outputs=(OutputRow(b"\x05" * 32, 1, 9, b"new"),),
        ),
    ]
    expected = OnchainState(WALLET)
    for change in changes:
        for _ in range(2):  # the same change twice is the same as once
            await tables.append(change)
        expected = expected.apply(change)
        loaded = await tables.load()
        assert loaded is not None
        assert loaded.wallet == expected.wallet
        assert dict(loaded.blocks) == dict(expected.blocks)
        assert dict(loaded.transactions) == dict(expected.transactions)
        assert dict(loaded.outputs) == dict(expected.outputs)
