"""An Ark server that lies: it is found out before money moves, and nothing has changed.

The lies are told by devnet's server to daemons that run as they do in the field.
"""

from typing import Any

import httpx
import pytest

from barkd_py.ark.vtxo import Vtxo
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.keys import SecretKey
from tests.faults.conftest import Owner
from tests.support.processes import Daemon, Devnet, eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_KEY = SecretKey(bytes([9] * 32)).public_key.data.hex()


async def lie(devnet: Devnet, rpc: str, path: str, mutation: str = "flip", **more: Any) -> int:
    """Have the server change its answers to a call; the fault's number."""
    described = {"stage": "reply", "kind": "mutate", "path": path, "mutation": mutation, "count": None}
    fault = await devnet.pull("/faults", target="ark-server", rpc=rpc, **{**described, **more})
    return int(fault["id"])


async def hits(devnet: Devnet, number: int) -> int:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=60.0) as http:
        listed = (await http.get("/faults")).json()["ark-server"]
    return int(next(fault["hits"] for fault in listed if fault["id"] == number))


async def books(owner: Owner) -> Any:
    return [
        await owner.daemon.get(path)
        for path in ("/wallet/balance", "/wallet/vtxos?all=true", "/history", "/boards/pending")
    ]


# --- boards


@pytest.mark.parametrize(
    ("path", "mutation", "problem"),
    [
        ("partial_sig", "flip", "invalid board cosignature received from server"),
        ("pub_nonce", "flip", ""),  # perhaps no point at all, perhaps another one
        ("pub_nonce", "clear", "rpc conversion error: invalid public musig nonce"),
        ("partial_sig", "clear", "rpc conversion error: invalid partial musig signature"),
    ],
)
async def test_a_board_that_is_not_cosigned(
    devnet: Devnet, alice: Owner, path: str, mutation: str, problem: str
) -> None:
    """Without the server's part the money would lie in an output that nobody can spend alone."""
    await alice.fund_onchain(60_000)
    before, coins = await books(alice), await alice.daemon.get("/onchain/utxos")
    number = await lie(devnet, "RequestBoardCosign", path, mutation)
    answer = await alice.refused("POST", "/boards/board-amount", {"amount_sat": 50_000})
    assert answer.status == 500
    assert answer.message.startswith(problem)
    assert await hits(devnet, number) == 1
    assert await books(alice) == before
    await alice.daemon.post("/onchain/sync")
    assert await alice.daemon.get("/onchain/utxos") == coins  # nothing was broadcast, nothing is taken


async def test_a_server_that_signs_for_another_fee(devnet: Devnet, alice: Owner) -> None:
    """It announced another schedule than the one it computes with: its signature is for another VTXO."""
    await lie(devnet, "GetArkInfo", "fees.board.base_fee_sat", "add", value=-100)
    await lie(devnet, "GetArkInfo", "fees.board.min_fee_sat", "set", value=0)
    await restart(alice)
    await alice.fund_onchain(60_000)
    before = await books(alice)
    answer = await alice.refused("POST", "/boards/board-amount", {"amount_sat": 50_000})
    assert answer.message == (
        "invalid board cosignature received from server: the other signer's partial signature is invalid"
    )
    assert await books(alice) == before
    await devnet.clear_faults()
    await restart(alice)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INVALID_ARGUMENT", "no"),
        ("INTERNAL", "out of order"),
        ("INVALID_ARGUMENT", "bad user input: board funding output already spent"),
    ],
)
async def test_a_board_that_the_server_will_not_register(
    devnet: Devnet, alice: Owner, code: str, text: str
) -> None:
    """The money is in the funding output, so it is asked again and again; meanwhile it is no balance."""
    await alice.fund_onchain(60_000)
    before_sat = await alice.spendable_sat()
    await devnet.pull(
        "/faults",
        target="ark-server",
        rpc="RegisterBoardVtxo",
        kind="error",
        code=code,
        text=text,
        count=None,
    )
    board = await alice.daemon.post("/boards/board-amount", {"amount_sat": 50_000})
    await devnet.mine()
    for _ in range(3):
        await alice.daemon.post("/wallet/sync")
    assert await alice.spendable_sat() == before_sat
    assert (await alice.daemon.get("/wallet/balance"))["pending_board_sat"] == board["amount_sat"]
    (pending,) = await alice.daemon.get("/boards/pending")
    assert pending == board

    await devnet.clear_faults()
    await eventually(lambda: _synced_sat(alice), lambda now: now == before_sat + board["amount_sat"])
    assert await alice.daemon.get("/boards/pending") == []


# --- payments


@pytest.mark.parametrize(
    ("path", "mutation", "problem"),
    [
        ("parts.0.server_partial_sigs.1", "flip", "Invalid partial signature at index 1"),
        ("parts.0.server_pub_nonces.2", "drop", "rpc conversion error: Wrong number of server nonces"),
    ],
)
async def test_a_payment_that_is_not_cosigned(
    devnet: Devnet, alice: Owner, bob: Owner, path: str, mutation: str, problem: str
) -> None:
    """The server spent the input in its books but signed wrongly: nothing is delivered, and nothing lost."""
    number = await lie(devnet, "RequestArkoorCosign", path, mutation)
    before_sat, had_sat = await alice.total_sat(), await _received_sat(bob)
    body = {"destination": await bob.address(), "amount_sat": 3_000}
    answer = await alice.refused("POST", "/wallet/send", body)
    assert answer.status == 500
    assert answer.message.startswith(
        f"arkoor send is not finished yet and continues in the background: {problem}"
    )
    assert await hits(devnet, number) > 1  # it was given more than one chance
    assert await _received_sat(bob) == had_sat
    assert await alice.total_sat() == before_sat

    await devnet.clear_faults()

    async def is_sent() -> bool:
        await alice.daemon.post("/wallet/sync")
        return bool((await alice.daemon.get("/wallet/balance"))["pending_arkoor_send_sat"] == 0)

    await until(is_sent)
    assert await alice.total_sat() == before_sat - 3_000
    await eventually(lambda: _received_sat(bob), lambda now: now == had_sat + 3_000)


async def _synced_sat(owner: Owner) -> int:
    """A synchronisation leaves out what the daemon is at just then: ask again."""
    await owner.daemon.post("/wallet/sync")
    return await owner.spendable_sat()


async def _received_sat(bob: Owner) -> int:
    await bob.daemon.post("/wallet/sync/mailbox")
    return await bob.spendable_sat()


# --- the mailbox


async def test_a_vtxo_for_another_key(devnet: Devnet, alice: Owner, bob: Owner) -> None:
    """The server delivers a VTXO that is perfect but somebody else's."""
    (foreign, *_) = await alice.daemon.get("/wallet/vtxos")
    encoded = (await alice.daemon.get(f"/wallet/vtxos/{foreign['id']}/encoded"))["encoded"]
    before = await books(bob)
    await _deliver(devnet, alice, bob, encoded)
    assert await books(bob) == before


async def test_bytes_that_are_no_vtxo(devnet: Devnet, alice: Owner, bob: Owner) -> None:
    before = await books(bob)
    await _deliver(devnet, alice, bob, "c0ffee")
    assert await books(bob) == before


@pytest.mark.parametrize(("what", "amount_sat"), [("signature", 2_001), ("amount", 2_002)])
async def test_a_vtxo_that_is_not_backed(
    devnet: Devnet, alice: Owner, bob: Owner, what: str, amount_sat: int
) -> None:
    """Ours by its key, but not what was signed."""
    await alice.send(await bob.address(), amount_sat)

    async def arrived() -> list[str]:
        vtxos = await bob.daemon.get("/wallet/vtxos")
        return [entry["id"] for entry in vtxos if entry["amount_sat"] == amount_sat]

    vtxo_id = (await eventually(arrived, bool))[0]
    real = Vtxo.decode_hex((await bob.daemon.get(f"/wallet/vtxos/{vtxo_id}/encoded"))["encoded"])
    before = await books(bob)
    await _deliver(devnet, alice, bob, _forged(real, what))
    assert await books(bob) == before


def _forged(vtxo: Vtxo, what: str) -> str:
    match what:
        case "signature":
            signatures = [item.transition.signature or bytes(64) for item in vtxo.genesis]
            signatures[-1] = signatures[-1][:-1] + bytes([signatures[-1][-1] ^ 1])
            return _elsewhere(vtxo.with_signatures(signatures))
        case "amount":
            data = bytearray(vtxo.encode())
            data[2:10] = (vtxo.amount_sat * 100).to_bytes(8, "little")
            return _elsewhere_bytes(bytes(data))
        case _:
            raise AssertionError(what)


def _elsewhere(vtxo: Vtxo) -> str:
    return _elsewhere_bytes(vtxo.encode())


def _elsewhere_bytes(data: bytes) -> str:
    """With another id, so that it is not taken for the one that is held."""
    return (data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]).hex()


async def _deliver(devnet: Devnet, alice: Owner, bob: Owner, encoded: str) -> None:
    """Have the next payment to bob replaced on its way by something else; it is dropped, and acknowledged."""
    checkpoint = (await bob.daemon.post("/wallet/sync/mailbox"))["checkpoint"]
    address = await bob.address()
    dropped_before = _dropped(bob)
    # Every page of his, as long as it lasts: one without messages cannot be changed, and fails instead.
    await lie(
        devnet,
        "ReadMailbox",
        "messages.0.arkoor.vtxos.0",
        "set",
        value=encoded,
        contains=_mailbox_of(bob).hex(),
    )
    await alice.send(address, 1_500)

    async def dropped() -> int:
        return _dropped(bob)

    await eventually(dropped, lambda now: now > dropped_before)
    await devnet.clear_faults()
    after = (await bob.daemon.post("/wallet/sync/mailbox"))["checkpoint"]
    assert after > checkpoint  # it does not block what follows


def _dropped(owner: Owner) -> int:
    """How often a daemon has told its log that it threw something away."""
    return owner.daemon.process.log.read_text().count("] dropping ")


def _mailbox_of(owner: Owner) -> bytes:
    """The key of a daemon's mailbox, from its words."""
    words = (owner.daemon.datadir / "mnemonic").read_text()
    return WalletKeys(parse_mnemonic(words)).mailbox_key.public_key.data


# --- the server itself


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("server_pubkey", OTHER_KEY, "Server public key has changed. You should exit all your VTXOs!"),
        ("mailbox_pubkey", OTHER_KEY, "Server mailbox public key has changed."),
        ("vtxo_exit_delta", 0, "server-advertised vtxo_exit_delta is 0; refusing to connect"),
    ],
)
async def test_a_server_that_is_no_longer_itself(
    devnet: Devnet, alice: Owner, bob: Owner, field: str, value: Any, problem: str
) -> None:
    address = await bob.address()
    await lie(devnet, "GetArkInfo", field, "set", value=value)
    await restart(alice)
    before = await books(alice)
    assert await alice.daemon.get("/wallet/connected") == {"connected": False}
    for path, body, status in (
        # Another server's address cannot be checked; bad terms come before that.
        ("/wallet/send", {"destination": address, "amount_sat": 1_000}, 400 if "changed" in problem else 500),
        ("/boards/board-amount", {"amount_sat": 20_000}, 500),
        ("/wallet/sync/mailbox", None, 500),
    ):
        answer = await alice.refused("POST", path, body)
        assert answer.status == status
        assert problem in answer.message
    # What needs no server goes on: looking, receiving on the pinned keys, and all that is on chain.
    for path in ("/wallet/balance", "/history", "/onchain/balance", "/exits/status/all"):
        assert (await alice.daemon.http.get(path)).status_code == 200
    assert (await alice.address()).startswith("tark1p")
    assert await books(alice) == before
    await devnet.clear_faults()
    await restart(alice)
    await alice.send(address, 1_000)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("network", "signet", "network mismatch. Expected: regtest, Got: signet"),
        ("vtxo_exit_delta", 0, "server-advertised vtxo_exit_delta is 0; refusing to connect"),
    ],
)
async def test_no_wallet_with_such_a_server(
    devnet: Devnet, tmp_path_factory: pytest.TempPathFactory, field: str, value: Any, problem: str
) -> None:
    await lie(devnet, "GetArkInfo", field, "set", value=value)
    daemon = Daemon(tmp_path_factory.mktemp("new") / "datadir")
    await daemon.start()
    try:
        body = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": {"esplora": {"url": devnet.esplora_url}},
        }
        answer = await Owner(daemon, devnet).refused("POST", "/wallet/create", body)
        assert answer.status == 500
        assert answer.message.endswith(problem)
        assert not (daemon.datadir / "mnemonic").exists()
    finally:
        await daemon.close()


async def restart(owner: Owner) -> None:
    """What the server said before is kept for ten minutes, unless the daemon starts anew."""
    assert owner.daemon.process.terminate() == 0
    await owner.daemon.start()


@pytest.mark.parametrize(("state", "name"), [(3, "Unclaimed"), (4, "Unregistered"), (0, "Unspecified")])
async def test_an_import_that_the_server_calls_unusable(
    devnet: Devnet, alice: Owner, tmp_path_factory: pytest.TempPathFactory, state: int, name: str
) -> None:
    (vtxo, *_) = await alice.daemon.get("/wallet/vtxos")
    encoded = (await alice.daemon.get(f"/wallet/vtxos/{vtxo['id']}/encoded"))["encoded"]
    twin = Daemon(tmp_path_factory.mktemp("twin") / "datadir")
    await twin.start()
    try:
        words = (alice.daemon.datadir / "mnemonic").read_text()
        body = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": {"esplora": {"url": devnet.esplora_url}},
            "mnemonic": words,
        }
        for rpc in ("ReadMailbox", "RecoverVtxosByXpub"):  # or recovery finds it before it is imported
            await devnet.pull("/faults", target="ark-server", rpc=rpc, kind="error", count=None)
        await twin.post("/wallet/create", body)
        owner = Owner(twin, devnet)
        await lie(devnet, "GetVtxoStatus", "spend_state", "set", value=state)
        answer = await owner.refused("POST", "/wallet/import-vtxo", {"vtxos": [encoded]})
        assert answer.status == 422
        assert answer.message == (
            f"vtxo {vtxo['id']} is neither spendable nor spent, so it cannot be imported: "
            f"the server reports it as {name}"
        )
        assert await twin.get("/wallet/vtxos?all=true") == []
    finally:
        await twin.close()
