"""A server between the wallet and the real one that lies, loses answers, and counts what it is asked."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from barkd_py.errors import ServerUnavailable
from barkd_py.wallet.rounds.rounds import Rounds
from barkd_py.wallet.rounds.swap import SwapLimits
from tests.wallet.flows.conftest import Owner

Lie = Callable[[Any], Any]


class Lost(ServerUnavailable):
    """The answer never came."""

    def __init__(self) -> None:
        super().__init__("connection lost")


class Liar:
    """Passes every call on. lies: by method, what becomes of the answer; lost: methods whose answer is lost,
    once each, after the server has done its work.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.lies: dict[str, Lie] = {}
        self.lost: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @property
    def cached_info(self) -> Any:
        return self._server.cached_info

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._server, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            answer = await method(*args, **kwargs)
            if self.lost[name] > 0:
                self.lost[name] -= 1
                raise Lost
            lie = self.lies.get(name)
            return answer if lie is None else lie(answer)

        return call


def between(owner: Owner) -> Liar:
    """Put a liar between the owner's rounds and the server."""
    wallet = owner.wallet
    liar = Liar(wallet.server)
    wallet.rounds = Rounds(
        wallet.store,
        liar,  # type: ignore[arg-type]  # it passes everything on
        wallet.chain,
        wallet.keychain,
        wallet.registration,
        wallet.locks,
        limits=SwapLimits(1, 12),
        refresh_threshold=12,
        gap_limit=250,
    )
    return liar
