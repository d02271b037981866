"""`ArkServer`: the Ark server over gRPC, one method per call, domain types in and out.

Source: protocol sheet 08 §3.
"""

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

from barkd_py.ark.cosign import Cosignature
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import ServerRejected
from barkd_py.server_rpc import api, convert, methods
from barkd_py.server_rpc.connection import (
    Connection,
    ConnectionSettings,
    VerifyIdentity,
    accept_any_identity,
)
from barkd_py.server_rpc.errors import ConversionError, MethodUnimplemented
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb

log = logging.getLogger(__name__)

# Servers refuse a request message above 4 MiB with a status that reads as "try again".
MAX_REQUEST_BYTES = 3_500_000
STATUS_TIMEOUT_SECONDS = 20.0
"""A question that the server answers out of its head, and that is asked again anyway. Many of them wait for
each other, so none may hang."""

_T = TypeVar("_T")


class WrongVtxo(ConversionError):
    """The server answered with another VTXO than the one asked for."""

    def __init__(self, asked: VtxoId, got: VtxoId) -> None:
        super().__init__(f"asked for vtxo {asked}, got {got}")


class ArkServer:
    """`api.ArkServerApi` over gRPC."""

    def __init__(
        self, settings: ConnectionSettings, verify_identity: VerifyIdentity = accept_any_identity
    ) -> None:
        self._connection = Connection(settings, verify_identity)
        # Remembered per process: asking an old server again for every batch would cost a call each time.
        self._lacks_batched_lookups = False

    @property
    def cached_info(self) -> ArkInfo | None:
        return self._connection.cached_info

    async def info(self) -> ArkInfo:
        return await self._connection.info()

    async def refresh(self) -> ArkInfo:
        self._lacks_batched_lookups = False
        return await self._connection.refresh()

    async def close(self) -> None:
        await self._connection.close()

    # --- VTXO look-ups

    async def get_vtxo(self, vtxo_id: VtxoId) -> Vtxo:
        response = await self._connection.call(methods.GET_VTXO, pb.GetVtxoRequest(vtxo_id=bytes(vtxo_id)))
        vtxo = convert.vtxo(response.vtxo)
        if vtxo.id != vtxo_id:
            raise WrongVtxo(vtxo_id, vtxo.id)
        return vtxo

    async def get_vtxo_status(self, vtxo_id: VtxoId, attestation: bytes) -> api.VtxoSpendState:
        request = pb.GetVtxoStatusRequest(vtxo_id=bytes(vtxo_id), attestation=attestation)
        response = await self._connection.call(methods.GET_VTXO_STATUS, request)
        return convert.spend_state(response.spend_state)

    async def get_vtxos(self, vtxo_ids: Sequence[VtxoId]) -> api.VtxoLookup:
        wanted = list(dict.fromkeys(vtxo_ids))
        found: list[Vtxo] = []
        missing: list[VtxoId] = []
        for chunk in _chunks(wanted, api.MAX_IDS_PER_LOOKUP):
            lookup = await self._get_vtxos_batched(chunk) or await self._get_vtxos_singly(chunk)
            found.extend(lookup.found)
            missing.extend(lookup.missing)
        return api.VtxoLookup(tuple(found), tuple(missing))

    async def _get_vtxos_batched(self, vtxo_ids: Sequence[VtxoId]) -> api.VtxoLookup | None:
        if self._lacks_batched_lookups:
            return None
        request = pb.GetVtxosByIdsRequest(vtxo_ids=[bytes(vtxo_id) for vtxo_id in vtxo_ids])
        try:
            response = await self._connection.call(methods.GET_VTXOS_BY_IDS, request)
        except MethodUnimplemented:
            self._lacks_batched_lookups = True
            return None
        wanted = set(vtxo_ids)
        found = {}
        for data in response.vtxos:
            try:
                vtxo = convert.vtxo(data)
            except ConversionError as error:
                log.debug("a VTXO of the server could not be read: %s", error)
                continue
            if vtxo.id in wanted:
                found[vtxo.id] = vtxo
        missing = {convert.vtxo_id(data) for data in response.missing_vtxo_ids} & (wanted - found.keys())
        return api.VtxoLookup(tuple(found.values()), tuple(missing))

    async def _get_vtxos_singly(self, vtxo_ids: Sequence[VtxoId]) -> api.VtxoLookup:
        found, missing = [], []
        for vtxo_id in vtxo_ids:
            try:
                found.append(await self.get_vtxo(vtxo_id))
            except ServerRejected as error:
                if error.not_found:
                    missing.append(vtxo_id)
            except ConversionError as error:
                log.debug("VTXO %s could not be read: %s", vtxo_id, error)
        return api.VtxoLookup(tuple(found), tuple(missing))

    async def get_vtxo_statuses(self, queries: Sequence[api.StatusQuery]) -> dict[VtxoId, api.VtxoSpendState]:
        states: dict[VtxoId, api.VtxoSpendState] = {}
        for chunk in _chunks(queries, api.MAX_IDS_PER_LOOKUP):
            batch = await self._get_statuses_batched(chunk)
            states.update(await self._get_statuses_singly(chunk) if batch is None else batch)
        return states

    async def _get_statuses_batched(
        self, queries: Sequence[api.StatusQuery]
    ) -> dict[VtxoId, api.VtxoSpendState] | None:
        if self._lacks_batched_lookups:
            return None
        request = pb.GetVtxosStatusByIdsRequest(
            vtxos=[
                pb.VtxoStatusQuery(vtxo_id=bytes(query.vtxo_id), attestation=query.attestation)
                for query in queries
            ]
        )
        try:
            response = await self._connection.call(methods.GET_VTXOS_STATUS_BY_IDS, request)
        except MethodUnimplemented:
            self._lacks_batched_lookups = True
            return None
        wanted = {query.vtxo_id for query in queries}
        states = {}
        for status in response.vtxos:
            vtxo_id, state = convert.vtxo_id(status.vtxo_id), convert.spend_state_or_none(status.spend_state)
            if vtxo_id in wanted and state is not None:
                states[vtxo_id] = state
        return states

    async def _get_statuses_singly(
        self, queries: Sequence[api.StatusQuery]
    ) -> dict[VtxoId, api.VtxoSpendState]:
        states = {}
        for query in queries:
            try:
                states[query.vtxo_id] = await self.get_vtxo_status(query.vtxo_id, query.attestation)
            except (ServerRejected, ConversionError) as error:
                log.debug("no status for VTXO %s: %s", query.vtxo_id, error)
        return states

    async def recover_vtxos_by_xpub(
        self, xpub: bytes, *, start_index: int, authorization: bytes, cursor: VtxoId | None
    ) -> api.XpubRecoveryPage | None:
        request = pb.RecoverVtxosByXpubRequest(
            xpub=xpub,
            start_index=start_index,
            authorization=authorization,
            cursor_vtxo_id=None if cursor is None else bytes(cursor),
        )
        try:
            response = await self._connection.call(methods.RECOVER_VTXOS_BY_XPUB, request)
        except MethodUnimplemented:
            return None
        return convert.recovery_page(response)

    # --- boarding, registration, arkoor

    async def request_board_cosign(
        self,
        *,
        amount_sat: int,
        utxo: OutPoint,
        expiry_height: int,
        user_pubkey: PublicKey,
        pub_nonce: bytes,
        funding_tx: Tx,
    ) -> Cosignature:
        request = pb.BoardCosignRequest(
            amount=amount_sat,
            utxo=utxo.to_bytes(),
            expiry_height=expiry_height,
            user_pubkey=user_pubkey.data,
            pub_nonce=pub_nonce,
            funding_tx=funding_tx.serialize_without_witness(),
        )
        return convert.board_cosignature(await self._connection.call(methods.REQUEST_BOARD_COSIGN, request))

    async def register_board_vtxo(self, vtxo: Vtxo) -> None:
        await self._connection.call(
            methods.REGISTER_BOARD_VTXO, pb.BoardVtxoRequest(board_vtxo=vtxo.encode())
        )

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        for batch in _batches([vtxo.encode() for vtxo in vtxos], api.MAX_VTXOS_PER_REGISTRATION):
            request = pb.RegisterVtxoTransactionsRequest(vtxos=batch)
            await self._connection.call(methods.REGISTER_VTXO_TRANSACTIONS, request)

    async def request_arkoor_cosign(
        self, parts: Sequence[api.ArkoorCosignPart]
    ) -> tuple[api.ArkoorCosignature, ...]:
        request = pb.ArkoorPackageCosignRequest(parts=convert.arkoor_request(parts))
        response = await self._connection.call(methods.REQUEST_ARKOOR_COSIGN, request)
        return convert.arkoor_cosignatures(response, parts)

    # --- mailbox

    async def post_arkoor_message(self, blinded_id: bytes, vtxos: Sequence[Vtxo]) -> None:
        for batch in _batches([vtxo.encode() for vtxo in vtxos], api.MAX_VTXOS_PER_ARKOOR_POST):
            request = mb.PostArkoorMessageRequest(blinded_id=blinded_id, vtxos=batch)
            await self._connection.call(methods.POST_ARKOOR_MESSAGE, request)

    async def read_mailbox(
        self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int
    ) -> api.MailboxPage:
        request = mb.MailboxRequest(
            mailbox_id=mailbox_id.data, authorization=authorization, checkpoint=checkpoint
        )
        return convert.mailbox_page(await self._connection.call(methods.READ_MAILBOX, request))

    async def subscribe_mailbox(
        self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int
    ) -> AsyncGenerator[api.MailboxMessage, None]:
        request = mb.MailboxRequest(
            mailbox_id=mailbox_id.data, authorization=authorization, checkpoint=checkpoint
        )
        async with aclosing(self._connection.stream(methods.SUBSCRIBE_MAILBOX, request)) as messages:
            async for message in messages:
                yield convert.mailbox_message(message)

    async def post_recovery_vtxo_ids(
        self, mailbox_id: PublicKey, authorization: bytes, vtxo_ids: Sequence[VtxoId]
    ) -> None:
        request = mb.PostRecoveryVtxoIdsRequest(
            mailbox_id=mailbox_id.data,
            vtxo_ids=[bytes(vtxo_id) for vtxo_id in vtxo_ids],
            authorization=authorization,
        )
        await self._connection.call(methods.POST_RECOVERY_VTXO_IDS, request)

    # --- rounds

    async def next_round_time(self) -> int:
        response = await self._connection.call(methods.NEXT_ROUND_TIME, core_pb2.Empty())
        return int(response.timestamp)

    async def subscribe_rounds(self) -> AsyncGenerator[api.RoundEvent, None]:
        async with aclosing(self._connection.stream(methods.SUBSCRIBE_ROUNDS, core_pb2.Empty())) as events:
            async for event in events:
                yield convert.round_event(event)

    async def last_round_event(self) -> api.RoundEvent | None:
        try:
            response = await self._connection.call(methods.LAST_ROUND_EVENT, core_pb2.Empty())
        except ServerRejected as error:
            if error.not_found:
                return None
            raise
        return convert.round_event(response)

    async def submit_payment(
        self,
        inputs: Sequence[api.RoundInput],
        requests: Sequence[api.SignedVtxoRequest],
        *,
        mailbox_id: PublicKey | None,
    ) -> bytes:
        request = pb.SubmitPaymentRequest(
            input_vtxos=[convert.round_input(item) for item in inputs],
            vtxo_requests=[convert.signed_vtxo_request(item) for item in requests],
            unblinded_mailbox_id=_key_bytes(mailbox_id),
        )
        response = await self._connection.call(methods.SUBMIT_PAYMENT, request)
        return convert.exactly(response.unlock_hash, convert.HASH_LENGTH, "SHA-256 hash")

    async def provide_vtxo_signatures(self, cosign_pubkey: PublicKey, partial_sigs: Sequence[bytes]) -> None:
        request = pb.VtxoSignaturesRequest(pubkey=cosign_pubkey.data, signatures=partial_sigs)
        await self._connection.call(methods.PROVIDE_VTXO_SIGNATURES, request)

    async def submit_round_participation(
        self,
        inputs: Sequence[api.RoundInput],
        requests: Sequence[api.VtxoRequest],
        *,
        mailbox_id: PublicKey | None,
        scheduled_height: int | None,
    ) -> bytes:
        request = pb.RoundParticipationRequest(
            input_vtxos=[convert.round_input(item) for item in inputs],
            vtxo_requests=[convert.vtxo_request(item) for item in requests],
            unblinded_mailbox_id=_key_bytes(mailbox_id),
            scheduled_height=scheduled_height,
        )
        response = await self._connection.call(methods.SUBMIT_ROUND_PARTICIPATION, request)
        return convert.exactly(response.unlock_hash, convert.HASH_LENGTH, "SHA-256 hash")

    async def round_participation_status(self, unlock_hash: bytes) -> api.RoundParticipation:
        request = pb.RoundParticipationStatusRequest(unlock_hash=unlock_hash)
        return convert.round_participation(
            await self._connection.call(methods.ROUND_PARTICIPATION_STATUS, request)
        )

    async def request_leaf_vtxo_cosign(self, vtxo_id: VtxoId, pub_nonce: bytes) -> Cosignature:
        request = pb.LeafVtxoCosignRequest(vtxo_id=bytes(vtxo_id), public_nonce=pub_nonce)
        return convert.leaf_cosignature(
            await self._connection.call(methods.REQUEST_LEAF_VTXO_COSIGN, request)
        )

    async def request_forfeit_nonces(
        self, unlock_hash: bytes, vtxo_ids: Sequence[VtxoId]
    ) -> tuple[bytes, ...]:
        nonces: list[bytes] = []
        for chunk in _chunks(vtxo_ids, api.MAX_IDS_PER_LOOKUP):
            request = pb.ForfeitNoncesRequest(
                unlock_hash=unlock_hash, vtxo_ids=[bytes(vtxo_id) for vtxo_id in chunk]
            )
            response = await self._connection.call(methods.REQUEST_FORFEIT_NONCES, request)
            convert.same_count(len(chunk), len(response.public_nonces), "forfeit nonces")
            nonces.extend(convert.pub_nonce(nonce) for nonce in response.public_nonces)
        return tuple(nonces)

    async def forfeit_vtxos(self, bundles: Sequence[bytes]) -> bytes:
        response = await self._connection.call(
            methods.FORFEIT_VTXOS, pb.ForfeitVtxosRequest(forfeit_bundles=bundles)
        )
        return convert.exactly(response.unlock_preimage, convert.HASH_LENGTH, "SHA-256 hash")

    # --- offboard

    async def offboard_fee_rate(self) -> FeeRate:
        response = await self._connection.call(methods.GET_OFFBOARD_FEE_RATE, core_pb2.Empty())
        sat_per_kwu = response.sat_vkb // 4  # the server compares with exactly this integer
        if sat_per_kwu == 0:
            raise ConversionError("invalid offboard fee rate")  # no node relays what it would make
        return FeeRate(sat_per_kwu)

    async def prepare_offboard(
        self, request: api.OffboardRequest, inputs: Sequence[api.RoundInput]
    ) -> api.PreparedOffboard:
        message = pb.PrepareOffboardRequest(
            offboard=convert.offboard_request(request),
            input_vtxo_ids=[bytes(item.vtxo_id) for item in inputs],
            attestation=[item.attestation for item in inputs],
        )
        response = await self._connection.call(methods.PREPARE_OFFBOARD, message)
        return convert.prepared_offboard(response, len(inputs))

    async def finish_offboard(
        self, offboard_txid: Txid, pub_nonces: Sequence[bytes], partial_sigs: Sequence[bytes]
    ) -> Tx:
        request = pb.FinishOffboardRequest(
            offboard_txid=bytes(offboard_txid), user_nonces=pub_nonces, partial_signatures=partial_sigs
        )
        response = await self._connection.call(methods.FINISH_OFFBOARD, request)
        return convert.tx(response.signed_offboard_tx)

    # --- Lightning

    async def request_lightning_pay_htlc_cosign(
        self, parts: Sequence[api.ArkoorCosignPart]
    ) -> tuple[api.ArkoorCosignature, ...]:
        request = pb.LightningPayHtlcCosignRequest(parts=convert.arkoor_request(parts))
        response = await self._connection.call(methods.REQUEST_LIGHTNING_PAY_HTLC_COSIGN, request)
        return convert.arkoor_cosignatures(response, parts)

    async def request_lightning_pay_htlc_revocation(
        self, parts: Sequence[api.ArkoorCosignPart]
    ) -> tuple[api.ArkoorCosignature, ...]:
        request = pb.ArkoorPackageCosignRequest(parts=convert.arkoor_request(parts))
        response = await self._connection.call(methods.REQUEST_LIGHTNING_PAY_HTLC_REVOCATION, request)
        return convert.arkoor_cosignatures(response, parts)

    async def initiate_lightning_payment(
        self,
        *,
        invoice: str,
        htlc_vtxo_ids: Sequence[VtxoId],
        amount_sat: int,
        mailbox_id: PublicKey | None,
        retry_for_secs: int | None,
    ) -> None:
        request = pb.InitiateLightningPaymentRequest(
            invoice=invoice,
            htlc_vtxo_ids=[bytes(vtxo_id) for vtxo_id in htlc_vtxo_ids],
            payment_amount_sat=amount_sat,
            mailbox_id=_key_bytes(mailbox_id),
            retry_for_secs=retry_for_secs,
        )
        await self._connection.call(methods.INITIATE_LIGHTNING_PAYMENT, request)

    async def check_lightning_payment(self, payment_hash: bytes) -> api.LightningPaymentStatus:
        request = pb.CheckLightningPaymentRequest(hash=payment_hash, wait=False)
        return convert.payment_status(
            await self._connection.call(
                methods.CHECK_LIGHTNING_PAYMENT, request, timeout_seconds=STATUS_TIMEOUT_SECONDS
            )
        )

    async def fetch_bolt12_invoice(self, offer: bytes, amount_sat: int | None) -> bytes:
        request = pb.FetchBolt12InvoiceRequest(offer=offer, amount_sat=amount_sat)
        response = await self._connection.call(methods.FETCH_BOLT12_INVOICE, request)
        return bytes(response.invoice)

    async def start_lightning_receive(
        self,
        *,
        payment_hash: bytes,
        amount_sat: int,
        min_cltv_delta: int,
        mailbox_id: PublicKey | None,
        description: str | None,
    ) -> str:
        request = pb.StartLightningReceiveRequest(
            payment_hash=payment_hash,
            amount_sat=amount_sat,
            min_cltv_delta=min_cltv_delta,
            mailbox_id=_key_bytes(mailbox_id),
            description=description,
        )
        response = await self._connection.call(methods.START_LIGHTNING_RECEIVE, request)
        return str(response.bolt11)

    async def check_lightning_receive(self, payment_hash: bytes) -> api.LightningReceiveStatus:
        request = pb.CheckLightningReceiveRequest(hash=payment_hash, wait=False)
        return convert.receive_status(
            await self._connection.call(
                methods.CHECK_LIGHTNING_RECEIVE, request, timeout_seconds=STATUS_TIMEOUT_SECONDS
            )
        )

    async def prepare_lightning_receive_claim(
        self,
        *,
        payment_hash: bytes,
        user_pubkey: PublicKey,
        htlc_recv_expiry_height: int,
        anti_dos: api.RoundInput | str | None,
    ) -> api.LightningReceiveGrant:
        request = pb.PrepareLightningReceiveClaimRequest(
            payment_hash=payment_hash, user_pubkey=user_pubkey.data, htlc_recv_expiry=htlc_recv_expiry_height
        )
        convert.anti_dos(request, anti_dos)
        return convert.receive_grant(
            await self._connection.call(methods.PREPARE_LIGHTNING_RECEIVE_CLAIM, request)
        )

    async def claim_lightning_receive(
        self, *, payment_hash: bytes, preimage: bytes, parts: Sequence[api.ArkoorCosignPart]
    ) -> tuple[api.ArkoorCosignature, ...]:
        request = pb.ClaimLightningReceiveRequest(
            payment_hash=payment_hash,
            payment_preimage=preimage,
            cosign_request=pb.ArkoorPackageCosignRequest(parts=convert.arkoor_request(parts)),
        )
        response = await self._connection.call(methods.CLAIM_LIGHTNING_RECEIVE, request)
        return convert.arkoor_cosignatures(response, parts)

    async def cancel_lightning_receive(self, payment_hash: bytes) -> None:
        await self._connection.call(
            methods.CANCEL_LIGHTNING_RECEIVE, pb.CancelLightningReceiveRequest(payment_hash=payment_hash)
        )


def _key_bytes(key: PublicKey | None) -> bytes | None:
    return None if key is None else key.data


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _batches(items: Sequence[bytes], max_count: int) -> Iterator[list[bytes]]:
    """Split by count and by bytes; an item above the byte limit goes alone."""
    batch: list[bytes] = []
    size = 0
    for item in items:
        if batch and (len(batch) == max_count or size + len(item) > MAX_REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item)
    if batch:
        yield batch
