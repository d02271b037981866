"""What upstream's documentation says of each operation, asked of a live daemon on devnet.

The pages are those of 0.1.4: two in full (start an exit, progress exits), the others as one paragraph each. A
test is a statement. Where upstream's own program does otherwise than its documentation, the test says what is
so here, and why. The tests are one story, in order: a wallet is funded, boards, pays, refreshes, is paid over
Lightning, leaves the chain and comes back. Source: protocol sheet 07 §10.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from barkd_py.api.auth import AuthToken
from barkd_py.api.tickets import LIFETIME_SECS
from barkd_py.bitcoin.units import Network
from barkd_py.config import load_config
from tests.contract.recorded import FILLINGS
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = AuthToken(b"\x2a" * 32).encode()
ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
ARK_ADDRESS = FILLINGS["other_ark_address"]
UNKNOWN_VTXO = "ab" * 32 + ":0"
PATIENCE_SECS = 120.0


@dataclass(slots=True)
class Story:
    """The daemon that is asked, and one that pays it and is paid by it."""

    devnet: Devnet
    asked: Daemon
    other: Daemon
    fingerprint: str = ""
    exiting: str = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        content = {} if body is None else {"json": body}
        return await self.asked.http.request(method, path, headers=headers, **content)

    async def get(self, path: str) -> Any:
        return await self.asked.get(path)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.asked.post(path, body)

    async def confirm_boards(self) -> None:
        """A board whose broadcast took a second try is in none but a later block."""
        for daemon in (self.asked, self.other):
            await eventually(
                partial(self._pending_board_sat, daemon),
                lambda pending: pending == 0,
                within_secs=PATIENCE_SECS,
            )
            await daemon.post("/onchain/sync")

    async def _pending_board_sat(self, daemon: Daemon) -> int:
        await self.devnet.mine()
        await daemon.post("/wallet/sync")
        return int((await daemon.get("/wallet/balance"))["pending_board_sat"])

    async def spendable(self) -> list[dict[str, Any]]:
        return [vtxo for vtxo in await self.get("/wallet/vtxos") if vtxo["state"]["type"] == "spendable"]

    async def hold_round(self) -> None:
        """Who is slow may miss one: another is held then."""
        for is_last in (False, False, True):
            await self.devnet.pull("/round")
            try:
                await eventually(
                    self._rounds, lambda rounds: rounds == [], within_secs=PATIENCE_SECS if is_last else 20
                )
            except AssertionError:
                if is_last:
                    raise
            else:
                return

    async def _rounds(self) -> Any:
        await self.devnet.mine()
        await self.post("/wallet/sync")
        return await self.get("/wallet/rounds")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    directory = tmp_path_factory.mktemp("seeds")
    # No round begins but those that the story holds.
    devnet = start_devnet(directory / "devnet", "--round-interval", "100000")
    asked_dir = directory / "asked"
    asked_dir.mkdir(mode=0o700)
    (asked_dir / "auth_token").write_text(TOKEN)
    asked, other = Daemon(asked_dir, token=TOKEN), Daemon(directory / "other")
    try:
        for daemon in (asked, other):
            await daemon.start()
        yield Story(devnet, asked, other)
    finally:
        for daemon in (asked, other):
            await daemon.close()
        devnet.process.kill()


# --- the API as a whole


async def test_a_bearer_token_in_base64url_opens_the_api(story: Story) -> None:
    assert (await story.ask("GET", "/wallet")).status_code == 200
    refused = await story.ask("GET", "/wallet", Authorization="Bearer x")
    assert (refused.status_code, refused.json()) == (401, {"message": "invalid auth token"})


async def test_endpoints_answer_in_json_except_a_ping_and_what_cannot_be_read(story: Story) -> None:
    assert (await story.ask("GET", "/wallet")).headers["content-type"] == "application/json"
    ping = await story.asked.http.get(f"http://127.0.0.1:{story.asked.port}/ping")
    assert ping.headers["content-type"] == "text/plain; charset=utf-8"
    unreadable = await story.ask("POST", "/exits/start/vtxos", {})
    assert (unreadable.status_code, unreadable.headers["content-type"]) == (422, "text/plain; charset=utf-8")


async def test_connected_is_false_until_the_server_is_reached_and_true_from_then_on(
    story: Story, tmp_path: Path
) -> None:
    """Documented as looked at every second; in fact, and here, it says that the server has been reached.

    Since the wallet was loaded, that is: another start begins with false.
    """
    daemon = Daemon(tmp_path / "daemon")

    async def connected() -> bool:
        return bool((await daemon.get("/wallet/connected"))["connected"])

    async def is_server_there() -> bool:
        return (await daemon.http.get("/wallet/next-round")).status_code == 200

    try:
        await daemon.start()
        await story.devnet.pull("/ark-server/stop")
        body = {
            "network": "regtest",
            "ark_server": story.devnet.ark_server_url,
            "chain_source": esplora(story.devnet.esplora_url),
            "force": True,
        }
        await daemon.post("/wallet/create", body)
        assert not await connected()
        # Documented as a 404; it is a 500.
        refused = await daemon.http.get("/wallet/next-round")
        unreachable = "You should be connected to Ark server to perform this action"
        assert (refused.status_code, refused.json()["message"].partition(": ")[0]) == (500, unreachable)
        for path, amount in (("/wallet/send", 1_000), ("/lightning/receives/invoice/for-address", 1_000)):
            body = {"destination": ARK_ADDRESS, "address": ARK_ADDRESS, "amount_sat": amount}
            unchecked = await daemon.http.post(path, json=body)
            message = f"bad request: invalid arkoor address: Other error: {unreachable}"
            assert (unchecked.status_code, unchecked.json()) == (400, {"message": message}), path
        assert not await connected()
        await story.devnet.pull("/ark-server/start")
        await eventually(is_server_there, bool)
        assert await connected()

        await story.devnet.pull("/ark-server/stop")
        assert not await is_server_there()
        assert await connected()
        daemon.process.kill()
        await daemon.start()
        assert not await connected()
    finally:
        await daemon.close()
        await story.devnet.pull("/ark-server/start")


async def test_create_fails_if_there_is_a_wallet_and_returns_the_fingerprint(story: Story) -> None:
    for daemon in (story.asked, story.other):
        fingerprint = await daemon.create_wallet(
            story.devnet.ark_server_url, esplora(story.devnet.esplora_url)
        )
        if daemon is story.asked:
            story.fingerprint = fingerprint
    body = {"network": "regtest", "ark_server": "x"}
    again = await story.ask("POST", "/wallet/create", body)
    assert (again.status_code, again.json()["message"]) == (400, "Wallet already set")
    assert (await story.get("/wallet"))["fingerprint"] == story.fingerprint


async def test_connected_at_once_after_a_creation(story: Story) -> None:
    assert (await story.get("/wallet/connected"))["connected"] is True


async def test_ark_info_has_network_keys_interval_deltas_and_fees(story: Story) -> None:
    info = await story.get("/wallet/ark-info")
    assert info["network"] == "regtest"
    assert info["vtxo_exit_delta"] > 0
    assert info["vtxo_expiry_delta"] == info["vtxo_lifetime"]
    assert {"board", "offboard", "refresh", "lightning_receive", "lightning_send"} == info["fees"].keys()


async def test_the_next_round_is_in_rfc_3339(story: Story) -> None:
    start = (await story.get("/wallet/next-round"))["start_time"]
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", start)
    assert datetime.fromisoformat(start) > datetime.now(UTC)


async def test_the_tip_is_that_of_the_chain_source(story: Story) -> None:
    before = (await story.get("/bitcoin/tip"))["tip_height"]
    await story.devnet.mine()
    await eventually(lambda: story.get("/bitcoin/tip"), lambda tip: tip["tip_height"] == before + 1)


async def test_fee_rates_have_three_targets_and_are_whole(story: Story) -> None:
    rates = await story.get("/fees/onchain")
    fast, regular, slow = rates.values()
    assert list(rates) == ["fast_sat_per_vb", "regular_sat_per_vb", "slow_sat_per_vb"]
    assert fast >= regular >= slow >= 1


# --- on chain


async def test_each_onchain_address_is_a_fresh_one(story: Story) -> None:
    """Documented as the next unused one; upstream's program gives a fresh one each time, and so do we."""
    first, second = [(await story.post("/onchain/addresses/next"))["address"] for _ in range(2)]
    assert first != second
    await story.devnet.fund(first, 1_000_000)
    await story.devnet.fund(second, 500_000)
    await story.devnet.fund((await story.other.post("/onchain/addresses/next"))["address"], 1_000_000)


async def test_an_onchain_sync_fetches_what_came_in(story: Story) -> None:
    await story.post("/onchain/sync")
    await story.other.post("/onchain/sync")
    balance = await story.get("/onchain/balance")
    assert balance["trusted_spendable_sat"] == balance["confirmed_sat"] + balance["trusted_pending_sat"]
    assert balance["trusted_spendable_sat"] == 1_500_000
    utxos = await story.get("/onchain/utxos")
    assert sorted(utxo["amount_sat"] for utxo in utxos) == [500_000, 1_000_000]
    assert all(utxo["outpoint"] and utxo["confirmation_height"] for utxo in utxos)


async def test_a_payment_is_broadcast_at_once_and_named(story: Story) -> None:
    sent = await story.post("/onchain/send", {"destination": ADDRESS, "amount_sat": 10_000})
    assert len(sent["txid"]) == 64
    balance = await story.get("/onchain/balance")
    # Documented as own change; all unconfirmed coins are untrusted, as upstream's.
    assert balance["trusted_pending_sat"] == 0
    assert 0 < balance["untrusted_pending_sat"] < balance["total_sat"]
    *_, last = await story.get("/onchain/transactions")
    assert (last["txid"], last["confirmation"]) == (sent["txid"], None)


async def test_several_payments_need_a_denomination(story: Story) -> None:
    """Documented as `address:amount`; a number alone is refused, here as upstream."""
    bare = await story.ask("POST", "/onchain/send-many", {"destinations": [f"{ADDRESS}:10000"]})
    assert bare.status_code == 400
    assert "denomination" in bare.json()["message"]
    many = {"destinations": [f"{ADDRESS}:10000 sat", f"{ADDRESS}:0.0001 BTC"]}
    assert len((await story.post("/onchain/send-many", many))["txid"]) == 64


async def test_transactions_are_listed_from_oldest_to_newest(story: Story) -> None:
    await story.devnet.mine()
    await story.post("/onchain/sync")
    heights = [entry["confirmation"]["height"] for entry in await story.get("/onchain/transactions")]
    assert len(heights) == 4
    assert heights == sorted(heights)


# --- boards


async def test_a_board_fee_is_what_the_board_costs(story: Story) -> None:
    estimate = await story.get("/fees/board?amount_sat=300000")
    board = await story.post("/boards/board-amount", {"amount_sat": 300_000})
    assert board["amount_sat"] == estimate["net_amount_sat"] == 300_000 - estimate["fee_sat"]
    assert len(board["funding_tx"]["txid"]) == 64


async def test_a_board_is_pending_until_it_is_confirmed(story: Story) -> None:
    (pending,) = await story.get("/boards/pending")
    (vtxo,) = await story.get("/wallet/vtxos")
    assert pending["vtxos"] == [vtxo["id"]]
    assert vtxo["state"]["type"] == "locked"
    balance = await story.get("/wallet/balance")
    assert (balance["spendable_sat"], balance["pending_board_sat"]) == (0, vtxo["amount_sat"])
    await story.other.post("/boards/board-amount", {"amount_sat": 400_000})
    await story.confirm_boards()
    assert await story.get("/boards/pending") == []
    assert [found["id"] for found in await story.spendable()] == [vtxo["id"]]


async def test_a_vtxo_in_detail_and_encoded_can_be_imported_again(story: Story) -> None:
    (vtxo,) = await story.get("/wallet/vtxos")
    assert await story.get(f"/wallet/vtxos/{vtxo['id']}") == vtxo
    encoded = (await story.get(f"/wallet/vtxos/{vtxo['id']}/encoded"))["encoded"]
    for _ in range(2):
        assert await story.post("/wallet/import-vtxo", {"vtxos": [encoded]}) == [vtxo]


async def test_an_import_is_checked_for_its_owner(story: Story) -> None:
    """Documented to check for expiry too, which only 0.1.4 did: see `wallet/flows/test_wallet.py`."""
    (foreign,) = await story.other.get("/wallet/vtxos")
    encoded = (await story.other.get(f"/wallet/vtxos/{foreign['id']}/encoded"))["encoded"]
    refused = await story.ask("POST", "/wallet/import-vtxo", {"vtxos": [encoded]})
    assert refused.status_code == 400
    assert "unable to derive the key" in refused.json()["message"]


# --- Ark payments


async def test_an_ark_address_by_its_index(story: Story) -> None:
    address = (await story.post("/wallet/addresses/next"))["address"]
    generated = [(await story.get(f"/wallet/addresses/index/{index}"))["address"] for index in range(2)]
    assert address in generated
    unknown = await story.ask("GET", "/wallet/addresses/index/9999")
    assert unknown.status_code == 500
    assert "please derive it first" in unknown.json()["message"]


async def test_an_ark_payment_needs_an_amount_and_settles_at_once(story: Story) -> None:
    address = (await story.other.post("/wallet/addresses/next"))["address"]
    refused = await story.ask("POST", "/wallet/send", {"destination": address})
    assert (refused.status_code, refused.json()["message"]) == (500, "amount missing")
    sent = await story.post("/wallet/send", {"destination": address, "amount_sat": 20_000})
    assert sent == {"message": "Payment sent successfully"}

    async def received() -> Any:
        return [vtxo["amount_sat"] for vtxo in await story.other.get("/wallet/vtxos")]

    await eventually(received, lambda amounts: 20_000 in amounts)


async def test_history_is_from_newest_to_oldest_and_records_vtxos_and_balance(story: Story) -> None:
    newest, *older = await story.get("/wallet/history")
    assert newest["subsystem"]["kind"] == "send"
    assert newest["effective_balance_sat"] == -20_000
    assert newest["input_vtxos"]
    times = [entry["time"]["created_at"] for entry in (newest, *older)]
    assert times == sorted(times, reverse=True)
    assert await story.get("/wallet/movements") == [newest, *older]


async def test_history_of_one_destination_is_from_oldest_to_newest(story: Story) -> None:
    """Documented as the other way round, which only the whole history is."""
    first = (await story.get("/history"))[0]
    to = first["sent_to"][0]["destination"]
    filtered = f"/history?type={to['type']}&value={to['value']}"
    assert await story.get(filtered) == [first]
    await story.post("/wallet/send", {"destination": to["value"], "amount_sat": 5_000})
    found = await story.get(filtered)
    assert [entry["effective_balance_sat"] for entry in found] == [-20_000, -5_000]
    assert found[0] == first


async def test_vtxos_that_are_spent_are_listed_on_demand(story: Story) -> None:
    states = {vtxo["state"]["type"] for vtxo in await story.get("/wallet/vtxos")}
    everything = {vtxo["state"]["type"] for vtxo in await story.get("/wallet/vtxos?all=true")}
    assert (states, everything) == ({"spendable"}, {"spendable", "spent"})


async def test_a_sync_answers_when_it_is_done(story: Story) -> None:
    done = await story.ask("POST", "/wallet/sync")
    assert (done.status_code, done.content) == (200, b"")
    assert (await story.post("/wallet/sync/mailbox"))["checkpoint"] >= 0


async def test_a_ticket_lives_ten_minutes_and_works_once(story: Story) -> None:
    """Documented as text; it has always been a JSON string. Upstream forgets to look at its age."""
    answer = await story.ask("GET", "/notifications/ws/ticket")
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()) == 64
    assert LIFETIME_SECS == 600  # kept: tests/api/test_notifications.py has a clock
    url = f"ws://127.0.0.1:{story.asked.port}/api/v1/notifications/ws?ticket={answer.json()}"
    async with asyncio.timeout(PATIENCE_SECS), connect(url) as socket:
        await (await socket.ping())
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 401


# --- refreshes


async def test_a_refresh_waits_for_a_round_and_disappears_when_it_is_confirmed(story: Story) -> None:
    """Documented to lock its inputs at once; since 0.8.0 they are locked when the round begins."""
    vtxo, *_ = await story.spendable()
    registered = await story.post("/wallet/refresh/vtxos", {"vtxos": [vtxo["id"]]})
    assert registered["participation"]["inputs"] == [vtxo["id"]]
    assert [entry["id"] for entry in await story.get("/wallet/rounds")] == [registered["id"]]
    assert (await story.get(f"/wallet/vtxos/{vtxo['id']}"))["state"]["type"] == "spendable"
    await story.hold_round()
    assert (await story.get(f"/wallet/vtxos/{vtxo['id']}"))["state"]["type"] == "spent"
    assert max(found["expiry_height"] for found in await story.spendable()) > vtxo["expiry_height"]


async def test_a_round_is_confirmed_by_one_block_everywhere(tmp_path: Path) -> None:
    """Documented as two on mainnet; the default has always been one."""
    for network in (Network.MAINNET, Network.REGTEST):
        config = load_config(tmp_path / "none.toml", network, environment={})
        assert config.round_tx_required_confirmations == 1


async def test_a_refresh_of_an_unknown_vtxo_is_a_500(story: Story) -> None:
    """Documented as a 404, which upstream never sends."""
    unknown = await story.ask("POST", "/wallet/refresh/vtxos", {"vtxos": [UNKNOWN_VTXO]})
    assert (unknown.status_code, unknown.json()["message"].split(":")[0]) == (
        500,
        "Failed to build round participation",
    )


async def test_vtxos_of_the_own_making_need_no_refresh_and_received_ones_do(story: Story) -> None:
    nothing = await story.ask("POST", "/wallet/refresh/counterparty")
    assert nothing.status_code == 404
    address = (await story.post("/wallet/addresses/next"))["address"]
    before = {vtxo["id"] for vtxo in await story.spendable()}
    await story.other.post("/wallet/send", {"destination": address, "amount_sat": 30_000})
    vtxos = await eventually(story.spendable, lambda found: len(found) > len(before))
    received = {vtxo["id"] for vtxo in vtxos} - before
    assert set((await story.post("/wallet/refresh/counterparty"))["participation"]["inputs"]) == received
    await story.hold_round()
    registered = await story.post("/wallet/refresh/all")
    assert len(registered["participation"]["inputs"]) == len(before) + 1
    await story.hold_round()


# --- Lightning


async def test_a_lightning_receive_is_pending_until_it_is_settled(story: Story) -> None:
    """Documented to be found by its preimage too; upstream takes that for a payment hash."""
    assert (await story.get("/fees/lightning/receive?amount_sat=20000"))["gross_amount_sat"] == 20_000
    first = (await story.post("/lightning/receives/invoice", {"amount_sat": 20_000}))["invoice"]
    second = (await story.post("/lightning/receives/invoice", {"amount_sat": 1_000}))["invoice"]
    assert [entry["invoice"] for entry in await story.get("/lightning/receives")] == [first, second]
    found = await story.get(f"/lightning/receives/{first}")
    assert await story.get(f"/lightning/receives/{found['payment_preimage']}") == found
    assert await story.get(f"/lightning/receives/{found['payment_hash']}") == found
    await story.devnet.pull("/lightning/pay", invoice=first, wait=False)
    paid = await eventually(
        lambda: story.get(f"/lightning/receives/{first}"),
        lambda receive: receive["finished_at"] is not None,
        within_secs=PATIENCE_SECS,
    )
    assert paid["state"] == "settled"
    assert [entry["invoice"] for entry in await story.get("/lightning/receives")] == [second]
    assert (await story.ask("DELETE", f"/lightning/receives/{second}")).status_code == 200
    assert await story.get("/lightning/receives") == []


async def test_a_settled_receive_cannot_be_canceled(story: Story) -> None:
    settled = (await story.get("/history"))[0]
    refused = await story.ask("DELETE", f"/lightning/receives/{settled['metadata']['payment_hash']}")
    assert (refused.status_code, refused.json()["message"]) == (
        500,
        "Failed to cancel lightning receive: no pending lightning receive found for this payment hash",
    )


async def test_a_lightning_payment_names_its_hash_and_takes_no_comment(story: Story) -> None:
    """Documented to answer with the preimage; that comes with the state of the payment."""
    given = await story.devnet.pull("/lightning/invoice", amount_sat=5_000)
    body = {"destination": given["invoice"]}
    commented = await story.ask("POST", "/lightning/pay", {**body, "comment": "x"})
    assert commented.status_code == 400
    paid = await story.post("/lightning/pay", body)
    assert paid == {"message": "Payment initiated successfully", "payment_hash": given["payment_hash"]}
    state = await eventually(
        lambda: story.get(f"/lightning/sends/{given['payment_hash']}"),
        lambda send: send["state"] == "paid",
        within_secs=PATIENCE_SECS,
    )
    assert len(state["preimage"]) == 64
    addressed = await story.ask("POST", "/lightning/pay", {"destination": "someone@example.com"})
    assert addressed.json()["message"].startswith("bad request: amount is required")


async def test_a_lightning_fee_is_estimated_without_the_funds_too(story: Story) -> None:
    estimate = await story.get("/fees/lightning/pay?amount_sat=99999999")
    assert (estimate["net_amount_sat"], estimate["vtxos_spent"]) == (99_999_999, [])


# --- leaving Ark


async def test_a_payment_on_chain_costs_the_fee_on_top(story: Story) -> None:
    estimate = await story.get(f"/fees/send-onchain?amount_sat=40000&address={ADDRESS}")
    assert estimate["net_amount_sat"] == 40_000 == estimate["gross_amount_sat"] - estimate["fee_sat"]
    before = (await story.get("/wallet/balance"))["spendable_sat"]
    await story.post("/wallet/send-onchain", {"destination": ADDRESS, "amount_sat": 40_000})

    async def after_a_block() -> Any:
        await story.devnet.mine()
        await story.post("/wallet/sync")
        return await story.get("/wallet/balance")

    balance = await eventually(after_a_block, lambda got: got["pending_offboard_sat"] == 0)
    assert balance["spendable_sat"] == before - estimate["gross_amount_sat"]


async def test_an_offboard_takes_whole_vtxos_and_the_fee_out_of_them(story: Story) -> None:
    (vtxo, *_) = sorted(await story.spendable(), key=lambda found: int(found["amount_sat"]))
    left = await story.post("/wallet/offboard/vtxos", {"vtxos": [vtxo["id"]], "address": ADDRESS})
    assert len(left["offboard_txid"]) == 64
    (movement,) = [entry for entry in await story.get("/history") if entry["id"] == left["movement_id"]]
    assert movement["input_vtxos"] == [vtxo["id"]]
    assert movement["intended_balance_sat"] == -vtxo["amount_sat"]


# --- exits


async def test_an_exit_needs_vtxos_that_are_known(story: Story) -> None:
    for vtxos, status, text in (
        ([], 400, "No VTXO IDs provided"),
        (["x"], 400, "bad request: Invalid VTXO ID"),
        ([UNKNOWN_VTXO], 404, "not found"),
    ):
        refused = await story.ask("POST", "/exits/start/vtxos", {"vtxos": vtxos})
        assert refused.status_code == status
        assert refused.json()["message"].startswith(text)
        assert refused.json().get("resources") == ([UNKNOWN_VTXO] if status == 404 else None)


async def test_a_vtxo_that_is_spent_already_is_passed_over(story: Story) -> None:
    everything = await story.get("/wallet/vtxos?all=true")
    spent = next(vtxo["id"] for vtxo in everything if vtxo["state"]["type"] == "spent")
    started = await story.post("/exits/start/vtxos", {"vtxos": [spent]})
    assert started == {"message": "Exit started successfully"}
    assert await story.get("/exits/status/all") == []


async def test_an_exit_is_registered_and_goes_on_by_itself(story: Story) -> None:
    """Documented to go on every SLOW_INTERVAL: that is 60 s, and here every new block too."""
    assert load_config(Path("none.toml"), Network.REGTEST, environment={}).daemon_sync_interval_secs == 60
    await story.post("/onchain/sync")
    await story.post("/boards/board-amount", {"amount_sat": 100_000})
    await story.confirm_boards()
    (vtxo, *_) = [found for found in await story.spendable() if 90_000 < found["amount_sat"] < 100_000]
    story.exiting = vtxo["id"]
    started = await story.post("/exits/start/vtxos", {"vtxos": [vtxo["id"]]})
    assert started == {"message": "Exit started successfully"}

    async def broadcast() -> bool:
        return "awaiting-confirmation" in json.dumps(await story.get("/exits/status/all"))

    await eventually(broadcast, bool)


async def test_progress_takes_one_step_and_ignores_wait(story: Story) -> None:
    """Documented to wait until the exit is complete; no version ever did."""
    async with asyncio.timeout(60):
        progress = await story.post("/exits/progress", {"wait": True, "fee_rate": None})
    assert progress["done"] is False
    assert progress["exits"][0]["vtxo_id"] == story.exiting
    assert "error" not in progress["exits"][0]
    without = await story.ask("POST", "/exits/progress")
    assert without.status_code == 415  # the body is required, though nothing in it is


async def test_the_claimable_height_is_known_once_an_exit_is_confirmed(story: Story) -> None:
    assert (await story.post("/exits/progress", {}))["claimable_height"] is None

    async def confirmed() -> Any:
        await story.devnet.mine()
        return await story.post("/exits/progress", {})

    progress = await eventually(confirmed, lambda got: got["claimable_height"] is not None)
    delta = (await story.get("/wallet/ark-info"))["vtxo_exit_delta"]
    state = progress["exits"][0]["state"]
    assert progress["claimable_height"] == state["claimable_height"]
    assert state["claimable_height"] == state["confirmed_block"]["height"] + delta


async def test_an_exit_status_has_its_phase_history_and_packages(story: Story) -> None:
    plain = await story.get(f"/exits/status/vtxo/{story.exiting}")
    assert plain.keys() == {"vtxo_id", "state"}
    full = await story.get(f"/exits/status/vtxo/{story.exiting}?history=true&transactions=true")
    assert full["history"][0]["type"] == "start"
    assert full["transactions"][0]["child"] is not None


async def test_all_statuses_are_an_array_for_old_clients_and_a_redirect_for_new_ones(story: Story) -> None:
    old = await story.ask("GET", "/exits/status", **{"User-Agent": "OpenAPI-Generator/0.1.4/python"})
    assert (old.status_code, [entry["vtxo_id"] for entry in old.json()]) == (200, [story.exiting])
    new = await story.ask("GET", "/exits/status", **{"User-Agent": "OpenAPI-Generator/0.8.0/python"})
    assert (new.status_code, new.headers["location"]) == (308, "/api/v1/exits/status/all")


async def test_done_is_true_while_an_exit_waits_to_be_claimed(story: Story) -> None:
    """Documented as "all transactions are confirmed"; so it is true with nothing to do but to claim."""

    async def claimable() -> Any:
        await story.devnet.mine()
        return await story.post("/exits/progress", {})

    progress = await eventually(claimable, lambda got: got["done"])
    assert progress["exits"][0]["state"]["type"] == "claimable"


async def test_claims_are_not_made_by_the_daemon_and_have_no_txid(story: Story) -> None:
    """The fee rate is in sat/kvB and rounded up: 4,001 are 1,001 sat/kwu."""
    claim = {"destination": ADDRESS, "vtxos": [story.exiting], "fee_rate": 4_001}
    assert await story.post("/exits/claim/vtxos", claim) == {"message": "Exit claimed successfully"}
    state = (await story.get(f"/exits/status/vtxo/{story.exiting}"))["state"]
    async with httpx.AsyncClient(base_url=story.devnet.esplora_url, timeout=60) as chain:
        tx = (await chain.get(f"/tx/{state['claim_txid']}")).json()
    assert tx["fee"] == tx["weight"] + 1
    nothing = await story.ask("POST", "/exits/claim/all", {"destination": ADDRESS})
    assert nothing.status_code == 500

    async def claimed() -> str:
        await story.devnet.mine()
        await story.post("/exits/progress", {})
        (exit_,) = await story.get("/exits/status/all")
        return str(exit_["state"]["type"])

    await eventually(claimed, lambda state: state == "claimed")
    assert (await story.post("/exits/progress", {})) == {"exits": [], "done": True, "claimable_height": None}


async def test_an_exit_without_funds_says_so(story: Story) -> None:
    """0.1.4 documented it and upstream dropped it; here the exit's entry has the error again."""
    await story.post("/onchain/sync")
    await story.post("/onchain/drain", {"destination": ADDRESS})
    await story.devnet.mine()
    await story.post("/onchain/sync")
    assert (await story.get("/onchain/balance"))["total_sat"] == 0
    await story.post("/exits/start/all")

    async def errors() -> set[str]:
        progress = await story.post("/exits/progress", {})
        return {entry["error"]["type"] for entry in progress["exits"] if "error" in entry}

    await eventually(errors, lambda found: found == {"insufficient-confirmed-funds"})


# --- the end


async def test_a_wallet_is_deleted_by_its_fingerprint(story: Story) -> None:
    """Documented to need it always; without a wallet it is not looked at."""
    wrong = await story.ask("DELETE", "/wallet", {"dangerous": True, "fingerprint": "00000000"})
    assert wrong.status_code == 400
    body = {"dangerous": True, "fingerprint": story.fingerprint}
    deleted = await story.ask("DELETE", "/wallet", body)
    assert deleted.json() == {"deleted": True, "fingerprint": story.fingerprint, "message": "Wallet deleted"}
    again = await story.ask("DELETE", "/wallet", {"dangerous": True, "fingerprint": "anything"})
    assert again.json()["deleted"] is False
