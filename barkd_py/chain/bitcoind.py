"""A bitcoin node (Bitcoin Core 29 or newer, with ``txindex=1``) over JSON-RPC.

Cookie credentials are read again when the node answers 401: it writes a new cookie at every start. Calls are
tried again only if the connection failed; an error that the node itself reports is final.

Source: sheet 06 §6.1, §6.2, §7.3.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from barkd_py.bitcoin.hashes import sha256d
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, TxDecodeError, Txid, parse_block_body
from barkd_py.bitcoin.units import SAT_PER_BTC, BlockRef, FeeRate, Network
from barkd_py.chain.broadcast import check_package_result, classify
from barkd_py.chain.fee_rates import FEE_TARGETS, FeeRateCache, NoEstimate
from barkd_py.chain.http import AnswerTooLong, open_client, parse_json, read_body
from barkd_py.chain.matching import WalletMatcher
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainMisconfigured,
    ChainMoved,
    Confirmed,
    FeeRates,
    FoundInBlock,
    Mempool,
    NetworkMismatch,
    NodeTooOld,
    NotFound,
    PackageFee,
    ScriptWatch,
    Spend,
    TxStatus,
    WalletFindings,
    WalletQuery,
)
from barkd_py.chain.tip_cache import TipCache
from barkd_py.errors import ChainError, ChainUnavailable, printable

REQUEST_TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A hundred of the largest transactions, or the ids of a very full mempool, are a third of it."""
MAX_ATTEMPTS = 3
RETRY_DELAY_S = 1.0
MIN_VERSION = 290_000
"""The first release that relays packages with a zero-fee parent and ephemeral dust."""

SEARCH_BLOCKS = 2_000
"""A long search is answered in pieces: what was found is stored, and a restart does not begin again."""
KEPT_CHECKPOINTS = 100
_PARALLEL_BLOCKS = 8
SCAN_TIMEOUT_S = 3600.0
"""For a look through all unspent outputs there are: it takes a node minutes, a small one more."""
_SCANNED_AHEAD = 1_000
"""Scripts past the last revealed one: a thousand cost the node no more than one, and since it tells of
unspent outputs only, an index that was used and is empty now does not show how far the wallet came."""
_BATCH = 100

_RPC_NOT_FOUND = -5
_RPC_ALREADY_IN_CHAIN = -27
_RPC_IN_WARMUP = -28

_CHAIN_NAMES = {
    Network.MAINNET: "main",
    Network.TESTNET: "test",
    Network.TESTNET4: "testnet4",
    Network.SIGNET: "signet",
    Network.MUTINYNET: "signet",
    Network.REGTEST: "regtest",
}


class RpcError(ChainError):
    """The node refused a call."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"RPC server returned error '{reason}' (code {code})")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class UserPass:
    """Credentials from the configuration."""

    user: str
    password: str = field(repr=False)

    def load(self) -> tuple[str, str]:
        return self.user, self.password


@dataclass(frozen=True, slots=True)
class CookieFile:
    """Credentials that the node writes at its start: ``user:password`` in the first line."""

    path: Path

    def load(self) -> tuple[str, str]:
        """Read the file. Raises ChainUnavailable: a node that is not running has no cookie."""
        try:
            first_line = self.path.read_text().partition("\n")[0]
        except OSError as error:
            raise ChainUnavailable(f"cannot read the cookie file {self.path}") from error
        user, separator, password = first_line.strip().partition(":")
        if not separator:
            raise ChainUnavailable(f"the cookie file {self.path} holds no credentials")
        return user, password


BitcoindAuth = UserPass | CookieFile


class RpcClient:
    """JSON-RPC 1.0 over HTTP."""

    def __init__(
        self,
        url: str,
        auth: BitcoindAuth,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url if "://" in url else f"http://{url}"
        self._auth = auth
        self._credentials: tuple[str, str] | None = None
        self._client = open_client(timeout_s=REQUEST_TIMEOUT_S, transport=transport)
        self._sleep = sleep

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, method: str, *params: object, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        """The result of one call. Raises RpcError, ChainUnavailable."""
        body = {"jsonrpc": "1.0", "id": 0, "method": method, "params": params}
        return _result_of(await self._request(body, timeout_s), method)

    async def call_each(self, method: str, params_list: Sequence[Sequence[object]]) -> list[Any | RpcError]:
        """The result or the refusal of many calls of one method, in one request, in their order."""
        if not params_list:
            return []
        calls = [
            {"jsonrpc": "1.0", "id": position, "method": method, "params": params}
            for position, params in enumerate(params_list)
        ]
        answers = await self._request(calls)
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise ChainUnavailable(f"malformed answer to {method}")
        results: list[Any | RpcError] = [None] * len(calls)
        for answer in answers:
            position = answer.get("id") if isinstance(answer, dict) else None
            if not isinstance(position, int) or not 0 <= position < len(calls):
                raise ChainUnavailable(f"malformed answer to {method}")
            try:
                results[position] = _result_of(answer, method)
            except RpcError as error:
                results[position] = error
        return results

    async def _request(self, body: object, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        content = json.dumps(body).encode()
        response = await self._post(content, timeout_s)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._credentials = None
            response = await self._post(content, timeout_s)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ChainUnavailable(f"bitcoind refused our credentials: {response.status_code}")
        try:
            return parse_json(response.content, parse_float=Decimal)
        except ValueError:
            raise ChainUnavailable(f"bitcoind answered with HTTP status {response.status_code}") from None

    async def _post(self, content: bytes, timeout_s: float) -> httpx.Response:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if self._credentials is None:
                self._credentials = await asyncio.to_thread(self._auth.load)
            try:
                async with self._client.stream(
                    "POST",
                    self._url,
                    content=content,
                    headers={"content-type": "application/json"},
                    auth=self._credentials,
                    timeout=httpx.Timeout(REQUEST_TIMEOUT_S, read=timeout_s),
                ) as response:
                    body = await read_body(response, MAX_ANSWER_BYTES)
                    return httpx.Response(response.status_code, content=body)
            except httpx.ConnectError as error:
                if attempt == MAX_ATTEMPTS:
                    raise ChainUnavailable("cannot connect to bitcoind") from error
                await self._sleep(RETRY_DELAY_S)
            except httpx.HTTPError as error:
                raise ChainUnavailable(f"no answer from bitcoind: {type(error).__name__}") from error
            except AnswerTooLong:
                raise ChainUnavailable("bitcoind's answer is too long") from None
        raise AssertionError("unreachable")


def _result_of(answer: object, method: str) -> Any:
    match answer:
        case {"error": None, "result": result}:
            return result
        case {"error": {"code": int(code), "message": str(words)}}:
            reason = printable(words)
            if code == _RPC_IN_WARMUP:
                raise ChainUnavailable(f"bitcoind is starting: {reason}")
            raise RpcError(code, reason)
        case _:
            raise ChainUnavailable(f"malformed answer to {method}")


@dataclass(slots=True)
class _MempoolMemory:
    """What was seen in the mempool at earlier searches, to fetch each transaction only once."""

    ours: dict[Txid, Tx] = field(default_factory=dict)
    others: set[Txid] = field(default_factory=set)


class BitcoindSource:
    """A `ChainSource` on a node.

    fallback_fee_rate: used while the node has no estimates. clock: seconds, monotonic.
    search_blocks: after so many a search reports what it has.
    """

    def __init__(
        self,
        rpc: RpcClient,
        *,
        fallback_fee_rate: FeeRate,
        clock: Callable[[], float] = time.monotonic,
        search_blocks: int = SEARCH_BLOCKS,
    ) -> None:
        self._rpc = rpc
        self._search_blocks = search_blocks
        self._tip = TipCache(clock)
        self._fees = FeeRateCache(self._estimate_fees, fallback=fallback_fee_rate, clock=clock)
        # by wallet, so that two wallets on one source do not hide each other's transactions
        self._mempools: WeakKeyDictionary[ScriptWatch, _MempoolMemory] = WeakKeyDictionary()

    @property
    def reads_blocks(self) -> bool:
        return True

    async def check_startup(self, network: Network) -> None:
        try:
            chain = await self._rpc.call("getblockchaininfo")
            indexes = await self._rpc.call("getindexinfo")
            node = await self._rpc.call("getnetworkinfo")
            got, version = chain["chain"], int(node["version"])
        except (KeyError, TypeError, ValueError, RpcError) as error:
            raise ChainUnavailable("cannot check the node") from error
        if got != _CHAIN_NAMES[network]:
            known = {name: net.bitcoin_name.capitalize() for net, name in _CHAIN_NAMES.items()}
            raise NetworkMismatch(network, known.get(got, str(got)))
        if "txindex" not in indexes:
            raise ChainMisconfigured("txindex is not enabled. Run bitcoind with txindex = 1")
        if version < MIN_VERSION:
            raise NodeTooOld

    async def close(self) -> None:
        await self._rpc.close()

    # --- blocks ---

    async def tip(self) -> BlockRef:
        return self._tip.get() or await self.fetch_tip()

    async def fetch_tip(self) -> BlockRef:
        height = await self._rpc.call("getblockcount")
        block_hash = await self.block_hash(height)
        if block_hash is None:  # a reorg to a shorter chain, between the two calls
            raise ChainUnavailable("the chain tip is changing")
        return self._tip.put(BlockRef(height, block_hash))

    async def block_hash(self, height: int) -> BlockHash | None:
        try:
            return BlockHash.from_hex(await self._rpc.call("getblockhash", height))
        except RpcError as error:
            if error.code == -8:  # "Block height out of range"
                return None
            raise _unusable(error) from error

    async def block_txids(self, block_hash: BlockHash) -> frozenset[Txid] | None:
        try:
            block = await self._rpc.call("getblock", str(block_hash), 1)
        except RpcError as error:
            if error.code == _RPC_NOT_FOUND:
                return None
            raise _unusable(error) from error
        try:
            return frozenset(map(Txid.from_hex, block["tx"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ChainUnavailable("bitcoind sent a malformed block") from error

    async def _raw_block(self, block_hash: BlockHash) -> bytes:
        """The block, checked against its hash. Raises ChainMoved if the node no longer has it."""
        try:
            raw = bytes.fromhex(await self._rpc.call("getblock", str(block_hash), 0))
        except RpcError as error:
            if error.code == _RPC_NOT_FOUND:
                raise ChainMoved("a block has disappeared") from error
            raise _unusable(error) from error
        if len(raw) <= 80 or sha256d(raw[:80]) != block_hash:
            raise ChainUnavailable("bitcoind sent another block than the one asked for")
        return raw

    # --- transactions ---

    async def tx_status(self, txid: Txid) -> TxStatus:
        try:
            info = await self._rpc.call("getrawtransaction", str(txid), True)
        except RpcError as error:
            if error.code == _RPC_NOT_FOUND:
                return NotFound()
            raise _unusable(error) from error
        block_hash = info.get("blockhash")
        if block_hash is None:
            return Mempool()
        return await self._status_in_block(block_hash)

    async def _status_in_block(self, block_hash: str) -> Mempool | Confirmed:
        try:
            header = await self._rpc.call("getblockheader", block_hash, True)
        except RpcError as error:
            raise _unusable(error) from error
        if header["confirmations"] > 0:
            return Confirmed(BlockRef(header["height"], BlockHash.from_hex(block_hash)))
        return Mempool()

    async def get_tx(self, txid: Txid) -> Tx | None:
        try:
            return Tx.from_hex(await self._rpc.call("getrawtransaction", str(txid), 0))
        except RpcError as error:
            if error.code == _RPC_NOT_FOUND:
                return None
            raise _unusable(error) from error
        except TxDecodeError as error:
            raise ChainUnavailable("bitcoind sent a malformed transaction") from error

    async def spender(self, outpoint: OutPoint, *, since_height: int) -> Spend | None:
        asked = [{"txid": str(outpoint.txid), "vout": outpoint.vout}]
        try:
            answer = await self._rpc.call("gettxspendingprevout", asked)
        except RpcError as error:
            raise _unusable(error) from error
        if "spendingtxid" in answer[0]:
            return Spend(Txid.from_hex(answer[0]["spendingtxid"]), Mempool())
        if not await self.is_spent_confirmed(outpoint):
            return None
        return await self._spender_in_blocks(outpoint, since_height)

    async def _spender_in_blocks(self, outpoint: OutPoint, since_height: int) -> Spend | None:
        needle = outpoint.to_bytes()
        height = since_height
        while (block_hash := await self.block_hash(height)) is not None:
            raw = await self._raw_block(block_hash)
            if needle in raw:
                for tx in parse_block_body(raw[80:]):
                    if any(tx_in.prevout == outpoint for tx_in in tx.inputs):
                        return Spend(tx.txid, Confirmed(BlockRef(height, block_hash)))
            height += 1
        return None

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        try:
            unspent = await self._rpc.call("gettxout", str(outpoint.txid), outpoint.vout, False)
        except RpcError as error:
            raise _unusable(error) from error
        return unspent is None

    async def package_fee(self, txid: Txid) -> PackageFee | None:
        try:
            entry = await self._rpc.call("getmempoolentry", str(txid))
        except RpcError as error:
            if error.code == _RPC_NOT_FOUND:
                return None
            raise _unusable(error) from error
        # ancestorsize counts the transaction itself; upstream adds its weight a second time and so re-bumps
        # its own packages (sheet 06 §4.6)
        return PackageFee(_sat(entry["fees"]["ancestor"]), 4 * int(entry["ancestorsize"]))

    # --- broadcast ---

    async def broadcast(self, tx: Tx) -> None:
        try:
            await self._rpc.call("sendrawtransaction", tx.serialize().hex())
        except RpcError as error:
            kind = classify(error.reason)
            if error.code == _RPC_ALREADY_IN_CHAIN or kind is BroadcastErrorKind.KNOWN:
                return
            raise BroadcastError(kind, str(error)) from None

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        try:
            answer = await self._rpc.call("submitpackage", [tx.serialize().hex() for tx in txs])
        except RpcError as error:
            raise BroadcastError(BroadcastErrorKind.OTHER, str(error)) from None
        check_package_result(txs, answer)

    # --- fees ---

    async def fee_rates(self) -> FeeRates:
        return await self._fees.rates()

    async def update_fee_rates(self, *, force: bool = False) -> FeeRates:
        return await self._fees.update(force=force)

    async def _estimate_fees(self) -> FeeRates:
        answers = await self._rpc.call_each(
            "estimatesmartfee", [(target, "ECONOMICAL") for target in FEE_TARGETS]
        )
        rates: list[FeeRate] = []
        for target, answer in zip(FEE_TARGETS, answers, strict=True):
            match answer:
                case {"feerate": Decimal() | int() as btc_per_kvb}:
                    rates.append(FeeRate.from_sat_per_kvb(_sat(btc_per_kvb)))
                case _:
                    raise NoEstimate(f"bitcoind has no fee estimate for {target} blocks")
        fast, regular, slow = rates
        return FeeRates(fast, regular, slow)

    # --- the wallet's transactions ---

    async def find_wallet_transactions(self, query: WalletQuery) -> WalletFindings:
        matcher = WalletMatcher(query.scripts, query.outpoints)
        last_height = min(query.tip.height, query.after.height + self._search_blocks)
        confirmed: list[FoundInBlock] = []
        blocks: list[BlockRef] = []
        previous = query.after
        for first in range(query.after.height + 1, last_height + 1, _PARALLEL_BLOCKS):
            heights = range(first, min(first + _PARALLEL_BLOCKS, last_height + 1))
            for block, raw in await self._read_blocks(heights):
                if raw[4:36] != previous.hash:
                    raise ChainMoved("the best chain changed during the search")
                confirmed += _match_block(matcher, block, raw)
                blocks.append(block)
                previous = block
        if previous.height == query.tip.height and previous != query.tip:
            raise ChainMoved("the best chain changed during the search")
        mempool: tuple[Tx, ...] = ()
        if previous == query.tip:
            if query.stop_gap is not None:
                confirmed += await self._find_unspent(query, query.stop_gap, matcher)
            if query.stop_gap is not None or query.rereads_mempool:
                self._mempools.pop(query.scripts, None)  # of scripts that were not ours to our knowledge
            mempool = await self._match_mempool(query, matcher)
        return WalletFindings(previous, tuple(confirmed), mempool, tuple(blocks[-KEPT_CHECKPOINTS:]))

    async def _read_blocks(self, heights: range) -> list[tuple[BlockRef, bytes]]:
        hashes = await self._rpc.call_each("getblockhash", [(height,) for height in heights])
        blocks: list[BlockRef] = []
        for height, answer in zip(heights, hashes, strict=True):
            if isinstance(answer, RpcError):
                raise ChainMoved("the best chain became shorter") from answer
            blocks.append(BlockRef(height, BlockHash.from_hex(answer)))
        raws = await asyncio.gather(*(self._raw_block(block.hash) for block in blocks))
        return list(zip(blocks, raws, strict=True))

    async def _find_unspent(
        self, query: WalletQuery, stop_gap: int, matcher: WalletMatcher
    ) -> list[FoundInBlock]:
        """What pays our unspent outputs, from any time: it may be older than the blocks that are read."""
        found: dict[Txid, FoundInBlock] = {}
        scripts = query.scripts
        start, end = 0, scripts.revealed_count + max(stop_gap, _SCANNED_AHEAD)
        while start < end:
            by_script = await asyncio.to_thread(_by_script, scripts, range(start, end))
            for unspent in await self._scan_unspent(by_script):
                scripts.found(by_script[bytes.fromhex(unspent["scriptPubKey"])])
                txid, height = Txid.from_hex(unspent["txid"]), int(unspent["height"])
                if txid in found or height > query.tip.height:
                    continue
                try:
                    found[txid] = await self._in_block(txid, height)
                except ChainMoved:
                    if await self.block_hash(query.tip.height) == query.tip.hash:
                        raise
                    # the tip was replaced meanwhile, so the caller reads the blocks from before this one
            start, end = end, max(end, scripts.revealed_count + stop_gap)
        matcher.select([each.tx for each in found.values()])
        return list(found.values())

    async def _scan_unspent(self, scripts: Iterable[bytes]) -> list[dict[str, Any]]:
        sought = [f"raw({script.hex()})" for script in scripts]
        try:
            answer = await self._rpc.call("scantxoutset", "start", sought, timeout_s=SCAN_TIMEOUT_S)
        except RpcError as error:  # as when somebody else lets it look for something
            raise _unusable(error) from error
        match answer:
            case {"success": True, "unspents": list(unspents)}:
                return unspents
            case _:
                raise ChainUnavailable("bitcoind did not look through all unspent outputs")

    async def _in_block(self, txid: Txid, height: int) -> FoundInBlock:
        try:
            info = await self._rpc.call("getrawtransaction", str(txid), True)
            block = BlockRef(height, BlockHash.from_hex(info["blockhash"]))
            return FoundInBlock(Tx.from_hex(info["hex"]), block, int(info["blocktime"]))
        except (RpcError, KeyError) as error:  # its block was the tip, and is not in the chain any more
            raise ChainMoved("a transaction has left the best chain") from error

    async def _match_mempool(self, query: WalletQuery, matcher: WalletMatcher) -> tuple[Tx, ...]:
        memory = self._mempools.setdefault(query.scripts, _MempoolMemory())
        listed = {Txid.from_hex(txid) for txid in await self._rpc.call("getrawmempool")}
        memory.others &= listed
        memory.ours = {txid: tx for txid, tx in memory.ours.items() if txid in listed}
        candidates = list(memory.ours.values())
        fresh = sorted(listed - memory.others - memory.ours.keys())
        for first in range(0, len(fresh), _BATCH):
            batch = fresh[first : first + _BATCH]
            answers = await self._rpc.call_each("getrawtransaction", [(str(txid), 0) for txid in batch])
            # one that was mined or dropped in between has no answer; the tip or the next search tells
            candidates += [Tx.from_hex(answer) for answer in answers if isinstance(answer, str)]
        memory.ours = {tx.txid: tx for tx in matcher.select(candidates)}
        memory.others |= {tx.txid for tx in candidates} - memory.ours.keys()
        return tuple(memory.ours.values())


def _by_script(scripts: ScriptWatch, indexes: range) -> dict[bytes, int]:
    return {scripts.script(index): index for index in indexes}


def _match_block(matcher: WalletMatcher, block: BlockRef, raw: bytes) -> list[FoundInBlock]:
    if not matcher.may_concern(raw):
        return []
    block_time = int.from_bytes(raw[68:72], "little")
    return [FoundInBlock(tx, block, block_time) for tx in matcher.select(parse_block_body(raw[80:]))]


def _sat(btc: Decimal | int) -> int:
    return int(btc * SAT_PER_BTC)


def _unusable(error: RpcError) -> ChainUnavailable:
    """A refusal that the call does not provide for says nothing about the chain."""
    return ChainUnavailable(str(error))
