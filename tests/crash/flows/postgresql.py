"""Some of the flows in a world whose wallets are in PostgreSQL: what was committed is there, or it is not."""

from dataclasses import replace

from tests.crash.flows import lightning, offchain, onchain
from tests.crash.flows.flow import Flow

_CHOSEN = ("board", "arkoor send", "refresh", "Lightning send", "Lightning receive", "offboard", "exit")


def _in_postgresql(flow: Flow) -> Flow:
    return replace(flow, name=f"{flow.name} in PostgreSQL", in_postgresql=True, under_troubles=False)


FLOWS = tuple(
    _in_postgresql(flow)
    for flow in (*offchain.FLOWS, *lightning.FLOWS, *onchain.FLOWS)
    if flow.name in _CHOSEN
)
