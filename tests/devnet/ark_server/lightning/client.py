"""A client that pays and is paid over Lightning, with nothing but the stubs and the protocol core."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from barkd_py.ark.fees import VtxoFeeInfo, lightning_send_fee
from barkd_py.ark.policy import Policy, PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from tests.devnet.ark_server.client import METADATA, Client, PreparedPayment, Refusal
from tests.devnet.ark_server.conftest import NOW

#: What a receiver asks for with the deltas of these tests: 12 + 6 + 12 + 18 + 2.
CLTV_DELTA = 50


@dataclass
class Receive:
    """An invoice that a client has asked for."""

    invoice: Bolt11Invoice
    preimage: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.invoice.text

    @property
    def payment_hash(self) -> bytes:
        return self.invoice.payment_hash


class LightningClient(Client):
    """One user."""

    # --- paying

    async def htlc_policy(self, payment_hash: bytes) -> ServerHtlcSendPolicy:
        height = (await self.chain.tip()).height + self.server.settings.htlc_send_expiry_delta
        return ServerHtlcSendPolicy(self.public_key, payment_hash, height)

    async def fee_sat(self, amount_sat: int, inputs: Sequence[Vtxo]) -> int:
        tip_height = (await self.chain.tip()).height
        infos = [
            VtxoFeeInfo.at_tip(
                amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=tip_height
            )
            for vtxo in inputs
        ]
        return lightning_send_fee(self.server.settings.fees, amount_sat, infos)

    def prepare_htlcs(self, inputs: Sequence[Vtxo], amount_sat: int, policy: Policy) -> PreparedPayment:
        """Whatever is not needed for the HTLC is change."""
        change_sat = sum(vtxo.amount_sat for vtxo in inputs) - amount_sat
        outputs: list[tuple[int, Policy]] = [(amount_sat, policy)]
        if change_sat:
            outputs.append((change_sat, self.policy))
        return self.prepare_payment(inputs, outputs)

    async def htlcs(
        self,
        inputs: Sequence[Vtxo],
        payment_hash: bytes,
        amount_sat: int,
        *,
        fee_sat: int | None = None,
        register: bool = True,
    ) -> list[Vtxo]:
        """HTLC VTXOs for a payment of this amount, with its fee."""
        await self.register(*inputs)
        total_sat = amount_sat + (await self.fee_sat(amount_sat, inputs) if fee_sat is None else fee_sat)
        payment = self.prepare_htlcs(inputs, total_sat, await self.htlc_policy(payment_hash))
        vtxos = self.finish_payment(
            payment, await self.call(self.ark.RequestLightningPayHtlcCosign, htlc_request(payment))
        )
        if register:
            await self.register(*vtxos)
        return [vtxo for vtxo in vtxos if isinstance(vtxo.policy, ServerHtlcSendPolicy)]

    def initiation(
        self, invoice: str, htlcs: Sequence[Vtxo], amount_sat: int, **fields: Any
    ) -> pb.InitiateLightningPaymentRequest:
        return pb.InitiateLightningPaymentRequest(
            invoice=invoice,
            htlc_vtxo_ids=[vtxo.id for vtxo in htlcs],
            payment_amount_sat=amount_sat,
            mailbox_id=self.mailbox_id.data,
            **fields,
        )

    async def start_payment(
        self, invoice: str, payment_hash: bytes, amount_sat: int, **fields: Any
    ) -> list[Vtxo]:
        """Board, make HTLCs and start to pay; the HTLCs."""
        htlcs = await self.htlcs([await self.board()], payment_hash, amount_sat)
        await self.call(
            self.ark.InitiateLightningPayment, self.initiation(invoice, htlcs, amount_sat, **fields)
        )
        return htlcs

    async def payment_status(self, payment_hash: bytes, *, wait: bool = False) -> Any:
        return await self.call(
            self.ark.CheckLightningPayment, pb.CheckLightningPaymentRequest(hash=payment_hash, wait=wait)
        )

    def prepare_revocation(self, htlcs: Sequence[Vtxo], policy: Policy | None = None) -> PreparedPayment:
        total_sat = sum(vtxo.amount_sat for vtxo in htlcs)
        return self.prepare_payment(htlcs, [(total_sat, policy or self.policy)])

    async def revoke(self, htlcs: Sequence[Vtxo]) -> tuple[Vtxo, ...]:
        payment = self.prepare_revocation(htlcs)
        answer = await self.call(self.ark.RequestLightningPayHtlcRevocation, payment.request)
        vtxos = self.finish_payment(payment, answer)
        await self.register(*vtxos)
        return vtxos

    async def refused_revocation(self, htlcs: Sequence[Vtxo]) -> Refusal:
        request = self.prepare_revocation(htlcs).request
        return await self.refusal(self.ark.RequestLightningPayHtlcRevocation, request)

    # --- being paid

    def start_request(
        self, payment_hash: bytes, amount_sat: int, **fields: Any
    ) -> pb.StartLightningReceiveRequest:
        values = {"min_cltv_delta": CLTV_DELTA, "mailbox_id": self.mailbox_id.data, **fields}
        return pb.StartLightningReceiveRequest(payment_hash=payment_hash, amount_sat=amount_sat, **values)

    async def receive(self, amount_sat: int, **fields: Any) -> Receive:
        """Ask for an invoice."""
        preimage = token_bytes(32)
        request = self.start_request(sha256(preimage), amount_sat, **fields)
        answer = await self.call(self.ark.StartLightningReceive, request)
        return Receive(Bolt11Invoice.parse(answer.bolt11), preimage)

    async def receive_status(self, payment_hash: bytes, *, wait: bool = False) -> Any:
        return await self.call(
            self.ark.CheckLightningReceive, pb.CheckLightningReceiveRequest(hash=payment_hash, wait=wait)
        )

    async def grant_request(
        self, payment_hash: bytes, **fields: Any
    ) -> pb.PrepareLightningReceiveClaimRequest:
        tip_height = (await self.chain.tip()).height
        values = {
            "user_pubkey": self.public_key.data,
            "htlc_recv_expiry": tip_height + CLTV_DELTA - 2,
            **fields,
        }
        return pb.PrepareLightningReceiveClaimRequest(payment_hash=payment_hash, **values)

    async def grant(self, payment_hash: bytes) -> list[Vtxo]:
        """The granted HTLC VTXOs, by their ids."""
        answer = await self.call(
            self.ark.PrepareLightningReceiveClaim, await self.grant_request(payment_hash)
        )
        return sorted((Vtxo.decode(data) for data in answer.htlc_vtxos), key=lambda vtxo: vtxo.id)

    def prepare_claim(
        self, receive: Receive, granted: Sequence[Vtxo], key: SecretKey | None = None
    ) -> tuple[PreparedPayment, pb.ClaimLightningReceiveRequest]:
        policy = PubkeyPolicy((key or self.secret).public_key)
        payment = self.prepare_payment(granted, [(sum(vtxo.amount_sat for vtxo in granted), policy)])
        return payment, pb.ClaimLightningReceiveRequest(
            payment_hash=receive.payment_hash,
            payment_preimage=receive.preimage,
            cosign_request=payment.request,
        )

    async def claim(self, receive: Receive, granted: Sequence[Vtxo]) -> tuple[Vtxo, ...]:
        payment, request = self.prepare_claim(receive, granted)
        answer = await self.call(self.ark.ClaimLightningReceive, request)
        vtxos = self.finish_payment(payment, answer)
        await self.register(*vtxos)
        return vtxos

    # --- the mailbox

    async def notes(self) -> list[Any]:
        """All messages in the mailbox but those of payments inside Ark."""
        page = await self.call(self.mailbox.ReadMailbox, self.mailbox_request(expiry=NOW + 10**6))
        assert isinstance(page, mb.MailboxMessages)
        return list(page.messages)


def htlc_request(payment: PreparedPayment) -> pb.LightningPayHtlcCosignRequest:
    return pb.LightningPayHtlcCosignRequest(parts=payment.request.parts)


OLD_METADATA = tuple((key, "4" if key == "pver" else value) for key, value in METADATA)
