"""The Esplora face before a client that others wrote: BDK's."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import bdkpython as bdk
import httpx
import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.devnet.esplora import esplora_app
from barkd_py.devnet.http_faults import HttpFault, HttpFaults
from barkd_py.devnet.serving import serving
from tests.devnet.purse import Purse, exit_child, exit_parent, pay

_MNEMONIC = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"


@contextlib.asynccontextmanager
async def served(node: LocalNode, faults: HttpFaults) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with serving(esplora_app(node, faults), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def faults() -> HttpFaults:
    return HttpFaults()


@pytest.fixture
async def url(node: LocalNode, faults: HttpFaults) -> AsyncIterator[str]:
    async with served(node, faults) as address:
        yield address


class BdkWallet:
    """A taproot wallet of BDK, in memory, synchronised over Esplora."""

    def __init__(self, url: str) -> None:
        kind = bdk.NetworkKind.TEST
        root = bdk.DescriptorSecretKey(kind, bdk.Mnemonic.from_string(_MNEMONIC), None)
        keychains = bdk.KeychainKind.EXTERNAL, bdk.KeychainKind.INTERNAL
        external, internal = (bdk.Descriptor.new_bip86(root, keychain, kind) for keychain in keychains)
        self.wallet = bdk.Wallet(external, internal, bdk.Network.REGTEST, bdk.Persister.new_in_memory())
        self.client = bdk.EsploraClient(url)

    def address(self) -> str:
        return str(self.wallet.reveal_next_address(bdk.KeychainKind.EXTERNAL).address)

    async def full_scan(self) -> None:
        request = self.wallet.start_full_scan().build()
        self.wallet.apply_update(await asyncio.to_thread(self.client.full_scan, request, 10, 4))

    async def sync(self) -> None:
        request = self.wallet.start_sync_with_revealed_spks().build()
        self.wallet.apply_update(await asyncio.to_thread(self.client.sync, request, 4))

    def balance_sat(self) -> tuple[int, int]:
        """Confirmed, and all that will be."""
        balance = self.wallet.balance()
        return balance.confirmed.to_sat(), balance.total.to_sat()

    def heights(self) -> dict[str, int | None]:
        """The height of each transaction; None if it is unconfirmed."""
        positions: dict[str, int | None] = {}
        for tx in self.wallet.transactions():
            place: Any = tx.chain_position
            height = place.confirmation_block_time.block_id.height if place.is_confirmed() else None
            positions[str(tx.transaction.compute_txid())] = height
        return positions


@pytest.fixture
def bdk_wallet(url: str) -> BdkWallet:
    return BdkWallet(url)


async def fund(node: LocalNode, wallet: BdkWallet, amount_sat: int, times: int = 1) -> list[Txid]:
    scripts = [parse_address(wallet.address(), Network.REGTEST) for _ in range(times)]
    return [(await faucet.pay(node, [pay(amount_sat, script)])).txid for script in scripts]


async def test_full_scan_of_an_empty_wallet(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    await bdk_wallet.full_scan()
    assert bdk_wallet.balance_sat() == (0, 0)
    assert bdk_wallet.wallet.latest_checkpoint().height == node.index.tip_height


async def test_full_scan_finds_money(bdk_wallet: BdkWallet, node: LocalNode, url: str) -> None:
    txids = await fund(node, bdk_wallet, 50_000, times=3)
    (block,) = await node.mine()
    again = BdkWallet(url)
    await again.full_scan()
    assert again.balance_sat() == (150_000, 150_000)
    assert again.heights() == {str(txid): block.height for txid in txids}


async def test_sync_sees_mempool_then_block_then_reorg(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    (txid,) = await fund(node, bdk_wallet, 50_000)
    await bdk_wallet.sync()
    assert bdk_wallet.balance_sat() == (0, 50_000)
    assert bdk_wallet.heights() == {str(txid): None}

    await node.mine(2)
    await bdk_wallet.sync()
    assert bdk_wallet.balance_sat() == (50_000, 50_000)

    await node.reorg(2)
    await bdk_wallet.sync()
    assert bdk_wallet.heights() == {str(txid): None}

    (block,) = await node.mine()
    await bdk_wallet.sync()
    assert bdk_wallet.heights() == {str(txid): block.height}


async def test_history_of_more_than_two_pages(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    script = parse_address(bdk_wallet.address(), Network.REGTEST)
    for _ in range(3):
        for _ in range(17):
            await faucet.pay(node, [pay(1000, script)])
        await node.mine()
    await bdk_wallet.sync()
    assert bdk_wallet.balance_sat() == (51_000, 51_000)
    assert len(bdk_wallet.heights()) == 51


async def test_what_bdk_builds_is_broadcast_and_confirmed(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    await fund(node, bdk_wallet, 100_000)
    await node.mine()
    await bdk_wallet.full_scan()
    target = bdk.Script(b"\x51\x20" + b"\x03" * 32)
    builder = bdk.TxBuilder().add_recipient(target, bdk.Amount.from_sat(40_000))
    psbt = builder.fee_rate(bdk.FeeRate.from_sat_per_vb(2)).finish(bdk_wallet.wallet)
    assert bdk_wallet.wallet.sign(psbt)
    tx = psbt.extract_tx()
    await asyncio.to_thread(bdk_wallet.client.broadcast, tx)
    await node.mine()
    await bdk_wallet.sync()
    confirmed, total = bdk_wallet.balance_sat()
    assert confirmed == total
    assert 59_000 < confirmed < 60_000


async def test_bdk_reads_refusals(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    purse = Purse(node)
    await purse.fill(2)
    orphan = exit_child(exit_parent(purse.coin()), purse.coin())
    with pytest.raises(bdk.EsploraError.HttpResponse) as refusal:
        await asyncio.to_thread(bdk_wallet.client.broadcast, bdk.Transaction(orphan.serialize()))
    assert refusal.value.status == 400
    assert "bad-txns-inputs-missingorspent" in refusal.value.error_message


async def test_lookups_of_the_client(bdk_wallet: BdkWallet, node: LocalNode) -> None:
    (txid,) = await fund(node, bdk_wallet, 50_000)
    client = bdk_wallet.client
    known = bdk.Txid.from_string(str(txid))
    unknown = bdk.Txid.from_string("77" * 32)
    assert await asyncio.to_thread(client.get_height) == node.index.tip_height
    assert str(await asyncio.to_thread(client.get_block_hash, 0)).startswith("0f9188f13cb7b2c7")
    tx = await asyncio.to_thread(client.get_tx, known)
    assert tx is not None
    assert str(tx.compute_txid()) == str(txid)
    assert await asyncio.to_thread(client.get_tx, unknown) is None
    status = await asyncio.to_thread(client.get_tx_status, known)
    assert status.confirmed is False
    estimates = await asyncio.to_thread(client.get_fee_estimates)
    assert estimates[1] == 5.0


async def test_dropped_connection_is_no_answer(url: str, faults: HttpFaults) -> None:
    faults.set(HttpFault.from_json({"path": "/blocks/tip/height", "kind": "drop"}))
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/blocks/tip/height")
        assert (await client.get("/blocks/tip/height")).status_code == 200


async def test_requests_in_parallel_on_kept_connections(url: str, node: LocalNode) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:
        answers = await asyncio.gather(*(client.get(f"/block-height/{height}") for height in range(40)))
    expected = [node.index.block_at(height) for height in range(40)]
    assert [answer.text for answer in answers] == [str(block.hash) for block in expected if block]
