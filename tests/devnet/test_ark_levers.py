"""The levers of the Ark server, and the money that it gets at its start."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import httpx
import pytest

from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import SAT_PER_BTC, FeeRate
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import RoundAdminServiceStub
from tests.devnet.levers import levers_of, pull
from tests.devnet.purse import SCRIPT

FUNDS_SAT = 40 * SAT_PER_BTC
#: What the server puts into its pool of VTXOs, and at most pays in fees for that.
POOL_SAT = sum(ServerSettings().pool_amounts_sat)
POOL_FEE_SAT = 20_000
ON_DEMAND = ServerSettings(round_interval_secs=3600, round_submit_secs=600)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Devnet]:
    async with running_devnet(DevnetOptions(tmp_path, ark_settings=ON_DEMAND)) as devnet:
        yield devnet


@pytest.fixture
async def levers(running: Devnet) -> AsyncIterator[httpx.AsyncClient]:
    async with levers_of(running) as levers:
        yield levers


async def test_server_is_rich_from_the_start(running: Devnet, levers: httpx.AsyncClient) -> None:
    state = (await levers.get("/ark-server")).json()
    assert 0 < FUNDS_SAT - POOL_SAT - state["balance_sat"] < POOL_FEE_SAT
    assert await running.ark_server.pool.balance_sat() == POOL_SAT
    assert (state["participations"], state["offboard_sessions"], state["round_subscribers"]) == ([], [], 0)
    draft = await running.ark_server.treasury.draft([TxOut(50_000, SCRIPT)], FeeRate(500))
    assert all(coin.is_confirmed for coin in draft.coins)


async def test_rich_server_gets_nothing_more(tmp_path: Path) -> None:
    balances_sat = set()
    for _ in range(2):
        async with running_devnet(DevnetOptions(tmp_path)) as devnet:
            balances_sat.add(await devnet.ark_server.treasury.balance_sat())
            assert await devnet.ark_server.pool.balance_sat() == POOL_SAT
            assert devnet.node.index.tip_height == 120
    assert len(balances_sat) == 1


async def test_round_on_demand(running: Devnet, levers: httpx.AsyncClient) -> None:
    events = running.ark_server.rounds.events.subscribe()
    await pull(levers, "/round")
    assert type(await anext(events)).__name__ == "AttemptStarted"
    await pull(levers, "/round", go_on=True)
    assert type(await anext(events)).__name__ == "RoundFailed"
    async with grpc.aio.insecure_channel(running.urls.ark_admin_url.removeprefix("http://")) as channel:
        await RoundAdminServiceStub(channel).TriggerRound(core_pb2.Empty())  # type: ignore[no-untyped-call]
    assert type(await anext(events)).__name__ == "AttemptStarted"


async def test_fee_rate(running: Devnet, levers: httpx.AsyncClient) -> None:
    await pull(levers, "/ark-server/fee-rate", sat_per_vb=3.5)
    assert running.ark_server.fee_rates.regular == FeeRate(875)
    refused = await levers.post("/ark-server/fee-rate", json={"sat_per_vb": -1})
    assert refused.status_code == 400


async def test_bans_of_nothing(levers: httpx.AsyncClient) -> None:
    vtxo_id = "11" * 32 + ":0"
    assert (await levers.post("/ark-server/ban", json={"vtxo_id": vtxo_id, "blocks": 3})).status_code == 404
    assert (await levers.post("/ark-server/ban", json={"vtxo_id": vtxo_id, "blocks": 0})).status_code == 404
    assert (await levers.post("/ark-server/ban", json={"vtxo_id": "x", "blocks": 1})).status_code == 400
    assert (await levers.post("/ark-server/ban", json={"vtxo_id": vtxo_id})).status_code == 400


async def test_double_spend_replaces_what_the_server_sent(running: Devnet, levers: httpx.AsyncClient) -> None:
    treasury = running.ark_server.treasury
    draft = await treasury.draft([TxOut(50_000, SCRIPT)], FeeRate(500))
    sent = treasury.sign(draft)
    await running.ark_server._store.transact(lambda connection: treasury.record(connection, draft, sent))
    await running.node.broadcast(sent.serialize().hex())
    answer = await pull(levers, "/ark-server/double-spend", txid=str(sent.txid))
    conflicting = Tx.from_hex(answer["transaction"])
    await pull(levers, "/mine", transactions=[answer["transaction"]])
    assert running.node.index.tx(conflicting.txid) is not None
    assert sent.txid not in running.node.pool
    foreign = running.node.index.tip.txids[0]
    refused = await levers.post("/ark-server/double-spend", json={"txid": str(foreign)})
    assert refused.status_code == 404
