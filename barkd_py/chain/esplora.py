"""An Esplora server over HTTP.

Such a server is a stranger that can lie by omission. What can be checked is checked: transactions against
their ids, and the block of a confirmation against the block hash at its height; of the on-chain wallet's
transactions that wallet does it, block by block.

GETs are tried again on 429, 500 and 503; POSTs never are. Source: sheet 06 §6.1, §6.2, §7.3; sheet 11 §2.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, TxDecodeError, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.chain.broadcast import check_package_result, classify
from barkd_py.chain.fee_rates import FEE_TARGETS, FeeRateCache, NoEstimate
from barkd_py.chain.http import AnswerTooLong, complete_url, open_client, parse_json, proxy_for, read_body
from barkd_py.chain.source import (
    GENESIS_HASHES,
    BroadcastError,
    BroadcastErrorKind,
    Confirmed,
    FeeRates,
    FoundInBlock,
    Mempool,
    NetworkMismatch,
    NotFound,
    PackageFee,
    Spend,
    TxStatus,
    WalletFindings,
    WalletQuery,
)
from barkd_py.chain.tip_cache import TipCache
from barkd_py.errors import ChainUnavailable, printable

REQUEST_TIMEOUT_S = 30.0
RETRIED_STATUSES = frozenset((429, 500, 503))
MAX_RETRIES = 6
FIRST_RETRY_DELAY_S = 0.256
PARALLEL_REQUESTS = 4
ANSWER_TIMEOUT_S = 120.0
"""For a whole answer, however busily it drips."""
MAX_ANSWER_BYTES = 64 * 1024
"""For heights, hashes, rates and spends."""
MAX_REFUSAL_BYTES = 32 * 1024 * 1024
"""Nodes have repeated whole transactions in their words."""
MAX_RAW_TX_BYTES = 4_000_000
"""No block holds more."""
MAX_TX_BYTES = 32 * 1024 * 1024
"""The JSON of one transaction; scripts and witnesses are in it as hex and in words."""
MAX_TXIDS_BYTES = 4 * 1024 * 1024
"""Of a block: there is room for about 16,000 transactions."""
MAX_PAGE_BYTES = 64 * 1024 * 1024
"""A page of a script's history, with all its transactions."""
MAX_HISTORY = 100_000
"""Transactions of one script."""
MAX_MEMPOOL_ANCESTORS = 500
"""Far beyond what any mempool allows."""
MAX_SAT_PER_VB = 10_000
"""No fee was ever that high; a wallet that believes more burns its money."""
_HEIGHT_END = 500_000_000
"""Bitcoin takes such numbers for times."""
_T = TypeVar("_T")

PAGE_SIZE = 25
"""Confirmed transactions on one page of a script's history; a shorter page is the last one."""


class ConnectionDropped(ChainUnavailable):
    """Before an answer came; often an idle connection that the server closed just as it was used again."""


class EsploraSource:
    """A `ChainSource` on an Esplora server.

    url: with or without scheme; ``https`` is assumed. socks5_proxy: a ``socks5h://`` address or None.
    fallback_fee_rate: used while the server has no estimates. clock: seconds, monotonic.
    transport: replaces the network (tests).
    """

    def __init__(
        self,
        url: str,
        *,
        fallback_fee_rate: FeeRate,
        socks5_proxy: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = complete_url(url)
        proxy = proxy_for(self._url, socks5_proxy)
        self._client = open_client(timeout_s=REQUEST_TIMEOUT_S, proxy=proxy, transport=transport)
        self._sleep = sleep
        self._tip = TipCache(clock)
        self._fees = FeeRateCache(self._estimate_fees, fallback=fallback_fee_rate, clock=clock)

    @property
    def reads_blocks(self) -> bool:
        return False

    async def check_startup(self, network: Network) -> None:
        expected = GENESIS_HASHES[network]
        got = await self.block_hash(0)
        if got != expected:
            known = {genesis: net.bitcoin_name.capitalize() for net, genesis in GENESIS_HASHES.items()}
            raise NetworkMismatch(network, known.get(got, str(got)) if got is not None else "no block")

    async def close(self) -> None:
        await self._client.aclose()

    # --- transport ---

    async def _get(self, path: str, max_bytes: int = MAX_ANSWER_BYTES) -> httpx.Response | None:
        """The answer with status 200; None for 404. Raises ChainUnavailable."""
        delay_s = FIRST_RETRY_DELAY_S
        for attempt in range(MAX_RETRIES + 1):
            try:
                response = await self._send("GET", path, max_bytes=max_bytes)
            except ConnectionDropped:
                if attempt > 0:
                    raise
                continue
            if response.status_code not in RETRIED_STATUSES or attempt == MAX_RETRIES:
                break
            await self._sleep(delay_s)
            delay_s *= 2
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if not response.is_success:
            raise ChainUnavailable(f"esplora answered with HTTP status {response.status_code}")
        return response

    async def _get_json(self, path: str, max_bytes: int = MAX_ANSWER_BYTES) -> Any:
        response = await self._get(path, max_bytes)
        return None if response is None else _parse_json(response)

    async def _send(
        self, method: str, path: str, content: bytes | None = None, *, max_bytes: int = MAX_ANSWER_BYTES
    ) -> httpx.Response:
        try:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT_S),
                self._client.stream(method, self._url + path, content=content) as response,
            ):
                return await _received(response, max_bytes)
        except TimeoutError as error:
            raise ChainUnavailable("esplora's answer takes too long") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            host = urlsplit(self._url).netloc.rpartition("@")[2]
            dropped = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
            failure = ConnectionDropped if dropped else ChainUnavailable
            raise failure(f"no answer from esplora at {host}: {type(error).__name__}") from error

    async def _post(self, path: str, content: bytes) -> httpx.Response:
        """The answer with status 2xx. Raises BroadcastError for a refusal, else ChainUnavailable."""
        response = await self._send("POST", path, content, max_bytes=MAX_REFUSAL_BYTES)
        if response.is_success:
            return response
        if response.is_client_error and response.status_code not in (404, 408, 429):
            reason = printable(response.text)
            raise BroadcastError(classify(reason), reason)
        raise ChainUnavailable(f"esplora answered with HTTP status {response.status_code}")

    # --- blocks ---

    async def tip(self) -> BlockRef:
        return self._tip.get() or await self.fetch_tip()

    async def fetch_tip(self) -> BlockRef:
        response = await self._get("/blocks/tip/height")
        digits = "" if response is None else response.text.strip()
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 9 or int(digits) >= _HEIGHT_END:
            raise ChainUnavailable("esplora sent no tip height")
        height = int(digits)
        block_hash = await self.block_hash(height)
        if block_hash is None:  # a reorg to a shorter chain, between the two calls
            raise ChainUnavailable("the chain tip is changing")
        return self._tip.put(BlockRef(height, block_hash))

    async def block_hash(self, height: int) -> BlockHash | None:
        response = await self._get(f"/block-height/{height}")
        return None if response is None else _block_hash(response.text.strip())

    async def block_txids(self, block_hash: BlockHash) -> frozenset[Txid] | None:
        txids = await self._get_json(f"/block/{block_hash}/txids", MAX_TXIDS_BYTES)
        if txids is None:
            return None
        if not isinstance(txids, list) or not all(isinstance(txid, str) for txid in txids):
            raise ChainUnavailable("esplora sent a malformed block")
        return frozenset(map(_txid, txids))

    # --- transactions ---

    async def tx_status(self, txid: Txid) -> TxStatus:
        """The transaction itself may be large, and is far larger as JSON: strangers choose what is asked for.

        Of a transaction that they do not know, servers say that it is not confirmed; whether it waits is
        asked in bytes.
        """
        told = await self._get_json(f"/tx/{txid}/status")
        if told is None:
            return NotFound()
        status = _status(told)
        if isinstance(status, Mempool) and await self.get_tx(txid) is None:
            return NotFound()
        return await self._believed(status)

    async def get_tx(self, txid: Txid) -> Tx | None:
        response = await self._get(f"/tx/{txid}/raw", MAX_RAW_TX_BYTES)
        if response is None:
            return None
        try:
            tx = Tx.parse(response.content)
        except TxDecodeError as error:
            raise ChainUnavailable("esplora sent a malformed transaction") from error
        return _checked(tx, txid)

    async def spender(self, outpoint: OutPoint, *, since_height: int) -> Spend | None:
        spend = await self._get_json(f"/tx/{outpoint.txid}/outspend/{outpoint.vout}")
        if spend is None or not _field(spend, "spent", bool):
            return None
        status = await self._believed(_status(_field(spend, "status", dict)))
        return Spend(_txid(_field(spend, "txid", str)), status)

    async def _believed(self, status: Mempool | Confirmed) -> Mempool | Confirmed:
        """A block confirms something only if it is in the best chain. Raises ChainUnavailable.

        The server may be between two blocks, or two servers be behind one address; else it lies. In no case
        anything follows from what it said. Source: sheet 06 §9.6.
        """
        if isinstance(status, Confirmed):
            block, tip = status.block, self._tip.get()
            if block != tip and await self.block_hash(block.height) != block.hash:
                raise ChainUnavailable(f"esplora names {block}, which is not in the best chain")
        return status

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        spend = await self.spender(outpoint, since_height=0)
        return spend is not None and isinstance(spend.status, Confirmed)

    async def package_fee(self, txid: Txid) -> PackageFee | None:
        first = await self._get_json(f"/tx/{txid}", MAX_TX_BYTES)
        if first is None or _is_confirmed(first):
            return None
        seen = {txid}
        waiting = [first]
        fee_sat = weight_wu = 0
        while waiting:
            tx = waiting.pop()
            fee_sat += _field(tx, "fee", int)
            weight_wu += _field(tx, "weight", int)
            for tx_in in _field(tx, "vin", list):
                parent_txid = _txid(_field(tx_in, "txid", str))
                if parent_txid in seen:
                    continue
                seen.add(parent_txid)
                if len(seen) > MAX_MEMPOOL_ANCESTORS:
                    raise ChainUnavailable("esplora sent a mempool transaction with endless ancestors")
                parent = await self._get_json(f"/tx/{parent_txid}", MAX_TX_BYTES)
                if parent is None:
                    raise ChainUnavailable("esplora does not know the parent of a mempool transaction")
                if not _is_confirmed(parent):
                    waiting.append(parent)
        return PackageFee(fee_sat, weight_wu)

    # --- broadcast ---

    async def broadcast(self, tx: Tx) -> None:
        try:
            await self._post("/tx", tx.serialize().hex().encode())
        except BroadcastError as error:
            # a node says -27 for a transaction that is already mined
            if error.kind is not BroadcastErrorKind.KNOWN and '"code":-27' not in str(error):
                raise

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        body = json.dumps([tx.serialize().hex() for tx in txs]).encode()
        check_package_result(txs, _parse_json(await self._post("/txs/package", body)))

    # --- fees ---

    async def fee_rates(self) -> FeeRates:
        return await self._fees.rates()

    async def update_fee_rates(self, *, force: bool = False) -> FeeRates:
        return await self._fees.update(force=force)

    async def _estimate_fees(self) -> FeeRates:
        estimates = await self._get_json("/fee-estimates")
        rates: list[FeeRate] = []
        for target in FEE_TARGETS:
            sat_per_vb = estimates.get(str(target)) if isinstance(estimates, dict) else None
            if not isinstance(sat_per_vb, int | float):
                raise NoEstimate(f"esplora has no fee estimate for {target} blocks")
            rates.append(_fee_rate(sat_per_vb))
        fast, regular, slow = rates
        return FeeRates(fast, regular, slow)

    # --- the wallet's transactions ---

    async def find_wallet_transactions(self, query: WalletQuery) -> WalletFindings:
        found: dict[Txid, _Found] = {}
        if query.stop_gap is None:
            indexes: Iterable[int] = range(query.scripts.revealed_count)
            await self._search_scripts(query, indexes, found)
        else:
            await self._search_until_gap(query, query.stop_gap, found)
        return WalletFindings(
            until=query.tip,
            confirmed=tuple(entry.in_block for entry in found.values() if entry.in_block is not None),
            mempool=tuple(entry.tx for entry in found.values() if entry.in_block is None),
        )

    async def _search_until_gap(self, query: WalletQuery, stop_gap: int, found: dict[Txid, "_Found"]) -> None:
        start, last_used = 0, query.scripts.revealed_count - 1
        while start <= last_used + stop_gap:
            end = last_used + stop_gap + 1
            used = await self._search_scripts(query, range(start, end), found)
            start, last_used = end, max((last_used, *used))

    async def _search_scripts(
        self, query: WalletQuery, indexes: Iterable[int], found: dict[Txid, "_Found"]
    ) -> list[int]:
        """Search these indexes; returns those that were ever used."""
        slots = asyncio.Semaphore(PARALLEL_REQUESTS)

        async def search(index: int) -> int | None:
            async with slots:
                history = await self._script_history(query.scripts.script(index))
            for entry in history:
                # two answers may differ if a block came in between; the newer knowledge is the confirmation
                if entry.in_block is not None or entry.tx.txid not in found:
                    found[entry.tx.txid] = entry
            return index if history else None

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(search(index)) for index in indexes]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        used = [index for task in tasks if (index := task.result()) is not None]
        for index in used:
            query.scripts.found(index)
        for entry in found.values():
            for output in entry.tx.outputs:
                paid_index = query.scripts.index_of(output.script_pubkey)
                if paid_index is not None:
                    query.scripts.found(paid_index)
        return used

    async def _script_history(self, script_pubkey: bytes) -> list["_Found"]:
        path = f"/scripthash/{hashlib.sha256(script_pubkey).hexdigest()}/txs"
        page = await self._history_page(path)
        history = list(page)
        seen = {entry.tx.txid for entry in page}
        while sum(entry.in_block is not None for entry in page) >= PAGE_SIZE:
            page = await self._history_page(f"{path}/chain/{page[-1].tx.txid}")
            history += page
            known_before = len(seen)
            seen.update(entry.tx.txid for entry in page)
            if len(history) > MAX_HISTORY or (page and len(seen) == known_before):
                raise ChainUnavailable("esplora sent an endless history")
        return history

    async def _history_page(self, path: str) -> list["_Found"]:
        answer = await self._get_json(path, MAX_PAGE_BYTES)
        if not isinstance(answer, list):
            raise ChainUnavailable("esplora sent no list of transactions")
        return [_found(entry) for entry in answer]


async def _received(response: httpx.Response, max_bytes: int) -> httpx.Response:
    """The answer with its whole body, unless that is longer than it can be. Raises ChainUnavailable."""
    try:
        body = await read_body(response, max_bytes)
    except AnswerTooLong:
        raise ChainUnavailable("esplora's answer is too long") from None
    return httpx.Response(response.status_code, content=body)


class _Found:
    """A transaction from a script's history; in_block None: unconfirmed."""

    __slots__ = ("in_block", "tx")

    def __init__(self, tx: Tx, in_block: FoundInBlock | None) -> None:
        self.tx = tx
        self.in_block = in_block


def _found(entry: object) -> _Found:
    tx = _checked(_transaction(entry), _txid(_field(entry, "txid", str)))
    status_object = _field(entry, "status", dict)
    status = _status(status_object)
    if isinstance(status, Mempool):
        return _Found(tx, None)
    block_time = _field(status_object, "block_time", int)
    if not 0 <= block_time < 1 << 32:
        raise ChainUnavailable("esplora sent an impossible block time")
    return _Found(tx, FoundInBlock(tx, status.block, block_time))


def _transaction(entry: object) -> Tx:
    try:
        return Tx(
            version=_field(entry, "version", int) & 0xFFFF_FFFF,
            inputs=tuple(_input(tx_in) for tx_in in _field(entry, "vin", list)),
            outputs=tuple(
                TxOut(_field(output, "value", int), bytes.fromhex(_field(output, "scriptpubkey", str)))
                for output in _field(entry, "vout", list)
            ),
            locktime=_field(entry, "locktime", int),
        )
    except (TypeError, ValueError) as error:
        raise ChainUnavailable("esplora sent a malformed transaction") from error


def _input(entry: object) -> TxIn:
    witness = entry.get("witness", []) if isinstance(entry, dict) else []
    return TxIn(
        prevout=OutPoint(_txid(_field(entry, "txid", str)), _field(entry, "vout", int)),
        script_sig=bytes.fromhex(_field(entry, "scriptsig", str)),
        sequence=_field(entry, "sequence", int),
        witness=tuple(bytes.fromhex(item) for item in witness),
    )


def _checked(tx: Tx, txid: Txid) -> Tx:
    try:
        if tx.txid == txid:
            return tx
    except OverflowError:  # a number that does not fit its field
        pass
    raise ChainUnavailable("esplora sent another transaction than the one asked for")


def _status(status: object) -> Mempool | Confirmed:
    if not _field(status, "confirmed", bool):
        return Mempool()
    height = _field(status, "block_height", int)
    if not 0 <= height < _HEIGHT_END:
        raise ChainUnavailable("esplora sent an impossible height")
    return Confirmed(BlockRef(height, _block_hash(_field(status, "block_hash", str))))


def _is_confirmed(tx: object) -> bool:
    return isinstance(_status(_field(tx, "status", dict)), Confirmed)


def _txid(text: str) -> Txid:
    try:
        return Txid.from_hex(text)
    except ValueError as error:
        raise ChainUnavailable("esplora sent a malformed transaction id") from error


def _block_hash(text: str) -> BlockHash:
    try:
        return BlockHash.from_hex(text)
    except ValueError as error:
        raise ChainUnavailable("esplora sent a malformed block hash") from error


def _fee_rate(sat_per_vb: float) -> FeeRate:
    if sat_per_vb > MAX_SAT_PER_VB:
        raise NoEstimate("esplora sent an absurd fee estimate")
    try:
        return FeeRate.from_sat_per_vb(sat_per_vb)
    except ValueError as error:
        raise NoEstimate("esplora sent an impossible fee estimate") from error


def _parse_json(response: httpx.Response) -> Any:
    try:
        return parse_json(response.content)
    except ValueError as error:
        raise ChainUnavailable("esplora sent no JSON") from error


def _field(value: object, name: str, kind: type[_T]) -> _T:
    """A member of a JSON object that must be there, with this type."""
    member = value.get(name) if isinstance(value, dict) else None
    if not isinstance(member, kind) or (isinstance(member, bool) and kind is not bool):
        raise ChainUnavailable(f"esplora sent an answer without {name}")
    return member
