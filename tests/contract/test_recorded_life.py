"""The life of a wallet as the real barkd 0.8.0 told it: our daemon on devnet is asked the same, in order.

`test_recorded.py` asks a fake wallet what does not depend on the wallet. Here the wallet is real: created,
funded, boarded, paid, paying, drained and deleted, and at each stage the recorded questions are asked again.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from tests.contract.recorded import MAINNET_ADDRESS, REGTEST_ADDRESS, UNKNOWN_VTXO, Case, cases
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

# Questions of other tests: exits, rounds, Lightning, and what the daemon does beside the wallet.
ELSEWHERE = re.compile("/exits/|/notifications/|/rounds|refresh|offboard|send-onchain")

DIFFERENT = {
    "empty wallet: /fees/onchain": "devnet's fee rates",
    "/fees/onchain?": "devnet's fee rates",
    "/wallet/send: too much": "another balance",
    "/lightning/pay: too much": "another balance",
    "ark-info": "another server: interval, HTLC delta, fee rate; and no limit is a large number, not null",
    "board pending: /onchain/utxos": "coins in another order",
    "board pending: /onchain/transactions": "oldest first, as documented",
    "boarded: /onchain/transactions": "oldest first, as documented",
    "sign: bitcoin address": "which kind of address it was is not known",
    "lightning: for-address bitcoin": "which kind of address it was is not known",
    "send: Lightning address that does not resolve": "a name that is not known, in Rust's words",
    "pay: Lightning address that does not resolve": "a name that is not known, in Rust's words",
    "onchain/transactions: after a send": "another history",
    "onchain/utxos: after sends": "another history",
    "boards/board-all": "another balance",
}
TOLD: Mapping[str, frozenset[str]] = {
    "wallet created": frozenset(),
    "just created, empty, server connected": frozenset(),
    "2 on-chain coins of 1,000,000 sat confirmed, no VTXO": frozenset(),
    "one board of 600,000 sat unconfirmed": frozenset(),
    "one spendable VTXO from a confirmed board": frozenset(),
    # 404, as documented
    "one spendable VTXO from a confirmed board; server without a Lightning node": frozenset(
        {"lightning: unknown hash"}
    ),
    "VTXOs from a board and from an arkoor receive": frozenset(),
    # Which VTXOs there are depends on which were chosen; see test_recorded_wallets.py for how they are shown.
    "VTXOs: change of a send, a received one, spent ones": frozenset(
        {"vtxos all=true", "vtxos all=false", "spent vtxo", "history: ark"}
    ),
    "small VTXOs": frozenset(),
    "boarded wallet paying 50,000": frozenset(),
    "never paid": frozenset(),
    "not ours": frozenset({"receives by invoice"}),  # 404, as documented
    "one VTXO of a board; server without a Lightning node": frozenset(),
    "server without a Lightning node": frozenset(),
    "on-chain coins": frozenset(),
    "one unconfirmed send": frozenset(),
    "everything boarded, unconfirmed": frozenset(),
    "no on-chain coins": frozenset(),
    "wallet loaded": frozenset(),
    "restarted": frozenset(),
    "deleted": frozenset(),
}
"""The states that the wallet comes through, and the questions that are not asked there."""

WORDS_OF_LIBRARIES = {
    "create: esplora unreachable": "failed to create a chain source client with the config: ",
    "create: bitcoind unreachable": "failed to create a chain source client with the config: ",
    "create: bitcoind missing cookie file": "failed to create a chain source client with the config: ",
    "create: server unreachable": "Failed to connect to Ark server: ",
}
"""Behind these words of the answer a library of barkd's says what went wrong."""

AFTER_THE_OTHERS = frozenset({"boards/board-all", "onchain/drain"})
"""On-chain coins: these leave none."""

CREATIONS = (
    "create: server unreachable",
    "create: esplora unreachable",
    "create: bitcoind unreachable",
    "create: bitcoind missing cookie file",
    "create: wrong network for the node",
    "create by POST wallet",
    "create",
)
"""Asked without a wallet, of a daemon that has a server and a chain source to create one with."""

# Amounts near 2^64 end the connection of the real one.
OVERFLOWS = ("18446744073709551615", "u64 max")

# What depends on the fee rate of the moment.
VOLATILE = re.compile(r"Insufficient funds: \S+ BTC available of \S+ BTC needed")
KINDS = {
    "address": "bcrt1[0-9a-z]+",
    "ARK_ADDRESS": "TARK1[0-9A-Z]+",
    "BITCOIN_ADDRESS": "BCRT1[0-9A-Z]+",
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


FINGERPRINT = re.compile("[0-9a-f]{8}")

_SERVER_PUBKEY_AT = 2 * (2 + 8 + 4)
"""In the hex of a VTXO, behind version, amount and expiry. Source: protocol sheet 01."""


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

    async def tell(self, state: str, *, only: frozenset[str] | None = None) -> None:
        """Ask everything that was asked in this state, and compare. only: these names, whatever the state."""
        for case in told(state):
            if case.name in (AFTER_THE_OTHERS if only is None else only) and only is None:
                continue
            if only is None or case.name in only:
                await self._ask(case)
                self.asked += 1

    async def create(self, devnet: Devnet, name: str) -> None:
        """Ask for a wallet as the recorded one did, on this devnet."""
        (case,) = (case for case in cases() if case.name == name)
        body = dict(case.body)
        if "18443" in json.dumps(body.get("chain_source")) and "cookie" not in json.dumps(body):
            body["chain_source"] = esplora(devnet.esplora_url)
        if body["ark_server"].endswith(":13535"):
            body["ark_server"] = devnet.ark_server_url
        await self._ask(replace(case, body=body))
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
        if before := WORDS_OF_LIBRARIES.get(case.name):
            known = case.response["message"].partition(before)
            assert known[1], case
            assert ours["message"].startswith(known[0] + known[1]), what
        elif case.name in DIFFERENT:
            assert type(ours) is type(case.response), what
            assert not isinstance(ours, dict) or list(ours) == list(case.response), what
        else:
            recorded = case.response
            if case.path.endswith("/bip321"):  # an address of the wallet's own, a new one each time
                recorded = json.loads(json.dumps(recorded).replace("<bitcoin_address>", "<address>"))
            if isinstance(recorded, dict) and FINGERPRINT.fullmatch(str(recorded.get("fingerprint"))):
                recorded = {**recorded, "fingerprint": "<fingerprint>"}
                if case.name in CREATIONS:
                    self.known["fingerprint"] = ours["fingerprint"]
            assert self.differences(recorded, ours) == [], what
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
                known = self.known[name.removesuffix(" in upper case")]
                # A fingerprint of digits alone looks the same.
                return known.upper() if known.upper() != known else "ABCDEF01"
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
        for index, part in enumerate(re.split(r"<([A-Za-z0-9_]+)>", VOLATILE.sub("<volatile>", recorded))):
            if index % 2 == 0:
                joined += re.escape(part)
            elif part == "volatile":
                joined += VOLATILE.pattern
            else:
                joined += re.escape(self.known[part]) if part in self.known else KINDS.get(part, ".+")
        return re.compile(joined, re.DOTALL)


def told(state: str) -> list[Case]:
    """What is asked of the wallet in this state."""
    return [
        case
        for case in cases()
        if case.state == state
        and case.name not in TOLD[state]
        and case.auth is True
        and not ELSEWHERE.search(case.path)
    ]


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
    async def spendable() -> int:
        await devnet.mine()  # each time: the funding transaction may be a little late
        await daemon.post("/wallet/sync")
        return int((await daemon.get("/wallet/balance"))["spendable_sat"])

    await eventually(spendable, lambda amount_sat: amount_sat > 0)


async def _encoded(daemon: Daemon, vtxo_id: str) -> str:
    return str((await daemon.get(f"/wallet/vtxos/{vtxo_id}/encoded"))["encoded"])


async def test_the_life_of_a_wallet(devnet: Devnet, daemons: tuple[Daemon, Daemon]) -> None:
    asked, other = daemons
    story = Narrator(asked)
    known = story.known

    await devnet.pull("/lightning/node", online=False)
    for name in CREATIONS:
        await story.create(devnet, name)
        if name == "create by POST wallet":
            deletion = {"dangerous": True, "fingerprint": known["fingerprint"]}
            await asked.http.request("DELETE", "/wallet", json=deletion)
    await other.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    known["other_ark_address"] = (await other.post("/wallet/addresses/next"))["address"]
    await story.tell("wallet created")
    await story.tell("just created, empty, server connected")

    for _ in range(2):
        await devnet.fund((await asked.post("/onchain/addresses/next"))["address"], 1_000_000)
    await asked.post("/onchain/sync")
    await story.tell("2 on-chain coins of 1,000,000 sat confirmed, no VTXO")
    await story.tell("one board of 600,000 sat unconfirmed")
    await _confirm_board(asked, devnet)
    (vtxo,) = await asked.get("/wallet/vtxos")
    known["spendable_vtxo"] = vtxo["id"]
    whole = known["spendable_vtxo_hex"] = await _encoded(asked, vtxo["id"])
    # The byte that was changed is not recorded, but that it was one of a public key; here the server's.
    known["tampered_vtxo_hex"] = whole[:_SERVER_PUBKEY_AT] + "05" + whole[_SERVER_PUBKEY_AT + 2 :]

    await devnet.fund((await other.post("/onchain/addresses/next"))["address"], 2_000_000)
    await other.post("/onchain/sync")
    await other.post("/boards/board-amount", {"amount_sat": 500_000})
    await _confirm_board(other, devnet)
    (foreign,) = await other.get("/wallet/vtxos")
    known["foreign_vtxo"] = foreign["id"]
    known["foreign_vtxo_hex"] = await _encoded(other, foreign["id"])
    await story.tell("one spendable VTXO from a confirmed board")
    await story.tell("one spendable VTXO from a confirmed board; server without a Lightning node")

    known["own_ark_address2"] = (await asked.post("/wallet/addresses/next"))["address"]
    payer = Narrator(other)
    payer.known["own_ark_address2"] = known["own_ark_address2"]
    await payer.tell("boarded wallet paying 50,000")
    vtxos = await eventually(lambda: asked.get("/wallet/vtxos"), lambda got: len(got) == 2)
    known["arkoor_vtxo"] = next(entry["id"] for entry in vtxos if entry["amount_sat"] == 50_000)
    await story.tell("VTXOs from a board and from an arkoor receive")

    await asked.post("/wallet/sync")
    known["movement_id"] = str((await asked.get("/history"))[0]["id"])
    known["own_ark_address"] = (await asked.post("/wallet/addresses/next"))["address"]
    await story.tell("VTXOs: change of a send, a received one, spent ones")
    await story.tell("small VTXOs")
    await devnet.pull("/lightning/node", online=True)
    await _give_invoices(story, devnet)
    for state in ("never paid", "not ours", "one VTXO of a board; server without a Lightning node"):
        await story.tell(state)
    await story.tell("server without a Lightning node")

    await story.tell("on-chain coins")
    await story.tell("one unconfirmed send")
    await story.tell("on-chain coins", only=frozenset({"boards/board-all"}))
    await story.tell("everything boarded, unconfirmed")
    await devnet.fund((await asked.post("/onchain/addresses/next"))["address"], 100_000)
    await asked.post("/onchain/sync")
    await story.tell("on-chain coins", only=frozenset({"onchain/drain"}))
    await story.tell("no on-chain coins")
    asked.process.kill()
    await asked.start()
    await story.tell("restarted")
    await story.tell("wallet loaded")
    await story.tell("deleted")
    assert story.asked > 220


async def _give_invoices(story: Narrator, devnet: Devnet) -> None:
    """Invoices that nobody answers for, and some that nobody could pay."""
    terms = {"amount_sat": 1_000, "never": True}
    given = await devnet.pull("/lightning/invoice", **terms)
    story.known |= {"regtest_invoice": given["invoice"], "regtest_payment_hash": given["payment_hash"]}
    amountless = await devnet.pull("/lightning/invoice", never=True)
    story.known["regtest_invoice_no_amount"] = amountless["invoice"]
    story.known["badsig_invoice"] = given["invoice"][:-1] + ("p" if given["invoice"][-1] == "q" else "q")
    for name, network, amount_msat, timestamp in (
        ("mainnet_invoice", Network.MAINNET, 1_000_000, 1_750_000_000),
        ("signet_invoice", Network.SIGNET, 1_000_000, 1_750_000_000),
        ("zero_invoice", Network.REGTEST, 0, 1_750_000_000),
        ("old_invoice", Network.REGTEST, 1_000_000, 1_500_000_000),
    ):
        story.known[name] = create_invoice(
            SecretKey(b"\x11" * 32),
            network=network,
            amount_msat=amount_msat,
            payment_hash=sha256(name.encode()),
            payment_secret=b"\x12" * 32,
            timestamp=timestamp,
        ).text
