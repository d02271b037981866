"""The RPCs of offboards: messages in and out.

Source: sheet 10 §6.8; sheet 08 §4.7.
"""

import grpc

from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.devnet.ark_server.failures import BadArgument, RpcStatus
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.funds.offboards import OffboardRequest, Offboards
from barkd_py.devnet.ark_server.rpc import fields
from barkd_py.server_rpc.protos import bark_server_pb2 as pb

_PROTOCOL_VERSION_MANY_INPUTS = 2


class OffboardRpcs:
    """What `ArkService` answers about offboards."""

    def __init__(self, offboards: Offboards, fee_rates: FeeRates) -> None:
        self._offboards = offboards
        self._fee_rates = fee_rates

    def fee_rate(self) -> pb.OffboardFeeRateResponse:
        return pb.OffboardFeeRateResponse(sat_vkb=self._fee_rates.regular.sat_per_kvb)

    async def prepare(self, request: pb.PrepareOffboardRequest, version: int) -> pb.PrepareOffboardResponse:
        if not request.HasField("offboard"):
            raise BadArgument("missing offboard field")
        if len(request.input_vtxo_ids) > 1 and version < _PROTOCOL_VERSION_MANY_INPUTS:
            raise RpcStatus(
                grpc.StatusCode.UNAVAILABLE, "YOU NEED TO UPDATE YOUR WALLET VERSION FOR THIS OPERATION"
            )
        input_ids = fields.vtxo_ids(request.input_vtxo_ids)
        attestations = [
            fields.signature(data, "invalid offboard request attestation") for data in request.attestation
        ]
        offboard = OffboardRequest(
            net_amount_sat=request.offboard.net_amount_sat,
            script_pubkey=request.offboard.offboard_spk,
            deduct_fee=request.offboard.deduct_fees_from_gross_amount,
            fee_rate=FeeRate(request.offboard.fee_rate_kwu),
        )
        prepared = await self._offboards.prepare(offboard, input_ids, attestations)
        return pb.PrepareOffboardResponse(
            offboard_tx=prepared.tx.serialize(), forfeit_cosign_nonces=prepared.pub_nonces
        )

    async def finish(self, request: pb.FinishOffboardRequest) -> pb.FinishOffboardResponse:
        txid = Txid(fields.hash32(request.offboard_txid, "invalid transaction id"))
        pub_nonces = [fields.public_nonce(nonce) for nonce in request.user_nonces]
        partials = [fields.partial_signature(data) for data in request.partial_signatures]
        signed_tx = await self._offboards.finish(txid, pub_nonces, partials)
        return pb.FinishOffboardResponse(signed_offboard_tx=signed_tx.serialize())
