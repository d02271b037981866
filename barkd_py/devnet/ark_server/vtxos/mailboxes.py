"""Mailboxes: what was posted, in the order of one global clock, and waking those who wait for it.

Every post gets the next checkpoint of a clock that all mailboxes share and that never goes back, also not
over restarts. Posts are written one at a time, so a smaller checkpoint never appears after a larger one.
What is delivered once stays: readers say how far they are. The same VTXO is delivered once only, whichever
mailbox it was sent to first.

Reading needs an authorization by the mailbox's key; posting payments needs none, because senders are
strangers, but only VTXOs that the server cosigned can be posted, to the mailbox of the key that they are
locked to.

Source: sheet 10 §7; sheet 02 §5.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.mailbox import BlindingFailed, MailboxAuthorization, MailboxType, decode_mailbox_id, unblind
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import MAX_POSTED_RECOVERY_IDS, ServerSettings
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.tables import mailbox, mailbox_clock

Clock = Callable[[], float]

_CLOCK_COUNTER_BITS = 20


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing in a mailbox; several with the same checkpoint are one message."""

    type: MailboxType
    vtxo_id: VtxoId | None = None
    vtxo: bytes | None = None
    unlock_hash: bytes | None = None
    payment_hash: bytes | None = None
    preimage: bytes | None = None
    amount_msat: int | None = None
    failure_reason: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What one post brought."""

    checkpoint: int
    deliveries: tuple[Delivery, ...]

    @property
    def type(self) -> MailboxType:
        return self.deliveries[0].type


@dataclass(frozen=True, slots=True)
class Page:
    messages: tuple[Message, ...]
    have_more: bool


class Mailboxes:
    """All mailboxes of the server. clock: Unix time in seconds."""

    def __init__(
        self, settings: ServerSettings, keys: ServerKeys, store: Store, clock: Clock = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._clock = clock
        self._posted: dict[bytes, asyncio.Event] = {}

    # --- posting

    async def post_arkoor(self, blinded_id: PublicKey, vtxos: Sequence[Vtxo]) -> None:
        """Deliver payments, already checked with `check_deliverable`, to the mailbox behind a blinded id."""
        user_pubkey = vtxos[0].user_pubkey
        try:
            mailbox_id = unblind(
                blinded_id, vtxo_pubkey=user_pubkey, server_mailbox_secret=self._keys.mailbox
            )
        except BlindingFailed as error:
            raise BadArgument("invalid blinded mailbox id") from error
        stored = await self._store.transact(partial(vtxo_rows.get_all, vtxo_ids=[vtxo.id for vtxo in vtxos]))
        for row in stored:
            if row.vtxo.user_pubkey != user_pubkey:
                raise BadArgument(f"vtxo {row.id} doesn't belong to the provided vtxo pubkey")
        deliveries = [Delivery(MailboxType.ARKOOR_RECEIVE, vtxo.id, vtxo.encode()) for vtxo in vtxos]
        await self._post(mailbox_id, deliveries)

    async def post_recovery_ids(
        self, mailbox_id: bytes, vtxo_ids: Sequence[VtxoId], authorization: bytes | None
    ) -> None:
        """Note ids for a wallet that recovers from its seed. The authorization is checked if there is one."""
        if not vtxo_ids:
            raise BadArgument("no VTXO IDs provided")
        key = _mailbox_id(mailbox_id)
        if authorization is not None:
            self._check_authorization(key, authorization)
        deliveries = [Delivery(MailboxType.RECOVERY_VTXO_ID, vtxo_id, None) for vtxo_id in vtxo_ids]
        await self._post(key, deliveries)

    async def _post(self, mailbox_id: PublicKey, deliveries: Sequence[Delivery]) -> None:
        now_ms = int(self._clock() * 1000)
        write = partial(_insert, mailbox_id=mailbox_id, deliveries=deliveries, now_ms=now_ms)
        if await self._store.transact(write):
            self.wake(mailbox_id)

    def note_rounds(self, connection: Connection, notices: Sequence[tuple[PublicKey, bytes]]) -> None:
        """Post, inside a transaction, that swaps are part of a round; `wake` the mailboxes after it.

        notices: mailbox and unlock hash.
        """
        for mailbox_id, unlock_hash in notices:
            self.note(
                connection,
                mailbox_id,
                Delivery(MailboxType.ROUND_PARTICIPATION_COMPLETED, unlock_hash=unlock_hash),
            )

    def note(self, connection: Connection, mailbox_id: PublicKey, delivery: Delivery) -> None:
        """Post something inside a transaction; `wake` the mailbox after it."""
        _insert(connection, mailbox_id, [delivery], int(self._clock() * 1000))

    def wake(self, mailbox_id: PublicKey) -> None:
        """Tell those who follow a mailbox that there is something new."""
        event = self._posted.pop(mailbox_id.data, None)
        if event is not None:
            event.set()

    # --- reading

    def authorize(self, mailbox_id: bytes, authorization: bytes | None) -> PublicKey:
        """The mailbox that may be read. Raises BadArgument."""
        key = _mailbox_id(mailbox_id)
        if authorization is None:
            raise BadArgument("mailbox authorization required")
        self._check_authorization(key, authorization)
        return key

    def _check_authorization(self, mailbox_id: PublicKey, encoded: bytes) -> None:
        try:
            authorization = MailboxAuthorization.decode(encoded)
        except DecodeError as error:
            raise BadArgument("invalid mailbox authorization") from error
        if authorization.mailbox_id != mailbox_id:
            raise BadArgument("authorization doesn't match mailbox id")
        if authorization.is_expired(now=int(self._clock())):
            raise BadArgument("mailbox authorization expired")
        if not authorization.is_valid_signature():
            raise BadArgument("invalid mailbox authorization signature")

    async def read(self, mailbox_id: PublicKey, after_checkpoint: int) -> Page:
        """The next messages after a checkpoint, oldest first."""
        limit = self._settings.max_mailbox_items
        complete = self._settings.group_complete_pages
        return await self._store.transact(
            partial(
                _read,
                mailbox_id=mailbox_id,
                after_checkpoint=after_checkpoint,
                limit=limit,
                complete=complete,
            )
        )

    async def follow(self, mailbox_id: PublicKey, after_checkpoint: int) -> AsyncIterator[Message]:
        """All messages after a checkpoint, then those to come, for ever."""
        checkpoint = after_checkpoint
        while True:
            # Taken before reading, so that a post between reading and waiting wakes us.
            posted = self._posted.setdefault(mailbox_id.data, asyncio.Event())
            page = await self.read(mailbox_id, checkpoint)
            for message in page.messages:
                yield message
                checkpoint = message.checkpoint
            if not page.have_more:
                await posted.wait()


def check_deliverable(vtxos: Sequence[Vtxo]) -> None:
    """Only coins that their receiver can spend alone belong in a mailbox. Raises BadArgument."""
    if not vtxos:
        raise BadArgument("no vtxos provided")
    for vtxo in vtxos:
        if not isinstance(vtxo.policy, PubkeyPolicy):
            raise BadArgument(
                f"vtxo {vtxo.id} is not a final payment vtxo (policy: {vtxo.policy.kind}); "
                "only pubkey vtxos may be delivered to an arkoor mailbox"
            )


def check_one_receiver(vtxos: Sequence[Vtxo]) -> None:
    """Raises BadArgument if the VTXOs are locked to different keys."""
    if len({vtxo.user_pubkey for vtxo in vtxos}) > 1:
        raise BadArgument("all vtxos should share vtxo pubkey when mailbox is provided")


def check_recovery_count(count: int) -> None:
    if count > MAX_POSTED_RECOVERY_IDS:
        raise BadArgument(f"too many VTXOs, max is {MAX_POSTED_RECOVERY_IDS}")


def _mailbox_id(data: bytes) -> PublicKey:
    try:
        return decode_mailbox_id(data)
    except DecodeError as error:
        raise BadArgument("invalid mailbox id") from error


# --- the rows


def _insert(
    connection: Connection, mailbox_id: PublicKey, deliveries: Sequence[Delivery], now_ms: int
) -> bool:
    """Store a post; whether anything of it is new."""
    checkpoint = _next_checkpoint(connection, now_ms)
    known = vtxo_rows.find_all(connection, [each.vtxo_id for each in deliveries if each.vtxo_id is not None])
    inserted = 0
    for delivery in deliveries:
        if delivery.vtxo_id is not None and delivery.vtxo_id not in known:
            # The real server's database says this by its foreign key; clients see INTERNAL.
            raise Failure(f"vtxo {delivery.vtxo_id} is not present in table vtxo")
        values = {
            "mailbox_id": mailbox_id.data,
            "checkpoint": checkpoint,
            "type": int(delivery.type),
            "vtxo_id": None if delivery.vtxo_id is None else bytes(delivery.vtxo_id),
            "vtxo": delivery.vtxo,
            "unlock_hash": delivery.unlock_hash,
            "payment_hash": delivery.payment_hash,
            "preimage": delivery.preimage,
            "amount_msat": delivery.amount_msat,
            "failure_reason": delivery.failure_reason,
        }
        inserted += connection.execute(insert(mailbox).values(values).on_conflict_do_nothing()).rowcount
    return inserted > 0


def _next_checkpoint(connection: Connection, now_ms: int) -> int:
    last = connection.execute(select(mailbox_clock.c.checkpoint)).scalar_one_or_none()
    now = now_ms << _CLOCK_COUNTER_BITS
    if last is None:
        connection.execute(insert(mailbox_clock).values(id=1, checkpoint=now))
        return now
    checkpoint = max(now, int(last) + 1)
    connection.execute(update(mailbox_clock).values(checkpoint=checkpoint))
    return checkpoint


def _read(
    connection: Connection, mailbox_id: PublicKey, after_checkpoint: int, limit: int, complete: bool
) -> Page:
    of_mailbox = select(mailbox).where(mailbox.c.mailbox_id == mailbox_id.data)
    after = of_mailbox.where(mailbox.c.checkpoint > after_checkpoint)
    rows = connection.execute(after.order_by(mailbox.c.checkpoint, mailbox.c.seq).limit(limit + 1)).all()
    is_cut = len(rows) > limit
    rows = rows[:limit]
    if is_cut and complete:
        # What one post brought stays together, also if the page gets longer than the limit.
        last = of_mailbox.where(mailbox.c.checkpoint == rows[-1].checkpoint).order_by(mailbox.c.seq)
        rows = [row for row in rows if row.checkpoint != rows[-1].checkpoint] + list(connection.execute(last))
    groups: dict[int, list[Delivery]] = {}
    for row in rows:
        vtxo_id = None if row.vtxo_id is None else VtxoId(row.vtxo_id)
        delivery = Delivery(
            MailboxType(row.type),
            vtxo_id,
            row.vtxo,
            row.unlock_hash,
            row.payment_hash,
            row.preimage,
            row.amount_msat,
            row.failure_reason,
        )
        groups.setdefault(row.checkpoint, []).append(delivery)
    messages = tuple(Message(checkpoint, tuple(group)) for checkpoint, group in groups.items())
    # The real server counts messages against a limit of rows, so it may deny that there are more.
    have_more = is_cut if complete else len(messages) >= limit
    return Page(messages, have_more)
