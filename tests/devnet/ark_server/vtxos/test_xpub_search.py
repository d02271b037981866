"""All VTXOs of a wallet by its extended public key. Source: sheet 02 §6.4; sheet 08 §3.4."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from barkd_py.ark.mailbox import XpubRecoveryAuthorization
from barkd_py.ark.vtxo import Vtxo
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import generate_mnemonic
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import INVALID, Client
from tests.devnet.ark_server.conftest import NOW, StartServer
from tests.fakes.server_chain import FakeServerChain


@pytest.fixture
async def client(start_server: StartServer, chain: FakeServerChain) -> AsyncIterator[Client]:
    server = await start_server(ServerSettings(xpub_scan_keys=10, xpub_max_vtxos=2))
    async with Client(server, chain) as client:
        yield client


class Owner:
    """A wallet's keys, and what its server is asked."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.keys = WalletKeys(generate_mnemonic())
        self.xpub = self.keys.account_xpub(mainnet=False)

    async def board(self, index: int) -> Vtxo:
        self.client.secret = self.keys.vtxo_key(index)
        return await self.client.board()

    def request(self, start_index: int = 0, *, expiry: int = NOW + 60) -> pb.RecoverVtxosByXpubRequest:
        authorization = XpubRecoveryAuthorization.sign(
            self.keys.account.secret_key,
            server_pubkey=self.client.server.keys.server_pubkey,
            xpub=self.xpub,
            expiry=expiry,
        )
        return pb.RecoverVtxosByXpubRequest(
            xpub=self.xpub, start_index=start_index, authorization=authorization.encode()
        )

    async def search(self, request: pb.RecoverVtxosByXpubRequest) -> Any:
        return await self.client.call(self.client.ark.RecoverVtxosByXpub, request)


async def test_a_batch_of_keys_finds_its_vtxos_with_their_states(client: Client) -> None:
    owner = Owner(client)
    spent, kept = await owner.board(7), await owner.board(3)
    beyond = await owner.board(10)
    await client.server.set_vtxo_state(spent.id, SpendState.SPENT)

    first = await owner.search(owner.request())

    assert [(entry.vtxo, entry.derivation_index, entry.spend_state) for entry in first.vtxos] == [
        (spent.encode(), 7, pb.VTXO_SPEND_STATE_SPENT),
        (kept.encode(), 3, pb.VTXO_SPEND_STATE_SPENDABLE),
    ]
    assert (first.nb_keys_scanned, first.have_more, first.HasField("cursor_vtxo_id")) == (10, True, False)
    second = await owner.search(owner.request(10))
    assert [entry.vtxo for entry in second.vtxos] == [beyond.encode()]
    last = await owner.search(owner.request(20))
    assert (len(last.vtxos), last.nb_keys_scanned, last.have_more) == (0, 10, False)


async def test_a_cursor_goes_on_within_a_batch(client: Client) -> None:
    owner = Owner(client)
    boards = [await owner.board(index) for index in (1, 2, 1)]

    first = await owner.search(owner.request())
    assert [entry.vtxo for entry in first.vtxos] == [vtxo.encode() for vtxo in boards[:2]]
    assert (first.nb_keys_scanned, first.have_more, first.cursor_vtxo_id) == (0, True, boards[1].id)

    request = owner.request()
    request.cursor_vtxo_id = first.cursor_vtxo_id
    second = await owner.search(request)
    assert [entry.vtxo for entry in second.vtxos] == [boards[2].encode()]
    assert (second.nb_keys_scanned, second.have_more, second.HasField("cursor_vtxo_id")) == (10, True, False)


async def test_only_the_owner_of_the_key_may_ask(client: Client) -> None:
    owner, other = Owner(client), Owner(client)
    request = owner.request()
    request.xpub = other.xpub
    refusal = await client.refusal(client.ark.RecoverVtxosByXpub, request)
    assert (refusal.code, "signature" in refusal.text) == (INVALID, True)
    for expiry, accepted in ((NOW - 5, True), (NOW - 6, False), (NOW + 605, True), (NOW + 606, False)):
        request = owner.request(expiry=expiry)
        if accepted:
            await owner.search(request)
        else:
            refusal = await client.refusal(client.ark.RecoverVtxosByXpub, request)
            assert (refusal.code, "expired" in refusal.text) == (INVALID, True)


async def test_malformed_requests_are_refused(client: Client) -> None:
    owner = Owner(client)
    too_far = owner.request(2**31)
    truncated = owner.request()
    truncated.xpub = truncated.xpub[:-1]
    unsigned = owner.request()
    unsigned.authorization = b""
    for request in (too_far, truncated, unsigned):
        assert (await client.refusal(client.ark.RecoverVtxosByXpub, request)).code == INVALID
