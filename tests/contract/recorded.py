"""The recorded answers of the real barkd 0.8.0: the requests as bytes, the answers as patterns.

Placeholders in requests are filled in; in answers they match any value of their kind.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from tests.support.vectors import cases as vector_cases

RECORDING = Path(__file__).parent / "recorded-barkd-0.8.0.json"

REGTEST_ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
UNKNOWN_VTXO = "ab" * 32 + ":0"
SPENDABLE_VTXO = "11" * 32 + ":0"
EXIT_VTXO = "22" * 32 + ":0"
SMALL_VTXO = "33" * 32 + ":1"
SPENT_VTXO = "44" * 32 + ":0"
OTHER_VTXO = "55" * 32 + ":0"

MAINNET_ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
REGTEST_INVOICE = create_invoice(
    SecretKey(b"\x11" * 32),
    network=Network.REGTEST,
    amount_msat=1_000_000,
    payment_hash=b"\x12" * 32,
    payment_secret=b"\x13" * 32,
    timestamp=1_790_000_000,
).text
FILLINGS = {
    "regtest_invoice": REGTEST_INVOICE,
    "bitcoin_address": REGTEST_ADDRESS,
    "own_bitcoin_address": REGTEST_ADDRESS,
    "unknown_vtxo": UNKNOWN_VTXO,
    "spendable_vtxo": SPENDABLE_VTXO,
    "exit_vtxo": EXIT_VTXO,
    "small_vtxo": SMALL_VTXO,
    "spent_vtxo": SPENT_VTXO,
    "mainnet_address": MAINNET_ADDRESS,
    "other_ark_address": str(
        next(case["address"] for case in vector_cases("address", kind="valid") if case["testnet"])
    ),
}

_KINDS = {
    **{name: re.escape(value) for name, value in FILLINGS.items()},
    "hex": "(?:[0-9a-f]{2})+",
    "hex64": "[0-9a-f]{64}",
    "txid": "[0-9a-f]{64}",
    "vtxo_id": "[0-9a-f]{64}:[0-9]+",
    "base64": "[A-Za-z0-9+/]+=*",
    "datadir": ".+",
    "int": "-?[0-9]+",
    "time": r"[0-9]{4}-[0-9-]+T[0-9:.]+Z",
}
_BYTES = {
    "<bytes ff fe>": b"\xff\xfe",
    "<19 bytes>": b'{"destination":"\xff"}',
}
_OF_SIZE = re.compile(r"<(\{\"destination\":\"x…\"\} of )?(\d+) bytes>")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and its answer."""

    name: str
    state: str
    method: str
    path: str
    query: str | None
    headers: dict[str, str]
    auth: bool | list[str]
    body: Any
    status: int | None
    content_type: str | None
    response_headers: dict[str, str | None]
    response: Any

    @property
    def target(self) -> str:
        filled = fill(self.path)
        return filled if self.query is None else f"{filled}?{fill(self.query)}"

    @property
    def body_bytes(self) -> bytes | None:
        if self.body is None:
            return None
        if not isinstance(self.body, str):
            return fill(json.dumps(self.body)).encode()
        if self.body in _BYTES:
            return _BYTES[self.body]
        if sized := _OF_SIZE.fullmatch(self.body):
            size = int(sized[2])
            return b'{"destination":"' + b"x" * (size - 18) + b'"}' if sized[1] else b"x" * size
        return fill(self.body).encode()


def cases() -> list[Case]:
    recording = json.loads(RECORDING.read_text())
    return [Case(**{name: case[name] for name in Case.__slots__}) for case in recording["cases"]]


def frames(name: str) -> list[Any]:
    """What a websocket received, in the case of this name."""
    recording = json.loads(RECORDING.read_text())
    (found,) = (case["frames"] for case in recording["cases"] if case["name"] == name)
    received: list[Any] = found
    return received


def command_lines() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = json.loads(RECORDING.read_text())["cli"]
    return lines


def fill(text: str) -> str:
    for name, value in FILLINGS.items():
        text = text.replace(f"<{name}>", value)
    return text


def pattern(text: str) -> re.Pattern[str]:
    """A recorded text as a pattern for ours."""
    parts = re.split(r"<([a-z0-9_]+)>", text)
    joined = ""
    for index, part in enumerate(parts):
        joined += re.escape(part) if index % 2 == 0 else _KINDS[part]
    return re.compile(joined, re.DOTALL)


def matches(recorded: Any, ours: Any) -> bool:
    """Whether our JSON is the recorded one; keys in the same order."""
    match recorded:
        case str():
            return isinstance(ours, str | int) and pattern(recorded).fullmatch(str(ours)) is not None
        case dict():
            return (
                isinstance(ours, dict)
                and list(recorded) == list(ours)
                and all(matches(value, ours[key]) for key, value in recorded.items())
            )
        case list():
            return (
                isinstance(ours, list)
                and len(recorded) == len(ours)
                and all(matches(one, other) for one, other in zip(recorded, ours, strict=True))
            )
        case _:
            return type(recorded) is type(ours) and recorded == ours


def refusals_with_a_wallet() -> list[Case]:
    """Requests to a loaded wallet that were refused for what they say, whatever the wallet holds."""
    return [
        case
        for case in cases()
        if not case.state.startswith("no wallet") and case.status in (400, 404, 422) and case.auth is True
    ]
