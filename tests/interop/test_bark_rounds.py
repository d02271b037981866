"""The real bark wallet in rounds and offboards on our devnet: it judges what our server makes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from barkd_py.ark.fees import VtxoFeeInfo, offboard_fee, refresh_fee
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.settings import ServerSettings
from tests.support.processes import Bark, Devnet, eventually, start_devnet

pytestmark = pytest.mark.interop

SETTINGS = ServerSettings()
ON_DEMAND = ("--round-interval", "3600")


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A devnet that holds rounds when it is told to."""
    running = start_devnet(tmp_path_factory.mktemp("devnet"), *ON_DEMAND)
    yield running
    running.process.kill()


@pytest.fixture
async def honest_devnet(devnet: Devnet) -> Devnet:
    await devnet.clear_faults()
    return devnet


async def server_state(devnet: Devnet) -> Any:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60) as http:
        return (await http.get("/ark-server")).json()


async def esplora_tx(devnet: Devnet, txid: str) -> Any:
    async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as http:
        return (await http.get(f"/tx/{txid}")).json()


async def tip_height(devnet: Devnet) -> int:
    async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as http:
        return int((await http.get("/blocks/tip/height")).text)


async def create(bark: Bark, devnet: Devnet, *boards_sat: int) -> None:
    """A bark wallet with confirmed boards."""
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    for amount_sat in boards_sat:
        await devnet.fund(bark.run("onchain", "address")["address"], amount_sat + 20_000)
        bark.run("onchain", "balance")
        bark.run("board", f"{amount_sat} sat")
        await devnet.mine()
    bark.run("maintain")
    assert len(bark.run("vtxos")) == len(boards_sat)


async def hold_round_with(devnet: Devnet, count: int) -> None:
    """Hold a round as soon as so many wallets listen."""
    await eventually(lambda: server_state(devnet), lambda state: state["round_subscribers"] >= count)
    await devnet.pull("/round")


async def refresh(bark: Bark, devnet: Devnet, *arguments: str) -> Any:
    """A refresh in person, in a round of its own."""
    running = asyncio.create_task(asyncio.to_thread(bark.run, "refresh", *arguments))
    await hold_round_with(devnet, 1)
    return await running


def fee_infos(vtxos: list[dict[str, Any]], height: int) -> list[VtxoFeeInfo]:
    return [
        VtxoFeeInfo.at_tip(
            amount_sat=vtxo["amount_sat"], expiry_height=vtxo["expiry_height"], tip_height=height
        )
        for vtxo in vtxos
    ]


def total_sat(vtxos: list[dict[str, Any]]) -> int:
    return sum(vtxo["amount_sat"] for vtxo in vtxos)


def last_movement(bark: Bark, kind: str) -> dict[str, Any]:
    found = [each for each in bark.run("history") if each["subsystem"]["kind"] == kind]
    movement: dict[str, Any] = found[-1]
    return movement


# --- refreshing


async def test_refresh_in_person(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000, 50_000)
    old = bark.run("vtxos")
    fee_sat = refresh_fee(SETTINGS.fees, fee_infos(old, await tip_height(devnet)))
    done = await refresh(bark, devnet, "--all")
    assert done["status"] == "unconfirmed"
    await devnet.mine()
    bark.run("maintain")
    (new,) = bark.run("vtxos")
    assert new["amount_sat"] == total_sat(old) - fee_sat
    assert new["chain_anchor"] == f"{done['funding_txid']}:0"
    assert (new["exit_depth"], new["state"]) == (2, {"type": "spendable"})
    movement = last_movement(bark, "refresh")
    assert (movement["status"], movement["offchain_fee_sat"]) == ("successful", fee_sat)
    assert bark.run("round", "list") == []


async def test_refreshed_coin_is_money(bark: Bark, honest_devnet: Devnet, tmp_path: Path) -> None:
    """It is paid on, the payment is refreshed in turn, and leaves."""
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    await refresh(bark, devnet, "--all")
    await devnet.mine()
    bark.run("maintain")
    other = Bark(bark.executable, tmp_path / "other")
    await create(other, devnet)
    bark.run("send", other.run("address"), "40000 sat")
    assert other.run("balance")["spendable_sat"] == 40_000
    await refresh(other, devnet, "--counterparty")
    await devnet.mine()
    other.run("maintain")
    (vtxo,) = other.run("vtxos")
    assert vtxo["exit_depth"] == 2
    other.run("offboard", "--all")
    assert other.run("balance")["spendable_sat"] == 0


@pytest.mark.parametrize("count", [2, 5])
async def test_several_wallets_in_one_round(
    bark: Bark, honest_devnet: Devnet, tmp_path: Path, count: int
) -> None:
    devnet = honest_devnet
    barks = [bark, *(Bark(bark.executable, tmp_path / f"bark-{number}") for number in range(1, count))]
    for each in barks:
        await create(each, devnet, 60_000)
    running = [asyncio.create_task(asyncio.to_thread(each.run, "refresh", "--all")) for each in barks]
    await hold_round_with(devnet, count)
    funding_txids = {(await each)["funding_txid"] for each in running}
    assert len(funding_txids) == 1
    await devnet.mine()
    for each in barks:
        each.run("maintain")
        (vtxo,) = each.run("vtxos")
        assert vtxo["chain_anchor"] == f"{next(iter(funding_txids))}:0"
        assert vtxo["state"] == {"type": "spendable"}


async def test_delegated_refresh(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000, 50_000)
    old = bark.run("vtxos")
    fee_sat = refresh_fee(SETTINGS.fees, fee_infos(old, await tip_height(devnet)))
    bark.run("refresh", "--all", "--delegated")
    (waiting,) = bark.run("round", "list")
    assert waiting["state"] == "delegated-pending"
    await devnet.pull("/round")
    state = await eventually(
        lambda: server_state(devnet), lambda got: got["participations"][-1]["funding_txid"] is not None
    )
    await devnet.mine()
    bark.run("maintain")
    (new,) = bark.run("vtxos")
    assert new["amount_sat"] == total_sat(old) - fee_sat
    assert new["chain_anchor"] == f"{state['participations'][-1]['funding_txid']}:0"
    assert bark.run("round", "list") == []
    assert last_movement(bark, "refresh")["status"] == "successful"
    assert (await server_state(devnet))["participations"][-1]["is_forfeited"]


async def test_refresh_scheduled_by_height(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    (old,) = bark.run("vtxos")
    height = await tip_height(devnet) + 3
    fee_sat = refresh_fee(SETTINGS.fees, fee_infos([old], height))
    bark.run("refresh", "--all", "--delegated", "--height", str(height))
    await devnet.mine(2)
    started = (await devnet.pull("/round"))["next_round_at"]
    await eventually(lambda: server_state(devnet), lambda got: got["next_round_at"] > started)
    await devnet.mine()
    assert (await server_state(devnet))["participations"][-1]["funding_txid"] is None
    await devnet.pull("/round")
    await eventually(
        lambda: server_state(devnet), lambda got: got["participations"][-1]["funding_txid"] is not None
    )
    await devnet.mine()
    bark.run("maintain")
    (new,) = bark.run("vtxos")
    assert new["amount_sat"] == old["amount_sat"] - fee_sat


async def test_refused_refresh_leaves_the_money(bark: Bark, honest_devnet: Devnet) -> None:
    """Its signatures get lost: the next attempt bans it."""
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    before = bark.run("balance")
    await devnet.pull(
        "/faults",
        target="ark-server",
        rpc="ProvideVtxoSignatures",
        stage="before",
        kind="swallow",
        count=None,
    )
    with pytest.raises(AssertionError, match="round failed: "):
        await refresh(bark, devnet, "--all")
    await devnet.clear_faults()
    assert bark.run("balance") == before
    assert (await refresh(bark, devnet, "--all"))["status"] == "unconfirmed"


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        ({"path": "expiry_height", "mutation": "add", "value": -10}, "below the required minimum"),
        ({"path": "exit_delta", "mutation": "add", "value": 1}, "exit.delta"),
        ({"path": "leaves.0", "mutation": "drop"}, "didn't include all of our vtxos"),
        ({"path": "leaves.0.unlock_hash", "mutation": "set", "value": "11" * 32}, "not part of tree"),
    ],
    ids=["short expiry", "exit delta", "leaf missing", "other hash"],
)
async def test_lying_proposals_are_noticed(
    bark: Bark, honest_devnet: Devnet, lie: dict[str, Any], complaint: str
) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    before = bark.run("balance")
    await devnet.pull("/faults", target="ark-server", rpc="round.spec", stage="engine", kind="mutate", **lie)
    with pytest.raises(AssertionError, match=complaint):
        await refresh(bark, devnet, "--all")
    assert bark.run("balance") == before


async def test_server_killed_between_booking_and_signing(bark: Bark, tmp_path: Path) -> None:
    """It finishes the round when it is back; the wallet gets its coin."""
    devnet = start_devnet(tmp_path / "devnet", *ON_DEMAND)
    try:
        await create(bark, devnet, 100_000)
        bark.run("refresh", "--all", "--delegated")
        await devnet.pull("/faults", target="ark-server", rpc="round.sign", stage="engine", kind="drop")
        await devnet.pull("/round")
        await eventually(
            lambda: server_state(devnet), lambda got: got["participations"][0]["funding_txid"] is not None
        )
        devnet.process.kill()
        devnet.process.log.unlink()
        devnet = start_devnet(tmp_path / "devnet", *ON_DEMAND)
        await devnet.mine()
        bark.run("maintain")
        (vtxo,) = bark.run("vtxos")
        assert (vtxo["exit_depth"], vtxo["state"]) == (2, {"type": "spendable"})
    finally:
        devnet.process.kill()


async def test_lost_preimage_is_fetched_again(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    await refresh(bark, devnet, "--all")
    await devnet.mine()
    await devnet.pull("/faults", target="ark-server", rpc="ForfeitVtxos", stage="after-commit", kind="drop")
    bark.run("maintain")
    bark.run("maintain")
    (vtxo,) = bark.run("vtxos")
    assert (vtxo["exit_depth"], vtxo["state"]) == (2, {"type": "spendable"})


# --- leaving


async def test_offboard_of_several_coins(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000, 50_000)
    vtxos = bark.run("vtxos")
    address = bark.run("onchain", "address")["address"]
    script = parse_address(address, Network.REGTEST)
    infos = fee_infos(vtxos, await tip_height(devnet))
    fee_sat = offboard_fee(
        SETTINGS.fees, total_sat(vtxos), infos, script_pubkey=script, fee_rate=SETTINGS.regular_fee_rate
    )
    txid = bark.run("offboard", "--all", "--address", address)["offboard_txid"]
    tx = await esplora_tx(devnet, txid)
    assert tx["vout"][0]["scriptpubkey"] == script.hex()
    assert tx["vout"][0]["value"] == total_sat(vtxos) - fee_sat
    assert tx["vout"][1]["value"] == 2 * 330
    assert bark.run("vtxos") == []
    before_sat = bark.run("onchain", "balance")["confirmed_sat"]
    await devnet.mine()
    assert bark.run("onchain", "balance")["confirmed_sat"] == before_sat + tx["vout"][0]["value"]
    movement = last_movement(bark, "offboard")
    assert (movement["status"], movement["offchain_fee_sat"]) == ("successful", fee_sat)


async def test_offboard_of_one_coin_keeps_the_other(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000, 50_000)
    leaves, stays = bark.run("vtxos")
    bark.run("offboard", "--vtxo", leaves["id"])
    assert [vtxo["id"] for vtxo in bark.run("vtxos")] == [stays["id"]]


async def test_send_onchain(bark: Bark, honest_devnet: Devnet, tmp_path: Path) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    other = Bark(bark.executable, tmp_path / "other")
    await create(other, devnet)
    address = other.run("onchain", "address")["address"]
    before_sat = bark.run("balance")["spendable_sat"]
    txid = bark.run("send-onchain", address, "30000 sat")["offboard_txid"]
    await devnet.mine()
    assert other.run("onchain", "balance")["confirmed_sat"] == 30_000
    movement = last_movement(bark, "send_onchain")
    assert movement["metadata"]["offboard_txid"] == txid
    assert bark.run("balance")["spendable_sat"] == before_sat - 30_000 - movement["offchain_fee_sat"]


async def test_lost_answer_of_an_offboard_is_fetched_again(bark: Bark, honest_devnet: Devnet) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    await devnet.pull("/faults", target="ark-server", rpc="FinishOffboard", stage="after-commit", kind="drop")
    with pytest.raises(AssertionError, match="offboard"):
        bark.run("offboard", "--all")
    bark.run("maintain")
    movement = last_movement(bark, "offboard")
    assert movement["status"] == "successful"
    assert (await esplora_tx(devnet, movement["metadata"]["offboard_txid"]))["vout"]
    assert bark.run("balance")["spendable_sat"] == 0


@pytest.mark.parametrize("vout", [0, 1])
async def test_lying_offboard_transactions_are_noticed(bark: Bark, honest_devnet: Devnet, vout: int) -> None:
    devnet = honest_devnet
    await create(bark, devnet, 100_000)
    before = bark.run("balance")
    await devnet.pull(
        "/faults",
        target="ark-server",
        rpc="offboard.tx",
        stage="engine",
        kind="mutate",
        path=f"outputs.{vout}.value_sat",
        mutation="add",
        value=-1,
    )
    with pytest.raises(AssertionError, match="received invalid offboard tx from server"):
        bark.run("offboard", "--all")
    assert bark.run("balance") == before


# --- on a real node


async def test_round_and_offboard_on_a_real_node(bark: Bark, devnet_on_bitcoind: Devnet) -> None:
    devnet = devnet_on_bitcoind
    await create(bark, devnet, 100_000)
    done = await refresh(bark, devnet, "--all")
    await devnet.mine()
    bark.run("maintain")
    (vtxo,) = bark.run("vtxos")
    assert vtxo["chain_anchor"] == f"{done['funding_txid']}:0"
    txid = bark.run("offboard", "--all")["offboard_txid"]
    await devnet.mine()
    assert (await esplora_tx(devnet, txid))["status"]["confirmed"]
    assert bark.run("vtxos") == []
