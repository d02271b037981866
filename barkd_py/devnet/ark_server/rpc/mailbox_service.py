"""`mailbox_server.MailboxService`: messages in and out. Source: sheet 10 §7; sheet 08 §4.9."""

from collections.abc import AsyncIterator

from barkd_py.ark.mailbox import MailboxType, decode_blinded_id
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.devnet.ark_server.failures import BadArgument, Malformed
from barkd_py.devnet.ark_server.rpc import fields
from barkd_py.devnet.ark_server.rpc.call_context import CallContext, open_stream
from barkd_py.devnet.ark_server.settings import MAX_POSTED_VTXOS
from barkd_py.devnet.ark_server.vtxos.mailboxes import (
    Delivery,
    Mailboxes,
    Message,
    check_deliverable,
    check_one_receiver,
    check_recovery_count,
)
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as pb
from barkd_py.server_rpc.protos.mailbox_server_pb2_grpc import MailboxServiceServicer


class MailboxService(MailboxServiceServicer):
    """The service."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes

    async def PostArkoorMessage(
        self, request: pb.PostArkoorMessageRequest, context: CallContext
    ) -> core_pb2.Empty:
        if len(request.vtxos) > MAX_POSTED_VTXOS:
            raise BadArgument(f"too many vtxos, max is {MAX_POSTED_VTXOS}")
        vtxos = [fields.vtxo(data) for data in request.vtxos]
        check_deliverable(vtxos)
        try:
            blinded_id = decode_blinded_id(request.blinded_id)
        except DecodeError:
            raise Malformed("invalid a blinded VTXO mailbox identifier") from None
        check_one_receiver(vtxos)
        await self._mailboxes.post_arkoor(blinded_id, vtxos)
        return core_pb2.Empty()

    async def PostRecoveryVtxoIds(
        self, request: pb.PostRecoveryVtxoIdsRequest, context: CallContext
    ) -> core_pb2.Empty:
        check_recovery_count(len(request.vtxo_ids))
        vtxo_ids = fields.vtxo_ids(request.vtxo_ids)
        await self._mailboxes.post_recovery_ids(request.mailbox_id, vtxo_ids, _authorization(request))
        return core_pb2.Empty()

    async def ReadMailbox(self, request: pb.MailboxRequest, context: CallContext) -> pb.MailboxMessages:
        mailbox_id = self._mailboxes.authorize(request.mailbox_id, _authorization(request))
        page = await self._mailboxes.read(mailbox_id, request.checkpoint)
        return pb.MailboxMessages(
            messages=[_mailbox_message(message) for message in page.messages], have_more=page.have_more
        )

    async def SubscribeMailbox(
        self, request: pb.MailboxRequest, context: CallContext
    ) -> AsyncIterator[pb.MailboxMessage]:
        mailbox_id = self._mailboxes.authorize(request.mailbox_id, _authorization(request))
        await open_stream(context)
        async for message in self._mailboxes.follow(mailbox_id, request.checkpoint):
            yield _mailbox_message(message)


def _authorization(request: pb.MailboxRequest | pb.PostRecoveryVtxoIdsRequest) -> bytes | None:
    return request.authorization if request.HasField("authorization") else None


def _mailbox_message(message: Message) -> pb.MailboxMessage:
    match message.type:
        case MailboxType.ARKOOR_RECEIVE:
            vtxos = [delivery.vtxo for delivery in message.deliveries if delivery.vtxo is not None]
            return pb.MailboxMessage(checkpoint=message.checkpoint, arkoor=pb.ArkoorMessage(vtxos=vtxos))
        case MailboxType.RECOVERY_VTXO_ID:
            ids = [delivery.vtxo_id for delivery in message.deliveries if delivery.vtxo_id is not None]
            return pb.MailboxMessage(
                checkpoint=message.checkpoint, recovery_vtxo_ids=pb.RecoveryVtxoIdsMessage(vtxo_ids=ids)
            )
        case MailboxType.ROUND_PARTICIPATION_COMPLETED:
            (notice,) = message.deliveries
            assert notice.unlock_hash is not None
            completed = pb.RoundParticipationCompleted(
                payment_hashes=[notice.unlock_hash], unlock_hash=notice.unlock_hash
            )
            return pb.MailboxMessage(checkpoint=message.checkpoint, round_participation_completed=completed)
        case MailboxType.LN_RECV_PENDING:
            (incoming,) = message.deliveries
            return pb.MailboxMessage(
                checkpoint=message.checkpoint,
                incoming_lightning_payment=pb.IncomingLightningPaymentMessage(
                    payment_hash=incoming.payment_hash, amount_msat=incoming.amount_msat
                ),
            )
        case MailboxType.LN_SEND_FINISHED:
            (finished,) = message.deliveries
            return pb.MailboxMessage(
                checkpoint=message.checkpoint, lightning_send_finished=_send_finished(finished)
            )


def _send_finished(delivery: Delivery) -> pb.LightningSendFinishedMessage:
    finished = pb.LightningSendFinishedMessage(payment_hash=delivery.payment_hash)
    if delivery.preimage is not None:
        finished.preimage = delivery.preimage
    if delivery.failure_reason is not None:
        finished.failure.reason = core_pb2.LightningFailureReason.ValueType(delivery.failure_reason)
    return finished
