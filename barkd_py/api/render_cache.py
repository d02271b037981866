"""Lists that are rendered once per state of the wallet, and each item of them once per state of that item.

What an answer was rendered from is pinned by the revision of the wallet's store: as long as it has not grown,
the bytes are the same. So a list of thousands of VTXOs costs a client that polls it nothing but the copying.
When it has grown, the wallet hands out the same objects for what did not change, and their rendering is kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pydantic_core import to_json

from barkd_py.daemon.wallet_api import WalletApi

T = TypeVar("T")

_LISTS_MAX: Final = 16

# Items that are rendered before anything else gets a turn.
_TURN: Final = 500


@dataclass(slots=True)
class _List:
    """items: what the pieces were rendered from, so that their identity cannot pass to others meanwhile."""

    wallet: WalletApi
    revision: int = -1
    body: bytes = b"[]"
    pieces: dict[int, bytes] = field(default_factory=dict)
    items: Sequence[object] = ()


class RenderCache:
    """The last rendering of each list. Holds no wallet that is not loaded any more (`clear`)."""

    def __init__(self) -> None:
        self._lists: dict[Hashable, _List] = {}

    async def get_list(
        self,
        wallet: WalletApi,
        key: Hashable,
        load: Callable[[], Awaitable[Sequence[T]]],
        render: Callable[[T], object],
    ) -> bytes:
        """The JSON of a list. `load` and `render` are only asked for what changed since the last time."""
        revision = wallet.revision
        known = self._lists.get(key)
        if known is None or known.wallet is not wallet:
            known = _List(wallet)
        elif known.revision == revision:
            return known.body
        items = await load()
        pieces: dict[int, bytes] = {}
        for number, item in enumerate(items):
            piece = known.pieces.get(id(item))
            if piece is None:
                piece = to_json(render(item))
                if number % _TURN == 0:
                    await asyncio.sleep(0)
            pieces[id(item)] = piece
        body = b"[" + b",".join(pieces[id(item)] for item in items) + b"]"
        if wallet.revision == revision:  # else it may mix two states, and only this client gets it
            if len(self._lists) >= _LISTS_MAX:
                self._lists.clear()
            self._lists[key] = _List(wallet, revision, body, pieces, items)
        return body

    def clear(self) -> None:
        self._lists.clear()
