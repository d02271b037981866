"""The real barkd 0.8.0 and ours, each with a wallet on one devnet, are asked the same.

`requests.json` is the list, in the order in which it is asked, with two stages that `bad_requests.py` makes.
Between the stages both wallets go through the same: created, funded, boarded, paid, refreshed, exited,
deleted. In a second life they give away all that they have, in each of the ways that there are. Compared are
status, content type and shape of the answer: keys in their order, types, the words of enumerations, and
messages with what is volatile masked. Differences are listed with their reason in docs/contract.md; one that
is not, or one that is gone, fails.
"""

import asyncio
import json
import operator
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from barkd_py.api.auth import AuthToken
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from tests.contract.answers import differences
from tests.contract.description import Difference, Row, table
from tests.contract.identities import Identities
from tests.contract.recorded import FILLINGS, Case
from tests.interop import bad_requests
from tests.interop.conftest import program
from tests.support import raw_http
from tests.support.processes import Daemon, Devnet, Process, esplora, eventually, free_port

pytestmark = pytest.mark.interop

HERE: Final = Path(__file__).parent
PAGE: Final = (HERE.parent.parent / "docs" / "contract.md").read_text()
TOKEN: Final = AuthToken(b"\x2a" * 32).encode()
USER_AGENT: Final = "OpenAPI-Generator/0.8.0/test"
ONCHAIN_SAT: Final = 2_000_000
PATIENCE_SECS: Final = 120.0
UNHURRIED: Final = {"BARK_DAEMON_SYNC_INTERVAL_SECS": "600"}
"""Nothing happens between two requests but what is asked for, and what a new block brings."""
DEVNET_OPTIONS: Final = ("--round-interval", "100000")
"""No round begins but those that are held here."""


async def _tip_height(devnet: Devnet) -> int:
    async with httpx.AsyncClient(base_url=devnet.esplora_url, timeout=60) as chain:
        return int((await chain.get("/blocks/tip/height")).text)


@dataclass(slots=True)
class Side:
    """One of the two: where it answers, and what the placeholders of requests stand for."""

    port: int
    process: Process
    known: dict[str, str] = field(default_factory=lambda: dict(FILLINGS))

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            timeout=PATIENCE_SECS,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )

    async def start_exposing_the_mnemonic(self) -> None:
        """Kill the daemon, and start it again with this flag."""
        self.process.kill()
        self.process = Process([*self.process.command, "--expose-mnemonic"], self.process.log, env=UNHURRIED)
        self.process.launch()
        await eventually(partial(_is_up, self.port), bool)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self.http as http:
            answer = await http.request(method, path, **({} if body is None else {"json": body}))
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def get(self, path: str) -> Any:
        return await self.call("GET", path)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.call("POST", path, body)

    async def ask(self, case: Case) -> raw_http.Response | None:
        """The answer to a request of the list; None if the connection ended without one."""
        headers: list[tuple[str, str | bytes]] = [("User-Agent", USER_AGENT), *case.headers.items()]
        if case.auth is True:
            headers.append(("Authorization", f"Bearer {TOKEN}"))
        elif isinstance(case.auth, list):
            for value in case.auth:
                filled = b"Bearer \xff" if value == "<bytes>" else value.replace("<token>", TOKEN)
                headers.append(("Authorization", filled))
        try:
            answer = await raw_http.request(self.port, case.method, case.target, headers, case.body_bytes)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        self._learn(case, answer)
        return answer

    def _learn(self, case: Case, answer: raw_http.Response) -> None:
        """Later requests are about what earlier answers brought."""
        if case.path.endswith("/wallet/addresses/next") and answer.status == 200:
            self.known["own_ark_address"] = answer.json()["address"]
        if case.path.endswith("/lightning/receives/invoice") and answer.status == 200:
            self.known["own_invoice"] = answer.json()["invoice"]
        if case.path.endswith("/wallet/create") and answer.status == 200:
            self.known["fingerprint"] = answer.json()["fingerprint"]
        if case.path.endswith("/message/sign") and answer.status == 200:
            self.known["sig"] = answer.json()["signature"]

    async def look_around(self) -> None:
        """Learn which VTXOs and movements there are."""
        vtxos = await self.get("/wallet/vtxos?all=true")
        for state in ("spendable", "spent"):
            found = [vtxo for vtxo in vtxos if vtxo["state"]["type"] == state]
            if found:
                largest = max(found, key=lambda vtxo: int(vtxo["amount_sat"]))["id"]
                self.known[f"{state}_vtxo"] = largest
                encoded = await self.get(f"/wallet/vtxos/{largest}/encoded")
                self.known[f"{state}_vtxo_hex"] = encoded["encoded"]
        history = await self.get("/history")
        if history:
            self.known["movement_id"] = str(history[0]["id"])

    async def spendable_sat(self) -> int:
        await self.post("/wallet/sync")
        return int((await self.get("/wallet/balance"))["spendable_sat"])


def _stages() -> dict[str, list[Case]]:
    stages: dict[str, list[Case]] = {}
    for entry in [*json.loads((HERE / "requests.json").read_text()), *bad_requests.entries()]:
        body = entry.get("body")
        headers = entry.get("headers", {"Content-Type": "application/json"} if body is not None else {})
        stages.setdefault(entry["stage"], []).append(
            Case(
                name=entry["name"],
                state=entry["stage"],
                method=entry["method"],
                path=entry["path"],
                query=entry.get("query"),
                headers=headers,
                auth=entry.get("auth", True),
                body=body,
                status=None,
                content_type=None,
                response_headers={},
                response=None,
            )
        )
    return stages


STAGES: Final = _stages()


@dataclass(slots=True)
class Comparison:
    real: Side
    ours: Side
    asked: int = 0
    stages_asked: set[str] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)
    identities: Identities = field(default_factory=Identities)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.real, self.ours

    async def ask(self, stage: str) -> None:
        """Send the requests of a stage to both."""
        self.stages_asked.add(stage)
        for case in STAGES[stage]:
            await self._ask(case)

    async def see_block(self, devnet: Devnet) -> None:
        """Mine one, and wait until both have seen it: the real one remembers the tip for a second."""
        await devnet.mine()
        tip = {"tip_height": await _tip_height(devnet)}
        for side in self.sides:
            await eventually(partial(side.get, "/bitcoin/tip"), partial(operator.eq, tip))

    async def fund(self, devnet: Devnet, amount_sat: int) -> None:
        """Give each of them one coin on chain, and wait until both have seen the block that it is in."""
        for side in self.sides:
            address = (await side.post("/onchain/addresses/next"))["address"]
            await devnet.pull("/fund", address=address, amount_sat=amount_sat, mine=False)
        await self.see_block(devnet)
        for side in self.sides:
            await side.post("/onchain/sync")

    async def hold_round(self, devnet: Devnet) -> None:
        """Have the round that they wait for, and learn what it has brought.

        Who is too slow for the round waits for the next one.
        """

        async def waiting() -> bool:
            await devnet.pull("/round")
            for side in self.sides:
                with suppress(AssertionError):
                    await eventually(
                        partial(_rounds, side, devnet), lambda rounds: rounds == [], within_secs=30.0
                    )
            return [await side.get("/wallet/rounds") for side in self.sides] != [[], []]

        await eventually(waiting, operator.not_, within_secs=PATIENCE_SECS)
        for side in self.sides:
            await side.look_around()

    async def _ask(self, case: Case) -> None:
        theirs, ours = await asyncio.gather(
            self.real.ask(_filled(case, self.real)), self.ours.ask(_filled(case, self.ours))
        )
        self.asked += 1
        assert ours is not None, case
        found = differences(f"{case.state}: {case.name}", case.path, theirs, ours)
        self.identities.add(f"{case.state}: {case.name}", case.path, theirs, ours)
        self.differences += found
        if os.environ.get("SHOW_DIFFERENCES"):
            with Path(os.environ["SHOW_DIFFERENCES"]).open("a") as file:
                for difference in found:
                    print(difference, file=file)


def _filled(case: Case, side: Side) -> Case:
    """The request with this wallet's values in place of the placeholders."""

    def value(match: re.Match[str]) -> str:
        name, _, how = match[1].partition(" ")
        if name not in side.known:
            return match[0]
        filled = side.known[name]
        return {"in upper case": filled.upper(), "with %3A for the colon": filled.replace(":", "%3A")}.get(
            how, filled
        )

    def fill(text: Any) -> Any:
        return None if text is None else re.sub(r"<([a-z0-9_]+(?: [^<>{}]+)?)>", value, text)

    body = case.body if case.body is None or isinstance(case.body, str) else json.dumps(case.body)
    return replace(case, path=fill(case.path), query=fill(case.query), body=fill(body))


def _side(command: list[str], datadir: Path) -> Side:
    """One of the two, not started yet."""
    datadir.mkdir(mode=0o700)
    (datadir / "auth_token").write_text(TOKEN)
    port = free_port()
    command = [*command, "--datadir", str(datadir), "--port", str(port)]
    return Side(port, Process(command, datadir.with_name(datadir.name + ".log"), UNHURRIED))


@pytest_asyncio.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """The real daemon and ours, without wallets, with one token."""
    barkd = program("BARKD_EXEC", "barkd")
    pair = _side([barkd], tmp_path / "real"), _side([sys.executable, "-m", "barkd_py.cli"], tmp_path / "ours")
    try:
        for side in pair:
            side.process.launch()
        for side in pair:
            await eventually(partial(_is_up, side.port), bool)
        yield pair
    finally:
        for side in pair:
            side.process.kill()


@pytest_asyncio.fixture
async def payers(tmp_path: Path) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """One of our daemons for each side: what pays one and is paid by it knows nothing of the other."""
    pair = Daemon(tmp_path / "payer of theirs"), Daemon(tmp_path / "payer of ours")
    try:
        for payer in pair:
            await payer.start()
        yield pair
    finally:
        for payer in pair:
            await payer.close()


async def _is_up(port: int) -> bool:
    try:
        return (await raw_http.request(port, "GET", "/ping")).status == 200
    except OSError:
        return False


async def _exit_state(side: Side) -> str:
    await side.post("/onchain/sync")
    await side.post("/exits/progress", {})
    (exit_,) = [
        exit_ for exit_ in await side.get("/exits/status/all") if exit_["vtxo_id"] == side.known["exit_vtxo"]
    ]
    state: str = exit_["state"]["type"]
    return state


async def _mine_until_claimable(side: Side, devnet: Devnet) -> str:
    state = await _exit_state(side)
    if state != "claimable":
        await devnet.mine()
    return state


async def _exit_broadcast(side: Side) -> bool:
    await side.post("/exits/progress", {})
    exits = await side.get("/exits/status/live")
    return "awaiting-confirmation" in json.dumps(exits)


@pytest.mark.timeout(900)  # two lives, on a machine that may be slow
async def test_both_answer_alike(
    sides: tuple[Side, Side], devnet: Devnet, payers: tuple[Daemon, Daemon]
) -> None:
    story = Comparison(*sides)
    for payer in payers:
        await payer.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    for side in sides:
        side.known["ark_server"] = devnet.ark_server_url
        side.known["esplora_url"] = devnet.esplora_url
    await _a_life_of_everything(story, devnet, payers)
    await _a_life_of_giving_all_away(story, devnet, payers)

    rows = [Row(*cells) for cells in table(PAGE, "Behaviour beside barkd 0.8.0")]
    unlisted = [str(found) for found in story.differences if not any(row.covers(found) for row in rows)]
    unneeded = [
        row.place
        for row in rows
        if not row.reason.startswith("at times") and not any(row.covers(found) for found in story.differences)
    ]
    assert story.stages_asked == STAGES.keys()
    assert story.asked >= sum(map(len, STAGES.values()))
    assert unlisted == []
    assert unneeded == []
    assert len(story.identities) >= 50
    assert story.identities.unlike() == []


async def _a_life_of_everything(story: Comparison, devnet: Devnet, payers: tuple[Daemon, Daemon]) -> None:
    sides = story.sides
    await story.ask("no wallet")
    await story.ask(bad_requests.FORMS)

    await story.ask("creating")
    for side, payer in zip(sides, payers, strict=True):
        side.known["other_ark_address"] = (await payer.post("/wallet/addresses/next"))["address"]
    await story.ask("created")

    for funded in (*story.sides, *payers):
        # One coin, so that there is no choice of coins.
        address = (await funded.post("/onchain/addresses/next"))["address"]
        await devnet.pull("/fund", address=address, amount_sat=ONCHAIN_SAT, mine=False)
    await story.see_block(devnet)  # a board's expiry is counted from the tip that its wallet knows of
    for funded in (*story.sides, *payers):
        await funded.post("/onchain/sync")
    for payer in payers:
        await payer.post("/boards/board-amount", {"amount_sat": 1_000_000})
    await story.ask("funded")
    await story.ask("boarding")
    await devnet.mine()
    for side in story.sides:
        await eventually(side.spendable_sat, lambda amount_sat: amount_sat > 0)
        await side.look_around()
    for side, payer in zip(sides, payers, strict=True):
        await payer.post("/wallet/sync")
        (foreign,) = await payer.get("/wallet/vtxos")
        encoded = await payer.get(f"/wallet/vtxos/{foreign['id']}/encoded")
        side.known["foreign_vtxo_hex"] = encoded["encoded"]
        changed = side.known["spendable_vtxo_hex"]
        side.known["tampered_vtxo_hex"] = changed[:-8] + ("0" if changed[-8] != "0" else "1") + changed[-7:]
    for side in story.sides:
        await side.post("/onchain/sync")
    await story.ask("boarded")
    await story.ask(bad_requests.VALUES)

    for side in story.sides:
        # A payment, so that there is a spent VTXO.
        payment = {"destination": side.known["other_ark_address"], "amount_sat": 5_000}
        await side.post("/wallet/send", payment)
        await side.look_around()
    for side, payer in zip(sides, payers, strict=True):
        side.known["own_ark_address2"] = (await side.post("/wallet/addresses/next"))["address"]
        had = {vtxo["id"] for vtxo in await side.get("/wallet/vtxos")}
        await payer.post(
            "/wallet/send", {"destination": side.known["own_ark_address2"], "amount_sat": 50_000}
        )
        new = await eventually(
            partial(_new_vtxos, side, had),
            lambda vtxos: sum(vtxo["amount_sat"] for vtxo in vtxos) == 50_000,
        )
        side.known["arkoor_vtxo"] = max(new, key=lambda vtxo: int(vtxo["amount_sat"]))["id"]
        side.known["own_ark_address"] = (await side.post("/wallet/addresses/next"))["address"]
    await story.ask("received")
    await story.ask("paying")
    for side in story.sides:
        await eventually(partial(_received_sat, side), lambda amounts: 3_000 in amounts)
    await story.ask("paid")
    await devnet.mine()
    for side in story.sides:
        await _give_invoices(side, devnet)
    await story.ask("lightning")
    for side in story.sides:
        await eventually(partial(_pending_payments, side), lambda pending: pending == [])
    await story.ask("lightning again")
    for side in story.sides:
        await eventually(partial(_pending_payments, side), lambda pending: pending == [])
    await story.ask("lightning paid")
    for side in story.sides:
        await side.post("/onchain/sync")
    await story.ask("on chain")
    await devnet.mine()

    for side in story.sides:
        # One VTXO, so that there is no choice of VTXOs any more.
        await side.post("/wallet/sync")
    await story.ask("refreshing all")
    await story.hold_round(devnet)
    await story.ask("refreshing")
    await story.hold_round(devnet)

    await story.see_block(devnet)  # a board's expiry is counted from the tip that its wallet knows of
    for side in story.sides:
        await side.post("/onchain/sync")
        board = await side.post("/boards/board-amount", {"amount_sat": 100_000})
        side.known["exit_vtxo"] = board["vtxos"][0]
    await devnet.mine()
    for side in story.sides:
        state = partial(_state, side, side.known["exit_vtxo"], with_sync=side is story.real)
        await eventually(state, lambda got: got == "spendable", within_secs=PATIENCE_SECS)
        await side.post("/onchain/sync")
        await side.look_around()
        others = [
            vtxo["id"] for vtxo in await side.get("/wallet/vtxos") if vtxo["id"] != side.known["exit_vtxo"]
        ]
        side.known["small_vtxo"] = others[0]
    await story.ask("exit starting")
    await story.ask("exiting")
    await story.ask("exit canceled")
    await story.ask("exit starting")
    for side in story.sides:
        await eventually(partial(_exit_broadcast, side), bool)
    await story.ask("exit broadcast")
    await story.see_block(devnet)
    for side in story.sides:
        await eventually(partial(_exit_state, side), lambda state: state == "awaiting-delta")
    await story.ask("exit confirmed")
    for side in story.sides:
        await eventually(partial(_mine_until_claimable, side, devnet), lambda state: state == "claimable")
    await story.ask("exit claimable")
    for side in story.sides:
        await eventually(partial(_exit_state, side), lambda state: state == "claim-in-progress")
    await story.ask("claim broadcast")
    await story.see_block(devnet)
    for side in story.sides:
        await eventually(partial(_exit_state, side), lambda state: state == "claimed")
    await story.ask("claimed")
    for side, payer in zip(sides, payers, strict=True):
        side.known["dust_vtxo"] = await _be_paid(side, payer, 100)
        encoded = await side.get(f"/wallet/vtxos/{side.known['dust_vtxo']}/encoded")
        side.known["dust_hex"] = encoded["encoded"]
    await story.ask("dust")
    for side in story.sides:
        everything = {
            "destination": side.known["other_ark_address"],
            "amount_sat": await side.spendable_sat(),
        }
        await side.post("/wallet/send", everything)
    await story.ask("dust spent")
    await story.ask("last")
    await story.ask("deleted")


async def _a_life_of_giving_all_away(
    story: Comparison, devnet: Devnet, payers: tuple[Daemon, Daemon]
) -> None:
    for side in story.sides:
        await side.start_exposing_the_mnemonic()
    await story.ask("creating")
    await story.ask("exposed")

    await story.fund(devnet, 1_000_000)
    await story.ask("boarding all")
    await story.fund(devnet, 100_000)
    for side in story.sides:
        await eventually(side.spendable_sat, lambda amount_sat: amount_sat > 0)
        await side.look_around()
        side.known["exit_vtxo"] = side.known["spendable_vtxo"]
    await story.ask("exiting all")
    for side in story.sides:
        await eventually(partial(_exit_broadcast, side), bool)
    await story.see_block(devnet)
    for side in story.sides:
        await eventually(partial(_mine_until_claimable, side, devnet), lambda state: state == "claimable")
    await story.ask("claiming all")
    await story.see_block(devnet)
    for side in story.sides:
        await eventually(partial(_exit_state, side), lambda state: state == "claimed")
        await side.post("/onchain/sync")
    await story.ask("all claimed")
    await story.ask("draining")

    await story.fund(devnet, 1_000_000)
    for side in story.sides:
        await side.post("/boards/board-amount", {"amount_sat": 400_000})
    await devnet.mine()
    for side, payer in zip(story.sides, payers, strict=True):
        await eventually(side.spendable_sat, lambda amount_sat: amount_sat > 0)
        await _be_paid(side, payer, 50_000)
    await story.ask("refreshing received")
    await story.hold_round(devnet)
    await story.ask("refreshing delegated")
    await story.hold_round(devnet)
    for side, payer in zip(story.sides, payers, strict=True):
        side.known["arkoor_vtxo"] = await _be_paid(side, payer, 20_000)
    await story.ask("offboarding")
    await story.ask("offboarding all")


async def _pending_payments(side: Side) -> list[Any]:
    await side.post("/wallet/sync")
    return [
        movement["subsystem"]
        for movement in await side.get("/history")
        if movement["status"] == "pending" and movement["subsystem"]["name"] != "bark.exit"
    ]


async def _received_sat(side: Side) -> list[int]:
    """What the movements of received payments brought."""
    return [
        movement["effective_balance_sat"]
        for movement in await side.get("/history")
        if movement["subsystem"] == {"name": "bark.arkoor", "kind": "receive"}
    ]


async def _new_vtxos(side: Side, known: set[str]) -> list[Any]:
    return [vtxo for vtxo in await side.get("/wallet/vtxos") if vtxo["id"] not in known]


async def _be_paid(side: Side, payer: Daemon, amount_sat: int) -> str:
    """The largest VTXO of a payment that came in."""
    had = {vtxo["id"] for vtxo in await side.get("/wallet/vtxos")}
    address = (await side.post("/wallet/addresses/next"))["address"]
    await payer.post("/wallet/send", {"destination": address, "amount_sat": amount_sat})
    new = await eventually(
        partial(_new_vtxos, side, had),
        lambda vtxos: sum(vtxo["amount_sat"] for vtxo in vtxos) == amount_sat,
    )
    return str(max(new, key=lambda vtxo: int(vtxo["amount_sat"]))["id"])


async def _state(side: Side, vtxo_id: str, *, with_sync: bool) -> str:
    """Without a sync it changes when the daemon has seen the block by itself."""
    if with_sync:
        await side.post("/wallet/sync")
    state: str = (await side.get(f"/wallet/vtxos/{vtxo_id}"))["state"]["type"]
    return state


async def _give_invoices(side: Side, devnet: Devnet) -> None:
    """Invoices that this side may pay, and some that nobody could."""
    for name, terms in (("regtest_invoice", {"amount_sat": 1_000}), ("regtest_invoice_no_amount", {})):
        given = await devnet.pull("/lightning/invoice", **terms)
        side.known[name] = given["invoice"]
        side.known.setdefault("regtest_payment_hash", given["payment_hash"])
    for name, network, amount_msat, timestamp in (
        ("mainnet_invoice", Network.MAINNET, 1_000_000, 1_750_000_000),
        ("signet_invoice", Network.SIGNET, 1_000_000, 1_750_000_000),
        ("zero_invoice", Network.REGTEST, 0, 1_750_000_000),
        ("old_invoice", Network.REGTEST, 1_000_000, 1_500_000_000),
    ):
        invoice = create_invoice(
            SecretKey(b"\x11" * 32),
            network=network,
            amount_msat=amount_msat,
            payment_hash=sha256(f"{name} {side.port}".encode()),
            payment_secret=b"\x12" * 32,
            timestamp=timestamp,
        )
        side.known[name] = invoice.text
    good = side.known["regtest_invoice"]
    side.known["badsig_invoice"] = good[:-1] + ("p" if good[-1] == "q" else "q")


async def _rounds(side: Side, devnet: Devnet) -> Any:
    rounds = await side.get("/wallet/rounds")
    if rounds:
        await devnet.mine()
        await side.post("/wallet/sync")
    return rounds
