"""Both kinds of chain source on one devnet node, without sockets."""

import httpx

from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.bitcoind import BitcoindSource, RpcClient, UserPass
from barkd_py.chain.esplora import EsploraSource
from barkd_py.devnet.chain.node import Node
from barkd_py.devnet.esplora import esplora_app
from tests.fakes.node_rpc import PASSWORD, USER, NodeRpc

FALLBACK = FeeRate(250)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def esplora_source(node: Node, clock: Clock) -> EsploraSource:
    return EsploraSource(
        "http://esplora",
        fallback_fee_rate=FALLBACK,
        clock=clock,
        sleep=clock.sleep,
        transport=httpx.ASGITransport(app=esplora_app(node)),
    )


def bitcoind_source(rpc: NodeRpc, clock: Clock) -> BitcoindSource:
    return BitcoindSource(rpc_client(rpc, clock), fallback_fee_rate=FALLBACK, clock=clock)


def rpc_client(rpc: NodeRpc, clock: Clock) -> RpcClient:
    return RpcClient("http://node", UserPass(USER, PASSWORD), transport=rpc.transport(), sleep=clock.sleep)
