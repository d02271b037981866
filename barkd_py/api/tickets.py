"""Tickets for the websocket: browsers cannot send a bearer token with its handshake.

A ticket is 32 random bytes in hex, works once, and lives ten minutes. (barkd itself only drops old tickets
when a new one is made, so there they may live longer.) They are looked up by their hash, so that the time a
look-up takes says nothing about tickets that are out. Source: protocol sheet 07 §4.1.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Final

LIFETIME_SECS: Final = 600.0

OUTSTANDING_MAX: Final = 1_000
"""More than a client opens sockets in ten minutes; who asks for more loses the oldest."""


class Tickets:
    """The tickets of one daemon; in memory only, independent of the wallet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._issued: dict[bytes, float] = {}
        """Hashes, oldest first."""

    def issue(self) -> str:
        self._drop_old()
        while len(self._issued) >= OUTSTANDING_MAX:
            del self._issued[next(iter(self._issued))]
        ticket = secrets.token_hex(32)
        self._issued[_hash(ticket)] = self._clock()
        return ticket

    def redeem(self, ticket: str) -> bool:
        """Use a ticket up; False if it is unknown, used, or too old."""
        self._drop_old()
        return self._issued.pop(_hash(ticket), None) is not None

    def _drop_old(self) -> None:
        oldest = self._clock() - LIFETIME_SECS
        self._issued = {ticket: at for ticket, at in self._issued.items() if at > oldest}


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode(errors="surrogatepass")).digest()
