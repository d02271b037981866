"""A client that plays a wallet with nothing but the generated stubs and the protocol core."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    ArkoorPart,
    finish_part,
    generate_part_nonces,
    split_package,
)
from barkd_py.ark.attestations import attest, vtxo_status_message
from barkd_py.ark.board import BoardTemplate, finish_board, generate_board_nonce
from barkd_py.ark.fees import board_fee
from barkd_py.ark.mailbox import MailboxAuthorization, blind
from barkd_py.ark.policy import Policy, PubkeyPolicy, encode_policy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import ArkServiceStub
from barkd_py.server_rpc.protos.mailbox_server_pb2_grpc import MailboxServiceStub
from tests.fakes.server_chain import FakeServerChain

METADATA = (("pver", "5"), ("x-user-agent", "test/1.0"))

BOARD_SAT = 100_000
INVALID = "INVALID_ARGUMENT"


@dataclass
class PreparedBoard:
    """A board whose exit transaction can be requested. request: change it to provoke refusals."""

    template: BoardTemplate
    funding_tx: Tx
    sec_nonce: SecNonce
    pub_nonce: bytes
    request: pb.BoardCosignRequest


@dataclass
class PreparedPayment:
    """A payment that can be requested."""

    parts: tuple[ArkoorPart, ...]
    nonces: list[list[tuple[SecNonce, bytes]]]
    request: pb.ArkoorPackageCosignRequest


class Client:
    """One user with one key, against one server and its chain."""

    def __init__(self, server: ArkServer, chain: FakeServerChain) -> None:
        self.server = server
        self.chain = chain
        self.secret = SecretKey.generate()
        self.mailbox_secret = SecretKey.generate()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        self.ark: Any = ArkServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.mailbox: Any = MailboxServiceStub(self.channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.channel.close()

    @property
    def public_key(self) -> PublicKey:
        return self.secret.public_key

    @property
    def policy(self) -> PubkeyPolicy:
        return PubkeyPolicy(self.public_key)

    async def call(self, method: Any, request: Any) -> Any:
        return await method(request, metadata=METADATA)

    async def refusal(self, method: Any, request: Any, metadata: Any = METADATA) -> "Refusal":
        """The status that a call ends with; it must not succeed."""
        try:
            await method(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Refusal.of(error)
        raise AssertionError("the server did not refuse")

    # --- boards

    async def prepare_board(
        self, amount_sat: int = BOARD_SAT, *, lifetime: int = 1000, fee_sat: int | None = None
    ) -> PreparedBoard:
        settings = self.server.settings
        tip = await self.chain.tip()
        fee = board_fee(settings.fees, amount_sat) if fee_sat is None else fee_sat

        def template(utxo: OutPoint) -> BoardTemplate:
            return BoardTemplate(
                user_pubkey=self.public_key,
                server_pubkey=self.server.keys.server_pubkey,
                amount_sat=amount_sat,
                fee_sat=fee,
                expiry_height=tip.height + lifetime,
                exit_delta=settings.vtxo_exit_delta,
                utxo=utxo,
            )

        output = template(OutPoint(Txid(bytes(32)), 0)).funding_output
        funding_tx = self.chain.funding_tx(output)
        final = template(funding_tx.outpoint(0))
        sec_nonce, pub_nonce = generate_board_nonce(final, self.secret)
        request = pb.BoardCosignRequest(
            amount=amount_sat,
            utxo=final.utxo.to_bytes(),
            expiry_height=final.expiry_height,
            user_pubkey=self.public_key.data,
            pub_nonce=pub_nonce,
            funding_tx=funding_tx.serialize(),
        )
        return PreparedBoard(final, funding_tx, sec_nonce, pub_nonce, request)

    async def signed_board(self, amount_sat: int = BOARD_SAT, *, lifetime: int = 1000) -> tuple[Vtxo, Tx]:
        """A signed board, and its funding transaction, which is not mined yet."""
        board = await self.prepare_board(amount_sat, lifetime=lifetime)
        answer = await self.call(self.ark.RequestBoardCosign, board.request)
        vtxo = finish_board(
            board.template,
            self.secret,
            board.sec_nonce,
            board.pub_nonce,
            answer.pub_nonce,
            answer.partial_sig,
        )
        return vtxo, board.funding_tx

    async def board(self, amount_sat: int = BOARD_SAT) -> Vtxo:
        """A registered board."""
        vtxo, funding_tx = await self.signed_board(amount_sat)
        self.chain.mine(funding_tx)
        await self.server.follower.catch_up()
        await self.call(self.ark.RegisterBoardVtxo, pb.BoardVtxoRequest(board_vtxo=vtxo.encode()))
        return vtxo

    # --- payments

    def prepare_payment(
        self, inputs: Sequence[Vtxo], outputs: Sequence[tuple[int, Policy]], *, use_checkpoint: bool = True
    ) -> PreparedPayment:
        destinations = [ArkoorDestination(amount_sat, policy) for amount_sat, policy in outputs]
        parts = split_package(inputs, destinations, use_checkpoint=use_checkpoint)
        nonces = [generate_part_nonces(part, self.secret) for part in parts]
        request = pb.ArkoorPackageCosignRequest(
            parts=[
                pb.ArkoorCosignRequest(
                    input_vtxo_id=part.input.id,
                    outputs=[_destination(output) for output in part.outputs],
                    isolated_outputs=[_destination(output) for output in part.isolated],
                    user_pub_nonces=[pub_nonce for _, pub_nonce in part_nonces],
                    use_checkpoint=use_checkpoint,
                    attestation=part.attest(self.secret),
                )
                for part, part_nonces in zip(parts, nonces, strict=True)
            ]
        )
        return PreparedPayment(parts, nonces, request)

    def finish_payment(
        self, payment: PreparedPayment, answer: pb.ArkoorPackageCosignResponse
    ) -> tuple[Vtxo, ...]:
        """The new VTXOs; every signature of the server is verified."""
        vtxos: list[Vtxo] = []
        for part, nonces, reply in zip(payment.parts, payment.nonces, answer.parts, strict=True):
            server_nonces, partials = list(reply.server_pub_nonces), list(reply.server_partial_sigs)
            vtxos += finish_part(part, self.secret, nonces, server_nonces, partials)
        return tuple(vtxos)

    async def pay(self, inputs: Sequence[Vtxo], *outputs: tuple[int, Policy]) -> tuple[Vtxo, ...]:
        """Register the inputs, pay, and register the outputs."""
        await self.register(*inputs)
        payment = self.prepare_payment(inputs, outputs)
        answer = await self.call(self.ark.RequestArkoorCosign, payment.request)
        vtxos = self.finish_payment(payment, answer)
        await self.register(*vtxos)
        return vtxos

    async def register(self, *vtxos: Vtxo) -> None:
        await self.call(self.ark.RegisterVtxoTransactions, registration(*vtxos))

    # --- look-ups

    def status_request(self, vtxo_id: VtxoId) -> pb.GetVtxoStatusRequest:
        attestation = attest(vtxo_status_message(vtxo_id), self.secret)
        return pb.GetVtxoStatusRequest(vtxo_id=vtxo_id, attestation=attestation)

    async def spend_state(self, vtxo_id: VtxoId) -> int:
        answer = await self.call(self.ark.GetVtxoStatus, self.status_request(vtxo_id))
        return int(answer.spend_state)

    # --- the mailbox

    @property
    def mailbox_id(self) -> PublicKey:
        return self.mailbox_secret.public_key

    @property
    def blinded_id(self) -> PublicKey:
        """The mailbox as an address of this user carries it."""
        return blind(
            self.mailbox_id,
            vtxo_secret=self.secret,
            server_mailbox_pubkey=self.server.keys.mailbox_pubkey,
        )

    def mailbox_request(self, *, expiry: int, checkpoint: int = 0) -> mb.MailboxRequest:
        authorization = MailboxAuthorization.sign(self.mailbox_secret, expiry=expiry)
        return mb.MailboxRequest(
            mailbox_id=self.mailbox_id.data, authorization=authorization.encode(), checkpoint=checkpoint
        )


@dataclass(frozen=True)
class Refusal:
    """How a call failed. identifiers: None if the server sent no such metadata."""

    code: str
    text: str
    identifiers: str | None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "Refusal":
        sent = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
        found = [value for key, value in sent if key == "identifiers"]
        return cls(error.code().name, error.details() or "", found[0] if found else None)


def bad(text: str) -> Refusal:
    """Of what the caller has done wrong."""
    return Refusal(INVALID, f"bad user input: {text}", None)


def internal(text: str) -> Refusal:
    return Refusal("INTERNAL", text, None)


def registration(*vtxos: Vtxo) -> pb.RegisterVtxoTransactionsRequest:
    return pb.RegisterVtxoTransactionsRequest(vtxos=[vtxo.encode() for vtxo in vtxos])


def _destination(output: ArkoorDestination) -> pb.ArkoorDestination:
    return pb.ArkoorDestination(total_amount=output.amount_sat, policy=encode_policy(output.policy))
