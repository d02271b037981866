"""Answers that are rendered once per state of the wallet.

What an answer was rendered from is pinned by the revision of the wallet's store: as long as it has not grown,
the bytes are the same. So a list of thousands of VTXOs costs a client that polls it nothing but the copying.
"""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

from barkd_py.daemon.wallet_api import WalletApi

_ENTRIES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class _Entry:
    wallet: WalletApi
    revision: int
    body: bytes


class RenderCache:
    """The last rendering of each kind of answer. Holds no wallet that is not loaded any more (`clear`)."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    async def get(self, wallet: WalletApi, key: Hashable, render: Callable[[], Awaitable[object]]) -> bytes:
        """The JSON of what `render` gives; it is only asked if the wallet has changed since the last time."""
        revision = wallet.revision
        entry = self._entries.get(key)
        if entry is not None and entry.wallet is wallet and entry.revision == revision:
            return entry.body
        body = to_json(await render())
        if wallet.revision == revision:  # else it may mix two states, and only this client gets it
            if len(self._entries) >= _ENTRIES_MAX:
                self._entries.clear()
            self._entries[key] = _Entry(wallet, revision, body)
        return body

    def clear(self) -> None:
        self._entries.clear()
