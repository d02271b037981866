"""All of devnet in one event loop: the node, its Esplora face, the Ark server and the levers.

State is in one directory that survives restarts and kills: ``chain/`` or ``bitcoind/``, ``ark-server/``, and
what `barkd_py.devnet.state_dir` keeps.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import SAT_PER_BTC
from barkd_py.devnet.ark_levers import ark_server_routes
from barkd_py.devnet.ark_server.chain import NodeChain
from barkd_py.devnet.ark_server.faults import Fault, Faults
from barkd_py.devnet.ark_server.server import AddressInUse, ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server_slot import ArkServerSlot
from barkd_py.devnet.auto_mine import AutoMiner
from barkd_py.devnet.background import in_background
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.bitcoind import BitcoindNode
from barkd_py.devnet.chain.block import COINBASE_MATURITY
from barkd_py.devnet.chain.node import Node
from barkd_py.devnet.clock import DevnetClock
from barkd_py.devnet.control import ControlParts, DescribedFaults, control_app
from barkd_py.devnet.esplora import esplora_app
from barkd_py.devnet.http_faults import HttpFault, HttpFaults
from barkd_py.devnet.lightning.levers import lightning_routes
from barkd_py.devnet.lightning.lnurl import lnurl_routes
from barkd_py.devnet.lightning.outside import Outside
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.devnet.serving import serving
from barkd_py.devnet.state_dir import DirectoryState, locked
from barkd_py.errors import ChainError

log = logging.getLogger(__name__)

#: Blocks of a new chain: the faucet can spend the rewards of the first 20.
_FIRST_BLOCKS = COINBASE_MATURITY + 20

#: What the Ark server gets from the faucet when it has less than one such coin: several, because every open
#: offboard and round locks some.
_SERVER_COIN_SAT = 2 * SAT_PER_BTC
_SERVER_COINS = 20

#: How often a bitcoind is asked what is new; it may be driven by others too.
_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class DevnetOptions:
    """How to run devnet. Ports: as last time, or free ones, unless given.

    bitcoind: the executable to run instead of the built-in node.
    block_interval_seconds, mine_on_transaction: blocks without being asked.
    """

    directory: Path
    host: str = "127.0.0.1"
    esplora_port: int | None = None
    control_port: int | None = None
    ark_port: int | None = None
    ark_admin_port: int | None = None
    bitcoind: Path | None = None
    block_interval_seconds: float | None = None
    mine_on_transaction: bool = False
    ark_settings: ServerSettings | None = None


@dataclass(frozen=True, slots=True)
class DevnetUrls:
    """Where the parts answer. bitcoind_url, bitcoind_cookie: None for the built-in node."""

    esplora_url: str
    control_url: str
    ark_server_url: str
    ark_admin_url: str
    directory: str
    bitcoind_url: str | None = None
    bitcoind_cookie: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints and GET /status holds."""
        urls = {
            "network": "regtest",
            "esplora_url": self.esplora_url,
            "ark_server_url": self.ark_server_url,
            "ark_admin_url": self.ark_admin_url,
            "control_url": self.control_url,
            "dir": self.directory,
        }
        if self.bitcoind_url is not None and self.bitcoind_cookie is not None:
            urls |= {"bitcoind_url": self.bitcoind_url, "bitcoind_cookie": self.bitcoind_cookie}
        return urls


@dataclass(frozen=True, slots=True)
class Devnet:
    """A running devnet."""

    urls: DevnetUrls
    node: Node
    ark_server: ArkServer
    clock: DevnetClock


@contextlib.asynccontextmanager
async def running_devnet(options: DevnetOptions) -> AsyncIterator[Devnet]:
    """Run devnet while the context lasts.

    Raises DirectoryInUse, PortInUse, InvalidInput, ChainUnavailable or StoreError; nothing is left running.
    """
    async with contextlib.AsyncExitStack() as stack:
        options = replace(options, directory=options.directory.absolute())
        stack.enter_context(locked(options.directory))
        kind = "built-in" if options.bitcoind is None else "bitcoind"
        state = DirectoryState.load(options.directory, kind)
        esplora_socket = stack.enter_context(state.listen(options.host, "esplora", options.esplora_port))
        control_socket = stack.enter_context(state.listen(options.host, "control", options.control_port))
        clock = DevnetClock()
        node = await _start_node(options, clock)
        stack.push_async_callback(node.close)
        # The last two confirm what the Ark server gets, and what it puts into its pool.
        await _mine_up_to(node, _FIRST_BLOCKS - 2)
        server_chain = NodeChain(node)
        lightning = await ServerNode.open(_made(options.directory / "lightning"), server_chain, clock)
        stack.push_async_callback(lightning.close)
        faults = Faults()

        async def start_ark_server() -> ArkServer:
            return await ArkServer.start(
                _made(options.directory / "ark-server"),
                server_chain,
                settings=options.ark_settings,
                faults=faults,
                address=_address(options.host, state.ports["ark"]),
                admin_address=_address(options.host, state.ports["ark-admin"]),
                clock=clock,
                lightning_node=lightning,
            )

        slot = await _first_ark_server(options, state, start_ark_server)
        stack.push_async_callback(slot.stop)
        await _fund(slot.server, node)
        await _mine_up_to(node, _FIRST_BLOCKS)
        await slot.server.follower.catch_up()
        urls = _urls_of(options, state, node)
        miner = AutoMiner(
            node,
            interval_seconds=options.block_interval_seconds,
            on_transaction=options.mine_on_transaction,
        )
        http_faults = HttpFaults()
        outside = await Outside.open(lightning, server_chain, clock)
        levers = ControlParts(
            node=node,
            clock=clock,
            auto_miner=miner,
            fault_targets={
                "esplora": DescribedFaults(http_faults, HttpFault.from_json),
                "ark-server": DescribedFaults(faults, Fault.from_json),
            },
            describe=urls.to_json,
            extra_routes=(
                *ark_server_routes(slot, lambda tx: faucet.pay_for(node, tx)),
                *lightning_routes(slot, lightning, outside),
                *lnurl_routes(outside),
            ),
        )
        await stack.enter_async_context(in_background(_poll(node), "polling the node"))
        await stack.enter_async_context(in_background(miner.run(), "automatic mining"))
        await stack.enter_async_context(in_background(lightning.run(), "the Lightning node"))
        await stack.enter_async_context(serving(esplora_app(node, http_faults), esplora_socket))
        await stack.enter_async_context(serving(control_app(levers), control_socket))
        state.save(options.directory, urls.to_json())
        yield Devnet(urls, node, slot.server, clock)


async def _first_ark_server(
    options: DevnetOptions,
    state: DirectoryState,
    start: Callable[[], Awaitable[ArkServer]],
    *,
    tries: int = 3,
) -> ArkServerSlot:
    """On ports that are found now. Raises PortInUse, AddressInUse."""
    ports = {"ark": options.ark_port, "ark-admin": options.ark_admin_port}
    free = [part for part, asked in ports.items() if not asked and part not in state.ports]
    while True:
        for part, asked in ports.items():
            state.claim_port(options.host, part, asked)
        try:
            return await ArkServerSlot.filled(start)
        except AddressInUse:  # by who took a port between the look for a free one and its use
            if not free or tries == 0:
                raise
        tries -= 1
        for part in free:
            state.forget_port(part)


def _urls_of(options: DevnetOptions, state: DirectoryState, node: Node) -> DevnetUrls:
    def url(face: str) -> str:
        return _url(options.host, state.ports[face])

    return DevnetUrls(
        esplora_url=url("esplora"),
        control_url=url("control"),
        ark_server_url=url("ark"),
        ark_admin_url=url("ark-admin"),
        directory=str(options.directory),
        bitcoind_url=node.rpc_url if isinstance(node, BitcoindNode) else None,
        bitcoind_cookie=str(node.cookie_file) if isinstance(node, BitcoindNode) else None,
    )


async def _start_node(options: DevnetOptions, clock: DevnetClock) -> Node:
    if options.bitcoind is not None:
        return await BitcoindNode.start(options.bitcoind, options.directory / "bitcoind")
    # With a bitcoind, devnet does not need the kernel library.
    from barkd_py.devnet.chain.local import LocalNode

    # Reading a long chain takes a moment; nothing else uses the node yet.
    return await asyncio.to_thread(LocalNode, options.directory / "chain", clock)


async def _mine_up_to(node: Node, height: int) -> None:
    await node.refresh()
    missing = height - node.index.tip_height
    if missing > 0:
        await node.mine(missing)


async def _fund(ark_server: ArkServer, node: Node) -> None:
    """Give a poor Ark server the money for rounds, offboards and its pool."""
    if await ark_server.treasury.balance_sat() >= _SERVER_COIN_SAT:
        await ark_server.pool.fill_up()
        return
    outputs = [TxOut(_SERVER_COIN_SAT, await ark_server.treasury.new_script()) for _ in range(_SERVER_COINS)]
    try:
        await faucet.pay(node, outputs)
    except faucet.FaucetEmpty as error:
        log.warning("the Ark server has no money for rounds and offboards: %s", error)
        return
    await node.mine()
    await ark_server.follower.catch_up()
    await ark_server.pool.fill_up()


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(host: str, port: int) -> str:
    return f"http://{_address(host, port)}"


async def _poll(node: Node) -> None:
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        try:
            await node.refresh()
        except ChainError:
            log.warning("the node does not answer", exc_info=True)
