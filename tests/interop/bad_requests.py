"""Requests with one thing wrong: to every operation, in every part of what it is sent.

Two kinds. Forms are wrong before a wallet is asked for: methods, bodies that are no JSON or of another
shape, queries, numbers in paths, headers. Each is made of a good request, with one part replaced; they are
sent while there is no wallet, so that one that is let through changes nothing. Values are of the right form
and name nothing good: addresses, ids, hashes, destinations, amounts. They are sent to a wallet with money.

A name says operation, place and what is there: `POST /onchain/send: amount_sat "5"`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

Entry = dict[str, Any]
"""A request as in requests.json."""

FORMS: Final = "bad forms"
VALUES: Final = "bad values"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field or parameter is.

    good: an example. wrong: JSON of what it is not; in a query, texts.
    """

    good: str
    wrong: tuple[str, ...]


_NO_TEXTS = ("5", "true", "{}", '["x"]', '"\\ud800"', '"\\x"', '"a\tb"', '"x')
_NO_NUMBERS = (
    *('"5"', "true", "[]", "{}", "-1", "-0", "01", "1.", "+1", "-", "1e999"),
    *("1.0", "1e3", "0.1", "0.00001", "1e-6", "1e15", "1e16", "1.5e-5", "-1.5e-7", "123456789012345678.5"),
)

TEXT: Final = Kind('"x"', _NO_TEXTS)
U64: Final = Kind("1000", (*_NO_NUMBERS, "18446744073709551616"))
U32: Final = Kind("1000", (*_NO_NUMBERS, "4294967296"))
FLAG: Final = Kind("true", ('"true"', "1", "0", "[]", "{}", "True", "tru"))
TEXTS: Final = Kind(
    '["x"]', ('"x"', "5", "{}", "[5]", '["x",null]', '["x",]', "[,]", '["x" "y"]', "[[]]", '["x"')
)
NETWORK: Final = Kind(
    '"regtest"',
    (
        "5",
        '""',
        '"Regtest"',
        '"testnet"',
        '"bitcoin"',
        "[]",
        "{}",
        '{"x":null}',
        '{"regtest":null}',
        '{"regtest":5}',
        '{"regtest":null,"x":1}',
        '{"regtest":null',
        '{"regtest"}',
    ),
)
CHAIN_SOURCE: Final = Kind(
    "null",
    (
        "5",
        "[]",
        "{}",
        '"bitcoind"',
        '"electrum"',
        '{"electrum":{}}',
        '{"esplora":null}',
        '{"esplora":{}}',
        '{"esplora":[]}',
        '{"esplora":{"url":5}}',
        '{"esplora":{"url":null}}',
        '{"esplora":{"url":"http://x","url":"http://x"}}',
        '{"esplora":{"url":"http://x"},"esplora":{"url":"http://x"}}',
        '{"bitcoind":{}}',
        '{"bitcoind":{"bitcoind":"x"}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":null}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{}}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":"cookie"}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"cookie":{}}}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"cookie":"x"}}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"user-pass":{"user":"x"}}}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"user-pass":{"user":"x","pass":5}}}}',
        '{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"userpass":{}}}}',
    ),
)

BODIES: Final[dict[str, dict[str, Kind]]] = {
    "POST /boards/board-amount": {"amount_sat": U64},
    "POST /exits/claim/all": {"destination": TEXT, "fee_rate?": U64},
    "POST /exits/claim/vtxos": {"destination": TEXT, "vtxos": TEXTS, "fee_rate?": U64},
    "POST /exits/progress": {"wait?": FLAG, "fee_rate?": U64},
    "POST /exits/start/vtxos": {"vtxos": TEXTS},
    "POST /fees/offboard": {"address": TEXT, "vtxos": TEXTS},
    "POST /lightning/pay": {
        "destination": TEXT,
        "amount_sat?": U64,
        "comment?": TEXT,
        "retry_for_secs?": U64,
    },
    "POST /lightning/receives/invoice": {"amount_sat": U64, "description?": TEXT, "token?": TEXT},
    "POST /lightning/receives/invoice/for-address": {
        "amount_sat": U64,
        "address": TEXT,
        "description?": TEXT,
    },
    "POST /message/sign": {"message": TEXT, "address": TEXT},
    "POST /message/verify": {"message": TEXT, "signature": TEXT, "pubkey?": TEXT, "address?": TEXT},
    "POST /onchain/drain": {"destination": TEXT},
    "POST /onchain/send": {"destination": TEXT, "amount_sat": U64},
    "POST /onchain/send-many": {"destinations": TEXTS, "immediate?": FLAG},
    "DELETE /wallet": {"dangerous": FLAG, "fingerprint": TEXT},
    "POST /wallet/bip321": {"amount_sat?": U64, "onchain?": FLAG, "label?": TEXT, "message?": TEXT},
    "POST /wallet/create": {
        "ark_server?": TEXT,
        "ark_server_access_token?": TEXT,
        "chain_source?": CHAIN_SOURCE,
        "mnemonic?": TEXT,
        "network": NETWORK,
        "birthday_height?": U32,
        "gap_limit?": U32,
        "force?": FLAG,
    },
    "POST /wallet/import-vtxo": {
        "vtxos": TEXTS,
        "gap_limit?": U32,
        "skip_status_check?": FLAG,
        "allow_partial?": FLAG,
    },
    "POST /wallet/offboard/all": {"address?": TEXT},
    "POST /wallet/offboard/vtxos": {"address?": TEXT, "vtxos": TEXTS},
    "POST /wallet/refresh/delegated/vtxos": {"vtxos": TEXTS, "height?": U32},
    "POST /wallet/refresh/vtxos": {"vtxos": TEXTS},
    "POST /wallet/send": {"destination": TEXT, "amount_sat?": U64, "comment?": TEXT, "retry_for_secs?": U64},
    "POST /wallet/send-onchain": {"destination": TEXT, "amount_sat": U64},
}
"""The fields of each body, in their order; `?` for those that may be missing."""

WHOLE_BODIES: Final = {
    "nothing": "",
    "a space": " ",
    "null": "null",
    "a number": "5",
    "a string": '"x"',
    "a word": "x",
    "a byte order mark": "\ufeff{}",
    "cut behind the brace": "{",
    "cut behind a key": '{"x"',
    "cut behind a colon": '{"x":',
    "cut behind a value": '{"x":1',
    "no colon": '{"x" 1}',
    "no key": "{5:1}",
    "a comma too many": '{"x":1,}',
    "no comma": '{"x":1 "y":2}',
    "no end of a string": '{"x',
    "something behind": "{}{}",
    "a comment": "{}//",
}

U64_QUERY: Final = Kind(
    "1",
    ("", "x", "-1", "1.0", "1e3", "0x1", "%201", "1%20", "1%00", "%FF", "18446744073709551616", "%2B", "1,2"),
)
F64_QUERY: Final = Kind("1", ("", "x", "1,5", "%201", "0x1", "1_0", "e", "1e", "--1", "%FF", "."))
FLAG_QUERY: Final = Kind("true", ("", "TRUE", "1", "0", "yes", "true%20", "null", "%FF"))
TIME_QUERY: Final = Kind(
    "2026-01-01T00:00:00Z",
    (
        "x",
        "0",
        "1767225600",
        "2026",
        "2026-01-01",
        "2026-01-01T00:00",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00X",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00%2B25:00",
        "2026-01-01T00:00:00%2B0000",
        "2026-01-01T00:00:00ZZ",
        "2026-1-1T00:00:00Z",
        "+2026-01-01T00:00:00Z",
    ),
)
TEXT_QUERY: Final = Kind("x", ())

QUERIES: Final[dict[str, dict[str, Kind]]] = {
    "GET /exits/fee": {
        "vtxo_ids?": TEXT_QUERY,
        "fee_rate_sat_per_vb?": F64_QUERY,
        "destination?": TEXT_QUERY,
        "fee_margin?": F64_QUERY,
    },
    "GET /exits/status/all": {"history?": FLAG_QUERY, "transactions?": FLAG_QUERY},
    "GET /exits/status/finished": {"history?": FLAG_QUERY, "transactions?": FLAG_QUERY},
    "GET /exits/status/live": {"history?": FLAG_QUERY, "transactions?": FLAG_QUERY},
    "GET /exits/status/<unknown_vtxo>": {"history?": FLAG_QUERY, "transactions?": FLAG_QUERY},
    "GET /exits/status/vtxo/<unknown_vtxo>": {"history?": FLAG_QUERY, "transactions?": FLAG_QUERY},
    "GET /fees/board": {"amount_sat": U64_QUERY},
    "GET /fees/lightning/pay": {"amount_sat": U64_QUERY},
    "GET /fees/lightning/receive": {"amount_sat": U64_QUERY},
    "GET /fees/offboard-all": {"address": TEXT_QUERY},
    "GET /fees/send-onchain": {"amount_sat": U64_QUERY, "address": TEXT_QUERY},
    "GET /history": {"type?": TEXT_QUERY, "value?": TEXT_QUERY},
    "GET /notifications/wait": {"since?": TIME_QUERY},
    "POST /wallet/bip321": {"uppercase?": FLAG_QUERY},
    "GET /wallet/vtxos": {"all?": FLAG_QUERY},
}

PATHS_WITHOUT_PARAMETERS: Final = {
    "GET": (
        "/bitcoin/tip /boards/pending /exits/fee /exits/status /exits/status/all /exits/status/finished "
        "/exits/status/live /fees/board /fees/lightning/pay /fees/lightning/receive /fees/offboard-all "
        "/fees/onchain /fees/send-onchain /history /lightning/receives /notifications/wait "
        "/notifications/ws/ticket /onchain/balance /onchain/transactions /onchain/utxos /wallet/ark-info "
        "/wallet/balance /wallet/connected /wallet/history /wallet/mnemonic /wallet/movements "
        "/wallet/next-round /wallet/rounds /wallet/vtxos"
    ),
    "POST": (
        "/boards/board-all /exits/start/all /onchain/addresses/next /onchain/sync /wallet/addresses/next "
        "/wallet/refresh/all /wallet/refresh/counterparty /wallet/sync /wallet/sync/mailbox"
    ),
}
"""What has no body, by method."""

NUMBERS_IN_PATHS: Final = (
    "x",
    "-1",
    "1.0",
    "4294967296",
    "%2B",
    "1%20",
    "%201",
    "%FF",
    "0x1",
    "1e3",
    "%00",
    "é",
)
IDS_IN_PATHS: Final = ("%FF", "a%FFb", "%C3%28")
PATHS_WITH_IDS: Final = (
    "POST /exits/cancel/{}",
    "GET /exits/status/{}",
    "GET /exits/status/vtxo/{}",
    "GET /lightning/receives/{}",
    "DELETE /lightning/receives/{}",
    "GET /lightning/sends/{}",
    "GET /wallet/vtxos/{}",
    "GET /wallet/vtxos/{}/encoded",
)

CONTENT_TYPES: Final = (
    "",
    "json",
    "application",
    "application/",
    "application/x-www-form-urlencoded",
    "application/jsonx",
    "application/xml+json",
    "application/json+xml",
    "application/json, text/plain",
    "application/json;",
    "application/json; charset=latin1",
    "application/json; charset",
    "text/x+json",
    "multipart/form-data; boundary=x",
    " application/json",
)


def entries() -> list[Entry]:
    """All of them, in the form of requests.json."""
    return [*_forms(), *_values()]


# --- forms ----------------------------------------------------------------------------------------------


def _forms() -> Iterator[Entry]:
    for operation, fields in BODIES.items():
        yield from _bad_bodies(operation, fields)
    for operation, parameters in QUERIES.items():
        yield from _bad_queries(operation, parameters)
    yield from _bad_paths()
    yield from _wrong_methods()
    yield from _odd_headers()


def _entry(stage: str, operation: str, what: str, **parts: Any) -> Entry:
    """what: is wrong. parts: `query`, `body`, `headers`, `auth` as in requests.json."""
    method, _, path = operation.partition(" ")
    return {
        "stage": stage,
        "name": f"{operation}: {what}",
        "method": method,
        "path": "/ping" if path == "/ping" else f"/api/v1{path}",
        **parts,
    }


def _object(parts: dict[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}"


def _bad_bodies(operation: str, fields: dict[str, Kind]) -> Iterator[Entry]:
    kinds = {name.removesuffix("?"): kind for name, kind in fields.items()}
    required = {name: kind.good for name, kind in fields.items() if not name.endswith("?")}
    for name, kind in kinds.items():
        for wrong in (*kind.wrong, "null"):
            yield _entry(FORMS, operation, f"{name} {wrong}", body=_object({**required, name: wrong}))
        twice = _object({**required, name: kind.good})[:-1] + f',"{name}":{kind.good}}}'
        yield _entry(FORMS, operation, f"{name} twice", body=twice)
    for name in required:
        others = {other: value for other, value in required.items() if other != name}
        yield _entry(FORMS, operation, f"no {name}", body=_object(others))
    for what, body in WHOLE_BODIES.items():
        yield _entry(FORMS, operation, what, body=body)
    for count in range(len(kinds) + 2):
        in_order = ",".join([*(kind.good for kind in kinds.values()), "1"][:count])
        yield _entry(FORMS, operation, f"a list of {count}", body=f"[{in_order}]")
    good = _object(required)
    yield _entry(FORMS, operation, "an unknown field", body=_object({**required, "x": '[{"y":1e999}]'}))
    yield _entry(FORMS, operation, "space and lines", body=good.replace(":", " :\r\n\t ") + "\n")
    yield _entry(FORMS, operation, "no content type", body=good, headers={})
    yield _entry(FORMS, operation, "another content type", body=good, headers={"Content-Type": "text/plain"})
    yield _entry(FORMS, operation, "no body")
    yield _entry(FORMS, operation, "no token and a bad body", body="x", auth=False)


def _bad_queries(operation: str, parameters: dict[str, Kind]) -> Iterator[Entry]:
    required = {name: kind.good for name, kind in parameters.items() if not name.endswith("?")}
    extra: Entry = {"body": {}} if operation.startswith("POST") else {}

    def asked(what: str, query: str) -> Entry:
        return _entry(FORMS, operation, what, query=query, **extra)

    def text(parts: dict[str, str]) -> str:
        return "&".join(f"{name}={value}" for name, value in parts.items())

    for named, kind in parameters.items():
        name = named.removesuffix("?")
        for wrong in kind.wrong:
            yield asked(f"{name}={wrong}", text({**required, name: wrong}))
        twice = text({**required, name: kind.good})
        yield asked(f"{name} twice", f"{twice}&{name}={kind.good}")
        yield asked(f"{name} in capitals", text({**required, name.upper(): kind.good}))
        yield asked(f"{name} without a value", "&".join(filter(None, (text(required), name))))
    for name in required:
        yield asked(f"no {name}", text({other: value for other, value in required.items() if other != name}))
    yield asked("nothing but an unknown parameter", "x=1")
    yield asked("empty parts", f"&&{text(required)}&&=&")


def _bad_paths() -> Iterator[Entry]:
    for number in NUMBERS_IN_PATHS:
        yield _entry(FORMS, f"GET /wallet/addresses/index/{number}", "number")
        yield _entry(FORMS, f"POST /history/{number}/metadata", "number", body={})
    for template in PATHS_WITH_IDS:
        for wrong in IDS_IN_PATHS:
            yield _entry(FORMS, template.format(wrong), "id")
        yield _entry(FORMS, template.format(""), "no id")
        yield _entry(FORMS, template.format("x/y"), "two ids")


def _wrong_methods() -> Iterator[Entry]:
    for right, paths in PATHS_WITHOUT_PARAMETERS.items():
        for path in paths.split():
            for method in {"GET": ("POST", "DELETE"), "POST": ("GET", "HEAD", "DELETE")}[right]:
                yield _entry(FORMS, f"{method} {path}", "method")
            yield _entry(FORMS, f"{right} {path}/", "slash behind")
            if right == "POST":
                yield _entry(FORMS, f"{right} {path}", "a body that is no JSON", body="x")
    for operation in BODIES:
        _, _, path = operation.partition(" ")
        for method in ("PATCH", "HEAD"):
            yield _entry(FORMS, f"{method} {path}", "method")
    for method in ("TRACE", "CONNECT", "LINK", "FOO", "get"):
        yield _entry(FORMS, f"{method} /wallet/balance", "method")


def _odd_headers() -> Iterator[Entry]:
    operation = "POST /wallet/send"
    body = '{"destination":"x"}'
    for kind in CONTENT_TYPES:
        headers = {"Content-Type": kind}
        yield _entry(FORMS, operation, f"content type `{kind}`", body=body, headers=headers)
    for name, value in (
        ("Accept", "text/html"),
        ("Accept", "x"),
        ("Accept-Encoding", "gzip, br"),
        ("Content-Encoding", "gzip"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Origin", "http://a.example"),
        ("Host", "a.example"),
        ("Host", ""),
        ("If-None-Match", "*"),
        ("Range", "bytes=0-1"),
        ("Cookie", "auth_token=x"),
    ):
        headers = {"Content-Type": "application/json", name: value}
        yield _entry(FORMS, operation, f"{name} `{value}`", body=body, headers=headers)


# --- values ---------------------------------------------------------------------------------------------

ADDRESSES: Final = (
    "",
    " ",
    "x",
    "é",
    "1",
    "bcrt1",
    "bc1",
    "lnbcrt1",
    "<mainnet_address>",
    "<other_ark_address>",
    "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08q",
    "<bitcoin_address> ",
    " <bitcoin_address>",
    "BCRT1QW508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "bitcoin:<bitcoin_address>",
    "bcrt1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvseszalxnm",
    "bcrt1zw508d6qejxtdg4y5r3zarvaryvg6kdaj",
    "bcrt1sw50qgdz25j",
    "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
    "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
    "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
    "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
    "BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7\u212aYGT080",  # the sign for Kelvin
    "xx1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpgahtyu",  # of no network
    "XX1QQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPGAHTYU",
    "bcrt1pqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqstl4x0w",  # another version's checksum
    "bcrt1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyclj4ud",  # 21 bytes
    "B7wD3ifuXr1KPZeWtUD84goxhi8Jvb3mZ",  # 20 bytes
    "F5vRLkGpuS5p1eW14HnHKk2V2LwJJ5qbLH",  # an unknown prefix
    "5Hwgr3u458GLafKBgxtssHSPqJnYoGrSzgQsPwLFhLNYskDPyyA",
    "111111111111111111111111111111111111111111111111111",
)
"""None of them is of regtest. The longest is longer than any old address."""

VTXO_IDS: Final = (
    "",
    "x",
    "é",
    "00",
    ":",
    "ab" * 32,
    "ab" * 32 + ":",
    "ab" * 32 + ":-1",
    "ab" * 32 + ":+1",
    "ab" * 32 + ":01",
    "ab" * 32 + ":0x0",
    "ab" * 32 + ":4294967296",
    "ab" * 32 + ":0:0",
    "ab" * 31 + ":0",
    "ab" * 33 + ":0",
    "zz" * 32 + ":0",
    "AB" * 32 + ":0",
    " " + "ab" * 32 + ":0",
    "ab" * 32 + "00000000",
    "ab" * 36,
    "zz" * 36,
    "<unknown_vtxo>",
    "<unknown_vtxo>,<unknown_vtxo>",
)

HASHES: Final = (
    "x",
    "é",
    "00",
    "ab" * 31,
    "ab" * 33,
    "zz" * 32,
    "0x" + "ab" * 31,
    "AB" * 32,
    " " + "ab" * 32,
    "lnbcrt1x",
    "<regtest_invoice>",
    "<bitcoin_address>",
    "<unknown_vtxo>",
)

DESTINATIONS: Final = (
    "",
    " ",
    "x",
    "é",
    "@",
    "a@",
    "@b",
    "a b@c.example",
    "a@b@c.example",
    "https://a.example",
    "lightning:x",
    "bitcoin:",
    "bitcoin:x",
    "lnurl1",
    "lnurl1x",
    "lno1",
    "lno1x",
    "lnbcrt1",
    "lnbc1x",
    "ark1",
    "tark1x",
    "<mainnet_address>",
    "<unknown_vtxo>",
    "<other_ark_address>x",
    "user@localhost:80",
)

AMOUNT_TEXTS: Final = (
    "",
    " ",
    "0",
    "1",
    "sat",
    " sat",
    "x sat",
    "-1 sat",
    "- sat",
    "+1 sat",
    "1  sat",
    "1 Sat",
    "1 sat ",
    "1 x",
    "1.5 sat",
    "1e3 sat",
    "1,000 sat",
    "0x10 sat",
    "0.1 msat",
    "1 msat",
    "0.000000001 BTC",
    "1.2.3 BTC",
    ". BTC",
    "184467440737.09551616 BTC",
    "18446744073709551616 sat",
    "1 ksat",
    "1 £",
    "١ sat",
    "1:1 sat",
)

PAYMENT_METHODS: Final = (
    ("", "x"),
    ("x", "x"),
    ("ARK", "x"),
    ("ark", ""),
    ("ark", "x"),
    ("ark", "<bitcoin_address>"),
    ("bitcoin", "<other_ark_address>"),
    ("output-script", "x"),
    ("output-script", "0"),
    ("output-script", "000"),
    ("output-script", "zz"),
    ("invoice", ""),
    ("invoice", "x"),
    ("invoice", "lnbcrt1x"),
    ("offer", ""),
    ("offer", "x"),
    ("offer", "lno1"),
    ("lightning-address", ""),
    ("lightning-address", "x"),
    ("lightning-address", "a@"),
    ("lightning-address", "a b@c.example"),
    ("lnurl", ""),
    ("lnurl", "x"),
    ("lnurl", "lnurl1x"),
    ("custom", "x"),
)

VTXO_HEX: Final = (
    "x",
    "é",
    "0",
    "0g",
    "00 ",
    "0x00",
    "00" * 36,
    "ff" * 36,
    "ab" * 32 + ":0",
    "<spendable_vtxo_hex>00",
    "<spendable_vtxo_hex>zz",
)

ARK_ADDRESSES: Final = (
    "",
    "x",
    "é",
    "tark1",
    "ark1x",
    "tark1qqqq",
    "<bitcoin_address>",
    "<other_ark_address>x",
    " <other_ark_address>",
)

SIGNATURES: Final = ("", "x", "é", "0", "00", "zz" * 64, "00" * 63, "00" * 65, "0x" + "00" * 63)
PUBLIC_KEYS: Final = (
    "",
    "x",
    "0",
    "02",
    "02" + "00" * 32,
    "02" + "ff" * 32,
    "05" + "ab" * 32,
    "79be667e" * 8,
    "zz" * 33,
)
MNEMONICS: Final = (
    "",
    "x",
    "abandon",
    "abandon " * 11 + "x",
    "abandon " * 12,
    "abandon " * 13,
    "Abandon " + "abandon " * 10 + "about",
    "abandon-" * 11 + "about",
)
SERVERS: Final = (" ", "x y", "//x", "http://", "http://a b", "http://127.0.0.1:1", "ftp://x")
ESPLORAS: Final = (*SERVERS, "://x", "?x", "http://:", "http://[", "http://x:y")
RATES: Final = (
    "-1",
    "-0.001",
    "-0.01",
    "0",
    "-0",
    "NaN",
    "nan",
    "inf",
    "-inf",
    "infinity",
    "1e308",
    "1e400",
    "+1",
    ".5",
    "5.",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is named: `<>` stands for it in the path, the query or the body.

    what: it is called.
    """

    operation: str
    what: str
    body: str | None = None
    query: str | None = None
    stage: str = VALUES

    def filled(self, value: str) -> Entry:
        what = f"{self.what} {json.dumps(value, ensure_ascii=False)}"
        if self.body is not None:
            parts = {"body": self.body.replace("<>", json.dumps(value)[1:-1])}
            return _entry(self.stage, self.operation, what, **parts)
        escaped = quote(value, safe="<>_:,")
        if self.query is not None:
            return _entry(self.stage, self.operation, what, query=self.query.replace("<>", escaped))
        entry = _entry(self.stage, self.operation.replace("<>", escaped), what)
        return {**entry, "name": f"{self.operation}: {what}"}


USES: Final[tuple[tuple[tuple[str, ...], tuple[Place, ...]], ...]] = (
    (
        ADDRESSES,
        (
            Place("GET /fees/offboard-all", "address", query="address=<>"),
            Place("GET /fees/send-onchain", "address", query="amount_sat=30000&address=<>"),
            Place("GET /exits/fee", "address", query="destination=<>"),
            Place("GET /history", "address", query="type=bitcoin&value=<>"),
            Place("POST /fees/offboard", "address", '{"address":"<>","vtxos":["<spendable_vtxo>"]}'),
            Place("POST /exits/claim/all", "address", '{"destination":"<>"}'),
            Place("POST /exits/claim/vtxos", "address", '{"destination":"<>","vtxos":["<spendable_vtxo>"]}'),
            Place("POST /onchain/drain", "address", '{"destination":"<>"}'),
            Place("POST /onchain/send", "address", '{"destination":"<>","amount_sat":1000}'),
            Place("POST /onchain/send-many", "address", '{"destinations":["<>:1000 sat"]}'),
            Place("POST /wallet/send-onchain", "address", '{"destination":"<>","amount_sat":1000}'),
            Place("POST /wallet/offboard/all", "address", '{"address":"<>"}'),
            Place("POST /wallet/offboard/vtxos", "address", '{"address":"<>","vtxos":["<spendable_vtxo>"]}'),
        ),
    ),
    (
        VTXO_IDS,
        (
            Place("GET /exits/fee", "id", query="vtxo_ids=<>"),
            Place("GET /exits/status/vtxo/<>", "id"),
            Place("GET /wallet/vtxos/<>", "id"),
            Place("GET /wallet/vtxos/<>/encoded", "id"),
            Place("POST /exits/cancel/<>", "id"),
            Place("POST /exits/start/vtxos", "id", '{"vtxos":["<>"]}'),
            Place("POST /exits/claim/vtxos", "id", '{"destination":"<bitcoin_address>","vtxos":["<>"]}'),
            Place(
                "POST /fees/offboard",
                "id",
                '{"address":"<bitcoin_address>","vtxos":["<spendable_vtxo>","<>"]}',
            ),
            Place("POST /wallet/offboard/vtxos", "id", '{"vtxos":["<spendable_vtxo>","<>"]}'),
            Place("POST /wallet/refresh/vtxos", "id", '{"vtxos":["<spendable_vtxo>","<>"]}'),
            Place("POST /wallet/refresh/delegated/vtxos", "id", '{"vtxos":["<spendable_vtxo>","<>"]}'),
        ),
    ),
    (
        HASHES,
        (
            Place("GET /lightning/receives/<>", "identifier"),
            Place("DELETE /lightning/receives/<>", "identifier"),
            Place("GET /lightning/sends/<>", "identifier"),
        ),
    ),
    (
        DESTINATIONS,
        (
            Place("POST /wallet/send", "destination", '{"destination":"<>"}'),
            Place("POST /lightning/pay", "destination", '{"destination":"<>"}'),
            Place(
                "POST /wallet/send",
                "destination for nothing",
                '{"destination":"<>","amount_sat":0,"comment":""}',
            ),
        ),
    ),
    (
        AMOUNT_TEXTS,
        (Place("POST /onchain/send-many", "amount", '{"destinations":["<bitcoin_address>:<>"]}'),),
    ),
    (
        RATES,
        (
            Place("GET /exits/fee", "fee_rate_sat_per_vb", query="vtxo_ids=&fee_rate_sat_per_vb=<>"),
            Place("GET /exits/fee", "fee_margin", query="vtxo_ids=&fee_margin=<>"),
        ),
    ),
    (VTXO_HEX, (Place("POST /wallet/import-vtxo", "VTXO", '{"vtxos":["<>"]}'),)),
    (
        ARK_ADDRESSES,
        (
            Place("POST /message/sign", "Ark address", '{"message":"","address":"<>"}'),
            Place(
                "POST /message/verify",
                "Ark address",
                '{"message":"","signature":"' + "00" * 64 + '","address":"<>"}',
            ),
            Place(
                "POST /lightning/receives/invoice/for-address",
                "Ark address",
                '{"amount_sat":1000,"address":"<>"}',
            ),
        ),
    ),
    (
        SIGNATURES,
        (
            Place(
                "POST /message/verify",
                "signature",
                '{"message":"","signature":"<>","pubkey":"02' + "79be667e" * 8 + '"}',
            ),
        ),
    ),
    (
        PUBLIC_KEYS,
        (
            Place(
                "POST /message/verify",
                "pubkey",
                '{"message":"","signature":"' + "00" * 64 + '","pubkey":"<>"}',
            ),
        ),
    ),
    (
        MNEMONICS,
        (
            Place(
                "POST /wallet/create",
                "mnemonic",
                '{"network":"regtest","chain_source":{"esplora":{"url":"<esplora_url>"}},"mnemonic":"<>"}',
                stage=FORMS,
            ),
        ),
    ),
    (
        SERVERS,
        (
            Place(
                "POST /wallet/create",
                "ark_server",
                '{"network":"regtest","ark_server":"<>","chain_source":{"esplora":{"url":"<esplora_url>"}}}',
                stage=FORMS,
            ),
        ),
    ),
    (
        ESPLORAS,
        (
            Place(
                "POST /wallet/create",
                "esplora",
                '{"network":"regtest","ark_server":"<ark_server>","chain_source":{"esplora":{"url":"<>"}}}',
                stage=FORMS,
            ),
        ),
    ),
)


def _values() -> Iterator[Entry]:
    for values, places in USES:
        for place in places:
            for value in values:
                yield place.filled(value)
    for kind, value in PAYMENT_METHODS:
        query = f"type={kind}&value={quote(value, safe='<>_')}"
        yield _entry(VALUES, "GET /history", query, query=query)
