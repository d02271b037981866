"""What callers get wrong: refused in words, and nothing has changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.address import ArkAddress, MailboxDelivery, UnknownDelivery, ark_id
from barkd_py.ark.policy import ServerHtlcSendPolicy
from barkd_py.bitcoin.keys import SecretKey
from tests.faults.conftest import Owner, Refusal
from tests.support.processes import Daemon, Devnet
from tests.wallet.samples import user_vtxos

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = SecretKey(bytes([9] * 32)).public_key
UNPAYABLE = "bad request: invalid arkoor address: "


# --- payments


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"is_testnet": False}, "Ark address is for different network"),
        ({"ark_id": ark_id(STRANGER)}, "Ark address is for different server"),
        (
            {"policy": ServerHtlcSendPolicy(STRANGER, bytes(32), 1_000)},
            "VTXO policy in address cannot be used for arkoor payment: ",
        ),
        (
            {"deliveries": (UnknownDelivery(0xFF, b"abc"),)},
            "Unknown delivery mechanism: type=0xff, data=616263",
        ),
        (
            {"deliveries": (MailboxDelivery(b"\x02" + b"\xff" * 32),)},
            "Ark address has an invalid mailbox id",
        ),
    ],
)
async def test_an_address_that_cannot_be_paid(
    alice: Owner, bob: Owner, change: dict[str, Any], problem: str
) -> None:
    address = replace(ArkAddress.parse(await bob.address()), **change).encode()
    before = await _state(alice)
    body = {"destination": address, "amount_sat": 1_000}
    answer = await alice.refused("POST", "/wallet/send", body)
    assert answer.status == 400
    assert answer.message.startswith(UNPAYABLE + problem)
    assert await _state(alice) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20].upper() + text[20:],
        lambda text: text[:-1],
        lambda text: text + "q",
        lambda text: text[:-1] + ("q" if text[-1] != "q" else "p"),
    ],
    ids=["mixed case", "shorter", "longer", "typo"],
)
async def test_a_damaged_address(alice: Owner, bob: Owner, damage: Callable[[str], str]) -> None:
    damaged = damage(await bob.address())
    answer = await alice.refused("POST", "/wallet/send", {"destination": damaged, "amount_sat": 1_000})
    assert answer.status == 400
    assert answer.message.startswith("Argument is not a valid destination. Supported are: Ark addresses")


@pytest.mark.parametrize(
    ("amount_sat", "message"),
    [
        (0, "Cannot send 0 sats"),
        (100_000_000, "Insufficient money available. Needed 1 BTC but 0.00499400 BTC is available"),
        (2**64 - 1, "Insufficient money available. Needed 184467440737.09551615 BTC but 0.00499400 BTC is"),
    ],
)
async def test_an_amount_that_cannot_be_paid(alice: Owner, bob: Owner, amount_sat: int, message: str) -> None:
    address = await bob.address()
    before = await _state(alice)
    answer = await alice.refused("POST", "/wallet/send", {"destination": address, "amount_sat": amount_sat})
    assert answer.status == 500
    assert answer.message.startswith(message)
    assert await _state(alice) == before


async def _state(owner: Owner) -> Any:
    """Everything that money is about. The daemon would notice the blocks of before by itself, but when?"""
    await owner.daemon.post("/onchain/sync")
    return [
        await owner.daemon.get(path)
        for path in ("/wallet/balance", "/wallet/vtxos?all=true", "/history", "/boards/pending")
    ] + [await owner.daemon.get(path) for path in ("/onchain/utxos", "/onchain/transactions")]


# --- boards and on-chain payments


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/boards/board-amount", {"amount_sat": 0}, "error building tx: Output below the dust limit: 0"),
        ("/boards/board-amount", {"amount_sat": 329}, "error building tx: Output below the dust limit: 0"),
        (
            "/boards/board-amount",
            {"amount_sat": 5_000},
            "board amount of 0.00005000 BTC is less than minimum board amount required by server "
            "(0.00020000 BTC)",
        ),
        ("/boards/board-amount", {"amount_sat": 10**10}, "error building tx: Insufficient funds: "),
        (
            "/onchain/send",
            {"amount_sat": 100},
            "Failed to send onchain payment: error building tx: Output below the dust limit: 0",
        ),
        (
            "/onchain/send",
            {"amount_sat": 10**10},
            "Failed to send onchain payment: error building tx: Insufficient funds: ",
        ),
    ],
)
async def test_an_onchain_amount_that_cannot_be(
    alice: Owner, path: str, body: dict[str, Any], message: str
) -> None:
    if path == "/onchain/send":
        body = {"destination": (await alice.daemon.post("/onchain/addresses/next"))["address"], **body}
    before = await _state(alice)
    answer = await alice.refused("POST", path, body)
    assert answer.status == 500
    assert answer.message.startswith(message)
    assert await _state(alice) == before


# --- imports


async def test_somebody_elses_vtxo(alice: Owner, bob: Owner) -> None:
    (vtxo, *_) = await alice.daemon.get("/wallet/vtxos")
    encoded = (await alice.daemon.get(f"/wallet/vtxos/{vtxo['id']}/encoded"))["encoded"]
    before = await _state(bob)
    assert await bob.refused("POST", "/wallet/import-vtxo", {"vtxos": [encoded]}) == Refusal(
        400, f"unable to derive the key for vtxo {vtxo['id']} from this seed with a 250 gap limit"
    )
    assert await bob.daemon.post("/wallet/import-vtxo", {"vtxos": [encoded], "allow_partial": True}) == []
    assert await _state(bob) == before


async def test_a_vtxo_of_another_server(bob: Owner) -> None:
    foreign = user_vtxos()[0]
    body = {"vtxos": [foreign.encode().hex()], "skip_status_check": True}
    assert await bob.refused("POST", "/wallet/import-vtxo", body) == Refusal(
        400, f"vtxo {foreign.id} failed to validate: invalid: the VTXO belongs to another Ark server"
    )


async def test_a_forged_amount(alice: Owner) -> None:
    """The first field of the encoding; everything that is signed depends on it."""
    (vtxo, *_) = await alice.daemon.get("/wallet/vtxos")
    encoded = (await alice.daemon.get(f"/wallet/vtxos/{vtxo['id']}/encoded"))["encoded"]
    forged = encoded[:4] + (vtxo["amount_sat"] + 1).to_bytes(8, "little").hex() + encoded[20:]
    before = await _state(alice)
    # It has the id of the one that is held, so that one is what comes back.
    (held,) = await alice.daemon.post("/wallet/import-vtxo", {"vtxos": [forged]})
    assert held["amount_sat"] == vtxo["amount_sat"]
    assert await _state(alice) == before


# --- creation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ark_server": "http://127.0.0.1:1"},
            "Error while creating wallet: error creating wallet: error creating new wallet: "
            "Failed to connect to provided server: Failed to connect to Ark server: ",
        ),
        (
            {"chain_source": {"esplora": {"url": "http://127.0.0.1:1"}}},
            "Error while creating wallet: failed to create a chain source client with the config: ",
        ),
        (
            {"network": "signet"},
            "Error while creating wallet: failed to create a chain source client with the config: "
            "Network mismatch: expected Signet, got Regtest",
        ),
    ],
)
async def test_a_wallet_that_cannot_be_made(
    devnet: Devnet, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], message: str
) -> None:
    owner = await _without_wallet(tmp_path_factory, devnet)
    try:
        body = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": {"esplora": {"url": devnet.esplora_url}},
        }
        answer = await owner.refused("POST", "/wallet/create", {**body, **changes})
        assert answer.status == 500
        assert answer.message.startswith(message)
        # Nothing is left of it but what the log says, and the next attempt succeeds.
        left = {path.name for path in owner.daemon.datadir.iterdir()}
        assert left <= {"barkd.lock", "LOCK", "auth_token", "debug.log"}, left
        assert await owner.daemon.get("/wallet") == {"fingerprint": None}
        await owner.daemon.post("/wallet/create", body)
    finally:
        await owner.daemon.close()


async def _without_wallet(tmp_path_factory: pytest.TempPathFactory, devnet: Devnet) -> Owner:
    daemon = Daemon(tmp_path_factory.mktemp("new") / "datadir")
    await daemon.start()
    return Owner(daemon, devnet)
