"""A chain source with a gate in front: calls are counted, and can fail before or after they reach it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.chain.source import (
    ChainSource,
    FeeRates,
    PackageFee,
    Spend,
    TxStatus,
    WalletFindings,
    WalletQuery,
)

T = TypeVar("T")

When = Literal["before", "after"]

Gate = Callable[[str, When], None]
"""Called with the name of the method, before and after the call; what it raises is raised."""


Ask = Callable[[], Awaitable[TxStatus]]
AskSpender = Callable[[], Awaitable[Spend | None]]


class GatedChain:
    """Implements `ChainSource`.

    fast: replaces the estimate for the next block, if set. answer_status, answer_spent, answer_spender:
    answer `tx_status`, `is_spent_confirmed` and `spender` instead; they may ask the chain.
    """

    def __init__(self, inner: ChainSource) -> None:
        self._inner = inner
        self.gate: Gate | None = None
        self.fast: FeeRate | None = None
        self.answer_status: Callable[[Txid, Ask], Awaitable[TxStatus]] | None = None
        self.answer_spent: Callable[[OutPoint], Awaitable[bool]] | None = None
        self.answer_spender: Callable[[OutPoint, AskSpender], Awaitable[Spend | None]] | None = None
        self.calls: list[str] = []

    async def _pass(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(name)
        if self.gate is not None:
            self.gate(name, "before")
        answer = await call()
        if self.gate is not None:
            self.gate(name, "after")
        return answer

    @property
    def reads_blocks(self) -> bool:
        return self._inner.reads_blocks

    async def check_startup(self, network: Network) -> None:
        await self._inner.check_startup(network)

    async def close(self) -> None:
        await self._inner.close()

    async def tip(self) -> BlockRef:
        return await self._pass("tip", self._inner.tip)

    async def fetch_tip(self) -> BlockRef:
        return await self._pass("tip", self._inner.fetch_tip)

    async def block_hash(self, height: int) -> BlockHash | None:
        return await self._pass("block_hash", lambda: self._inner.block_hash(height))

    async def block_txids(self, block_hash: BlockHash) -> frozenset[Txid] | None:
        return await self._pass("block_txids", lambda: self._inner.block_txids(block_hash))

    async def tx_status(self, txid: Txid) -> TxStatus:
        async def ask() -> TxStatus:
            return await self._inner.tx_status(txid)

        answer = self.answer_status
        return await self._pass("tx_status", ask if answer is None else lambda: answer(txid, ask))

    async def get_tx(self, txid: Txid) -> Tx | None:
        return await self._pass("get_tx", lambda: self._inner.get_tx(txid))

    async def spender(self, outpoint: OutPoint, *, since_height: int) -> Spend | None:
        async def ask() -> Spend | None:
            return await self._inner.spender(outpoint, since_height=since_height)

        answer = self.answer_spender
        return await self._pass("spender", ask if answer is None else lambda: answer(outpoint, ask))

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        ask = self.answer_spent or self._inner.is_spent_confirmed
        return await self._pass("is_spent_confirmed", lambda: ask(outpoint))

    async def package_fee(self, txid: Txid) -> PackageFee | None:
        return await self._pass("package_fee", lambda: self._inner.package_fee(txid))

    async def broadcast(self, tx: Tx) -> None:
        await self._pass("broadcast", lambda: self._inner.broadcast(tx))

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        await self._pass("broadcast_package", lambda: self._inner.broadcast_package(txs))

    async def fee_rates(self) -> FeeRates:
        return self._rates(await self._inner.fee_rates())

    async def update_fee_rates(self, *, force: bool = False) -> FeeRates:
        return self._rates(await self._inner.update_fee_rates(force=force))

    def _rates(self, rates: FeeRates) -> FeeRates:
        return rates if self.fast is None else FeeRates(self.fast, rates.regular, rates.slow)

    async def find_wallet_transactions(self, query: WalletQuery) -> WalletFindings:
        return await self._pass(
            "find_wallet_transactions", lambda: self._inner.find_wallet_transactions(query)
        )
