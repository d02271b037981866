"""Receiving: what is believed, what is dropped, what waits, and what a crash may repeat."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from barkd_py.ark import info as ark_info
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.mailbox import MailboxAuthorization
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import Confirmed, Mempool, TxStatus
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError, ChainUnavailable, ServerRejected, ServerUnavailable
from barkd_py.server_rpc.api import (
    ArkoorDelivery,
    IncomingLightningPayment,
    LightningFailureReason,
    LightningSendFinished,
    MailboxContent,
    MailboxMessage,
    MailboxPage,
    RecoveryVtxoIds,
    RoundParticipationCompleted,
    UnknownMessage,
    VtxoLookup,
    VtxoSpendState,
)
from barkd_py.server_rpc.errors import ConnectFailed
from barkd_py.wallet.mailbox.pages import (
    MAX_AHEAD_SECONDS,
    CheckpointsOutOfOrder,
    MailboxReader,
    checkpoint_at,
)
from barkd_py.wallet.mailbox.reader import (
    HAND_IN_SECS,
    MAX_ALL_STOPS,
    MAX_ANCHOR_MISSES,
    MAX_OWN_STOPS,
    MAX_STOPS,
    MAX_VAIN_LOOKUPS,
    Mailbox,
    SignaturesNotTaken,
)
from barkd_py.wallet.mailbox.receipts import SWEPT
from barkd_py.wallet.movements import ARKOOR_RECEIVE, MovementStatus
from barkd_py.wallet.vtxo_states import Locked
from barkd_py.wallet.vtxos import registration
from barkd_py.wallet.vtxos.anchors import MAX_VAIN_LOOKUPS_PER_MINUTE, AnchorMissing, Anchors
from barkd_py.wallet.vtxos.registration import Registration
from barkd_py.wallet.wallet import Wallet
from tests.wallet.flows.conftest import BOB, Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, When, opener
from tests.wallet.flows.liar import Liar
from tests.wallet.flows.recoveries import recovery_with
from tests.wallet.samples import user_vtxos


class MailboxServer:
    """Serves messages that the test wrote; everything else goes to the real server.

    row_limit: of a page. Like captaind it cuts the last group there. refused: signatures that it does not
    take. hangs_after: how many attempts to hand some in are answered.
    """

    def __init__(self, real: object, *groups: tuple[int, MailboxContent], row_limit: int = 100) -> None:
        self._real = real
        self.groups = list(groups)
        self.row_limit = row_limit
        self.reads: list[int] = []
        self.announced: ArkInfo | None = None
        self.attempts: list[int] = []
        self.registered: list[VtxoId] = []
        self.registration_trouble: BarkdError | None = None
        self.refused: set[VtxoId] = set()
        self.hangs_after: int | None = None

    async def info(self) -> ArkInfo:
        info: ArkInfo = self.announced or await self._real.info()  # type: ignore[attr-defined]
        return info

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        self.attempts.append(len(vtxos))
        if self.hangs_after is not None and len(self.attempts) > self.hangs_after:
            await asyncio.Event().wait()
        if self.refused & {vtxo.id for vtxo in vtxos}:
            raise ServerRejected("one of them is no good")
        if self.registration_trouble is not None:
            raise self.registration_trouble
        self.registered += [vtxo.id for vtxo in vtxos]
        await self._real.register_vtxo_transactions(vtxos)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def read_mailbox(self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int) -> MailboxPage:
        self.reads.append(checkpoint)
        messages, rows = [], self.row_limit
        for number, content in self.groups:
            if number <= checkpoint or not rows:
                continue
            if isinstance(content, ArkoorDelivery):
                content = ArkoorDelivery(content.vtxos[:rows])
                rows -= len(content.vtxos)
            else:
                rows -= 1
            messages.append(MailboxMessage(number, content))
        return MailboxPage(tuple(messages), have_more=False)


class Chain:
    """The real chain source, with trouble about transactions."""

    def __init__(self, real: object) -> None:
        self._real = real
        self.trouble: BarkdError | None = None
        self.unknown: set[Txid] = set()
        self.unconfirmed: set[Txid] = set()
        self.taken: set[OutPoint] = set()
        self.confirmed: dict[Txid, BlockRef] = {}
        self.fetched: list[Txid] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def get_tx(self, txid: Txid) -> Tx | None:
        if self.trouble is not None:
            raise self.trouble
        self.fetched.append(txid)
        return None if txid in self.unknown else await self._real.get_tx(txid)  # type: ignore[attr-defined]

    async def tx_status(self, txid: Txid) -> TxStatus:
        if txid in self.confirmed:
            return Confirmed(self.confirmed[txid])
        return Mempool() if txid in self.unconfirmed else await self._real.tx_status(txid)  # type: ignore[attr-defined]

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        return outpoint in self.taken or await self._real.is_spent_confirmed(outpoint)  # type: ignore[attr-defined]


def mailbox(
    wallet: Wallet,
    server: object = None,
    chain: object = None,
    gap_limit: int = 20,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    hand_in_secs: float = HAND_IN_SECS,
) -> Mailbox:
    return Mailbox(
        wallet.store,
        server or wallet.server,  # type: ignore[arg-type]
        chain or wallet.chain,  # type: ignore[arg-type]
        wallet.keychain,
        wallet.addresses,
        wallet.registration,
        wallet.locks,
        gap_limit=gap_limit,
        now=now,
        monotonic=monotonic,
        hand_in_secs=hand_in_secs,
    )


async def pay(alice: Owner, bob: Owner, *amounts_sat: int) -> list[str]:
    addresses = []
    for amount_sat in amounts_sat:
        addresses.append(await bob.wallet.new_address())
        await alice.wallet.send_arkoor(addresses[-1], amount_sat)
    return addresses


async def delivered(owner: Owner) -> tuple[bytes, ...]:
    """All VTXOs in the owner's mailbox, without touching it."""
    key = owner.wallet.keychain.mailbox_key
    authorization = MailboxReader(owner.wallet.server, key).authorize(60)
    page = await owner.wallet.server.read_mailbox(key.public_key, authorization, 0)
    return tuple(
        blob
        for message in page.messages
        if isinstance(message.content, ArkoorDelivery)
        for blob in message.content.vtxos
    )


# --- reading


async def test_what_was_read_is_not_read_again(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    first = await bob.wallet.sync_mailbox()
    assert first > 0
    assert await bob.wallet.sync_mailbox() == first
    await pay(alice, bob, 2_000)
    assert await bob.wallet.sync_mailbox() > first
    assert await bob.spendable_sat() == 3_000
    assert len(await bob.wallet.list_movements()) == 2


@pytest.mark.both_stores
async def test_two_readers_at_once_make_one_movement(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    await asyncio.gather(*(bob.wallet.sync_mailbox() for _ in range(3)))
    assert await bob.spendable_sat() == 1_000
    assert len(await bob.wallet.list_movements()) == 1


class TestSmallPages:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(max_mailbox_items=2, group_complete_pages=False)

    async def test_everything_arrives(self, alice: Owner, bob: Owner) -> None:
        await pay(alice, bob, *range(1_000, 1_005))
        await bob.wallet.sync_mailbox()
        assert await bob.spendable_sat() == sum(range(1_000, 1_005))


@pytest.mark.parametrize("sizes", [(4, 4), (3, 1, 4), (8,), (1,) * 8, (5, 3), (2, 5, 1)])
async def test_groups_that_pages_cut_arrive_whole(alice: Owner, bob: Owner, sizes: tuple[int, ...]) -> None:
    await pay(alice, bob, *(1_000 + number for number in range(8)))
    blobs = list(await delivered(bob))
    groups = []
    for number, size in enumerate(sizes, start=1):
        groups.append((number * 10, ArkoorDelivery(tuple(blobs[:size]))))
        del blobs[:size]
    row_limit = max(5, *sizes)
    server = MailboxServer(bob.wallet.server, *groups, row_limit=row_limit)
    assert await mailbox(bob.wallet, server).sync() == len(sizes) * 10
    assert await bob.spendable_sat() == sum(1_000 + number for number in range(8))
    assert len(await bob.wallet.list_movements()) == len(sizes)


async def test_a_single_payment_takes_two_reads(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery(await delivered(bob))))
    await mailbox(bob.wallet, server).sync()
    assert server.reads == [0, 7]


async def test_checkpoints_that_go_back_are_not_believed(bob: Owner) -> None:
    server = MailboxServer(bob.wallet.server, (7, UnknownMessage()), (5, UnknownMessage()))
    with pytest.raises(CheckpointsOutOfOrder):
        await mailbox(bob.wallet, server).sync()
    assert await bob.wallet.mailbox.checkpoint() == 0


@pytest.mark.parametrize("days_ahead", [2, 70_000])
async def test_checkpoints_of_the_future_are_not_believed(bob: Owner, days_ahead: int) -> None:
    """Or nothing that comes later would be heard of."""
    checkpoint = (int(time.time()) + days_ahead * 86_400) * 1000 << 20
    server = MailboxServer(bob.wallet.server, (7, UnknownMessage()), (checkpoint, UnknownMessage()))
    assert await mailbox(bob.wallet, server).sync() == 7
    assert await bob.wallet.mailbox.checkpoint() == 7
    now = int(time.time() * 1000) << 20
    server = MailboxServer(bob.wallet.server, (7, UnknownMessage()), (now, UnknownMessage()))
    assert await mailbox(bob.wallet, server).sync() == now


@pytest.mark.parametrize("row_limit", [1, 100])
async def test_all_around_a_message_of_the_future_is_received_once(
    alice: Owner, bob: Owner, row_limit: int
) -> None:
    """A server that has jumped ahead goes on counting from there; or its clock is put right."""
    await pay(alice, bob, 1_000, 2_000, 4_000, 8_000, 16_000)
    before, at, behind, later, earlier = (ArkoorDelivery((blob,)) for blob in await delivered(bob))
    future = (int(time.time()) + 2 * 86_400) * 1000 << 20
    seen: list[bytes] = []

    async def note(payment_hash: bytes) -> None:
        seen.append(payment_hash)

    server = MailboxServer(bob.wallet.server, row_limit=row_limit)
    server.groups = [(7, before), (future, at), (future + 1, behind)]
    server.groups.append((future + 2, IncomingLightningPayment(b"p" * 32, 5)))
    box = mailbox(bob.wallet, server)
    box.on_incoming_lightning = note
    for _ in range(2):
        assert await box.sync() == 7
        assert await bob.spendable_sat() == 7_000
        assert seen == [b"p" * 32]
    server.groups.append((future + 3, later))
    server.groups.insert(1, (8, earlier))
    for again in (box, mailbox(bob.wallet, server)):  # as after a restart
        assert await again.sync() == 8
        assert await bob.spendable_sat() == 31_000
    assert len(await bob.wallet.list_movements()) == 5


async def test_a_message_of_the_future_is_acknowledged_in_its_time(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    now = time.time()
    future = checkpoint_at(now + 2 * 86_400)
    server = MailboxServer(bob.wallet.server, (future, ArkoorDelivery(await delivered(bob))))
    box = mailbox(bob.wallet, server, now=lambda: now)
    assert await box.sync() == 0
    now += 86_401
    assert await box.sync() == future
    assert len(await bob.wallet.list_movements()) == 1


@pytest.mark.both_stores
async def test_a_stored_checkpoint_of_the_future_does_not_end_all_mail(alice: Owner, bob: Owner) -> None:
    """Older versions have believed some."""
    await pay(alice, bob, 1_000)
    await bob.wallet.sync_mailbox()
    async with bob.wallet.store.transaction() as tx:
        await tx.mailbox.advance(2**63 - 1)
    await pay(alice, bob, 2_000)
    reached = await bob.wallet.sync_mailbox()
    assert reached <= checkpoint_at(time.time() + MAX_AHEAD_SECONDS)
    assert await bob.wallet.mailbox.checkpoint() == reached
    assert await bob.spendable_sat() == 3_000
    assert len(await bob.wallet.list_movements()) == 2


# --- kinds of messages


@pytest.mark.parametrize(
    "content",
    [
        UnknownMessage(),
        RecoveryVtxoIds((bytes(36), b"short")),
        RoundParticipationCompleted(b"short"),
        RoundParticipationCompleted(bytes(32)),
        IncomingLightningPayment(bytes(32), 5),
        LightningSendFinished(bytes(32), None, LightningFailureReason.UNSPECIFIED),
        ArkoorDelivery(()),
        ArkoorDelivery((b"garbage",)),
    ],
)
async def test_messages_that_bring_nothing_are_acknowledged(bob: Owner, content: MailboxContent) -> None:
    server = MailboxServer(bob.wallet.server, (9, content))
    assert await mailbox(bob.wallet, server).sync() == 9
    assert await bob.wallet.list_movements() == ()


async def test_a_round_that_cannot_be_looked_at_now_waits_and_blocks_what_follows(bob: Owner) -> None:
    server = MailboxServer(
        bob.wallet.server, (3, RoundParticipationCompleted(bytes(32))), (4, UnknownMessage())
    )
    box = mailbox(bob.wallet, server)
    seen: list[bytes] = []

    async def fails(unlock_hash: bytes) -> None:
        seen.append(unlock_hash)
        raise ServerUnavailable("away")

    box.on_round_completed = fails
    with pytest.raises(ServerUnavailable):
        await box.sync()
    assert await box.checkpoint() == 0

    async def works(unlock_hash: bytes) -> None:
        seen.append(unlock_hash)

    box.on_round_completed = works
    assert await box.sync() == 4
    assert seen == [bytes(32)] * 2


async def test_a_round_of_which_the_server_never_tells_ends_no_mail(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    paid = ArkoorDelivery(await delivered(bob))
    server = MailboxServer(bob.wallet.server, (3, RoundParticipationCompleted(bytes(32))), (4, paid))
    box = mailbox(bob.wallet, server)

    async def refused(unlock_hash: bytes) -> None:
        raise ServerRejected("no")

    box.on_round_completed = refused
    for _ in range(MAX_STOPS):
        with pytest.raises(ServerRejected):
            await box.sync()
        assert await box.checkpoint() == 0
    assert await box.sync() == 4
    assert await bob.spendable_sat() == 1_000


async def test_a_payment_behind_such_a_round_has_readings_of_its_own(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unknown.add(paid.anchor_point.txid)
    server = MailboxServer(
        bob.wallet.server, (3, RoundParticipationCompleted(bytes(32))), (4, ArkoorDelivery((paid.encode(),)))
    )
    box = mailbox(bob.wallet, server, chain)

    async def refused(unlock_hash: bytes) -> None:
        raise ServerRejected("no")

    box.on_round_completed = refused
    for _ in range(MAX_STOPS):
        with pytest.raises(ServerRejected):
            await box.sync()
    for _ in range(MAX_ANCHOR_MISSES - 1):
        with pytest.raises(AnchorMissing):
            await box.sync()
        assert await box.checkpoint() == 3
    chain.unknown.clear()
    assert await box.sync() == 4
    assert await bob.spendable_sat() == 1_000


async def test_hints_about_lightning_are_acknowledged_whatever_comes_of_them(bob: Owner) -> None:
    server = MailboxServer(
        bob.wallet.server,
        (3, IncomingLightningPayment(b"p" * 32, 5)),
        (4, LightningSendFinished(b"q" * 32, b"x" * 32, LightningFailureReason.UNSPECIFIED)),
    )
    box = mailbox(bob.wallet, server)
    seen: list[object] = []

    async def incoming(payment_hash: bytes) -> None:
        seen.append(payment_hash)
        raise ServerUnavailable("away")

    async def finished(payment_hash: bytes, preimage: bytes | None) -> None:
        seen.append((payment_hash, preimage))
        raise ServerUnavailable("away")

    box.on_incoming_lightning = incoming
    box.on_lightning_send_finished = finished
    assert await box.sync() == 4
    assert seen == [b"p" * 32, (b"q" * 32, b"x" * 32)]


# --- what is believed


async def test_one_bad_vtxo_does_not_spoil_the_good_ones(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000, 2_000)
    good, tampered = (Vtxo.decode(blob) for blob in await delivered(bob))
    signed = tampered.encode()
    broken = bytearray(signed)
    broken[-100] ^= 1
    htlc = next(vtxo for vtxo in user_vtxos() if vtxo.policy.kind != "pubkey")
    foreign = next(vtxo for vtxo in user_vtxos() if vtxo.policy.kind == "pubkey")
    inflated = dataclasses.replace(tampered, amount_sat=tampered.amount_sat + 1)
    blobs = (
        b"",
        bytes(broken),
        htlc.encode(),
        foreign.encode(),
        inflated.encode(),
        good.encode(),
        good.encode(),
    )
    server = MailboxServer(bob.wallet.server, (9, ArkoorDelivery(blobs)))
    assert await mailbox(bob.wallet, server).sync() == 9
    assert [vtxo.id for vtxo in await bob.wallet.list_vtxos(include_all=True)] == [good.id]
    (movement,) = await bob.wallet.list_movements()
    assert movement.output_vtxos == (good.id,)
    assert movement.effective_balance_sat == 1_000


async def test_a_substitute_for_the_anchor_proves_nothing(alice: Owner, bob: Owner) -> None:
    """It has the very output, but the exit transactions spend the one that is named."""
    await pay(alice, bob, 1_000)
    real = bob.wallet.chain

    class Substitute(Chain):
        async def get_tx(self, txid: Txid) -> Tx | None:
            tx = await real.get_tx(txid)
            assert tx is not None
            return dataclasses.replace(tx, locktime=tx.locktime + 1)

    await mailbox(bob.wallet, chain=Substitute(real)).sync()
    assert await bob.wallet.list_vtxos(include_all=True) == ()
    assert await bob.wallet.list_movements() == ()


async def test_what_belongs_to_somebody_else_is_dropped(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    server = MailboxServer(alice.wallet.server, (9, ArkoorDelivery(await delivered(bob))))
    before = await alice.spendable_sat()
    assert await mailbox(alice.wallet, server).sync() == 9
    assert await alice.spendable_sat() == before


@pytest.mark.parametrize("exit_delta", [2_016, 1])
async def test_an_exit_delta_that_the_server_had_before_is_kept(
    alice: Owner, bob: Owner, exit_delta: int
) -> None:
    await pay(alice, bob, 1_000)
    info = await bob.wallet.server.info()
    server = MailboxServer(bob.wallet.server, (9, ArkoorDelivery(await delivered(bob))))
    server.announced = dataclasses.replace(info, vtxo_exit_delta=exit_delta)
    assert await mailbox(bob.wallet, server).sync() == 9
    assert await bob.spendable_sat() == 1_000


@pytest.mark.parametrize("too_long_by", [0, 1])
async def test_an_exit_delta_that_no_wallet_agrees_to_is_dropped(
    alice: Owner, bob: Owner, too_long_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pay(alice, bob, 1_000)
    blobs = await delivered(bob)
    server = MailboxServer(bob.wallet.server, (9, ArkoorDelivery(blobs)))
    monkeypatch.setattr(ark_info, "MAX_EXIT_DELTA", Vtxo.decode(blobs[0]).exit_delta - too_long_by)
    assert await mailbox(bob.wallet, server).sync() == 9
    assert await bob.spendable_sat() == (0 if too_long_by else 1_000)


async def test_payments_are_told_by_the_address_they_came_in_on(alice: Owner, bob: Owner) -> None:
    first, second = await pay(alice, bob, 1_000, 2_000)
    await alice.wallet.send_arkoor(first, 3_000)
    server = MailboxServer(bob.wallet.server, (9, ArkoorDelivery(await delivered(bob))))
    await mailbox(bob.wallet, server).sync()
    (movement,) = await bob.wallet.list_movements()
    assert {entry.method.value: entry.amount_sat for entry in movement.received_on} == {
        first: 4_000,
        second: 2_000,
    }


async def test_a_spent_vtxo_that_is_delivered_again_stays_spent(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    blobs = await delivered(bob)
    await bob.wallet.sync_mailbox()
    await bob.wallet.send_arkoor(await alice.wallet.new_address(), 1_000)
    reached = await bob.wallet.mailbox.checkpoint()
    server = MailboxServer(bob.wallet.server, (reached + 1, ArkoorDelivery(blobs)))
    assert await mailbox(bob.wallet, server).sync() == reached + 1
    assert await bob.spendable_sat() == 0
    received = [
        movement for movement in await bob.wallet.list_movements() if movement.subsystem == ARKOOR_RECEIVE
    ]
    assert len(received) == 1


async def expire(chain: Chain, vtxo: Vtxo) -> None:
    tip = await chain.tip()

    async def far_tip() -> object:
        return dataclasses.replace(tip, height=vtxo.expiry_height)

    chain.tip = far_tip  # type: ignore[attr-defined]


async def test_an_expired_vtxo_is_kept(net: Net, alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    (blob,) = await delivered(bob)
    chain = Chain(bob.wallet.chain)
    await expire(chain, Vtxo.decode(blob))
    await mailbox(bob.wallet, chain=chain).sync()
    assert await bob.spendable_sat() == 1_000
    (movement,) = await bob.wallet.list_movements()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.SUCCESSFUL, 1_000)


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_had_expired_and_was_swept_is_kept_and_no_income(
    alice: Owner, bob: Owner, is_late: bool
) -> None:
    """The server may refresh it. Late: it was left to the recovery, before it had expired."""
    await pay(alice, bob, 1_000, 2_000)
    good, swept = [Vtxo.decode(blob) for blob in await delivered(bob)]
    chain = Chain(bob.wallet.chain)
    chain.taken.add(swept.exit_transactions()[-1].inputs[0].prevout)
    for exit_tx in swept.exit_transactions()[:-1]:
        chain.taken.add(exit_tx.inputs[0].prevout)
        chain.confirmed[exit_tx.txid] = await bob.wallet.chain.tip()
    message = (7, ArkoorDelivery((good.encode(), swept.encode())))
    box = mailbox(bob.wallet, MailboxServer(bob.wallet.server, message), chain)
    if is_late:
        await box.sync()
        assert [each.effective_balance_sat for each in await bob.wallet.list_movements()] == [1_000]
    await expire(chain, swept)
    if is_late:
        await recovery_with(bob.wallet, bob.wallet.server, chain).retry()
    else:
        await box.sync()
    assert await bob.spendable_sat() == 3_000
    by_vtxo = {each.output_vtxos: each for each in await bob.wallet.list_movements()}
    income, failed = by_vtxo[(good.id,)], by_vtxo[(swept.id,)]
    assert (income.status, income.effective_balance_sat) == (MovementStatus.SUCCESSFUL, 1_000)
    assert (failed.status, failed.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert (failed.subsystem, failed.intended_balance_sat) == (ARKOOR_RECEIVE, 2_000)
    assert failed.metadata == {"error": SWEPT}
    assert [each.amount_sat for each in failed.received_on] == [2_000]


async def test_a_payment_to_an_address_of_an_earlier_life_is_found(
    net: Net, alice: Owner, bob: Owner
) -> None:
    for _ in range(15):
        await bob.wallet.new_address()
    await pay(alice, bob, 1_000)
    async with net.wallet("bob-again", BOB, vtxo_key_gap_limit=15) as again:
        await again.wallet.sync_mailbox()
        assert await again.spendable_sat() == 1_000
        (movement,) = await again.wallet.list_movements()
        assert movement.received_on[0].method.value == await bob.wallet.address_at(15)
    async with net.wallet("bob-short-sighted", BOB, vtxo_key_gap_limit=14) as short:
        await short.wallet.sync_mailbox()
        assert await short.spendable_sat() == 0


# --- trouble with the world


async def test_a_chain_source_that_is_down_drops_nothing(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    chain = Chain(bob.wallet.chain)
    chain.trouble = ChainUnavailable("down")
    box = mailbox(bob.wallet, chain=chain)
    with pytest.raises(ChainUnavailable):
        await box.sync()
    assert await box.checkpoint() == 0
    assert await bob.wallet.list_movements() == ()
    chain.trouble = None
    await box.sync()
    assert await bob.spendable_sat() == 1_000


async def test_an_anchor_that_stays_unknown_blocks_for_a_while_only(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000, 2_000)
    first = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unknown.add(first.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((first.encode(),))), (8, UnknownMessage()))
    box = mailbox(bob.wallet, server, chain)
    for _ in range(MAX_ANCHOR_MISSES - 1):
        with pytest.raises(AnchorMissing):
            await box.sync()
        assert await box.checkpoint() == 0
    assert await box.sync() == 8
    async with bob.wallet.store.read() as tx:
        assert await tx.recovery.pending_ids() == (first.id,)  # not forgotten


async def test_an_anchor_that_is_unknown_is_asked_for_once_per_message(alice: Owner, bob: Owner) -> None:
    """A payment has room for a thousand VTXOs that hang off one."""
    await pay(alice, bob, 1_000, 2_000, 3_000)
    blobs = await delivered(bob)
    (txid,) = {Vtxo.decode(blob).anchor_point.txid for blob in blobs}
    chain = Chain(bob.wallet.chain)
    chain.unknown.add(txid)
    box = mailbox(bob.wallet, MailboxServer(bob.wallet.server, (7, ArkoorDelivery(blobs))), chain)
    for asked in range(1, MAX_ANCHOR_MISSES):
        with pytest.raises(AnchorMissing):
            await box.sync()
        assert chain.fetched == [txid] * asked
    assert await box.sync() == 7
    async with bob.wallet.store.read() as tx:
        assert len(await tx.recovery.pending_ids()) == 3


@pytest.mark.parametrize("trouble", ["unconfirmed", "taken", "taken on the way"])
async def test_what_hangs_off_nothing_on_the_chain_is_no_money_before_it_does(
    alice: Owner, bob: Owner, trouble: str
) -> None:
    """It blocks nothing that comes after it."""
    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    first_exit_tx = vtxo.exit_transactions()[0]
    match trouble:
        case "unconfirmed":
            chain.unconfirmed.add(vtxo.anchor_point.txid)
        case "taken":
            chain.taken.add(vtxo.anchor_point)
        case _:
            chain.taken |= {vtxo.anchor_point, vtxo.exit_transactions()[1].inputs[0].prevout}
            chain.confirmed[first_exit_tx.txid] = await bob.wallet.chain.tip()
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((vtxo.encode(),))), (8, UnknownMessage()))
    assert await mailbox(bob.wallet, server, chain).sync() == 8
    assert server.registered == [vtxo.id]  # so that the server has its signatures when it is asked for it
    doubting = recovery_with(bob.wallet, bob.wallet.server, chain)
    for _ in range(2):
        assert await bob.wallet.list_vtxos(include_all=True) == ()
        assert await bob.wallet.list_movements() == ()
        async with bob.wallet.store.read() as tx:
            assert await tx.recovery.pending_ids() == (vtxo.id,)
        await doubting.retry()
    await bob.wallet.recovery.retry()  # the chain is as it should be
    assert await bob.spendable_sat() == 1_000
    (movement,) = await bob.wallet.list_movements()
    assert (movement.subsystem, movement.output_vtxos) == (ARKOOR_RECEIVE, (vtxo.id,))
    assert movement.effective_balance_sat == 1_000


@pytest.mark.parametrize("trouble", [ServerUnavailable("busy"), ServerRejected("no")])
async def test_what_is_no_money_yet_and_the_server_does_not_take_is_kept(
    alice: Owner, bob: Owner, trouble: BarkdError
) -> None:
    """Nobody else may have it. It blocks nothing that comes after it."""
    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxo.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((vtxo.encode(),))), (8, UnknownMessage()))
    server.registration_trouble = trouble
    assert await mailbox(bob.wallet, server, chain).sync() == 8
    forgetful = Liar(bob.wallet.server)
    forgetful.lies["get_vtxos"] = lambda lookup: VtxoLookup((), (vtxo.id,))
    silent = Liar(forgetful)
    silent.lies["get_vtxo_statuses"] = lambda states: {}
    for asked, seen in ((forgetful, chain), (silent, bob.wallet.chain)):
        (kept,) = await bob.wallet.list_vtxos(include_all=True)
        assert (kept.id, kept.state) == (vtxo.id, Locked(None))
        assert (await bob.spendable_sat(), await bob.wallet.list_movements()) == (0, ())
        await recovery_with(bob.wallet, asked, seen).retry()
    await recovery_with(bob.wallet, forgetful).retry()  # the chain is as it should be, and the server speaks
    assert await bob.spendable_sat() == 1_000
    (movement,) = await bob.wallet.list_movements()
    assert (movement.status, movement.output_vtxos) == (MovementStatus.SUCCESSFUL, (vtxo.id,))


async def test_what_a_server_that_is_away_cannot_have_is_kept_after_one_attempt(
    alice: Owner, bob: Owner
) -> None:
    """Others wait for the mailbox meanwhile."""
    await pay(alice, bob, 1_000, 2_000, 4_000)
    blobs = await delivered(bob)
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(Vtxo.decode(blobs[0]).anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery(blobs)))
    server.registration_trouble = ConnectFailed()
    assert await mailbox(bob.wallet, server, chain).sync() == 7
    assert len(server.attempts) == 1
    kept = await bob.wallet.list_vtxos(include_all=True)
    assert {(each.id, each.state) for each in kept} == {
        (Vtxo.decode(blob).id, Locked(None)) for blob in blobs
    }
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 7_000


@pytest.mark.parametrize("hangs_after", [0, 1], ids=["at once", "one by one"])
async def test_a_slow_server_is_not_waited_for_once_for_each(
    alice: Owner, bob: Owner, hangs_after: int
) -> None:
    """An answer may take ten minutes. What it refuses together is handed in one by one."""
    await pay(alice, bob, 1_000, 2_000, 4_000)
    blobs = await delivered(bob)
    vtxos = [Vtxo.decode(blob) for blob in blobs]
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxos[0].anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery(blobs)))
    server.refused, server.hangs_after = {vtxos[0].id}, hangs_after
    box = mailbox(bob.wallet, server, chain, hand_in_secs=0.01)
    assert await asyncio.wait_for(box.sync(), 60) == 7
    assert server.attempts == [3, 1][: hangs_after + 1]
    kept = await bob.wallet.list_vtxos(include_all=True)
    assert {(each.id, each.state) for each in kept} == {(vtxo.id, Locked(None)) for vtxo in vtxos}
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 7_000


async def test_what_a_server_refuses_does_not_spoil_what_is_handed_in_with_it(
    alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 1_000, 2_000, 4_000)
    blobs = await delivered(bob)
    first, refused, last = (Vtxo.decode(blob) for blob in blobs)
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(refused.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery(blobs)))
    server.refused = {refused.id}
    assert await mailbox(bob.wallet, server, chain).sync() == 7
    assert server.registered == [first.id, last.id]
    assert [each.id for each in await bob.wallet.list_vtxos(include_all=True)] == [refused.id]
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 7_000


async def test_a_payment_does_not_wait_for_a_server_that_is_slow_to_take_it(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery(await delivered(bob))))
    server.hangs_after = 0
    assert await asyncio.wait_for(mailbox(bob.wallet, server, hand_in_secs=0.01).sync(), 60) == 7
    assert await bob.spendable_sat() == 1_000


@pytest.mark.parametrize("is_released_by", ["recovery", "retry"])
async def test_what_is_held_and_met_by_a_recovery_is_in_the_history(
    alice: Owner, bob: Owner, is_released_by: str
) -> None:
    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxo.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((vtxo.encode(),))))
    server.registration_trouble = ServerUnavailable("busy")
    await mailbox(bob.wallet, server, chain).sync()
    if is_released_by == "retry":
        silent = Liar(bob.wallet.server)
        silent.lies["get_vtxo_statuses"] = lambda states: {}
        silent.lies["recover_vtxos_by_xpub"] = lambda page: None
        await recovery_with(bob.wallet, silent).start()
        assert (await bob.spendable_sat(), await bob.wallet.list_movements()) == (0, ())
        await bob.wallet.recovery.retry()
    else:
        await bob.wallet.recovery.start()
    assert await bob.spendable_sat() == 1_000
    (movement,) = await bob.wallet.list_movements()
    assert (movement.output_vtxos, movement.effective_balance_sat) == ((vtxo.id,), 1_000)


@pytest.mark.parametrize("silent_about", ["states", "signatures"])
async def test_a_late_payment_that_takes_several_looks_is_in_the_history(
    alice: Owner, bob: Owner, silent_about: str
) -> None:
    """The chain is as it should be by then, and the server answers half of what it is asked."""
    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxo.anchor_point.txid)
    await mailbox(bob.wallet, chain=chain).sync()
    server = Liar(bob.wallet.server)
    if silent_about == "states":
        server.lies["get_vtxo_statuses"] = lambda states: {}
    else:
        server.lies["get_vtxo_statuses"] = lambda states: dict.fromkeys(states, VtxoSpendState.UNREGISTERED)
    await recovery_with(bob.wallet, server).retry()
    assert await bob.wallet.list_movements() == ()
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 1_000
    (movement,) = await bob.wallet.list_movements()
    assert (movement.subsystem, movement.output_vtxos) == (ARKOOR_RECEIVE, (vtxo.id,))
    assert movement.effective_balance_sat == 1_000


@pytest.mark.parametrize("is_made_up", [False, True])
async def test_a_late_payment_makes_nobody_look_for_coins(alice: Owner, bob: Owner, is_made_up: bool) -> None:
    """A node may take an hour for that, and strangers decide how many payments are late."""
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxo.anchor_point.txid)
    server: Any = bob.wallet.server
    if is_made_up:
        server = Liar(server)
        server.lies["get_vtxos"] = lambda lookup: VtxoLookup((), (vtxo.id,))
    recovery = recovery_with(bob.wallet, server, rescan_onchain=look)
    for checkpoint in (7, 8):  # what was made up is made up once more
        message = (checkpoint, ArkoorDelivery((vtxo.encode(),)))
        await mailbox(bob.wallet, MailboxServer(bob.wallet.server, message), chain).sync()
        await recovery.catch_up()
        async with bob.wallet.store.read() as tx:
            assert await tx.recovery.pending_ids() == ()
    assert (await bob.spendable_sat(), looks) == (0 if is_made_up else 1_000, 0)


async def test_what_others_have_begun_to_publish_is_still_received(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.taken.add(vtxo.anchor_point)
    chain.confirmed[vtxo.exit_transactions()[0].txid] = await bob.wallet.chain.tip()
    await mailbox(bob.wallet, chain=chain).sync()
    assert await bob.spendable_sat() == 1_000


async def test_anchors_that_a_payer_has_made_up_block_no_longer_for_being_many(
    alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 1_000, 2_000, 3_000)
    chain = Chain(bob.wallet.chain)
    blobs = await delivered(bob)
    message = ArkoorDelivery(
        tuple(made_up(Vtxo.decode(blob), number).encode() for number, blob in enumerate(blobs))
    )
    server = MailboxServer(bob.wallet.server, (7, message), (8, UnknownMessage()))
    box = mailbox(bob.wallet, server, chain)
    for _ in range(MAX_ANCHOR_MISSES - 1):
        with pytest.raises(AnchorMissing):
            await box.sync()
    assert await box.sync() == 8


def made_up(vtxo: Vtxo, number: int) -> Vtxo:
    """It hangs off a transaction that is nowhere."""
    anchor_point = OutPoint(Txid(number.to_bytes(32, "big")), 0)
    return dataclasses.replace(vtxo, anchor_point=anchor_point).with_computed_point()


async def reads_on(box: Mailbox) -> int:
    """How often the reading was stopped before it came to its end."""
    for stops in range(100):
        try:
            await box.sync()
        except AnchorMissing:
            continue
        return stops
    raise AssertionError("it never comes to its end")


async def test_a_thousand_made_up_anchors_are_not_all_asked_for(alice: Owner, bob: Owner) -> None:
    """Nor is any of them forgotten, and what comes behind them is received."""
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    flood = [made_up(paid, number) for number in range(1_000)]
    server = MailboxServer(bob.wallet.server, row_limit=2_000)
    server.groups = [
        (7, ArkoorDelivery(tuple(vtxo.encode() for vtxo in flood))),
        (8, ArkoorDelivery((paid.encode(),))),
    ]
    chain = Chain(bob.wallet.chain)
    chain.unknown = {vtxo.anchor_point.txid for vtxo in flood}
    server.refused = {vtxo.id for vtxo in flood[1:]}
    box = mailbox(bob.wallet, server, chain)
    assert await reads_on(box) == MAX_ANCHOR_MISSES - 1
    assert await box.checkpoint() == 8
    assert sum(txid in chain.unknown for txid in chain.fetched) == MAX_VAIN_LOOKUPS * MAX_ANCHOR_MISSES
    assert server.registered[0] == flood[0].id
    assert await bob.spendable_sat() == 1_000
    assert len(await bob.wallet.list_vtxos(include_all=True)) == 1
    async with bob.wallet.store.read() as tx:
        assert set(await tx.recovery.pending_ids()) == {vtxo.id for vtxo in flood}


async def test_transactions_that_prove_nothing_are_not_all_asked_for(alice: Owner, bob: Owner) -> None:
    """Everybody can name a thousand that are on the chain."""
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    anchor = await bob.wallet.chain.get_tx(paid.anchor_point.txid)

    class Full(Chain):
        async def get_tx(self, txid: Txid) -> Tx | None:
            self.fetched.append(txid)
            return anchor  # is none of theirs

    flood = tuple(made_up(paid, number).encode() for number in range(100))
    chain = Full(bob.wallet.chain)
    box = mailbox(bob.wallet, MailboxServer(bob.wallet.server, (7, ArkoorDelivery(flood))), chain)
    await reads_on(box)
    assert len(chain.fetched) == MAX_VAIN_LOOKUPS * MAX_ANCHOR_MISSES


async def test_others_get_a_turn_while_a_large_message_is_looked_at(
    alice: Owner, bob: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proofs take a while, and their anchor is known, so nothing is waited for."""
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    others = [
        dataclasses.replace(paid, amount_sat=paid.amount_sat + more).with_computed_point()
        for more in range(100)
    ]
    delivery = ArkoorDelivery(tuple(vtxo.encode() for vtxo in others))
    server = MailboxServer(bob.wallet.server, (7, delivery), row_limit=200)
    turns = 0
    seen: list[int] = []
    validate = Anchors.validate

    async def noted(anchors: Anchors, vtxos: Sequence[Vtxo]) -> None:
        seen.append(turns)
        await validate(anchors, vtxos)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Anchors, "validate", noted)
    other = asyncio.create_task(take_turns())
    assert await mailbox(bob.wallet, server).sync() == 7
    other.cancel()
    assert len(set(seen)) == len(seen) == 100


async def test_many_messages_with_made_up_anchors_delay_payments_no_longer_than_one(
    alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    flood = [made_up(paid, number) for number in range(20)]
    server = MailboxServer(bob.wallet.server, row_limit=100)
    server.groups = [(7 + number, ArkoorDelivery((vtxo.encode(),))) for number, vtxo in enumerate(flood)]
    server.groups.append((99, ArkoorDelivery((paid.encode(),))))
    chain = Chain(bob.wallet.chain)
    chain.unknown = {vtxo.anchor_point.txid for vtxo in flood}
    assert await reads_on(mailbox(bob.wallet, server, chain)) == MAX_ANCHOR_MISSES - 1
    assert await bob.spendable_sat() == 1_000


class Fickle(MailboxServer):
    """Makes up another payment at each reading, and has an honest one behind it.

    behind: the number of that. step: how far the made-up one's number goes up each time.
    """

    def __init__(self, real: object, chain: Chain, paid: Vtxo, *, behind: int, step: int = 0) -> None:
        super().__init__(real, (7, UnknownMessage()), (behind, ArkoorDelivery((paid.encode(),))))
        self._chain, self._paid, self._step = chain, paid, step
        self._number = 0

    async def read_mailbox(self, *asked: Any) -> MailboxPage:
        self._number += 1
        vtxo = made_up(self._paid, self._number)
        self._chain.unknown.add(vtxo.anchor_point.txid)
        self.groups[0] = (7 + self._step * self._number, ArkoorDelivery((vtxo.encode(),)))
        return await super().read_mailbox(*asked)


async def test_a_message_that_is_another_one_at_each_reading_blocks_no_longer(
    alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    server = Fickle(bob.wallet.server, chain, paid, behind=8)
    assert await reads_on(mailbox(bob.wallet, server, chain)) == MAX_ANCHOR_MISSES - 1
    assert await bob.spendable_sat() == 1_000


async def test_the_chain_source_is_asked_in_vain_so_often_in_a_minute_and_no_more(
    alice: Owner, bob: Owner
) -> None:
    """However many messages a server sends. A payment of that minute is late, but it is not lost."""
    await pay(alice, bob, 1_000, 2_000)
    paid, later = (Vtxo.decode(blob) for blob in await delivered(bob))
    flood = [made_up(paid, number) for number in range(MAX_VAIN_LOOKUPS_PER_MINUTE + 20)]
    server = MailboxServer(bob.wallet.server, row_limit=200)
    server.groups = [(7 + number, ArkoorDelivery((vtxo.encode(),))) for number, vtxo in enumerate(flood)]
    server.groups.append((998, ArkoorDelivery((paid.encode(),))))
    chain = Chain(bob.wallet.chain)
    chain.unknown = {vtxo.anchor_point.txid for vtxo in flood}
    server.refused = {vtxo.id for vtxo in flood}
    seconds = 0.0
    box = mailbox(bob.wallet, server, chain, monotonic=lambda: seconds)
    await reads_on(box)
    assert await box.checkpoint() == 998
    assert len(chain.fetched) == MAX_VAIN_LOOKUPS_PER_MINUTE
    assert server.registered == [paid.id]
    assert await bob.spendable_sat() == 0
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 1_000
    seconds = 60.0
    server.groups.append((999, ArkoorDelivery((later.encode(),))))
    assert await box.sync() == 999
    assert await bob.spendable_sat() == 3_000
    assert len(await bob.wallet.list_movements()) == 2


async def test_nothing_is_forgotten_of_which_the_server_has_no_signatures(alice: Owner, bob: Owner) -> None:
    """They may be nowhere but in the message: whoever paid need not have handed them in."""
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unknown.add(paid.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((paid.encode(),))))
    server.registration_trouble = ServerUnavailable("busy")
    box = mailbox(bob.wallet, server, chain)
    for _ in range(MAX_ANCHOR_MISSES - 1):
        with pytest.raises(AnchorMissing):
            await box.sync()
    for _ in range(2):
        with pytest.raises(SignaturesNotTaken):
            await box.sync()
        assert await box.checkpoint() == 0
    server.registration_trouble = None
    assert await box.sync() == 7
    assert server.registered == [paid.id]
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 1_000


async def test_a_server_that_never_takes_signatures_does_not_end_all_mail(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000, 2_000)
    stuck, behind = (Vtxo.decode(blob) for blob in await delivered(bob))
    stuck = made_up(stuck, 1)
    chain = Chain(bob.wallet.chain)
    chain.unknown.add(stuck.anchor_point.txid)
    server = MailboxServer(bob.wallet.server)
    server.groups = [(7, ArkoorDelivery((stuck.encode(),))), (8, ArkoorDelivery((behind.encode(),)))]
    server.registration_trouble = ServerUnavailable("busy")
    box = mailbox(bob.wallet, server, chain)
    for _ in range(MAX_STOPS):
        with pytest.raises((AnchorMissing, SignaturesNotTaken)):
            await box.sync()
    assert await box.sync() == 8
    assert await bob.spendable_sat() == 2_000


async def test_a_payment_behind_signatures_that_were_never_taken_has_readings_of_its_own(
    alice: Owner, bob: Owner
) -> None:
    """Or it would be forgotten but for its id, at the first glance."""
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    stuck = made_up(paid, 1)
    chain = Chain(bob.wallet.chain)
    chain.unknown = {stuck.anchor_point.txid, paid.anchor_point.txid}
    server = MailboxServer(bob.wallet.server)
    server.groups = [(7, ArkoorDelivery((stuck.encode(),))), (8, ArkoorDelivery((paid.encode(),)))]
    server.registration_trouble = ServerUnavailable("busy")
    box = mailbox(bob.wallet, server, chain)
    for _ in range(MAX_STOPS):
        with pytest.raises((AnchorMissing, SignaturesNotTaken)):
            await box.sync()
        assert await box.checkpoint() == 0
    for _ in range(MAX_OWN_STOPS):
        with pytest.raises(SignaturesNotTaken):
            await box.sync()
        assert await box.checkpoint() == 7
    server.registration_trouble = None
    assert await box.sync() == 8
    assert server.registered == [paid.id]
    await bob.wallet.recovery.retry()
    assert await bob.spendable_sat() == 1_000


@pytest.mark.parametrize("step", [0, 1], ids=["the same number", "another number"])
async def test_a_server_that_takes_no_signatures_and_makes_up_payments_does_not_end_all_mail(
    alice: Owner, bob: Owner, step: int
) -> None:
    await pay(alice, bob, 1_000)
    paid = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    server = Fickle(bob.wallet.server, chain, paid, behind=998, step=step)
    server.registration_trouble = ServerUnavailable("busy")
    box = mailbox(bob.wallet, server, chain)
    for _ in range([MAX_STOPS, MAX_ALL_STOPS][step]):
        with pytest.raises((AnchorMissing, SignaturesNotTaken)):
            await box.sync()
    assert await box.sync() == 998
    assert await bob.spendable_sat() == 1_000


async def test_a_payment_of_too_many_vtxos_is_dropped_unread(
    bob: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    flood = ArkoorDelivery((b"",) * 300_000)
    server = MailboxServer(bob.wallet.server, (7, flood), (8, UnknownMessage()), row_limit=400_000)
    assert await mailbox(bob.wallet, server).sync() == 8
    assert "300000 VTXOs" in caplog.text
    assert caplog.text.count("undecodable") == 0


async def test_registration_is_best_effort(net: Net, alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    net.fault("RegisterVtxoTransactions", kind="error", code="INTERNAL", client="barkd", count=None)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 1_000
    net.honest()
    await bob.wallet.registration.catch_up()
    (vtxo,) = await bob.wallet.list_vtxos(include_all=False)
    assert vtxo.registered


@pytest.mark.both_stores
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_commit_receives_once(alice: Owner, bob: Owner, when: When) -> None:
    total_sat = 0
    for number in range(5):
        await pay(alice, bob, 1_000)
        await bob.wallet.close()
        stores: list[CrashingStore] = []
        wallet = await bob.open(opener(stores))
        await wallet.server.info()
        stores[0].arm(number, when)
        crashed = False
        try:
            await wallet.sync_mailbox()
        except Crash:
            crashed = True
        wallet = await bob.restart()
        await wallet.sync_mailbox()
        total_sat += 1_000
        assert await bob.spendable_sat() == total_sat
        assert len(await wallet.list_movements()) == total_sat // 1_000
        if not crashed:
            break
    assert number == 1  # one commit: coins, movement and checkpoint together


# --- the server's copies


async def test_catching_up_posts_and_registers_everything(alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000, 2_000, 3_000)
    await bob.wallet.sync_mailbox()
    await bob.wallet.registration.catch_up()
    vtxos = await bob.wallet.list_vtxos(include_all=True)
    assert all(vtxo.registered for vtxo in vtxos)
    recovery = bob.wallet.keychain.recovery_mailbox_key
    authorization = MailboxAuthorization.sign(recovery, expiry=2**40).encode()
    page = await bob.wallet.server.read_mailbox(recovery.public_key, authorization, 0)
    posted = {
        VtxoId(vtxo_id)
        for message in page.messages
        if isinstance(message.content, RecoveryVtxoIds)
        for vtxo_id in message.content.vtxo_ids
    }
    assert posted == {vtxo.id for vtxo in vtxos}


async def test_one_id_that_the_server_refuses_does_not_spoil_the_others(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 1_000, 2_000, 3_000)
    refused = Vtxo.decode((await delivered(bob))[1]).id
    net.fault("PostRecoveryVtxoIds", kind="error", code="INTERNAL", contains=refused.hex(), count=None)
    await bob.wallet.sync_mailbox()
    await bob.wallet.registration.catch_up()
    assert {vtxo.id for vtxo in await bob.wallet.list_vtxos(include_all=True) if not vtxo.registered} == {
        refused
    }


class Sluggish:
    """The real server, which never answers when it is to note some VTXOs."""

    def __init__(self, server: Any, never: set[VtxoId]) -> None:
        self._server = server
        self.never = never
        self.attempts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def post_recovery_vtxo_ids(
        self, key: PublicKey, authorization: bytes, ids: Sequence[VtxoId]
    ) -> None:
        self.attempts += 1
        if self.never & set(ids):
            await asyncio.Event().wait()
        await self._server.post_recovery_vtxo_ids(key, authorization, ids)


async def test_a_server_that_is_slow_to_note_some_notes_the_others(
    alice: Owner, bob: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And everything else that a daemon does in turn is not kept waiting for hours."""
    monkeypatch.setattr(registration, "CHUNK", 1)
    await pay(alice, bob, 1_000, 2_000, 3_000)
    await bob.wallet.registration.close()
    await bob.wallet.sync_mailbox()
    slow = {vtxo.id for vtxo in await bob.wallet.list_vtxos(include_all=True) if vtxo.amount_sat < 3_000}
    server = Sluggish(bob.wallet.server, slow)

    async def nothing(_: object) -> tuple[VtxoId, ...]:
        return ()

    asked: Any = server
    catching_up = Registration(bob.wallet.store, asked, bob.wallet.keychain, nothing, catch_up_secs=1.0)

    async def noted() -> set[int]:
        return {vtxo.amount_sat for vtxo in await bob.wallet.list_vtxos(include_all=True) if vtxo.registered}

    for _ in range(20):
        before = server.attempts
        await asyncio.wait_for(catching_up.catch_up(), 60)
        assert server.attempts - before <= 3
        if await noted():
            break
    assert await noted() == {3_000}
    server.never = set()
    for _ in range(20):
        await catching_up.catch_up()
    assert await noted() == {1_000, 2_000, 3_000}
    await catching_up.close()


class Grudging:
    """Takes nothing together with a bad VTXO, and hangs after so many answers to one catching up."""

    def __init__(self, bad: VtxoId, *, is_silent: bool) -> None:
        self.bad = bad
        self.is_silent = is_silent
        self.answers_left = 0
        self.noted: list[VtxoId] = []

    async def _answer(self, ids: Sequence[VtxoId]) -> None:
        self.answers_left -= 1
        if self.answers_left < 0 or (self.is_silent and self.bad in ids):
            await asyncio.Event().wait()
        if self.bad in ids:
            raise ServerRejected("one of them is no good")
        self.noted += ids

    async def post_recovery_vtxo_ids(self, _: PublicKey, __: bytes, ids: Sequence[VtxoId]) -> None:
        await self._answer(ids)

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        await self._answer([vtxo.id for vtxo in vtxos])


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "never answers"])
@pytest.mark.parametrize("answers", [1, 4])
async def test_one_id_that_a_slow_server_does_not_take_does_not_spoil_the_others(
    alice: Owner, bob: Owner, answers: int, is_silent: bool
) -> None:
    """The others are not all noted in the time of one catching up, but after some."""
    await pay(alice, bob, 1_000, 2_000, 3_000, 4_000)
    await bob.wallet.registration.close()
    await bob.wallet.sync_mailbox()
    async with bob.wallet.store.read() as tx:
        bad, *good = await tx.vtxos.unregistered()
    server = Grudging(bad, is_silent=is_silent)

    async def nothing(_: object) -> tuple[VtxoId, ...]:
        return ()

    asked: Any = server
    catching_up = Registration(bob.wallet.store, asked, bob.wallet.keychain, nothing, catch_up_secs=0.01)
    for _ in range(20):
        server.answers_left = answers
        await asyncio.wait_for(catching_up.catch_up(), 60)
    async with bob.wallet.store.read() as tx:
        assert await tx.vtxos.unregistered() == (bad,)
    assert sorted(server.noted) == sorted([*good, *good])  # nothing twice
    await catching_up.close()
