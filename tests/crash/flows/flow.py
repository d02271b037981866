"""What a flow is: a way in which money moves, and how to tell whether it did.

A flow is prepared undisturbed; acted out, while the daemon may be killed at any point; and brought to its end
by `World.settle`, which is the same for all. `done` counts how often it ever succeeded: an interrupted flow
has happened once, or, if it was killed before anything was stored, not at all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.crash.books import Json
from tests.crash.world import DEVNET_OPTIONS, World
from tests.support.processes import Daemon

Act = Callable[[], Awaitable[None]]

# Streams and heartbeats that belong to no flow: they come whenever they come.
UNRELATED = frozenset({"Handshake", "GetArkInfo", "SubscribeRounds", "SubscribeMailbox", "NextRoundTime"})


@dataclass(frozen=True)
class Flow:
    """prepare: returns what is to be interrupted. calls: network calls that it cannot do without, in
    their order.

    may_not_happen: killed early, it never took place, and the person asks again. fails_once: what was lost by
    the kill stays in the history as failed. always_fails: that is how it ends, and it has happened then.
    again: what the person does after the restart. starts_daemon: it is down when the flow
    begins with its start. unrelated: calls at which it is not killed. takes_long: of all flows, these are
    best begun first. in_postgresql: where its world has its wallets. under_troubles: whether it is run under
    them as well.
    """

    name: str
    prepare: Callable[[World], Awaitable[Act]]
    done: Callable[[World], Awaitable[int]]
    calls: tuple[str, ...]
    may_not_happen: bool = True
    fails_once: bool = False
    always_fails: bool = False
    again: Callable[[World], Awaitable[None]] | None = None
    starts_daemon: bool = False
    unrelated: frozenset[str] = UNRELATED
    devnet_options: tuple[str, ...] = DEVNET_OPTIONS
    takes_long: bool = False
    in_postgresql: bool = False
    under_troubles: bool = True


def count_of(kind: str, part: str = "", status: str = "successful") -> Callable[[World], Awaitable[int]]:
    """part: of the wallet that made it, where several have the same kind."""

    async def count(world: World) -> int:
        return len(of_part(part, await world.history(kind, status)))

    return count


def of_part(part: str, movements: list[Json]) -> list[Json]:
    return [each for each in movements if part in each["subsystem"]["name"]]


async def ark_address(daemon: Daemon) -> str:
    return str((await daemon.post("/wallet/addresses/next"))["address"])
