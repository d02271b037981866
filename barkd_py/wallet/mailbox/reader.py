"""The mailbox: what the server and other wallets leave for us, read, dealt with, and acknowledged.

Messages have checkpoints, numbers of one rising sequence. A message is dealt with completely before its
checkpoint is stored, so a crash delivers it again: every handler can bear that. Two kinds of trouble:

* what is wrong with the *message* (undecodable, not ours, not backed) is logged, dropped and acknowledged, or
  one bad message would block all later ones for ever;
* what is wrong with the *world* (server, chain source, database) stops the reading. Nothing is acknowledged,
  and the same message comes again.

A message with a checkpoint of the future is dealt with like any other, once in a life of the program, but
never acknowledged before its time.

Pages are read whole (`mailbox.pages`), for the server cuts them; its stream has the same fault, and is used
as a wake-up (`server_rpc.streams`).

While a recovery has not yet looked at the mailbox, nothing is read: payments of an earlier life wait in it,
and most of them were spent long ago, which only the recovery asks.

Source: sheet 02 §5.4-5.5, trap 6; sheet 09 §1.6-1.7.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import assert_never

from barkd_py.ark.info import ArkInfo, is_safe_exit_delta
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId, VtxoInvalid
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Txid
from barkd_py.chain.source import ChainSource
from barkd_py.errors import (
    BarkdError,
    KnownError,
    ServerRejected,
    ServerUnavailable,
    StateConflict,
    chain_text,
)
from barkd_py.server_rpc.api import (
    ArkoorDelivery,
    ArkServerApi,
    IncomingLightningPayment,
    LightningSendFinished,
    MailboxMessage,
    RecoveryVtxoIds,
    RoundParticipationCompleted,
    UnknownMessage,
)
from barkd_py.wallet.addresses import Addresses
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import MAILBOX_PROCESSING, MAILBOX_TIMEOUT_SECONDS, NamedLocks
from barkd_py.wallet.mailbox.pages import MAX_AHEAD_SECONDS, MailboxReader, checkpoint_at
from barkd_py.wallet.mailbox.receipts import note_receipt
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import Locked, NewVtxo, Spendable
from barkd_py.wallet.vtxos.anchors import AnchorLook, AnchorMissing, Anchors, AnchorUnfit, VainLookups
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

SUBSCRIBE_AUTHORIZATION_SECONDS = 10
# A payment whose anchor the chain source does not know may be one that it will know soon. After this many
# readings in a row that end there, payments of that kind no longer block the messages behind them: they go to
# the server, and the recovery asks again. A server can make up as many as it likes.
MAX_ANCHOR_MISSES = 3
# If the server does not say whether it takes them, they block a while longer: nobody else may have what is in
# them. Nor can that be stored here, for nobody has seen any proof that it is money.
MAX_STOPS = 10
# A message behind such ones, seen for the first time, has some readings of its own. There is an end to that.
MAX_OWN_STOPS = 3
MAX_ALL_STOPS = 40
HAND_IN_SECS = 15.0
"""For the server to take the signatures of one message: whoever wants the mailbox waits meanwhile."""
MAX_VAIN_LOOKUPS = 8
"""How often the chain source is asked for what is no money, for one message: nobody but a liar names more."""
MAX_DELIVERED_VTXOS = 1_000
"""In one message. A payment has as many as it has inputs, or somewhat more."""

Handle = Callable[[bytes], Awaitable[None]]


class Overtaken(StateConflict):
    """Somebody else, such as a recovery, stored the same VTXO meanwhile: look at the message anew."""

    def __init__(self) -> None:
        super().__init__("a received VTXO was stored meanwhile")


@dataclass(frozen=True, slots=True)
class _Backed:
    """accepted: proven to hang off something on the chain. swept: those of them that were taken after their
    expiry. unfit: of which that is not so now. unknown: whose anchor nobody knows, or that were not asked for
    after so many others. The recovery asks again for the last two.
    """

    accepted: list[Vtxo] = field(default_factory=list)
    swept: set[VtxoId] = field(default_factory=set)
    unfit: list[Vtxo] = field(default_factory=list)
    unknown: list[Vtxo] = field(default_factory=list)


class SignaturesNotTaken(ServerUnavailable):
    """The server did not say whether it takes the signatures of a payment; the cause says why."""

    def __init__(self) -> None:
        super().__init__("the server has not taken a payment whose anchor is not found")


@dataclass(frozen=True, slots=True)
class _HandedIn:
    """What the server refused, and what it said nothing of, because of an error."""

    refused: list[Vtxo] = field(default_factory=list)
    untold: list[Vtxo] = field(default_factory=list)
    error: Exception | None = None


class Mailbox:
    """Reads and processes the regular mailbox. now: Unix seconds. hand_in_secs: how long the server has.

    The handlers of rounds and Lightning are set when those parts exist; they get the unlock hash or payment
    hash (32 bytes), and raise only for trouble with the world.
    """

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        addresses: Addresses,
        registration: Registration,
        locks: NamedLocks,
        *,
        gap_limit: int,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        hand_in_secs: float = HAND_IN_SECS,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._addresses = addresses
        self._registration = registration
        self._locks = locks
        self._gap_limit = gap_limit
        self._anchors = Anchors(chain)
        self._reader = MailboxReader(server, keychain.mailbox_key, now=now)
        self._hand_in_secs = hand_in_secs
        self._vain_lookups = VainLookups(monotonic)
        self._stops = 0  # readings in a row that have ended at an anchor that nobody knows
        self._untold_at: Counter[int] = Counter()  # of them, ended by SignaturesNotTaken; by checkpoint
        self._round_stops = 0  # readings in a row that have ended at a round
        self._dealt_with_ahead: set[int] = set()
        self.is_blocked: Callable[[], Awaitable[bool]] | None = None
        self.on_round_completed: Handle | None = None
        self.on_incoming_lightning: Handle | None = None
        self.on_lightning_send_finished: Callable[[bytes, bytes | None], Awaitable[None]] | None = None

    # --- reading

    async def sync(self) -> int:
        """Read and process everything that waits; the checkpoint that was reached.

        Raises LockTimeout if somebody else does so for longer than half a minute, and whatever stops the
        reading: ServerError, ChainError, StoreError, ProtocolViolation.
        """
        async with self._locks.hold(MAILBOX_PROCESSING, timeout_seconds=MAILBOX_TIMEOUT_SECONDS):
            if self.is_blocked is None or not await self.is_blocked():
                async with aclosing(self._reader.read(await self._start())) as pages:
                    async for messages in pages:
                        for message in messages:
                            await self._process_once(message)
                self._stops = self._round_stops = 0
                self._untold_at.clear()
            return await self.checkpoint()

    async def _start(self) -> int:
        """The stored checkpoint; but one of the future, as older versions have believed it, is taken back.

        Or no mail would come until then. What is read once more does no harm.
        """
        stored = await self.checkpoint()
        if not self._reader.is_of_the_future(stored):
            return stored
        async with self._store.transaction() as tx:
            advanced_at = await tx.mailbox.advanced_at()
            believed = min(stored, checkpoint_at(advanced_at.timestamp() - MAX_AHEAD_SECONDS))
            await tx.mailbox.take_back(believed)
        if believed < stored:
            log.warning("the mailbox was read up to %d, which is of the future: going back", stored)
        return believed

    async def checkpoint(self) -> int:
        async with self._store.read() as tx:
            return await tx.mailbox.checkpoint()

    async def subscribe(self) -> AsyncGenerator[MailboxMessage, None]:
        """A stream from the stored checkpoint; for waking up only."""
        authorization = self._reader.authorize(SUBSCRIBE_AUTHORIZATION_SECONDS)
        mailbox_id = self._keychain.mailbox_key.public_key
        return self._server.subscribe_mailbox(mailbox_id, authorization, await self.checkpoint())

    # --- one message

    async def _process_once(self, message: MailboxMessage) -> None:
        """Those of the future are never acknowledged, and come again and again."""
        if not self._reader.is_of_the_future(message.checkpoint):
            await self._process(message)
        elif hash(message) not in self._dealt_with_ahead:  # the number alone may name another one tomorrow
            await self._process(message)
            self._dealt_with_ahead.add(hash(message))

    async def _acknowledge(self, tx: Transaction, checkpoint: int) -> None:
        """Raise the stored checkpoint, never lower it, nor raise it into the future."""
        if checkpoint > await tx.mailbox.checkpoint() and not self._reader.is_of_the_future(checkpoint):
            await tx.mailbox.advance(checkpoint)

    async def _process(self, message: MailboxMessage) -> None:
        """Deal with a message and acknowledge it. Raises for trouble with the world: not acknowledged."""
        content = message.content
        match content:
            case ArkoorDelivery(vtxos):
                await self._receive(vtxos, message.checkpoint)
                return  # acknowledged together with what it brought
            case RoundParticipationCompleted(unlock_hash):
                await self._round_completed(unlock_hash)
            case IncomingLightningPayment(payment_hash, _):
                await self._hand_over_always(self.on_incoming_lightning, payment_hash, "Lightning receive")
            case LightningSendFinished(payment_hash, preimage, _):
                await self._lightning_send_finished(payment_hash, preimage)
            case RecoveryVtxoIds():
                pass  # belongs into the recovery mailbox, and means nothing here
            case UnknownMessage():
                log.warning(
                    "Received unknown mailbox message kind at checkpoint %d; barkd may need to be upgraded",
                    message.checkpoint,
                )
            case _:
                assert_never(content)
        async with self._store.transaction() as tx:
            await self._acknowledge(tx, message.checkpoint)

    async def _hand_over(self, handler: Handle | None, hash32: bytes, what: str) -> None:
        if len(hash32) != 32:
            log.warning("mailbox message about a %s without a valid hash", what)
        elif handler is not None:
            await handler(hash32)

    async def _round_completed(self, unlock_hash: bytes) -> None:
        """What the server refuses for good to say must not end all mail; the rounds ask it too."""
        try:
            await self._hand_over(self.on_round_completed, unlock_hash, "round")
        except ServerRejected as error:
            if self._round_stops < MAX_STOPS:
                self._round_stops += 1
                raise
            log.error("passing over a round that was completed: %s", chain_text(error))

    async def _hand_over_always(self, handler: Handle | None, hash32: bytes, what: str) -> None:
        """As `_hand_over`, for messages that are hints: the message is acknowledged whatever happens."""
        try:
            await self._hand_over(handler, hash32, what)
        except KnownError as error:
            log.warning("%s after a mailbox message: %s", what, chain_text(error))

    async def _lightning_send_finished(self, payment_hash: bytes, preimage: bytes | None) -> None:
        handler = self.on_lightning_send_finished
        if handler is None or len(payment_hash) != 32:
            return
        try:
            await handler(payment_hash, preimage)
        except KnownError as error:
            log.warning("Lightning send after a mailbox message: %s", chain_text(error))

    # --- receiving

    async def _receive(self, blobs: Sequence[bytes], checkpoint: int) -> None:
        """Store what is ours of a delivery, its movement and the checkpoint, in one transaction."""
        info = await self._server.info()
        tip = await self._chain.tip()
        fresh = await self._fresh(blobs)
        own = await self._own(fresh, info)
        backed = await self._backed(own)
        accepted, unfit = backed.accepted, backed.unfit
        for vtxo in accepted:
            if vtxo.id in backed.swept:
                log.error("received VTXO %s has expired, and was swept: it is no income", vtxo.id)
            elif vtxo.expiry_height <= tip.height:
                log.warning("received VTXO %s has expired: it must be refreshed", vtxo.id)
        await self._register(accepted)
        held = await self._keep(backed, checkpoint)
        addresses = await self.received_on(accepted)
        async with self._store.transaction() as tx:
            new = await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in accepted)
            if len(new) != len(accepted):
                raise Overtaken
            await tx.vtxos.insert(NewVtxo(vtxo, Locked(None)) for vtxo in held)
            await note_receipt(tx, accepted, addresses, backed.swept)
            await tx.recovery.add_pending([vtxo.id for vtxo in (*unfit, *backed.unknown)])
            await self._acknowledge(tx, checkpoint)
        if accepted:
            self._registration.wake()

    async def _fresh(self, blobs: Sequence[bytes]) -> list[Vtxo]:
        """The VTXOs that can be decoded and are not stored in whatever state, each once.

        What a recovery has yet to find out about is left to it.
        """
        if len(blobs) > MAX_DELIVERED_VTXOS:
            log.error("dropping a payment from the mailbox: it has %d VTXOs", len(blobs))
            return []
        decoded: dict[VtxoId, Vtxo] = {}
        for blob in blobs:
            try:
                vtxo = Vtxo.decode(blob)
            except DecodeError as error:
                log.error("dropping an undecodable VTXO from the mailbox: %s", error)
                continue
            decoded.setdefault(vtxo.id, vtxo)
        async with self._store.read() as tx:
            known = await tx.vtxos.known(list(decoded)) | await tx.recovery.pending(list(decoded))
        return [vtxo for vtxo_id, vtxo in decoded.items() if vtxo_id not in known]

    async def _own(self, vtxos: Sequence[Vtxo], info: ArkInfo) -> list[Vtxo]:
        """Those that are payments to a key of ours, cosigned by our server, with an exit delta of its.

        A key that was never handed out may be one that an earlier life of this seed has given away.
        """
        candidates = []
        for vtxo in vtxos:
            if not isinstance(vtxo.policy, PubkeyPolicy):
                log.error("dropping VTXO %s: its policy is %s", vtxo.id, vtxo.policy.kind)
            elif vtxo.server_pubkey != info.server_pubkey:
                log.error("dropping VTXO %s: it belongs to another server", vtxo.id)
            elif not is_safe_exit_delta(vtxo.exit_delta, is_mainnet=info.is_mainnet):
                log.error("dropping VTXO %s: its exit delta is %d blocks", vtxo.id, vtxo.exit_delta)
            else:
                candidates.append(vtxo)
        keys = {vtxo.user_pubkey for vtxo in candidates}
        ours = await self._keychain.gap_scan(keys, self._gap_limit)
        for vtxo in candidates:
            if vtxo.user_pubkey not in ours:
                log.error("dropping VTXO %s: we do not own its key", vtxo.id)
        return [vtxo for vtxo in candidates if vtxo.user_pubkey in ours]

    async def _backed(self, vtxos: Sequence[Vtxo]) -> _Backed:
        """Raises ChainError: nothing is known, the whole message waits."""
        look = AnchorLook(self._chain)
        backed = _Backed()
        missing: set[Txid] = set()
        in_vain = 0
        for vtxo in vtxos:
            await asyncio.sleep(0)  # proving takes a while, and there may be a thousand
            is_enough = in_vain >= MAX_VAIN_LOOKUPS or self._vain_lookups.are_enough
            if is_enough or vtxo.anchor_point.txid in missing:
                backed.unknown.append(vtxo)
                continue
            before = self._anchors.asked + look.asked
            try:
                await self._anchors.validate([vtxo])
                is_swept = await look.check(vtxo)
            except VtxoInvalid as error:
                log.error("dropping VTXO %s: %s", vtxo.id, chain_text(error))
            except AnchorMissing as error:
                missing.add(error.txid)
                backed.unknown.append(vtxo)
            except AnchorUnfit as error:
                log.warning("VTXO %s is no money now: %s; leaving it to recovery", vtxo.id, chain_text(error))
                backed.unfit.append(vtxo)
            else:
                backed.accepted.append(vtxo)
                if is_swept:
                    backed.swept.add(vtxo.id)
                continue
            asked = self._anchors.asked + look.asked - before
            in_vain += asked
            self._vain_lookups.note(asked)
        if backed.unknown:
            self._miss(backed.unknown)
        return backed

    def _miss(self, unknown: Sequence[Vtxo]) -> None:
        """Raises AnchorMissing until that has ended enough readings."""
        if self._stops < MAX_ANCHOR_MISSES - 1:
            self._stops += 1
            raise AnchorMissing(unknown[0].anchor_point.txid)
        log.error(
            "the anchors of %d VTXOs are still not found, of %s for one; leaving them to recovery",
            len(unknown),
            unknown[0].id,
        )

    async def _keep(self, backed: _Backed, checkpoint: int) -> list[Vtxo]:
        """The recovery has from the server what is no money now. Returns those that the server may not have,
        and that are proven: they are kept here, or nothing would remember them once the message is
        acknowledged.

        Raises SignaturesNotTaken for what is not proven, until that has ended enough readings.
        """
        handed_in = await self._hand_in([*backed.unfit, *backed.unknown])
        unknown = {vtxo.id for vtxo in backed.unknown}
        is_new = self._untold_at[checkpoint] < MAX_OWN_STOPS and self._stops < MAX_ALL_STOPS
        is_waited_for = self._stops < MAX_STOPS or is_new
        if is_waited_for and any(vtxo.id in unknown for vtxo in handed_in.untold):
            self._stops += 1
            self._untold_at[checkpoint] += 1
            raise SignaturesNotTaken from handed_in.error
        return [vtxo for vtxo in (*handed_in.refused, *handed_in.untold) if vtxo.id not in unknown]

    async def _hand_in(self, vtxos: Sequence[Vtxo]) -> _HandedIn:
        """All at once, and if that is refused one by one. A server that is away, or slow, is not waited for
        once more for each of them.
        """
        if not vtxos:
            return _HandedIn()
        refused: list[Vtxo] = []
        waiting = list(vtxos)
        try:
            async with asyncio.timeout(self._hand_in_secs):
                if await self._is_taken(waiting):
                    return _HandedIn()
                if len(waiting) == 1:
                    return _HandedIn(refused=waiting)
                while waiting:
                    if not await self._is_taken(waiting[:1]):
                        refused.append(waiting[0])
                    del waiting[0]
        except (BarkdError, TimeoutError) as error:
            log.warning("registering %d VTXOs failed: %s", len(waiting), _reason(error))
            return _HandedIn(refused, waiting, error)
        return _HandedIn(refused)

    async def _is_taken(self, vtxos: Sequence[Vtxo]) -> bool:
        """Whether the server takes them. Raises ServerError, ProtocolViolation if it does not say."""
        try:
            await self._server.register_vtxo_transactions(vtxos)
        except ServerRejected as error:
            log.warning("the server refuses %d VTXOs: %s", len(vtxos), chain_text(error))
            return False
        return True

    async def _register(self, vtxos: Sequence[Vtxo]) -> None:
        """Best effort; the catch-up tries again."""
        if not vtxos:
            return
        try:
            async with asyncio.timeout(self._hand_in_secs):
                await self._server.register_vtxo_transactions(vtxos)
            self._registration.note_registered(vtxo.id for vtxo in vtxos)
        except (BarkdError, TimeoutError) as error:
            log.warning("registering received VTXOs failed: %s", _reason(error))

    async def received_on(self, vtxos: Sequence[Vtxo]) -> Mapping[PublicKey, str]:
        """Our addresses that they came in on, by key."""
        return await self._addresses.of_keys(list({vtxo.user_pubkey: None for vtxo in vtxos}))


def _reason(error: Exception) -> str:
    return "it takes too long" if isinstance(error, TimeoutError) else chain_text(error)
