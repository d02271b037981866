"""The life of a wallet as the real barkd 0.8.0 told it: our daemon on devnet is asked the same, in order.

`test_recorded.py` asks a fake wallet what does not depend on the wallet. Here the wallet is real: created,
funded, boarded, paid, paying, drained and deleted, and at each stage the recorded questions are asked again.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.recorded import MAINNET_ADDRESS, REGTEST_ADDRESS, UNKNOWN_VTXO, Case, cases
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

# Questions of other tests: exits, rounds, Lightning, and what the daemon does beside the wallet.
ELSEWHERE = re.compile("/exits/|/notifications/|/rounds|next-round|refresh|offboard|send-onchain|bip321")

DIFFERENT = {
    "ark-info": "another server: interval, HTLC delta, fee rate; and no limit is a large number, not null",
    "board pending: /onchain/utxos": "coins in another order",
    "board pending: /onchain/transactions": "oldest first, as documented",
    "boarded: /onchain/transactions": "oldest first, as documented",
    "import: one byte changed": "the byte that was changed is not known",
    "sign: bitcoin address": "which kind of address it was is not known",
    "lightning: for-address bitcoin": "which kind of address it was is not known",
    "send: Lightning address that does not resolve": "a name that is not known, in Rust's words",
    "pay: Lightning address that does not resolve": "a name that is not known, in Rust's words",
    "onchain/transactions: after a send": "another history",
    "onchain/utxos: after sends": "another history",
    "boards/board-all": "another balance",
}
# Amounts near 2^64 end the connection of the real one.
OVERFLOWS = ("18446744073709551615", "u64 max")

# What depends on the fee rate of the moment.
VOLATILE = re.compile(r"Insufficient funds: \S+ BTC available of \S+ BTC needed")
KINDS = {
    "ark_address": "tark1[0-9a-z]+",
    "bitcoin_address": "bcrt1[0-9a-z]+",
    "fingerprint": "[0-9a-f]{8}",
    "hex": "[0-9a-f]*",
    "int": "-?[0-9]+",
    "outpoint": "[0-9a-f]{64}:[0-9]+",
    "pubkey": "0[23][0-9a-f]{64}",
    "signature": "[0-9a-f]{128}",
    "time": r"[0-9]{4}-[0-9-]+T[0-9:.]+Z",
    "txid": "[0-9a-f]{64}",
    "vtxo_id": "[0-9a-f]{64}:[0-9]+",
}


class Narrator:
    """Asks the recorded questions. known: what the placeholders of requests stand for."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.known = {
            "bitcoin_address": REGTEST_ADDRESS,
            "mainnet_address": MAINNET_ADDRESS,
            "unknown_vtxo": UNKNOWN_VTXO,
        }
        self.asked = 0

    async def tell(self, state: str, *, but: frozenset[str] = frozenset()) -> None:
        """Ask everything that was asked in this state, and compare."""
        for case in cases():
            if case.state == state and case.name not in but and _is_ours(case):
                await self._ask(case)
                self.asked += 1

    async def _ask(self, case: Case) -> None:
        target = self.fill(case.path) + ("" if case.query is None else f"?{self.fill(case.query)}")
        body = None
        if case.body is not None:
            body = self.fill(case.body if isinstance(case.body, str) else json.dumps(case.body)).encode()
        answer = await self.daemon.http.request(
            case.method,
            f"http://127.0.0.1:{self.daemon.port}{target}",
            content=body,
            headers=list(case.headers.items()),
        )
        what = f"{case.name}: {answer.text}"
        if case.status is None:
            assert any(text in case.name for text in OVERFLOWS), what
            assert (answer.status_code, answer.json()["message"].count("Insufficient funds")) == (500, 1), (
                what
            )
            return
        assert answer.status_code == case.status, what
        assert answer.headers.get("content-type") == case.content_type, what
        ours = _content(answer)
        if case.name not in DIFFERENT:
            assert self.differences(case.response, ours) == [], what
        self._learn(case, ours)

    def _learn(self, case: Case, answer: Any) -> None:
        """Later questions are about what earlier answers brought."""
        match case.response:
            case {"address": "<own_ark_address>"}:
                self.known["own_ark_address"] = answer["address"]
            case {"signature": "<signature>"} if case.name == "sign: own address":
                self.known["sig"] = answer["signature"]

    def fill(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name.endswith(" in upper case"):
                return self.known[name.removesuffix(" in upper case")].upper()
            if name.endswith(" with %3A for the colon"):
                return self.known[name.removesuffix(" with %3A for the colon")].replace(":", "%3A")
            return self.known[name]

        return re.sub(r"<([a-zA-Z0-9_ %]+)>", value, text)

    def differences(self, recorded: Any, ours: Any, place: str = "") -> list[str]:
        """Where our JSON is not the recorded one; keys must come in the same order."""
        match recorded, ours:
            case str(), str() | int():
                return [] if self._pattern(recorded).fullmatch(str(ours)) else [f"{place}: {ours!r}"]
            case dict(), dict() if list(recorded) == list(ours):
                return [
                    problem
                    for key, value in recorded.items()
                    for problem in self.differences(value, ours[key], f"{place}.{key}")
                ]
            case list(), list() if len(recorded) == len(ours):
                return [
                    problem
                    for index, (one, other) in enumerate(zip(recorded, ours, strict=True))
                    for problem in self.differences(one, other, f"{place}[{index}]")
                ]
            case _:
                return [] if type(recorded) is type(ours) and recorded == ours else [f"{place}: {ours!r}"]

    def _pattern(self, recorded: str) -> re.Pattern[str]:
        joined = ""
        for index, part in enumerate(re.split(r"<([a-z0-9_]+)>", VOLATILE.sub("<volatile>", recorded))):
            if index % 2 == 0:
                joined += re.escape(part)
            elif part == "volatile":
                joined += VOLATILE.pattern
            else:
                joined += re.escape(self.known[part]) if part in self.known else KINDS.get(part, ".+")
        return re.compile(joined, re.DOTALL)


def _is_ours(case: Case) -> bool:
    return case.auth is True and not ELSEWHERE.search(case.path)


def _content(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    return answer.json() if answer.headers.get("content-type") == "application/json" else answer.text


@pytest.fixture
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    running = start_devnet(tmp_path_factory.mktemp("devnet"))
    yield running
    running.process.kill()


@pytest_asyncio.fixture
async def daemons(
    tmp_path_factory: pytest.TempPathFactory, devnet: Devnet
) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """The one that is asked, and one that pays it."""
    directory = tmp_path_factory.mktemp("daemons")
    pair = (Daemon(directory / "asked"), Daemon(directory / "other"))
    try:
        for daemon in pair:
            await daemon.start()
        yield pair
    finally:
        for daemon in pair:
            await daemon.close()


async def _confirm_board(daemon: Daemon, devnet: Devnet) -> None:
    await devnet.mine()

    async def spendable() -> int:
        await daemon.post("/wallet/sync")
        return int((await daemon.get("/wallet/balance"))["spendable_sat"])

    await eventually(spendable, lambda amount_sat: amount_sat > 0)


async def _encoded(daemon: Daemon, vtxo_id: str) -> str:
    return str((await daemon.get(f"/wallet/vtxos/{vtxo_id}/encoded"))["encoded"])


async def test_the_life_of_a_wallet(devnet: Devnet, daemons: tuple[Daemon, Daemon]) -> None:
    asked, other = daemons
    story = Narrator(asked)
    known = story.known

    known["fingerprint"] = await asked.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    await other.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    known["other_ark_address"] = (await other.post("/wallet/addresses/next"))["address"]
    await story.tell("wallet created")
    await story.tell("just created, empty, server connected", but=frozenset({"empty wallet: /fees/onchain"}))

    for _ in range(2):
        await devnet.fund((await asked.post("/onchain/addresses/next"))["address"], 1_000_000)
    await asked.post("/onchain/sync")
    await story.tell("2 on-chain coins of 1,000,000 sat confirmed, no VTXO")
    await story.tell("one board of 600,000 sat unconfirmed")
    await _confirm_board(asked, devnet)
    (vtxo,) = await asked.get("/wallet/vtxos")
    known["spendable_vtxo"] = vtxo["id"]
    known["spendable_vtxo_hex"] = known["tampered_vtxo_hex"] = await _encoded(asked, vtxo["id"])

    await devnet.fund((await other.post("/onchain/addresses/next"))["address"], 2_000_000)
    await other.post("/onchain/sync")
    await other.post("/boards/board-amount", {"amount_sat": 500_000})
    await _confirm_board(other, devnet)
    (foreign,) = await other.get("/wallet/vtxos")
    known["foreign_vtxo"] = foreign["id"]
    known["foreign_vtxo_hex"] = await _encoded(other, foreign["id"])
    but = frozenset({"/fees/onchain?", "import: one byte changed"})
    await story.tell("one spendable VTXO from a confirmed board", but=but)
    await devnet.pull("/lightning/node", online=False)
    state = "one spendable VTXO from a confirmed board; server without a Lightning node"
    await story.tell(state, but=frozenset({"lightning: unknown hash"}))  # 404, as documented
    await devnet.pull("/lightning/node", online=True)

    known["own_ark_address2"] = (await asked.post("/wallet/addresses/next"))["address"]
    await other.post("/wallet/send", {"destination": known["own_ark_address2"], "amount_sat": 50_000})
    vtxos = await eventually(lambda: asked.get("/wallet/vtxos"), lambda got: len(got) == 2)
    known["arkoor_vtxo"] = next(entry["id"] for entry in vtxos if entry["amount_sat"] == 50_000)
    await story.tell("VTXOs from a board and from an arkoor receive")

    await asked.post("/wallet/sync")
    known["movement_id"] = str((await asked.get("/history"))[0]["id"])
    # Which VTXOs there are now depends on which were chosen; that choice is tested elsewhere.
    but = frozenset({"vtxos all=true", "vtxos all=false", "spent vtxo", "history: ark"})
    known["own_ark_address"] = (await asked.post("/wallet/addresses/next"))["address"]
    await story.tell("VTXOs: change of a send, a received one, spent ones", but=but)

    await story.tell("on-chain coins", but=frozenset({"boards/board-all", "onchain/drain"}))
    await story.tell("one unconfirmed send")
    await asked.post("/boards/board-all")
    await story.tell("everything boarded, unconfirmed")
    await story.tell("no on-chain coins")
    await story.tell("wallet loaded")
    await story.tell("deleted")
    assert story.asked > 180
