"""What devnet needs of a bitcoin node, whichever it is.

Two nodes implement `Node`: `local.LocalNode` (Bitcoin Core's consensus library and our mempool, no other
program needed) and `bitcoind.BitcoindNode` (a real bitcoind). The Esplora face, the faucet, the control API
and the Ark server use this interface only, and the same tests run against both.

Reading goes through `index` (the active chain) and `pool` (unconfirmed transactions), which are plain objects
in memory; `refresh` brings them up to date. Everything runs in one event loop: between two awaits the chain
does not change.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.pool import TxPool
from barkd_py.errors import ChainError

# Error codes of bitcoind's RPC interface.
RPC_TRANSACTION_ERROR = -25
RPC_TRANSACTION_REJECTED = -26
RPC_ALREADY_IN_UTXO_SET = -27
RPC_DESERIALIZATION_ERROR = -22
RPC_INVALID_PARAMETER = -8
RPC_INVALID_ADDRESS_OR_KEY = -5


class NodeRefusal(ChainError):
    """The node refused a transaction, a package or a request; nothing was changed.

    code, message: as bitcoind's RPC interface says them.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ChangeSignal:
    """Wakes everybody who waits whenever the chain or the pool may have changed.

    count: of the changes so far. Who looks at the chain and then waits passes the count from before the look.
    """

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, since: int | None = None) -> None:
        """Return when there was a change after `since`; after the call, if it is None."""
        seen = self.count if since is None else since
        while self.count == seen:
            await self._event.wait()


class Node(Protocol):
    """A regtest node that mines on demand."""

    @property
    def name(self) -> str:
        """What validates: for people."""

    @property
    def index(self) -> ChainIndex: ...

    @property
    def pool(self) -> TxPool: ...

    @property
    def changed(self) -> ChangeSignal: ...

    async def refresh(self) -> None:
        """Bring index and pool up to date. Raises ChainUnavailable."""

    async def mine(self, count: int = 1, *, reward_script: bytes | None = None) -> tuple[BlockRef, ...]:
        """Mine blocks with what is in the pool. reward_script: the faucet's unless given."""

    async def mine_exactly(
        self, transactions: Sequence[Tx], *, reward_script: bytes | None = None
    ) -> BlockRef:
        """Mine one block with these transactions only, in this order, whether the pool has them or not.

        Raises NodeRefusal if the block would not be valid.
        """

    async def reorg(self, depth: int, *, transactions: Sequence[Tx] = ()) -> BlockRef:
        """Replace the last `depth` blocks by one more, empty but for `transactions` in the first; the tip.

        What the lost blocks held is unconfirmed afterwards, unless it conflicts with `transactions`.
        Raises NodeRefusal.
        """

    async def check(self, raw_hex: str) -> None:
        """Judge a transaction as `broadcast` would, without taking it. Raises NodeRefusal."""

    async def broadcast(self, raw_hex: str) -> Txid:
        """Submit a transaction, hex as it was received. Raises NodeRefusal."""

    async def submit_package(self, raw_hexes: Sequence[str]) -> dict[str, Any]:
        """Submit parents and their child; the answer of ``submitpackage``. Raises NodeRefusal."""

    async def evict(self, txid: Txid) -> None:
        """Forget an unconfirmed transaction, and everything that spends from it, as a full pool would.

        A bitcoind is restarted for that. Raises NodeRefusal if it is not there, or the node is not ours.
        """

    async def close(self) -> None:
        """Stop it. Its state stays on disk."""
