"""Operations of tag wallet with a loaded wallet, over HTTP."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.api.contract import Contract
from barkd_py.api.routing import BODY_BYTES_MAX
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.units import Network
from barkd_py.wallet.vtxo_states import Exited, Spent, WalletVtxo
from tests.fakes import wallet as fake
from tests.fakes.wallet import UNREACHABLE
from tests.support.api_server import MNEMONIC, RunningApi, running_api


async def test_answers_about_the_server(api: RunningApi) -> None:
    assert (await api.http.get("/api/v1/wallet/connected")).json() == {"connected": True}
    assert (await api.http.get("/api/v1/wallet/ark-info")).json()["network"] == "regtest"
    next_round = await api.http.get("/api/v1/wallet/next-round")
    assert next_round.json() == {"start_time": "2026-06-01T12:00:00Z"}


async def test_ark_info_before_the_first_connection_is_not_found(api: RunningApi) -> None:
    api.wallet.ark_info = None
    answer = await api.http.get("/api/v1/wallet/ark-info")
    assert (answer.status_code, answer.text) == (
        404,
        '{"resources":["ark server"],"message":"Wallet not connected to an Ark server"}',
    )
    assert (await api.http.get("/api/v1/wallet/connected")).json() == {"connected": False}


async def test_an_unreachable_server_is_a_500_with_the_chain_of_causes(api: RunningApi) -> None:
    api.wallet.failure = UNREACHABLE
    answer = await api.http.get("/api/v1/wallet/next-round")
    assert (answer.status_code, answer.json()) == (500, {"message": str(UNREACHABLE)})
    answer = await api.http.post("/api/v1/wallet/sync/mailbox")
    assert answer.json() == {"message": f"failed to sync mailbox: {UNREACHABLE}"}


async def test_addresses_are_numbered_from_zero(api: RunningApi) -> None:
    first = (await api.http.post("/api/v1/wallet/addresses/next")).json()
    second = (await api.http.post("/api/v1/wallet/addresses/next", json={"ignored": 1})).json()
    assert first["address"] != second["address"]
    assert (await api.http.get("/api/v1/wallet/addresses/index/1")).json() == second
    missing = await api.http.get("/api/v1/wallet/addresses/index/4294967295")
    assert (missing.status_code, missing.json()["message"]) == (
        500,
        "Failed to get address at index 4294967295: VTXO key 4294967295 does not exist, "
        "please derive it first",
    )


async def test_balance(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    assert (await api.http.get("/api/v1/wallet/balance")).json()["spendable_sat"] == a_vtxo.amount_sat


async def test_vtxos_that_are_gone_are_listed_on_demand(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(replace(a_vtxo, state=Spent()))
    assert (await api.http.get("/api/v1/wallet/vtxos")).json() == []
    assert (await api.http.get("/api/v1/wallet/vtxos?all=false")).json() == []
    listed = (await api.http.get("/api/v1/wallet/vtxos?all=true")).json()
    assert [vtxo["state"] for vtxo in listed] == [{"type": "spent"}]


async def test_a_list_that_was_rendered_before_shows_what_changed_since(
    api: RunningApi, a_vtxo: WalletVtxo
) -> None:
    assert (await api.http.get("/api/v1/wallet/vtxos")).json() == []
    api.wallet.add_vtxo(a_vtxo)
    assert len((await api.http.get("/api/v1/wallet/vtxos")).json()) == 1


async def test_old_clients_get_their_own_rendering(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(replace(a_vtxo, state=Exited()))
    old = {"User-Agent": "OpenAPI-Generator/0.1.4/python"}
    path = f"/api/v1/wallet/vtxos/{a_vtxo.id}"
    assert (await api.http.get(path, headers=old)).json()["state"] == {"type": "spent"}
    assert (await api.http.get(path)).json()["state"] == {"type": "exited"}
    for headers, state in ((old, "spent"), ({}, "exited"), (old, "spent")):
        listed = (await api.http.get("/api/v1/wallet/vtxos?all=true", headers=headers)).json()
        assert listed[0]["state"] == {"type": state}


async def test_the_setting_decides_for_every_client(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.state.rest_contract = Contract.V0_1_4.value
    api.wallet.add_vtxo(replace(a_vtxo, state=Exited()))
    new = {"User-Agent": "OpenAPI-Generator/0.8.0/python"}
    answer = await api.http.get(f"/api/v1/wallet/vtxos/{a_vtxo.id}", headers=new)
    assert answer.json()["state"] == {"type": "spent"}


async def test_a_vtxo_by_any_spelling_of_its_id(api: RunningApi, a_vtxo: WalletVtxo, full_vtxo: Vtxo) -> None:
    api.wallet.add_vtxo(a_vtxo, full_vtxo)
    text = str(a_vtxo.id)
    for spelling in (text, text.upper(), text.replace(":", "%3A")):
        answer = await api.raw("GET", f"/api/v1/wallet/vtxos/{spelling}", [api.bearer])
        assert answer.json()["id"] == text
    encoded = await api.http.get(f"/api/v1/wallet/vtxos/{text}/encoded")
    assert Vtxo.decode_hex(encoded.json()["encoded"]) == full_vtxo


async def test_import_returns_what_is_held(api: RunningApi, a_vtxo: WalletVtxo, full_vtxo: Vtxo) -> None:
    api.wallet.add_vtxo(a_vtxo, full_vtxo)
    encoded = full_vtxo.encode().hex()
    answer = await api.http.post(
        "/api/v1/wallet/import-vtxo", json={"vtxos": [encoded, encoded.upper()], "gap_limit": 3}
    )
    assert [vtxo["id"] for vtxo in answer.json()] == [str(a_vtxo.id)] * 2
    assert api.wallet.imported_with == {"gap_limit": 3, "skip": False, "partial": False}


async def test_import_of_somebody_elses_vtxo_is_refused(api: RunningApi, full_vtxo: Vtxo) -> None:
    body = {"vtxos": [full_vtxo.encode().hex()]}
    answer = await api.http.post("/api/v1/wallet/import-vtxo", json=body)
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        f"unable to derive the key for vtxo {full_vtxo.id} from this seed with a 250 gap limit",
    )
    partial = await api.http.post("/api/v1/wallet/import-vtxo", json={**body, "allow_partial": True})
    assert (partial.status_code, partial.json()) == (200, [])


async def test_import_of_a_vtxo_in_use_is_a_422(api: RunningApi, full_vtxo: Vtxo) -> None:
    api.wallet.in_flight.add(full_vtxo.id)
    answer = await api.http.post("/api/v1/wallet/import-vtxo", json={"vtxos": [full_vtxo.encode().hex()]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"].startswith(f"vtxo {full_vtxo.id} is neither spendable nor spent")


async def test_import_that_fails_is_a_500(api: RunningApi, full_vtxo: Vtxo) -> None:
    api.wallet.failure = UNREACHABLE
    answer = await api.http.post("/api/v1/wallet/import-vtxo", json={"vtxos": [full_vtxo.encode().hex()]})
    assert answer.status_code == 500
    assert answer.json()["message"] == f"Failed to import VTXOs: unexpected error: {UNREACHABLE}"


async def test_import_of_a_damaged_vtxo_names_the_damage(api: RunningApi, full_vtxo: Vtxo) -> None:
    damaged = full_vtxo.encode().hex()[:-2]
    answer = await api.http.post("/api/v1/wallet/import-vtxo", json={"vtxos": [damaged]})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("bad request: invalid vtxo hex: I/O error: ")


@pytest.mark.parametrize(
    ("behind", "problem"),
    [
        ("zz", "invalid protocol encoding: trailing bytes"),
        ("é", "invalid protocol encoding: trailing bytes"),
        ("z", "I/O error: odd hex string length {length}: odd hex string length {length}"),
    ],
)
async def test_what_is_no_hex_is_where_a_vtxo_ends(
    api: RunningApi, full_vtxo: Vtxo, behind: str, problem: str
) -> None:
    text = full_vtxo.encode().hex() + behind
    answer = await api.http.post("/api/v1/wallet/import-vtxo", json={"vtxos": [text]})
    expected = f"bad request: invalid vtxo hex: {problem.format(length=len(text))}"
    assert (answer.status_code, answer.json()["message"]) == (400, expected)


# --- send


async def _send(api: RunningApi, **body: object) -> tuple[int, object]:
    answer = await api.http.post("/api/v1/wallet/send", json=body)
    return answer.status_code, answer.json()


async def test_a_payment_to_an_ark_address(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    address = await api.wallet.new_address()
    assert await _send(api, destination=address, amount_sat=1, comment="ignored") == (
        200,
        {"message": "Payment sent successfully"},
    )
    assert await _send(api, destination=address.upper(), amount_sat=1) == (
        200,
        {"message": "Payment sent successfully"},
    )


async def test_ark_payments_that_are_refused(api: RunningApi) -> None:
    address = await api.wallet.new_address()
    assert await _send(api, destination=address) == (500, {"message": "amount missing"})
    status, _ = await _send(api, destination=address, amount_sat=0)
    assert status == 500
    assert await _send(api, destination=address, amount_sat=2**64 - 1) == (
        500,
        {"message": "Insufficient money available. Needed 184467440737.09551615 BTC but 0 BTC is available"},
    )
    assert api.wallet.movements == []


async def test_an_address_of_another_network_is_refused(api: RunningApi) -> None:
    mainnet = await fake.FakeWallet(Network.MAINNET).new_address()
    assert await _send(api, destination=mainnet, amount_sat=1) == (
        400,
        {"message": "bad request: invalid arkoor address: Ark address is for different network"},
    )


async def test_an_unreachable_server_is_no_fault_of_the_caller(api: RunningApi) -> None:
    address = await api.wallet.new_address()
    api.wallet.failure = UNREACHABLE
    assert await _send(api, destination=address, amount_sat=1) == (500, {"message": str(UNREACHABLE)})


# Source: BOLT-11, examples.
INVOICE = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypq"
    "dq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09"
    "sam30g4vgpfna3rh"
)
LNURL = (
    "lnurl1dp68gurn8ghj7um9wfmxjcm99e3k7mf0v9cxj0m385ekvcenxc6r2c35xvukxefcv5mkvv34x5ekzd3ev56n"
    "yd3hxqurzepexejxxepnxscrvwfnv9nxzcn9xq6xyefhvgcxxcmyxymnserxfq5fns"
)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"destination": INVOICE, "comment": "x"}, 400, "comment is not supported for BOLT-11 invoices"),
        (
            {"destination": "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese", "comment": "x"},
            400,
            "comment is not supported for BOLT-12 offers",
        ),
        ({"destination": "user@example.com"}, 400, "bad request: amount is required for Lightning addresses"),
        ({"destination": LNURL}, 400, "bad request: amount is required for LNURL"),
        ({"destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"}, 500, "amount missing"),
        (
            {"destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "amount_sat": 1},
            500,
            "offboards are temporarily disabled",
        ),
        (
            {"destination": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "amount_sat": 1},
            500,
            "bitcoin address is not valid for configured network: validation error: address "
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 is not valid on regtest",
        ),
    ],
)
async def test_other_destinations(
    api: RunningApi, body: dict[str, object], status: int, message: str
) -> None:
    assert await _send(api, **body) == (status, {"message": message})


@pytest.mark.parametrize(("more", "status"), [(0, 400), (1, 413)])
async def test_a_body_has_a_largest_size(api: RunningApi, more: int, status: int) -> None:
    answer = await api.http.post(
        "/api/v1/wallet/send",
        content=b" " * (BODY_BYTES_MAX + more),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == status


# --- sync, history


async def test_sync_answers_with_nothing(api: RunningApi) -> None:
    answer = await api.http.post("/api/v1/wallet/sync", content=b"garbage")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-type" not in answer.headers
    assert api.wallet.syncs == 1
    assert (await api.http.post("/api/v1/wallet/sync/mailbox")).json() == {"checkpoint": 42}


async def test_history_under_its_three_names(api: RunningApi) -> None:
    api.wallet.add_movement()
    api.wallet.add_movement()
    answers = [
        (await api.http.get(f"/api/v1/{path}")).json()
        for path in ("history", "wallet/history", "wallet/movements")
    ]
    assert [movement["id"] for movement in answers[0]] == [2, 1]
    assert answers[0] == answers[1] == answers[2]


# --- the wallet itself


async def test_the_mnemonic_is_shown_only_on_demand(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d", with_wallet=True, expose_mnemonic=True) as api:
        assert (await api.http.get("/api/v1/wallet/mnemonic")).json() == {"mnemonic": MNEMONIC}
    async with running_api(tmp_path / "e", with_wallet=True) as api:
        answer = await api.http.get("/api/v1/wallet/mnemonic")
        assert (answer.status_code, answer.text) == (
            404,
            '{"resources":[],"message":"Mnemonic endpoint is disabled"}',
        )


async def test_create_use_delete(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d") as api:
        body = {
            "network": "regtest",
            "ark_server": "http://127.0.0.1:3535",
            "chain_source": {"esplora": {"url": "http://127.0.0.1:3000"}},
        }
        created = await api.http.post("/api/v1/wallet/create", json=body)
        fingerprint = created.json()["fingerprint"]
        assert (await api.http.get("/api/v1/wallet")).json() == {"fingerprint": fingerprint}
        assert (await api.http.get("/api/v1/wallet/vtxos")).json() == []
        again = await api.http.post("/api/v1/wallet", json=body)
        assert (again.status_code, again.json()) == (400, {"message": "Wallet already set"})
        delete = {"dangerous": True, "fingerprint": fingerprint}
        deleted = await api.http.request("DELETE", "/api/v1/wallet", json=delete)
        assert deleted.json() == {"deleted": True, "fingerprint": fingerprint, "message": "Wallet deleted"}
        gone = await api.http.get("/api/v1/wallet/vtxos")
        assert (gone.status_code, gone.json()) == (422, {"message": "No wallet set"})


async def test_of_two_creations_at_once_one_wins(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d") as api:
        body = {
            "network": "regtest",
            "ark_server": "http://127.0.0.1:3535",
            "chain_source": {"esplora": {"url": "http://127.0.0.1:3000"}},
        }
        answers = await asyncio.gather(*(api.http.post("/api/v1/wallet", json=body) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        assert len(api.backend.created) == 1
