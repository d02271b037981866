"""What the real barkd 0.8.0 answered without a wallet: routing, authentication, CORS, malformed input.

Every recorded request for an operation that we serve is sent again, as the same bytes over real HTTP. What we
answer differently on purpose, and what needs more than these tests have, is named here with its reason.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.recorded import Case, cases, matches, refusals_with_a_wallet
from tests.support.api_server import MNEMONIC, TOKEN, RunningApi, running_api

NEEDS_A_NODE = (
    "failed to create a chain source client",
    "error creating new wallet",
)
# Needs coins, addresses or invoices of the recorded wallet.
NEEDS_THE_WALLET = frozenset(
    {
        "import: foreign",
        "import: foreign, gap limit 0",
        "import: one byte changed",
        "sign: bitcoin address",
        "lightning: for-address bitcoin",
        "verify: both (2)",
        "balance after delete",
        "wait: wallet deleted meanwhile",
    }
)


def _selected(state: str) -> list[Case]:
    return [case for case in cases() if case.state == state and not _left_out(case)]


def _left_out(case: Case) -> bool:
    if case.path == "/api/v1/exits/status" and case.query is not None:
        return True  # barkd loses the query on the way to the new path; see tests/api/test_exits.py
    if case.path.startswith(("/swagger-ui", "/api-docs")):
        return True  # the recorded barkd was built without it; see tests/api/test_swagger.py
    if case.path == "/nope" and isinstance(case.body, dict):
        return True  # barkd repeats the request's body in its answer; that is nobody's business
    if case.path in ("/api/v1/wallet", "/api/v1/wallet/create") and case.method == "POST" and case.auth:
        response = case.response
        if case.status == 200 or any(text in str(response) for text in NEEDS_A_NODE):
            return True
    # The ticket of a handshake is tested in tests/api/test_notifications.py.
    return (
        case.path == "/api/v1/notifications/ws"
        and "<ticket>" in (case.query or "")
        and case.status in (101, 401)
    )


def _headers(case: Case) -> list[tuple[str, str | bytes]]:
    token = TOKEN.encode()
    headers: list[tuple[str, str | bytes]] = list(case.headers.items())
    if case.auth is True:
        headers.append(("Authorization", f"Bearer {token}"))
    elif isinstance(case.auth, list):
        for value in case.auth:
            filled = b"Bearer \xff" if value == "<bytes>" else value.replace("<token>", token)
            headers.append(("Authorization", filled))
    return headers


async def check(api: RunningApi, case: Case) -> None:
    answer = await api.raw(case.method, case.target, _headers(case), case.body_bytes)
    assert answer.status == case.status, answer.text
    assert answer.header("content-type") == case.content_type
    expected_vary = case.response_headers.get(
        "vary", "origin, access-control-request-method, access-control-request-headers"
    )
    assert answer.header("vary") == expected_vary
    for name in ("allow", "location", "access-control-allow-origin", "access-control-allow-methods",
                 "access-control-allow-headers"):  # fmt: skip
        assert answer.header(name) == case.response_headers.get(name), name
    if case.response is None:
        assert answer.body == b""
    elif case.content_type == "application/json":
        assert matches(case.response, answer.json()), answer.text
        assert answer.body == json.dumps(answer.json(), separators=(",", ":"), ensure_ascii=False).encode()
    else:
        assert matches(case.response, answer.text), answer.text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_wallet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    # What was recorded is 0.8.0, and the requests do not say so.
    async with running_api(tmp_path_factory.mktemp("datadir"), rest_contract="0.8.0") as api:
        yield api


@pytest.mark.parametrize("case", _selected("no wallet"), ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_wallet(without_wallet: RunningApi, case: Case) -> None:
    await check(without_wallet, case)


async def test_with_allowed_origins(tmp_path: Path) -> None:
    state = "no wallet; started with --allowed-origins http://a.example,https://b.example:8443"
    origins = frozenset({b"http://a.example", b"https://b.example:8443"})
    async with running_api(tmp_path, allowed_origins=origins) as api:
        for case in _selected(state):
            await check(api, case)


async def test_without_authentication(tmp_path: Path) -> None:
    async with running_api(tmp_path, token=None) as api:
        for case in _selected("no wallet; started with --no-auth"):
            await check(api, case)


async def test_with_the_mnemonic_exposed(tmp_path: Path) -> None:
    async with running_api(tmp_path, expose_mnemonic=True) as api:
        for case in _selected("no wallet; started with --expose-mnemonic"):
            await check(api, case)


async def test_with_a_foreign_file_in_the_datadir(tmp_path: Path) -> None:
    (tmp_path / "foreign.txt").touch()
    async with running_api(tmp_path) as api:
        for case in _selected("no wallet; a file foreign.txt lies in the datadir"):
            await check(api, case)
    assert (tmp_path / "foreign.txt").exists()


async def test_with_a_config_file_in_the_datadir(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    async with running_api(tmp_path) as api:
        for case in _selected("no wallet; config.toml exists"):
            await check(api, case)
    assert not (tmp_path / "config.toml").exists()


def _refusals() -> list[Case]:
    return [
        case
        for case in refusals_with_a_wallet()
        if case.name not in NEEDS_THE_WALLET
        and not case.path.startswith("/api/v1/exits/")  # test_recorded_exits.py
    ]


HEADS = [case for case in cases() if case.state == "any"]

STATES_WITHOUT_A_WALLET = (
    "no wallet",
    "no wallet; started with --allowed-origins http://a.example,https://b.example:8443",
    "no wallet; started with --no-auth",
    "no wallet; started with --expose-mnemonic",
    "no wallet; a file foreign.txt lies in the datadir",
    "no wallet; config.toml exists",
)
SELECTED = [
    *(case for state in STATES_WITHOUT_A_WALLET for case in _selected(state)),
    *_refusals(),
    *HEADS,
    *(case for case in cases() if case.state == "wallet created; started with --expose-mnemonic"),
]
"""What is asked here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_wallet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path_factory.mktemp("datadir") / "d", with_wallet=True) as api:
        yield api


@pytest.mark.parametrize("case", _refusals(), ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_refused_with_a_wallet(with_wallet: RunningApi, case: Case) -> None:
    await check(with_wallet, case)


@pytest.mark.parametrize("case", HEADS, ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_heads_with_a_wallet(with_wallet: RunningApi, case: Case) -> None:
    await check(with_wallet, case)


async def test_the_words_of_a_wallet(tmp_path: Path) -> None:
    (case,) = (case for case in SELECTED if case.state == "wallet created; started with --expose-mnemonic")
    assert case.response == {"mnemonic": "<twelve words>"}
    async with running_api(tmp_path, with_wallet=True, expose_mnemonic=True) as api:
        await check(api, replace(case, response={"mnemonic": MNEMONIC}))
