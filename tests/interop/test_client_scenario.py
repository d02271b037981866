"""Upstream's generated clients, 0.1.4 and 0.8.0 from PyPI, live with our daemon on devnet.

Each goes through the life of a wallet: created, funded, boarded, paid and paying, refreshed, Lightning both
ways, offboarded, exited, claimed, deleted; and each calls every operation that it has, with success at least
once. The clients are strict: an answer with an unknown word or without a required field is an error.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from barkd_py.api.auth import AuthToken
from tests.support.processes import Daemon, Devnet, esplora, eventually

pytestmark = pytest.mark.interop

TOKEN = AuthToken(b"\x2a" * 32).encode()
ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
PATIENCE_SECS = 120.0


class Client:
    """One of the published clients, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, version: str) -> None:
        self._process = process
        self.version = version
        self.succeeded: set[str] = set()

    async def methods(self) -> set[str]:
        return set(await self._say([]))

    async def outcome(self, method: str, **arguments: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = await self._say([method, arguments])
        assert "unreadable" not in outcome, outcome
        if "result" in outcome:
            self.succeeded.add(method)
        return outcome

    async def __call__(self, method: str, **arguments: Any) -> Any:
        """The answer as the client understood it; it must be a success."""
        outcome = await self.outcome(method, **arguments)
        assert "result" in outcome, outcome
        return outcome["result"]

    async def _say(self, call: list[Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_SECS)
        assert line, f"the client of {self.version} ended"
        return json.loads(line)

    @property
    def is_new(self) -> bool:
        return self.version == "0.8.0"

    async def until(self, method: str, accept: Callable[[Any], bool], **arguments: Any) -> Any:
        """Sync and call until the answer is accepted."""

        async def ask() -> Any:
            await self("sync")
            return await self(method, **arguments)

        return await eventually(ask, accept, within_secs=PATIENCE_SECS)


@pytest.fixture
async def daemon_with_token(tmp_path: Path) -> AsyncIterator[Daemon]:
    datadir = tmp_path / "daemon"
    datadir.mkdir(mode=0o700)
    (datadir / "auth_token").write_text(TOKEN)
    daemon = Daemon(datadir, token=TOKEN, env={"BARKD_EXPOSE_MNEMONIC": "true"})
    await daemon.start()
    yield daemon
    await daemon.close()


@pytest.fixture(params=["0.1.4", "0.8.0"])
async def client(
    request: pytest.FixtureRequest, barkd_clients: Path, daemon_with_token: Daemon
) -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("published_client.py")),
        "serve",
        f"http://127.0.0.1:{daemon_with_token.port}",
        TOKEN,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        env={**os.environ, "PYTHONPATH": str(barkd_clients / request.param)},
    )
    yield Client(process, request.param)
    process.kill()
    await process.wait()


async def test_a_whole_life(client: Client, payer: Daemon, devnet: Devnet) -> None:
    await _create(client, devnet)
    await _fund_and_board(client, devnet)
    await _pay(client)
    await _refresh(client, payer, devnet)
    await _lightning(client, devnet)
    await _go_on_chain(client, devnet)
    await _exit_and_claim(client, devnet)
    if client.is_new:
        await _change_ones_mind_about_an_exit(client, payer)
    await _exit_and_claim_all(client, devnet)
    await _ask_the_rest(client)
    await _empty_and_delete(client, devnet)
    assert client.succeeded == await client.methods()


async def _create(client: Client, devnet: Devnet) -> None:
    await client("ping")
    assert (await client("wallet_exists"))["fingerprint"] is None
    created = await client(
        "create_wallet",
        create_wallet_request={
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": esplora(devnet.esplora_url),
        },
    )
    assert await client("wallet_exists") == created
    assert (await client("connected"))["connected"] is True
    assert (await client("ark_info"))["network"] == "regtest"
    assert (await client("next_round"))["start_time"]
    first = await client("address")
    assert await client("peek_address", index=0) == first
    assert (await client("tip"))["tip_height"] > 0


async def _fund_and_board(client: Client, devnet: Devnet) -> None:
    for _ in range(3):
        await devnet.fund((await client("onchain_address"))["address"], 1_000_000)
    await client("onchain_sync")
    assert (await client("onchain_balance"))["confirmed_sat"] == 3_000_000
    assert len(await client("onchain_utxos")) == 3
    assert len(await client("onchain_transactions")) == 3
    rates = await client("onchain_fee_rates")
    assert rates["fast_sat_per_vb"] >= rates["slow_sat_per_vb"]
    for amount_sat in (300_000, 400_000, 200_000):
        estimate = await client("board_fee", amount_sat=amount_sat)
        board = await client("board_amount", board_request={"amount_sat": amount_sat})
        assert board["amount_sat"] == estimate["net_amount_sat"]
    assert len(await client("get_pending_boards")) == 3
    assert (await client("balance"))["pending_board_sat"] > 890_000
    await devnet.mine()
    await client.until("balance", lambda balance: balance["pending_board_sat"] == 0)
    vtxos = await client("vtxos", all=True)
    assert [vtxo["state"]["type"] for vtxo in vtxos] == ["spendable"] * 3
    assert await client("get_vtxo", id=vtxos[0]["id"]) == vtxos[0]
    encoded = (await client("get_vtxo_encoded", id=vtxos[0]["id"]))["encoded"]
    assert await client("import_vtxo", import_vtxo_request={"vtxos": [encoded]}) == [vtxos[0]]


async def _pay(client: Client) -> None:
    address = (await client("address"))["address"]
    await client("send", send_request={"destination": address, "amount_sat": 10_000})
    assert (await client("sync_mailbox"))["checkpoint"] > 0
    kinds = {(entry["subsystem"]["name"], entry["subsystem"]["kind"]) for entry in await client("history")}
    assert {("bark.arkoor", "send"), ("bark.arkoor", "receive")} <= kinds
    assert await client("movements") == await client("history")


async def _be_paid(client: Client, payer: Daemon, amount_sat: int) -> dict[str, Any]:
    """The VTXO that came from somebody else."""
    before = {vtxo["id"] for vtxo in await _spendable(client)}
    address = (await client("address"))["address"]
    await payer.post("/wallet/send", {"destination": address, "amount_sat": amount_sat})

    def has_come(vtxos: list[dict[str, Any]]) -> bool:
        return len({vtxo["id"] for vtxo in vtxos} - before) == 1

    vtxos = await client.until("vtxos", has_come)
    (received,) = (vtxo for vtxo in vtxos if vtxo["id"] not in before)
    assert received["amount_sat"] == amount_sat
    found: dict[str, Any] = received
    return found


async def _refresh(client: Client, payer: Daemon, devnet: Devnet) -> None:
    small, *_, large = sorted(await _spendable(client), key=lambda vtxo: int(vtxo["amount_sat"]))
    registered = await client("refresh_vtxos", refresh_request={"vtxos": [large["id"]]})
    assert registered["participation"]["inputs"] == [large["id"]]
    assert len(await client("pending_rounds")) == 1
    await _hold_round(client, devnet)
    assert (await client("get_vtxo", id=large["id"]))["state"]["type"] == "spent"
    if client.is_new:
        delegated = await client("refresh_delegated", delegated_refresh_request={"vtxos": [small["id"]]})
        assert delegated["state"] == "delegated-pending"
        await _hold_round(client, devnet)
    # What came from the wallet itself is nobody else's; what somebody else has paid may yet be double-spent.
    assert (await client.outcome("refresh_counterparty"))["status"] == 404
    received = await _be_paid(client, payer, 15_000)
    made_safe = await client("refresh_counterparty")
    assert made_safe["participation"]["inputs"] == [received["id"]]
    await _hold_round(client, devnet)
    assert (await client("get_vtxo", id=received["id"]))["state"]["type"] == "spent"
    assert (await client.outcome("refresh_counterparty"))["status"] == 404
    await client("refresh_all")
    await _hold_round(client, devnet)


async def _spendable(client: Client) -> list[dict[str, Any]]:
    return [vtxo for vtxo in await client("vtxos") if vtxo["state"]["type"] == "spendable"]


async def _hold_round(client: Client, devnet: Devnet) -> None:
    await devnet.pull("/round")

    async def rounds() -> Any:
        await devnet.mine()
        await client("sync")
        return await client("pending_rounds")

    await eventually(rounds, lambda pending: pending == [], within_secs=PATIENCE_SECS)


async def _lightning(client: Client, devnet: Devnet) -> None:
    assert (await client("lightning_receive_fee", amount_sat=20_000))["gross_amount_sat"] == 20_000
    request = {"amount_sat": 20_000, "description": "for the scenario"}
    invoice = (await client("generate_invoice", lightning_invoice_request=request))["invoice"]
    pending = await client("list_receive_statuses")
    assert [receive["invoice"] for receive in pending] == [invoice]
    await devnet.pull("/lightning/pay", invoice=invoice, wait=False)
    paid = await client.until(
        "get_receive_status", lambda receive: receive["finished_at"] is not None, identifier=invoice
    )
    assert paid["amount_sat"] == 20_000

    unwanted = (await client("generate_invoice", lightning_invoice_request=request))["invoice"]
    await client("cancel_receive", identifier=unwanted)
    assert await client("list_receive_statuses") == []

    assert (await client("lightning_send_fee", amount_sat=5_000))["net_amount_sat"] == 5_000
    bought = await devnet.pull("/lightning/invoice", amount_sat=5_000)
    await client("pay", lightning_pay_request={"destination": bought["invoice"]})

    def is_settled(history: list[dict[str, Any]]) -> bool:
        return str(history[0]["status"]) == "successful"

    history = await client.until("history", is_settled)
    assert history[0]["sent_to"][0]["destination"] == {"type": "invoice", "value": bought["invoice"]}
    if client.is_new:
        state = await client("get_send_status", identifier=bought["payment_hash"])
        assert state["state"] == "paid"
        address = (await client("address"))["address"]
        await client(
            "generate_invoice_for_address",
            lightning_invoice_for_address_request={"amount_sat": 1_000, "address": address},
        )
        uri = await client("bip321_uri", bip321_uri_request={"amount_sat": 2_000, "onchain": True})
        assert uri["bip321"].startswith("bitcoin:?")


async def _go_on_chain(client: Client, devnet: Devnet) -> None:
    amount_sat = 20_000
    await client("offboard_all_fee", address=ADDRESS)
    estimate = await client("send_onchain_fee", amount_sat=amount_sat, address=ADDRESS)
    assert estimate["net_amount_sat"] == amount_sat
    sent = await client(
        "send_onchain", send_onchain_request={"destination": ADDRESS, "amount_sat": amount_sat}
    )
    assert len(sent["offboard_txid"]) == 64
    await devnet.mine()
    await client("sync")
    await client("board_amount", board_request={"amount_sat": 150_000})
    await devnet.mine()
    await client.until("balance", lambda balance: balance["pending_board_sat"] == 0)
    (vtxo,) = [vtxo for vtxo in await _spendable(client) if 140_000 < vtxo["amount_sat"] < 150_000][:1]
    if client.is_new:
        await client(
            "offboard_fee", offboard_fee_estimate_request={"address": ADDRESS, "vtxos": [vtxo["id"]]}
        )
    await client("offboard_vtxos", offboard_vtxos_request={"vtxos": [vtxo["id"]], "address": ADDRESS})
    await devnet.mine()
    await client("onchain_sync")
    for call, arguments in (
        ("onchain_send", {"onchain_send_request": {"destination": ADDRESS, "amount_sat": 30_000}}),
        (
            "onchain_send_many",
            {"onchain_send_many_request": {"destinations": [f"{ADDRESS}:10000 sat"], "immediate": True}},
        ),
    ):
        assert len((await client(call, **arguments))["txid"]) == 64
    await devnet.mine()
    await client("onchain_sync")


async def _exit_and_claim(client: Client, devnet: Devnet) -> None:
    await client("board_amount", board_request={"amount_sat": 100_000})
    await devnet.mine()
    await client.until("balance", lambda balance: balance["pending_board_sat"] == 0)
    (vtxo,) = [vtxo for vtxo in await _spendable(client) if 90_000 < vtxo["amount_sat"] < 100_000][:1]
    await client("onchain_sync")
    exiting = {"exit_start_request": {"vtxos": [vtxo["id"]]}}
    if client.is_new:
        fee = await client("emergency_exit_fee", vtxo_ids=vtxo["id"], fee_margin=1.0)
        assert fee["total_fee_sat"] > 0
    await client("exit_start_vtxos", **exiting)
    shown = {"vtxo_id": vtxo["id"], "history": True, "transactions": True}
    assert (await client("get_exit_status_by_vtxo_id", **shown))["vtxo_id"] == vtxo["id"]
    await client("exit_progress", exit_progress_request={"fee_rate": 4_000})
    claim = {"destination": (await client("onchain_address"))["address"], "vtxos": [vtxo["id"]]}
    await _progress_until(client, devnet, vtxo["id"], "claimable")
    await client("exit_claim_vtxos", exit_claim_vtxos_request={**claim, "fee_rate": 2_000})
    await _progress_until(client, devnet, vtxo["id"], "claimed")
    assert [exit_["state"]["type"] for exit_ in await client("get_all_exit_status")] == ["claimed"]
    if client.is_new:
        assert await client("get_all_exit_status_deprecated") is None
        assert (await client("get_exit_status_by_vtxo_id_deprecated", **shown))["vtxo_id"] == vtxo["id"]
        assert await client("get_live_exit_status") == []
        assert len(await client("get_finished_exits", history=True)) == 1


async def _change_ones_mind_about_an_exit(client: Client, payer: Daemon) -> None:
    """A received VTXO is several transactions from the chain: until the last of them is sent it may stay."""
    received = await _be_paid(client, payer, 20_000)
    await client("exit_start_vtxos", exit_start_request={"vtxos": [received["id"]]})
    await client("exit_progress", exit_progress_request={})
    assert received["id"] in [exit_["vtxo_id"] for exit_ in await client("get_live_exit_status")]
    canceled = await client("exit_cancel", vtxo_id=received["id"])
    assert canceled["message"] == "Exit canceled successfully"
    assert await client("exit_cancel", vtxo_id=received["id"]) == canceled
    assert received["id"] not in [exit_["vtxo_id"] for exit_ in await client("get_live_exit_status")]
    finished = {exit_["vtxo_id"]: exit_["state"]["type"] for exit_ in await client("get_finished_exits")}
    assert finished[received["id"]] == "canceled"
    assert (await client("get_vtxo", id=received["id"]))["state"]["type"] == "spendable"
    statuses = [
        entry["status"] for entry in await client("list") if entry["subsystem"]["name"] == "bark.exit"
    ]
    assert "canceled" in statuses


async def _exit_and_claim_all(client: Client, devnet: Devnet) -> None:
    await client("exit_start_all")
    destination = (await client("onchain_address"))["address"]
    for exit_ in (await client("exit_progress", exit_progress_request={}))["exits"]:
        await _progress_until(client, devnet, exit_["vtxo_id"], "claimable")
    await client("exit_claim_all", exit_claim_all_request={"destination": destination})


async def _progress_until(client: Client, devnet: Devnet, vtxo_id: str, wanted: str) -> None:
    async def state() -> str:
        await client("exit_progress", exit_progress_request={})
        reached: str = (await client("get_exit_status_by_vtxo_id", vtxo_id=vtxo_id))["state"]["type"]
        if reached != wanted:
            await devnet.mine()
        return reached

    await eventually(state, lambda reached: reached == wanted, within_secs=PATIENCE_SECS)


async def _ask_the_rest(client: Client) -> None:
    assert len(await client("websocket_ticket")) == 64
    if not client.is_new:
        return
    address = (await client("address"))["address"]
    signature = (await client("sign_message", sign_message_request={"message": "m", "address": address}))[
        "signature"
    ]
    verified = await client(
        "verify_message",
        verify_message_request={"message": "m", "address": address, "signature": signature},
    )
    assert verified["valid"] is True
    assert await client("list", type="ark", value=address) == []
    newest, *_ = await client("list")
    await client("update_metadata", id=newest["id"], body={"note": "x"})
    noted = next(entry for entry in await client("list") if entry["id"] == newest["id"])
    assert noted["metadata"]["note"] == "x"
    events = await client("wait_notification")
    assert events["notifications"][-1]["movement"]["id"] == newest["id"]
    assert len((await client("mnemonic"))["mnemonic"].split()) == 12


async def _empty_and_delete(client: Client, devnet: Devnet) -> None:
    await devnet.mine()
    await client("onchain_sync")
    await client("board_all")
    await devnet.mine()
    await client.until("balance", lambda balance: balance["pending_board_sat"] == 0)
    await client("offboard_all", offboard_all_request={})
    await devnet.mine()
    await client("onchain_sync")
    assert len((await client("onchain_drain", onchain_drain_request={"destination": ADDRESS}))["txid"]) == 64
    fingerprint = (await client("wallet_exists"))["fingerprint"]
    deleted = await client(
        "wallet_delete", wallet_delete_request={"dangerous": True, "fingerprint": fingerprint}
    )
    assert deleted["deleted"] is True
    assert (await client("wallet_exists"))["fingerprint"] is None
