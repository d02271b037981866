"""The administrator's RPCs, on a listener of their own, without any authentication.

Source: sheet 10 §11.
"""

from barkd_py.devnet.ark_server.rounds.engine import RoundEngine
from barkd_py.devnet.ark_server.rpc.call_context import CallContext
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import RoundAdminServiceServicer


class RoundAdminService(RoundAdminServiceServicer):
    """`bark_server.RoundAdminService`."""

    def __init__(self, engine: RoundEngine) -> None:
        self._engine = engine

    async def TriggerRound(self, request: core_pb2.Empty, context: CallContext) -> core_pb2.Empty:
        self._engine.trigger()
        return core_pb2.Empty()
