"""Which chain source a wallet uses, and how its daemon hears of blocks."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.bitcoind import BitcoindSource
from barkd_py.chain.esplora import EsploraSource
from barkd_py.chain.source import ChainSource
from barkd_py.config import ConfigError
from barkd_py.daemon.loops import Daemon
from barkd_py.wallet.connections import open_chain_source
from tests.wallet.flows.conftest import ALICE, Net, Owner

BITCOIND = {"bitcoind_address": "http://127.0.0.1:1", "bitcoind_cookiefile": Path("/nowhere")}


async def test_esplora_wins_where_both_are_set(net: Net) -> None:
    for changes, kind in (
        ({}, EsploraSource),
        (BITCOIND, EsploraSource),
        ({"esplora_address": None, **BITCOIND}, BitcoindSource),
    ):
        source = open_chain_source(net.config(**changes))
        assert isinstance(source, kind)
        await source.close()


@pytest.mark.parametrize("known", [{"bitcoind_user": "u"}, {"bitcoind_pass": "p"}, {}])
async def test_bitcoind_needs_complete_credentials(net: Net, known: dict[str, str]) -> None:
    settings = {"esplora_address": None, "bitcoind_address": "http://127.0.0.1:1", **known}
    with pytest.raises(ConfigError, match="need bitcoind auth config"):
        open_chain_source(net.config(**settings))


@dataclass
class WatchedChain:
    """The real chain source in the role of a node, or not; tells when it is asked for the tip."""

    real: ChainSource
    reads_blocks: bool
    asked: asyncio.Queue[BlockRef] = field(default_factory=asyncio.Queue)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def fetch_tip(self) -> BlockRef:
        tip = await self.real.fetch_tip()
        self.asked.put_nowait(tip)
        return tip


async def test_the_daemon_hears_of_blocks_from_bitcoind(net: Net, alice: Owner) -> None:
    await alice.wallet.close()
    with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        address = f"tcp://127.0.0.1:{port}"
        settings = {"bitcoind_zmq_address": address, "daemon_sync_interval_secs": 3_600}
        async with net.owner("alice", ALICE, **settings) as owner:
            chain = WatchedChain(owner.wallet.chain, reads_blocks=True)
            owner.wallet.chain = chain
            owner.wallet.background = Daemon(owner.wallet, tip_interval_secs=3_600)
            await owner.wallet.start()
            async with asyncio.timeout(60):
                assert await publisher.recv() == b"\x01hashblock"
                await net.mine()
                tip = net.devnet.node.index.tip.ref
                await publisher.send_multipart([b"hashblock", tip.hash[::-1], b"\0\0\0\0"])
                while await chain.asked.get() != tip:
                    pass


async def test_announcements_are_bitcoinds_alone(net: Net, alice: Owner) -> None:
    """With Esplora the address is left over from another configuration."""
    await alice.wallet.close()
    with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        async with net.owner("alice", ALICE, bitcoind_zmq_address=f"tcp://127.0.0.1:{port}") as owner:
            chain = WatchedChain(owner.wallet.chain, reads_blocks=False)
            owner.wallet.chain = chain
            owner.wallet.background = Daemon(owner.wallet)
            await owner.wallet.start()
            async with asyncio.timeout(60):
                await chain.asked.get()
            assert not await publisher.poll(timeout=500)
