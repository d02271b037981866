"""A far side between the wallet and the real one that lies, loses answers, counts what it is asked, and at
which the wallet's process can die."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from barkd_py.errors import ServerUnavailable
from barkd_py.wallet.offboards.machine import OffboardMachine
from barkd_py.wallet.offboards.service import Offboards
from barkd_py.wallet.rounds.bounds import UnattendedBounds
from barkd_py.wallet.rounds.service import Rounds
from barkd_py.wallet.rounds.swap import SwapLimits
from tests.wallet.flows.conftest import Owner
from tests.wallet.flows.crashes import Crash, When

Lie = Callable[[Any], Any]


class Lost(ServerUnavailable):
    """The answer never came."""

    def __init__(self) -> None:
        super().__init__("connection lost")


@dataclass
class Doom:
    """The process dies around its call number `at` (from 0), and stays dead. calls: what was asked."""

    at: int | None = None
    when: When = "before"
    is_dead: bool = False
    calls: list[str] = field(default_factory=list)

    def begin(self, name: str) -> int:
        number = len(self.calls)
        self.calls.append(name)
        self._strike(number, "before")
        return number

    def end(self, number: int) -> None:
        self._strike(number, "after")

    def _strike(self, number: int, when: When) -> None:
        self.is_dead = self.is_dead or (self.at, self.when) == (number, when)
        if self.is_dead:
            raise Crash


class Liar:
    """Passes every call on. lies: by method, what becomes of the answer; answers: what is done instead of
    asking the far side; lost: methods whose answer is lost, once each, after the far side has done its work.
    """

    def __init__(self, far_side: Any, doom: Doom | None = None) -> None:
        self._far_side = far_side
        self._doom = doom or Doom()
        self.lies: dict[str, Lie] = {}
        self.answers: dict[str, Callable[..., Awaitable[Any]]] = {}
        self.lost: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @property
    def cached_info(self) -> Any:
        return self._far_side.cached_info

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._far_side, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            number = self._doom.begin(name)
            answer = await self.answers.get(name, method)(*args, **kwargs)
            self._doom.end(number)
            if self.lost[name] > 0:
                self.lost[name] -= 1
                raise Lost
            lie = self.lies.get(name)
            return answer if lie is None else lie(answer)

        return call


def between(owner: Owner, doom: Doom | None = None) -> Liar:
    """Put a liar between the owner's rounds and the server. doom: also of calls to the chain."""
    wallet = owner.wallet
    liar = Liar(wallet.server, doom)
    wallet.rounds = Rounds(
        wallet.store,
        liar,  # type: ignore[arg-type]  # it passes everything on
        wallet.chain if doom is None else Liar(wallet.chain, doom),  # type: ignore[arg-type]
        wallet.keychain,
        wallet.registration,
        wallet.locks,
        limits=SwapLimits(1, 12),
        rescue=wallet.rounds.rescue,
        unattended=UnattendedBounds(10_000, 12),
        gap_limit=250,
    )
    return liar


@dataclass
class Liars:
    server: Liar
    chain: Liar


def between_offboards(
    owner: Owner,
    doom: Doom | None = None,
    *,
    now: Callable[[], float] = time.time,
    wrap: Callable[[OffboardMachine], Any] = lambda machine: machine,
) -> Liars:
    """Put liars between the owner's offboards and the world. wrap: also something around the machine."""
    wallet = owner.wallet
    liars = Liars(Liar(wallet.server, doom), Liar(wallet.chain, doom))
    server: Any = liars.server
    chain: Any = liars.chain
    machine = OffboardMachine(
        wallet.store,
        wallet.keychain,
        server,
        chain,
        wallet.registration,
        required_confirmations=wallet.config.offboard_required_confirmations,
        lost_tx_grace_secs=wallet.config.offboard_lost_tx_grace_period_secs,
        now=now,
    )
    wallet.offboards = Offboards(
        wallet.store,
        wallet.executor,
        wrap(machine),
        wallet.keychain,
        server,
        chain,
        change_split_factor=wallet.config.change_vtxo_split_factor,
    )
    return liars
