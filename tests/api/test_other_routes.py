"""Operations of the other tags with a loaded wallet, over HTTP."""

import asyncio

import pytest

from barkd_py.wallet.vtxo_states import WalletVtxo
from tests.fakes.wallet import UNREACHABLE, onchain_address
from tests.support import raw_http
from tests.support.api_server import RunningApi

ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


# --- bitcoin, fees


async def test_tip_and_fee_rates(api: RunningApi) -> None:
    assert (await api.http.get("/api/v1/bitcoin/tip")).json() == {"tip_height": 100}
    rates = (await api.http.get("/api/v1/fees/onchain")).json()
    assert rates == {"fast_sat_per_vb": 6, "regular_sat_per_vb": 3, "slow_sat_per_vb": 1}


async def test_a_dead_chain_source_is_a_500(api: RunningApi) -> None:
    api.wallet.failure = UNREACHABLE
    assert (await api.http.get("/api/v1/bitcoin/tip")).status_code == 500


async def test_board_fees(api: RunningApi) -> None:
    estimate = await api.http.get("/api/v1/fees/board?amount_sat=%2B20000")
    assert estimate.json() == {
        "gross_amount_sat": 20_000, "fee_sat": 330, "net_amount_sat": 19_670, "vtxos_spent": [],
    }  # fmt: skip
    too_small = await api.http.get("/api/v1/fees/board?amount_sat=100")
    assert (too_small.status_code, too_small.json()["message"]) == (
        500,
        "Failed to estimate board fee: board amount of 0.00000100 BTC does not meet minimum value of "
        "0.00020000 BTC",
    )


# --- boards


async def test_a_board_is_pending_with_its_net_amount(api: RunningApi) -> None:
    assert api.wallet.onchain is not None
    api.wallet.onchain.fund(1_000_000)
    board = (await api.http.post("/api/v1/boards/board-amount", json={"amount_sat": 600_000})).json()
    assert board["amount_sat"] == 599_300
    assert (await api.http.get("/api/v1/boards/pending")).json() == [board]
    rest = (await api.http.post("/api/v1/boards/board-all")).json()
    assert [entry["movement_id"] for entry in (await api.http.get("/api/v1/boards/pending")).json()] == [
        board["movement_id"],
        rest["movement_id"],
    ]


@pytest.mark.parametrize(
    ("amount_sat", "message"),
    [
        (100, "error building tx: Output below the dust limit: 0"),
        (50_000, "error building tx: Insufficient funds: 0 BTC available of 0.00050001 BTC needed"),
        (
            2**64 - 1,
            "error building tx: Insufficient funds: 0 BTC available of 184467440737.09551615 BTC needed",
        ),
    ],
)
async def test_a_board_that_cannot_be_is_a_500(api: RunningApi, amount_sat: int, message: str) -> None:
    answer = await api.http.post("/api/v1/boards/board-amount", json={"amount_sat": amount_sat})
    assert (answer.status_code, answer.json()) == (500, {"message": message})


async def test_without_an_onchain_wallet(api: RunningApi) -> None:
    api.wallet.onchain = None
    board = await api.http.post("/api/v1/boards/board-all")
    assert (board.status_code, board.json()["message"]) == (
        500,
        "no onchain wallet configured; cannot board",
    )
    balance = await api.http.get("/api/v1/onchain/balance")
    assert (balance.status_code, balance.json()["message"]) == (422, "No onchain wallet configured")


# --- onchain


async def test_the_onchain_wallet_shows_and_spends_its_coins(api: RunningApi) -> None:
    assert api.wallet.onchain is not None
    api.wallet.onchain.fund(1_000_000)
    assert (await api.http.get("/api/v1/onchain/balance")).json()["confirmed_sat"] == 1_000_000
    assert (await api.http.post("/api/v1/onchain/addresses/next")).json() == {"address": onchain_address(1)}
    sent = await api.http.post("/api/v1/onchain/send", json={"destination": ADDRESS, "amount_sat": 20_000})
    txids = [entry["txid"] for entry in (await api.http.get("/api/v1/onchain/transactions")).json()]
    assert txids[-1] == sent.json()["txid"]
    utxos = (await api.http.get("/api/v1/onchain/utxos")).json()
    assert [(utxo["amount_sat"], utxo["confirmation_height"]) for utxo in utxos] == [(979_999, None)]
    drained = await api.http.post("/api/v1/onchain/drain", json={"destination": ADDRESS})
    assert drained.status_code == 200
    assert (await api.http.get("/api/v1/onchain/utxos")).json() == []


async def test_many_recipients_each_with_a_denomination(api: RunningApi) -> None:
    assert api.wallet.onchain is not None
    api.wallet.onchain.fund(1_000_000)
    body = {"destinations": [f"{ADDRESS}:0.0002 BTC", f"{ADDRESS}:5000 sat"], "immediate": True}
    answer = await api.http.post("/api/v1/onchain/send-many", json=body)
    assert answer.status_code == 200
    outputs = api.wallet.onchain.txs[-1].tx.outputs
    assert [output.value_sat for output in outputs] == [20_000, 5_000]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "send",
            {"destination": ADDRESS, "amount_sat": 10_000},
            "Failed to send onchain payment: error building tx: Insufficient funds: 0 BTC available of "
            "0.00010001 BTC needed",
        ),
        (
            "send",
            {"destination": ADDRESS, "amount_sat": 2**64 - 1},
            "Failed to send onchain payment: error building tx: Insufficient funds: 0 BTC available of "
            "184467440737.09551615 BTC needed",
        ),
        (
            "send",
            {"destination": ADDRESS, "amount_sat": 100},
            "Failed to send onchain payment: error building tx: Output below the dust limit: 0",
        ),
        (
            "send-many",
            {"destinations": []},
            "Failed to send many onchain payments: error building tx: Cannot build tx without recipients",
        ),
        (
            "drain",
            {"destination": ADDRESS},
            "Failed to drain onchain wallet: error building tx: Insufficient funds: 0 BTC available of "
            "0.00000331 BTC needed",
        ),
    ],
)
async def test_onchain_payments_that_fail(
    api: RunningApi, path: str, body: dict[str, object], message: str
) -> None:
    answer = await api.http.post(f"/api/v1/onchain/{path}", json=body)
    assert (answer.status_code, answer.json()) == (500, {"message": message})


async def test_onchain_sync_answers_with_nothing(api: RunningApi) -> None:
    answer = await api.http.post("/api/v1/onchain/sync")
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.wallet.onchain is not None
    assert api.wallet.onchain.syncs == 1


# --- history


async def _metadata(api: RunningApi, patch: str, content_type: str = "application/json") -> object:
    answer = await api.http.post(
        "/api/v1/history/1/metadata", content=patch, headers={"Content-Type": content_type}
    )
    assert (answer.status_code, answer.content) == (200, b"")
    return (await api.http.get("/api/v1/history")).json()[0].get("metadata")


async def test_metadata_is_merged(api: RunningApi) -> None:
    api.wallet.add_movement()
    merge = "application/merge-patch+json"
    assert await _metadata(api, '{"note":"x","n":{"a":1}}', merge) == {"note": "x", "n": {"a": 1}}
    assert await _metadata(api, '{"n":{"b":[1,2]}}') == {"note": "x", "n": {"a": 1, "b": [1, 2]}}
    assert await _metadata(api, '{"note":null}') == {"n": {"a": 1, "b": [1, 2]}}
    assert await _metadata(api, "[1]") is None


async def test_metadata_of_an_unknown_movement_is_a_500(api: RunningApi) -> None:
    answer = await api.http.post("/api/v1/history/999999/metadata", json={"a": 1})
    assert (answer.status_code, answer.json()["message"]) == (
        500,
        "Movement Load Error: Unable to load movement (999999) from persister: Movement 999999 not found",
    )


async def test_history_with_one_payment_method_is_oldest_first(api: RunningApi) -> None:
    address = await api.wallet.new_address()
    other = await api.wallet.new_address()
    for destination in (address, other, address):
        api.wallet.add_movement(sent_to=(_ark_destination(destination),))
    found = await api.http.get("/api/v1/history", params={"type": "ark", "value": address.upper()})
    assert [movement["id"] for movement in found.json()] == [1, 3]


async def test_history_by_an_address_in_capitals(api: RunningApi) -> None:
    from barkd_py.wallet.movements import MovementDestination, PaymentMethod, PaymentMethodKind

    paid = MovementDestination(PaymentMethod(PaymentMethodKind.BITCOIN, ADDRESS), 1)
    api.wallet.add_movement(sent_to=(paid,))
    answer = await api.http.get("/api/v1/history", params={"type": "bitcoin", "value": ADDRESS.upper()})
    assert len(answer.json()) == 1


def _ark_destination(address: str) -> object:
    from barkd_py.wallet.movements import MovementDestination, PaymentMethod, PaymentMethodKind

    return MovementDestination(PaymentMethod(PaymentMethodKind.ARK, address), 1)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bitcoin", ADDRESS),
        ("bitcoin", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("output-script", "0014" + "00" * 20),
        ("lightning-address", "user@example.com"),
        ("custom", "anything"),
    ],
)
async def test_every_kind_of_payment_method_may_be_asked_for(api: RunningApi, kind: str, value: str) -> None:
    answer = await api.http.get("/api/v1/history", params={"type": kind, "value": value})
    assert (answer.status_code, answer.json()) == (200, [])


async def test_a_script_of_half_a_byte_is_refused(api: RunningApi) -> None:
    answer = await api.http.get("/api/v1/history", params={"type": "output-script", "value": "000"})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "bad request: invalid payment method: invalid output script hex: "
        "odd length, failed to create bytes from hex: odd hex string length 3",
    )


# --- message


async def test_a_message_signed_by_an_address_verifies_with_it(api: RunningApi) -> None:
    address = await api.wallet.new_address()
    other = await api.wallet.new_address()
    signed = await api.http.post("/api/v1/message/sign", json={"message": "hello ark", "address": address})
    signature = signed.json()["signature"]

    async def verify(message: str, **who: str) -> object:
        body = {"message": message, "signature": signature, **who}
        return (await api.http.post("/api/v1/message/verify", json=body)).json()

    assert await verify("hello ark", address=address) == {"valid": True}
    assert await verify("hello ark", pubkey=str(api.wallet.keys[0].public_key)) == {"valid": True}
    assert await verify("hello", address=address) == {"valid": False}
    assert await verify("hello ark", address=other) == {"valid": False}


async def test_a_foreign_address_does_not_sign(api: RunningApi) -> None:
    address = await api.wallet.new_address()
    api.wallet.keys.clear()
    answer = await api.http.post("/api/v1/message/sign", json={"message": "m", "address": address})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "bad request: address does not belong to this wallet or its key has not been derived",
    )


async def test_a_bug_is_a_500_without_details(api: RunningApi) -> None:
    api.wallet.tip = object()  # type: ignore[assignment]
    answer = await api.http.get("/api/v1/bitcoin/tip")
    assert (answer.status_code, answer.json()) == (500, {"message": "internal error"})


# --- the protocol


async def test_http_2_is_not_spoken(api: RunningApi) -> None:
    """barkd takes it with prior knowledge; a client that tries it here is told at once."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


# --- numbers and texts at their limits, as a barkd 0.8.0 answered them

U64_MAX = 2**64 - 1


@pytest.mark.parametrize("path", ["lightning/pay?", f"send-onchain?address={ADDRESS}&"])
async def test_estimates_stop_at_the_largest_number(api: RunningApi, path: str) -> None:
    estimate = (await api.http.get(f"/api/v1/fees/{path}amount_sat={U64_MAX}")).json()
    assert estimate["fee_sat"] > 0
    assert (estimate["gross_amount_sat"], estimate["net_amount_sat"]) == (U64_MAX, U64_MAX)


async def test_an_uncompressed_public_key_is_one(api: RunningApi) -> None:
    generator = (
        "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
    )
    body = {"message": "m", "signature": "00" * 64, "pubkey": generator}
    answer = await api.http.post("/api/v1/message/verify", json=body)
    assert (answer.status_code, answer.json()) == (200, {"valid": False})
    body["pubkey"] = generator[:-1] + "9"
    answer = await api.http.post("/api/v1/message/verify", json=body)
    assert answer.json() == {"message": "bad request: invalid pubkey: malformed public key"}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json;", 200),
        ("Application/JSON; charset=utf-8", 200),
        ('application/json;a=b; c="d e" ;', 200),
        ("application/merge-patch+json", 200),
        ("application/json;charset", 415),
        ("application/json ; x=y", 415),
        ('application/json;charset="x', 415),
        ("application/+json", 415),
        ("text/json", 415),
    ],
)
async def test_a_content_type_is_read_to_its_end(api: RunningApi, content_type: str, status: int) -> None:
    answer = await api.http.post(
        "/api/v1/exits/progress", content=b"{}", headers={"Content-Type": content_type}
    )
    assert answer.status_code == status


async def test_an_empty_segment_is_a_parameter_unless_it_is_the_last(api: RunningApi) -> None:
    patch = await api.http.post("/api/v1/history//metadata", json={})
    assert (patch.status_code, patch.text) == (400, "Invalid URL: Cannot parse `` to a `u32`")
    other_method = await api.http.get("/api/v1/history//metadata")
    assert (other_method.status_code, other_method.content) == (405, b"")
    assert (await api.http.get("/api/v1/wallet/vtxos//encoded")).status_code == 400
    assert (await api.http.get("/api/v1/wallet/vtxos/")).status_code == 404


async def test_history_of_what_only_looks_like_an_invoice(api: RunningApi) -> None:
    answer = await api.http.get("/api/v1/history?type=invoice&value=lni1x")
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "bad request: invalid payment method: invalid invoice: cannot parse invoice",
    )


async def test_dust_is_refused_before_the_funds_are_counted(api: RunningApi) -> None:
    for first, message in (
        ("293 sat", "Output below the dust limit: 1"),
        ("294 sat", "Insufficient funds: 0 BTC available of 21000000.00000294 BTC needed"),
    ):
        body = {"destinations": [f"{ADDRESS}:21000000 BTC", f"{ADDRESS}:{first}"]}
        answer = await api.http.post("/api/v1/onchain/send-many", json=body)
        assert (answer.status_code, answer.json()["message"]) == (
            500,
            f"Failed to send many onchain payments: error building tx: {message}",
        )


async def test_a_sign_that_is_no_letter_may_be_in_a_lightning_address(api: RunningApi) -> None:
    answer = await api.http.post("/api/v1/wallet/send", json={"destination": "₿user@example.com"})
    assert answer.json() == {"message": "bad request: amount is required for Lightning addresses"}


async def test_a_method_that_http_does_not_know(api: RunningApi) -> None:
    answer = await raw_http.request(api.port, "FOO", "/api/v1/wallet")
    assert (answer.status, answer.text) == (400, "Invalid HTTP request received.")


# --- offboards


async def test_an_offboard_without_an_address_takes_a_new_one_whatever_comes_of_it(
    api: RunningApi, a_vtxo: WalletVtxo
) -> None:
    async def offboard(path: str, **body: object) -> int:
        return (await api.http.post(f"/api/v1/wallet/offboard/{path}", json=body)).status_code

    assert await offboard("vtxos", vtxos=[]) == 400  # before it comes to addresses
    assert await offboard("all") == 500  # there is nothing
    api.wallet.add_vtxo(a_vtxo)
    assert await offboard("vtxos", vtxos=[str(a_vtxo.id)], address=ADDRESS) == 200
    assert await offboard("vtxos", vtxos=[str(a_vtxo.id)]) == 200
    assert await offboard("all", address=None) == 200
    paid_to = [target.address for target, _ in api.wallet.offboards.sent]
    assert paid_to == [ADDRESS, onchain_address(2), onchain_address(3)]
