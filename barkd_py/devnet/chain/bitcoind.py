"""A real bitcoind instead of the built-in chain: ``barkd devnet --bitcoind PATH``.

The node is started in regtest with a data directory of its own and stopped at the end. It is driven over RPC;
index and pool mirror what it holds, because bitcoind has no index by script, and the Esplora face needs one.

Bitcoin Knots refuses Ark's packages by default, so it is told to relay as Bitcoin Core does. Source: sheet 06
§4.5 (node policy), §6.2 (RPC calls).
"""

import asyncio
import itertools
import json
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.tx import BlockHash, Tx, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.devnet.chain.faucet import FAUCET_SCRIPT
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.node import (
    RPC_INVALID_ADDRESS_OR_KEY,
    RPC_INVALID_PARAMETER,
    RPC_TRANSACTION_REJECTED,
    ChangeSignal,
    NodeRefusal,
)
from barkd_py.devnet.chain.pool import PoolEntry, TxPool
from barkd_py.errors import ChainUnavailable

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 60.0
_START_POLL_S = 0.1
_RPC_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
_LAST_WORDS_MAX = 500

#: Blocks fetched by one batch of RPC calls.
_BATCH = 200


class BitcoindRpc:
    """JSON-RPC over HTTP, with the cookie that bitcoind writes at its start."""

    def __init__(self, url: str, cookie_file: Path) -> None:
        self.url = url
        self.cookie_file = cookie_file
        self._ids = itertools.count(1)
        self._http: httpx.AsyncClient | None = None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            user, _, password = self.cookie_file.read_text().strip().partition(":")
            self._http = httpx.AsyncClient(
                auth=(user, password), timeout=_RPC_TIMEOUT_S, trust_env=False, base_url=self.url
            )
        return self._http

    async def call(self, method: str, *params: object) -> Any:
        """One call. Raises NodeRefusal for an answer that is an error, else ChainUnavailable."""
        body = {"jsonrpc": "1.0", "id": next(self._ids), "method": method, "params": params}
        return _result(await self._post(body))

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """Several calls in one request; their results in the same order."""
        if not calls:
            return []
        bodies = [
            {"jsonrpc": "1.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate(calls)
        ]
        answers = await self._post(bodies)
        by_id = {answer["id"]: answer for answer in answers}
        return [_result(by_id[index]) for index in range(len(calls))]

    async def _post(self, body: object) -> Any:
        try:
            response = await self._client().post("/", json=body)
            return json.loads(response.content)
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ChainUnavailable(f"bitcoind does not answer at {self.url}") from error

    async def close(self) -> None:
        """Drop the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None


def _result(answer: Mapping[str, Any]) -> Any:
    error = answer.get("error")
    if error is not None:
        raise NodeRefusal(int(error["code"]), str(error["message"]))
    return answer["result"]


@dataclass(frozen=True, slots=True)
class BitcoindProcess:
    """A running bitcoind that belongs to us."""

    process: asyncio.subprocess.Process
    rpc: BitcoindRpc
    version: str

    @classmethod
    async def start(cls, executable: Path, datadir: Path, rpc_port: int | None = None) -> "BitcoindProcess":
        """Start it on a data directory and wait until it answers.

        rpc_port: a free one unless given. Raises ChainUnavailable, with the end of its log.
        """
        cookie_file = _prepare(datadir)
        port = free_port() if rpc_port is None else rpc_port
        version = await _version(executable)
        with tempfile.TemporaryFile() as errors:
            process = await asyncio.create_subprocess_exec(
                executable,
                *_arguments(datadir, port, is_knots="Knots" in version),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C reaches the whole foreground group; the node stops when we say so, after its users.
                start_new_session=True,
            )
            rpc = BitcoindRpc(f"http://127.0.0.1:{port}", cookie_file)
            running = cls(process, rpc, version)
            try:
                await asyncio.wait_for(running._ready(), _START_TIMEOUT_S)
            except (TimeoutError, ChainUnavailable) as error:
                await running.stop()
                said = _end(errors) or _last_line(datadir / "regtest" / "debug.log")
                raise ChainUnavailable(f"{executable} did not start: {said}") from error
            except BaseException:
                await running.stop()
                raise
        return running

    async def _ready(self) -> None:
        while self.process.returncode is None:
            try:
                if (await self.rpc.call("getmempoolinfo"))["loaded"]:
                    return
            except (NodeRefusal, ChainUnavailable):  # no cookie yet, not listening, or still loading
                await self.rpc.close()
            await asyncio.sleep(_START_POLL_S)
        raise ChainUnavailable(f"bitcoind ended with code {self.process.returncode}")

    async def stop(self) -> None:
        """Ask it to end and wait; it writes its state to disk."""
        await self.rpc.close()
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


def _prepare(datadir: Path) -> Path:
    """Make the directory, and remove the cookie that a killed node left; where the new one will be."""
    datadir.mkdir(parents=True, exist_ok=True)
    cookie_file = datadir / "regtest" / ".cookie"
    cookie_file.unlink(missing_ok=True)
    return cookie_file


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _arguments(datadir: Path, rpc_port: int, *, is_knots: bool) -> list[str]:
    arguments = [
        "-regtest",
        f"-datadir={datadir}",
        "-server=1",
        "-txindex=1",
        "-listen=0",
        "-connect=0",
        "-dnsseed=0",
        f"-rpcport={rpc_port}",
        "-rpcworkqueue=64",
        "-maxtipage=3153600000",  # an old chain is still the newest there is
        "-printtoconsole=0",
    ]
    if is_knots:
        arguments.append("-corepolicy=1")
    return arguments


async def _version(executable: Path) -> str:
    """The first line of its ``--version``. Raises ChainUnavailable if it cannot be run."""
    try:
        process = await asyncio.create_subprocess_exec(
            executable,
            "--version",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    except OSError as error:
        raise ChainUnavailable(f"{executable} cannot be run: {error.strerror}") from error
    if process.returncode != 0:
        said = _last_words(errors) or f"it ended with code {process.returncode}"
        raise ChainUnavailable(f"{executable} --version failed: {said}")
    return output.decode(errors="replace").partition("\n")[0]


def _end(stream: IO[bytes]) -> str:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_WORDS_MAX))
    return _last_words(stream.read())


def _last_words(output: bytes) -> str:
    """The end of what a program wrote to its standard error, on one line."""
    return " ".join(output[-_LAST_WORDS_MAX:].decode(errors="replace").split())


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return lines[-1] if lines else "its log is empty"


@dataclass(frozen=True, slots=True)
class _Home:
    """What it takes to start a node again at the same address."""

    executable: Path
    datadir: Path
    rpc_port: int

    async def start(self) -> BitcoindProcess:
        return await BitcoindProcess.start(self.executable, self.datadir, self.rpc_port)

    def forget_mempool(self) -> None:
        """Of a stopped node."""
        (self.datadir / "regtest" / "mempool.dat").unlink(missing_ok=True)


class BitcoindNode:
    """`Node` over the RPC interface of a bitcoind."""

    def __init__(self, process: BitcoindProcess, index: ChainIndex, home: _Home | None = None) -> None:
        """home: where it can be started again; None if it is not ours."""
        self._home = home
        self._process = process
        self._rpc = process.rpc
        self.index = index
        self.pool = TxPool()
        self.changed = ChangeSignal()
        self._mempool_sequence: int | None = None
        self._refreshing = asyncio.Lock()

    @classmethod
    async def start(cls, executable: Path, datadir: Path, rpc_port: int | None = None) -> "BitcoindNode":
        """Start a bitcoind and read its chain. Raises ChainUnavailable."""
        home = _Home(executable, datadir, free_port() if rpc_port is None else rpc_port)
        process = await home.start()
        try:
            genesis_hash = await process.rpc.call("getblockhash", 0)
            genesis = await process.rpc.call("getblock", genesis_hash, 0)
            node = cls(process, ChainIndex(bytes.fromhex(genesis)), home)
            await node.refresh()
        except BaseException:
            await process.stop()
            raise
        return node

    @property
    def name(self) -> str:
        return self._process.version

    @property
    def rpc_url(self) -> str:
        return self._rpc.url

    @property
    def cookie_file(self) -> Path:
        """Where the node writes user and password for its RPC interface."""
        return self._rpc.cookie_file

    async def close(self) -> None:
        await self._process.stop()

    # -- mirroring -------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        async with self._refreshing:
            best, mempool = await self._rpc.batch(
                [("getbestblockhash", ()), ("getrawmempool", (False, True))]
            )
            is_same_tip = BlockHash.from_hex(best) == self.index.tip.hash
            if is_same_tip and mempool["mempool_sequence"] == self._mempool_sequence:
                return
            if not is_same_tip:
                await self._follow(BlockHash.from_hex(best))
            is_complete = await self._mirror_pool([Txid.from_hex(txid) for txid in mempool["txids"]])
            self._mempool_sequence = mempool["mempool_sequence"] if is_complete else None
        self.changed.notify()

    async def _follow(self, best: BlockHash) -> None:
        """Make the index end at `best`: back to the last common block, then forward."""
        header = await self._rpc.call("getblockheader", str(best))
        height = min(int(header["height"]), self.index.tip_height)
        while True:
            known = self.index.block_at(height)
            assert known is not None
            if await self._rpc.call("getblockhash", height) == str(known.hash):
                break
            height -= 1
        blocks = await self._blocks(height + 1, int(header["height"]))
        while self.index.tip_height > height:
            self.index.disconnect()
        for raw in blocks:
            self.index.connect(raw)

    async def _blocks(self, first: int, last: int) -> list[bytes]:
        blocks: list[bytes] = []
        for start in range(first, last + 1, _BATCH):
            heights = range(start, min(start + _BATCH, last + 1))
            hashes = await self._rpc.batch([("getblockhash", (height,)) for height in heights])
            raws = await self._rpc.batch([("getblock", (block_hash, 0)) for block_hash in hashes])
            blocks.extend(bytes.fromhex(raw) for raw in raws)
        return blocks

    async def _mirror_pool(self, txids: Sequence[Txid]) -> bool:
        """Make the pool hold what bitcoind's mempool held when the ids were read.

        False if the mempool changed meanwhile, so that another round is needed.
        """
        wanted = set(txids)
        for entry in self.pool:
            if entry.txid not in wanted:
                self.pool.remove(entry.txid)
        missing = [txid for txid in txids if txid not in self.pool]
        try:
            raws = await self._rpc.batch([("getrawtransaction", (str(txid),)) for txid in missing])
        except NodeRefusal:
            return False
        todo = [Tx.from_hex(raw) for raw in raws]
        while todo:
            waiting = [tx for tx in todo if not self._enter(tx)]
            if len(waiting) == len(todo):  # their parents are gone
                return False
            todo = waiting
        return True

    def _enter(self, tx: Tx) -> bool:
        """Put a transaction into the pool; False if an output that it spends is not known yet."""
        spent: list[TxOut] = []
        for tx_in in tx.inputs:
            output = self.pool.output(tx_in.prevout) or self.index.output(tx_in.prevout)
            if output is None:
                return False
            spent.append(output)
        self.pool.add(PoolEntry.of(tx, spent))
        return True

    # -- commands --------------------------------------------------------------------------------------

    async def mine(self, count: int = 1, *, reward_script: bytes | None = None) -> tuple[BlockRef, ...]:
        hashes = await self._rpc.call("generatetoaddress", count, _address(reward_script))
        await self.refresh()
        return tuple(self._ref(block_hash) for block_hash in hashes)

    async def mine_exactly(
        self, transactions: Sequence[Tx], *, reward_script: bytes | None = None
    ) -> BlockRef:
        await self._generate(transactions, reward_script)
        await self.refresh()
        return self.index.tip.ref

    async def _generate(self, transactions: Sequence[Tx], reward_script: bytes | None) -> None:
        raws = [tx.serialize().hex() for tx in transactions]
        await self._rpc.call("generateblock", _address(reward_script), raws)

    async def reorg(self, depth: int, *, transactions: Sequence[Tx] = ()) -> BlockRef:
        await self.refresh()
        first_lost = self.index.block_at(self.index.tip_height - depth + 1)
        if depth < 1 or first_lost is None or first_lost.height == 0:
            raise NodeRefusal(RPC_INVALID_PARAMETER, f"there are not {depth} blocks to replace")
        await self._rpc.call("invalidateblock", str(first_lost.hash))
        try:
            # Paid to somebody else, or it would be the lost block again if that was empty too.
            await self._generate(transactions, b"\x00\x20" + secrets.token_bytes(32))
        except NodeRefusal:
            await self._rpc.call("reconsiderblock", str(first_lost.hash))
            raise
        for _ in range(depth):
            await self._generate((), None)
        await self.refresh()
        return self.index.tip.ref

    async def check(self, raw_hex: str) -> None:
        (result,) = await self._rpc.call("testmempoolaccept", [raw_hex])
        if not result["allowed"] and result.get("reject-reason") != "txn-already-in-mempool":
            raise NodeRefusal(RPC_TRANSACTION_REJECTED, str(result.get("reject-reason", "package-error")))

    async def broadcast(self, raw_hex: str) -> Txid:
        txid = await self._rpc.call("sendrawtransaction", raw_hex)
        await self.refresh()
        return Txid.from_hex(txid)

    async def submit_package(self, raw_hexes: Sequence[str]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._rpc.call("submitpackage", list(raw_hexes))
        await self.refresh()
        return answer

    async def evict(self, txid: Txid) -> None:
        """A node forgets when it is restarted without its mempool; it is told of all the others again."""
        if self._home is None:
            raise NodeRefusal(RPC_INVALID_PARAMETER, "this node is not ours to restart")
        await self.refresh()
        if txid not in self.pool:
            raise NodeRefusal(RPC_INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
        forgotten = {txid}
        kept: list[Tx] = []
        for entry in self.pool:  # parents first
            if any(tx_in.prevout.txid in forgotten for tx_in in entry.tx.inputs):
                forgotten.add(entry.txid)
            elif entry.txid != txid:
                kept.append(entry.tx)
        async with self._refreshing:
            await self._process.stop()
            self._home.forget_mempool()
            self._process = await self._home.start()
            self._rpc = self._process.rpc
            await self._submit_again(kept)
            self._mempool_sequence = None
        await self.refresh()

    async def _submit_again(self, txs: Sequence[Tx]) -> None:
        """txs: parents first. One that pays too little alone waits for its child."""
        waiting: dict[Txid, Tx] = {}
        for tx in txs:
            parents = [
                waiting.pop(tx_in.prevout.txid) for tx_in in tx.inputs if tx_in.prevout.txid in waiting
            ]
            if parents:
                raws = [each.serialize().hex() for each in (*parents, tx)]
                await self._rpc.call("submitpackage", raws)
                continue
            try:
                await self._rpc.call("sendrawtransaction", tx.serialize().hex())
            except NodeRefusal:
                waiting[tx.txid] = tx

    def _ref(self, block_hash: str) -> BlockRef:
        block = self.index.block(BlockHash.from_hex(block_hash))
        assert block is not None
        return block.ref


def _address(script: bytes | None) -> str:
    address = address_from_script(FAUCET_SCRIPT if script is None else script, Network.REGTEST)
    if address is None:
        raise NodeRefusal(RPC_INVALID_PARAMETER, "the script has no address")
    return address
