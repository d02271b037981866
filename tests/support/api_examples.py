"""One example of every operation, and the page that shows them with their answers.

    python -m tests.support.api_examples > docs/endpoints.md

The requests are made to the real API over a wallet in memory, in the order of the list: a wallet is created,
used and deleted. The page is what came back, so it cannot tell of anything that is not so; the tests make it
again and compare. Long hexadecimal values are cut.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from barkd_py.api import generate
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.wallet.exits.states import ExitStatus
from barkd_py.wallet.vtxo_states import Exited
from tests.fakes import exits as samples
from tests.fakes.wallet import some_vtxo
from tests.support.api_server import MNEMONIC, RunningApi, running_api
from tests.support.vectors import cases

VTXO: Final = "11" * 32 + ":0"
SMALL_VTXO: Final = "33" * 32 + ":1"
EXITING: Final = "22" * 32 + ":0"
ADDRESS: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

_FOREWORD: Final = """# Every endpoint, by example

Made from the answers of the API (`make generate`) and checked by the tests. The wallet behind it is the
stand-in of the tests (`tests/fakes/wallet.py`), so amounts do not add up from one example to the next; that
the shapes are those of a live wallet is shown beside a real barkd, see
[contract.md](contract.md#behaviour-beside-barkd-080). Amounts are in satoshi; long
values are cut with `…`. What goes for all of them, authentication and errors above all, is in
[api.md](api.md); types and optional fields are in [`openapi.json`](../openapi.json), or in the browser at
`/swagger-ui`. With a daemon on this machine:

```sh
curl -H "Authorization: Bearer $(barkd secret show)" http://127.0.0.1:3000/api/v1/wallet/balance
```
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A request. `path` is that of the operation, `target` what is asked for, below `/api/v1`.

    Placeholders `<…>` stand for values of earlier answers.
    """

    method: str
    path: str
    target: str = ""
    body: Any = None


def _post(path: str, body: Any = None, target: str = "") -> Example:
    return Example("POST", path, target, body)


def _get(path: str, target: str = "") -> Example:
    return Example("GET", path, target)


EXAMPLES: Final[Sequence[Example]] = (
    _get("/ping"),
    _post(
        "/wallet/create",
        {
            "network": "regtest",
            "ark_server": "http://127.0.0.1:3535",
            "chain_source": {"esplora": {"url": "http://127.0.0.1:3002"}},
            "mnemonic": MNEMONIC,
        },
    ),
    _get("/wallet"),
    _get("/wallet/mnemonic"),
    _get("/wallet/connected"),
    _get("/wallet/ark-info"),
    _get("/wallet/next-round"),
    _post("/wallet/addresses/next"),
    _get("/wallet/addresses/index/{index}", "/wallet/addresses/index/0"),
    _get("/wallet/balance"),
    _get("/wallet/vtxos", "/wallet/vtxos?all=true"),
    _get("/wallet/vtxos/{id}", f"/wallet/vtxos/{VTXO}"),
    _get("/wallet/vtxos/{id}/encoded", "/wallet/vtxos/<held>/encoded"),
    _post("/wallet/import-vtxo", {"vtxos": ["<encoded>"]}),
    _post("/wallet/send", {"destination": "<address>", "amount_sat": 12_345}),
    _post("/wallet/sync"),
    _post("/wallet/sync/mailbox"),
    _get("/wallet/history"),
    _get("/wallet/movements"),
    _post("/wallet/refresh/vtxos", {"vtxos": [VTXO]}),
    _post("/wallet/refresh/all"),
    _post("/wallet/refresh/counterparty"),
    _post("/wallet/refresh/delegated/vtxos", {"vtxos": [VTXO], "height": 120}),
    _get("/wallet/rounds"),
    _post("/wallet/offboard/vtxos", {"vtxos": [SMALL_VTXO], "address": ADDRESS}),
    _post("/wallet/offboard/all", {"address": ADDRESS}),
    _post("/wallet/send-onchain", {"destination": ADDRESS, "amount_sat": 20_000}),
    _post("/wallet/bip321", {"amount_sat": 1_000, "onchain": True, "label": "coffee"}, "/wallet/bip321"),
    _post("/wallet/recovery"),
    _get("/wallet/recovery"),
    _get("/onchain/balance"),
    _post("/onchain/addresses/next"),
    _get("/onchain/utxos"),
    _get("/onchain/transactions"),
    _post("/onchain/send", {"destination": ADDRESS, "amount_sat": 10_000}),
    _post("/onchain/send-many", {"destinations": [f"{ADDRESS}:10000 sat", f"{ADDRESS}:0.0002 BTC"]}),
    _post("/onchain/sync"),
    _get("/boards/pending"),
    _post("/boards/board-amount", {"amount_sat": 100_000}),
    _post("/boards/board-all"),
    _get("/fees/board", "/fees/board?amount_sat=100000"),
    _get("/fees/offboard-all", f"/fees/offboard-all?address={ADDRESS}"),
    _post("/fees/offboard", {"address": ADDRESS, "vtxos": [VTXO]}),
    _get("/fees/send-onchain", f"/fees/send-onchain?amount_sat=20000&address={ADDRESS}"),
    _get("/fees/lightning/pay", "/fees/lightning/pay?amount_sat=1000"),
    _get("/fees/lightning/receive", "/fees/lightning/receive?amount_sat=1000"),
    _get("/fees/onchain"),
    _post("/lightning/receives/invoice", {"amount_sat": 1_000, "description": "coffee"}),
    _get("/lightning/receives"),
    _get("/lightning/receives/{identifier}", "/lightning/receives/<hash>"),
    Example("DELETE", "/lightning/receives/{identifier}", "/lightning/receives/<hash>"),
    _post("/lightning/receives/invoice/for-address", {"amount_sat": 1_000, "address": "<address>"}),
    _post("/lightning/pay", {"destination": "<invoice>"}),
    _get("/lightning/sends/{identifier}", "/lightning/sends/<paid>"),
    _post("/message/sign", {"message": "hello ark", "address": "<address>"}),
    _post("/message/verify", {"message": "hello ark", "address": "<address>", "signature": "<signature>"}),
    _get("/history", "/history?type=ark&value=<address>"),
    _post("/history/{id}/metadata", {"note": "rent", "paid_by": None}, "/history/1/metadata"),
    _get("/bitcoin/tip"),
    _get("/exits/fee", f"/exits/fee?vtxo_ids={VTXO}&fee_rate_sat_per_vb=2.5"),
    _post("/exits/start/vtxos", {"vtxos": [VTXO]}),
    _post("/exits/start/all"),
    _get("/exits/status/all"),
    _get("/exits/status/live"),
    _get("/exits/status/finished"),
    _get("/exits/status/vtxo/{vtxo_id}", f"/exits/status/vtxo/{EXITING}?history=true&transactions=true"),
    _get("/exits/status/{vtxo_id}", f"/exits/status/{EXITING}"),
    _get("/exits/status"),
    _post("/exits/progress", {"fee_rate": 4_000}),
    _post("/exits/cancel/{vtxo_id}", target=f"/exits/cancel/{VTXO}"),
    _post("/exits/claim/vtxos", {"destination": ADDRESS, "vtxos": [EXITING], "fee_rate": 2_000}),
    _post("/exits/claim/all", {"destination": ADDRESS}),
    _get("/notifications/ws/ticket"),
    _get("/notifications/wait", "/notifications/wait?since=2026-06-01T12:00:00Z"),
    _post("/onchain/drain", {"destination": ADDRESS}),
    Example("DELETE", "/wallet", "", {"dangerous": True, "fingerprint": "<fingerprint>"}),
)

CLAIMABLE: Final = 4
"""Which of the sample states an exit that can be claimed is in."""


class Session:
    """Asks the examples, one after the other."""

    def __init__(self, api: RunningApi) -> None:
        self._api = api
        self._known: dict[str, str] = {}

    async def ask(self, example: Example) -> str:
        """The example and its answer as Markdown."""
        target = self._fill(example.target or example.path)
        body = None if example.body is None else json.loads(self._fill(json.dumps(example.body)))
        full = target if target == "/ping" else f"/api/v1{target}"
        if example.path == "/onchain/drain":  # the boards have taken everything
            assert self._api.wallet.onchain is not None
            self._api.wallet.onchain.fund(75_000, 103)
        answer = await self._api.http.request(
            example.method, full, **({} if body is None else {"json": body}), timeout=60
        )
        self._learn(example, answer.content and _json(answer.text))
        if example.path == "/wallet/create":
            self._equip()
        shown = _shown(f"{example.method} {full}")
        if body is not None:
            shown += f"\n\n{_shown(json.dumps(body, indent=2, ensure_ascii=False))}"
        text = f"```http\n{shown}\n```\n\n`{answer.status_code}`"
        if location := answer.headers.get("location"):
            text += f", `Location: {location}`"
        if not answer.content:
            return f"{text}, no body\n"
        content = _json(answer.text)
        if example.path == "/notifications/ws/ticket":
            content = "5f" * 32
        if not answer.headers["content-type"].startswith("application/json"):
            return f"{text}\n\n```text\n{_shown(_without_times(answer.text))}\n```\n"
        pretty = json.dumps(content, indent=2, ensure_ascii=False)
        return f"{text}\n\n```json\n{_shown(_without_times(pretty))}\n```\n"

    def _equip(self) -> None:
        """Give the new wallet coins, VTXOs and an exit."""
        wallet = self._api.wallet
        assert wallet.onchain is not None
        wallet.onchain.fund(500_000)
        wallet.onchain.fund(250_000, 102)
        wallet.add_vtxo(some_vtxo(VTXO, 90_000))
        wallet.add_vtxo(some_vtxo(SMALL_VTXO, 40_000))
        wallet.add_vtxo(some_vtxo(EXITING, 49_670, Exited()))
        full = Vtxo.decode_hex(cases("vtxo", kind="user")[0]["full_hex"])
        wallet.add_vtxo(some_vtxo(str(full.id), full.amount_sat), full)
        self._known |= {"held": str(full.id), "encoded": full.encode().hex()}
        wallet.exits.put(
            ExitStatus(VtxoId.parse(EXITING), samples.STATES[CLAIMABLE], samples.STATES[:3], samples.PACKAGES)
        )

    def _fill(self, text: str) -> str:
        return re.sub(r"<([a-z]+)>", lambda match: self._known[match[1]], text)

    def _learn(self, example: Example, content: Any) -> None:
        match example.path, content:
            case "/wallet/create", {"fingerprint": value}:
                self._known["fingerprint"] = value
            case "/wallet/addresses/next", {"address": value}:
                self._known["address"] = value
            case "/lightning/receives/invoice", {"invoice": value}:
                self._known["invoice"] = value
            case "/lightning/receives", [{"payment_hash": value}, *_]:
                self._known["hash"] = value
            case "/lightning/pay", {"payment_hash": value}:
                self._known["paid"] = value
            case "/message/sign", {"signature": value}:
                self._known["signature"] = value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(text: str) -> str:
    """Long hexadecimal and bech32 values cut; signatures are different each time."""
    text = re.sub(r'"signature": "[0-9a-f]+"', '"signature": "60e940dd…"', text)
    text = re.sub(r"\b[0-9a-f]{48,}", lambda match: match[0][:8] + "…", text)
    return re.sub(r"\b(?:tark|lnbcrt)[0-9a-z]{40,}", lambda match: match[0][:16] + "…", text)


def _without_times(text: str) -> str:
    text = re.sub(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", "2026-06-01T12:00:00.123456Z", text)
    # The server says when the next round begins, in whole seconds.
    return re.sub(r'("start_time": "[^".]+)\.[0-9]+Z', r"\1Z", text)


async def page() -> str:
    """docs/endpoints.md"""
    document = generate.document()
    sections: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        async with running_api(
            Path(directory) / "datadir", expose_mnemonic=True, rest_contract="0.8.0"
        ) as api:
            session = Session(api)
            for example in EXAMPLES:
                path = example.path if example.path == "/ping" else f"/api/v1{example.path}"
                operation = document["paths"][path][example.method.lower()]
                tag = operation.get("tags", ["ping"])[0]
                heading = f"### {example.method} {example.path}\n\n{operation.get('summary', '')}\n"
                sections.setdefault(tag, []).append(f"{heading}\n{await session.ask(example)}")
    parts = [f"## {tag}\n\n" + "\n".join(examples) for tag, examples in sections.items()]
    return _FOREWORD + "\n" + "\n".join(parts)


if __name__ == "__main__":
    print(asyncio.run(page()), end="")
