"""Creating, opening, importing, and what works without a server."""

from dataclasses import dataclass
from typing import Any

import pytest

from barkd_py.ark import info as ark_info
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.bip32 import generate_mnemonic
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr
from barkd_py.bitcoin.message import message_digest
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource, Mempool, TxStatus
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import (
    BarkdError,
    ChainError,
    ChainUnavailable,
    InvalidInput,
    NotFound,
    ServerUnavailable,
    StoreError,
    chain_text,
)
from barkd_py.server_rpc.api import VtxoSpendState
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.keychain import GapLimitTooHigh, ServerKeyChanged, ServerMailboxKeyChanged
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import Spendable, Spent
from barkd_py.wallet.vtxos.anchors import AnchorSpent, AnchorUnconfirmed
from barkd_py.wallet.vtxos.importing import (
    ImportInFlight,
    ImportInvalid,
    ImportNotOurs,
    NothingToImport,
    VtxoImport,
)
from barkd_py.wallet.vtxos.selection import NotEnoughVtxos
from barkd_py.wallet.wallet import PropertiesMissing, Wallet, WrongMnemonic
from tests.support.proxies import Dropped, NetworkCall, esplora_proxy
from tests.wallet.flows.conftest import ALICE, BOB, Net, Owner
from tests.wallet.samples import user_vtxos

NOWHERE = "http://127.0.0.1:1"
OTHER_KEY = SecretKey(bytes([9] * 32)).public_key


async def create(net: Net, name: str, *, without_server: bool = False, **changes: object) -> str:
    database = await net.database(name)
    await create_wallet(
        database,
        seed=BOB,
        network=Network.REGTEST,
        config=net.config(**changes),
        without_server=without_server,
    )
    return database


# --- creating and opening


async def test_a_new_wallet_is_pinned_to_its_server(net: Net, bob: Owner) -> None:
    info = await bob.wallet.server.info()
    assert await bob.wallet.keychain.pinned_server() == (info.server_pubkey, info.mailbox_pubkey)
    assert bob.wallet.fingerprint == bob.wallet.keys.fingerprint
    assert bob.wallet.network is Network.REGTEST


async def test_no_wallet_is_made_without_its_server(net: Net) -> None:
    with pytest.raises(BarkdError) as failure:
        await create(net, "new", server_address=NOWHERE)
    assert chain_text(failure.value).startswith(
        "error creating wallet: error creating new wallet: Failed to connect to provided server: "
        "Failed to connect to Ark server: handshake request failed"
    )
    with pytest.raises(PropertiesMissing):
        await Wallet.open(await net.database("new"), seed=BOB, load_config=lambda _: net.config())


async def test_a_wallet_made_without_its_server_meets_it_later(net: Net) -> None:
    await create(net, "new", without_server=True, server_address=NOWHERE)
    async with net.owner("new", BOB, server_address=NOWHERE) as owner:
        assert await owner.wallet.keychain.pinned_server() is None
        with pytest.raises(ServerUnavailable):
            await owner.wallet.new_address()
        assert (await owner.wallet.balance()).total_sat == 0
    async with net.owner("new", BOB) as owner:
        address = await owner.wallet.new_address()
        assert await owner.wallet.keychain.pinned_server() is not None
        assert await owner.wallet.address_at(0) == address  # the failure before burnt no key


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"esplora_address": NOWHERE}, "failed to create a chain source client with the config: "),
        (
            {"esplora_address": None},
            "failed to create a chain source client with the config: "
            "Need to either provide esplora or bitcoind info",
        ),
        (
            {"esplora_address": None, "bitcoind_address": NOWHERE},
            "failed to create a chain source client with the config: need bitcoind auth config",
        ),
    ],
)
async def test_no_wallet_is_made_without_a_chain_source(
    net: Net, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(BarkdError) as failure:
        await create(net, "new", **changes)
    assert chain_text(failure.value).startswith(error)


async def test_another_mnemonic_does_not_open_the_wallet(net: Net, bob: Owner) -> None:
    await bob.wallet.close()
    with pytest.raises(WrongMnemonic, match="incorrect mnemonic"):
        await Wallet.open(bob.database, seed=generate_mnemonic(), load_config=lambda _: net.config())


async def test_an_empty_database_holds_no_wallet(net: Net) -> None:
    store = await Store.open(await net.database("empty"))
    await store.close()
    with pytest.raises(StoreError, match="failed to read properties"):
        await Wallet.open(await net.database("empty"), seed=BOB, load_config=lambda _: net.config())


async def test_closing_twice_is_closing_once(bob: Owner) -> None:
    await bob.wallet.close()
    await bob.wallet.close()


# --- without a server


async def test_what_works_without_a_server(net: Net, alice: Owner) -> None:
    await alice.wallet.close()
    async with net.owner("alice", ALICE, server_address=NOWHERE) as offline:
        wallet = offline.wallet
        assert not wallet.is_connected
        assert wallet.ark_info is None
        assert (await wallet.balance()).spendable_sat == 499_400
        assert len(await wallet.list_vtxos(include_all=True)) == 1
        assert len(await wallet.list_movements()) == 1
        assert (await wallet.new_address()).startswith("tark1p")
        await wallet.sync()  # never fails
        with pytest.raises(ServerUnavailable):
            await wallet.sync_mailbox()
        with pytest.raises(ServerUnavailable):
            await wallet.next_round_time()


async def test_what_works_without_a_chain_source(net: Net, alice: Owner) -> None:
    await alice.wallet.close()
    is_down = False

    async def gate(_: NetworkCall) -> None:
        if is_down:
            raise Dropped

    async with (
        esplora_proxy(net.devnet.urls.esplora_url, gate) as url,
        net.owner("alice", ALICE, esplora_address=url) as owner,
    ):
        is_down = True
        wallet = owner.wallet
        assert (await wallet.balance()).spendable_sat == 499_400
        await wallet.sync()  # never fails
        with pytest.raises(ChainError):
            await wallet.board_amount(30_000)


# --- a server with another key


@pytest.mark.parametrize(
    ("server_key", "mailbox_key", "error"),
    [(OTHER_KEY, None, ServerKeyChanged), (None, OTHER_KEY, ServerMailboxKeyChanged)],
)
async def test_a_server_with_another_key_is_not_used(
    net: Net,
    server_key: PublicKey | None,
    mailbox_key: PublicKey | None,
    error: type[BarkdError],
) -> None:
    database = await create(net, "pinned", without_server=True, server_address=NOWHERE)
    store = await Store.open(database)
    async with store.transaction() as tx:
        if server_key is not None:
            await tx.properties.pin_server_pubkey(server_key)
        if mailbox_key is not None:
            await tx.properties.pin_server_mailbox_pubkey(mailbox_key)
    await store.close()
    async with net.owner("pinned", BOB) as owner:
        with pytest.raises(error):
            await owner.wallet.sync_mailbox()
        with pytest.raises(error):
            await owner.wallet.estimate_board_fee(50_000)
        assert not owner.wallet.is_connected
        assert await owner.wallet.list_movements() == ()


# --- messages


async def test_a_message_is_signed_by_an_address_of_ours_only(bob: Owner) -> None:
    await bob.wallet.new_address()
    key = (await bob.wallet.keychain.at(0)).public_key
    signature = await bob.wallet.sign_message("hello ark", key)
    assert signature is not None
    assert verify_schnorr(key.x_only, message_digest("hello ark"), signature)
    assert await bob.wallet.sign_message("hello ark", OTHER_KEY) is None


# --- reading


async def test_unknown_things_are_not_found(alice: Owner) -> None:
    stranger = user_vtxos()[0].id
    with pytest.raises(NotFound):
        await alice.wallet.get_vtxo(stranger)
    with pytest.raises(NotFound):
        await alice.wallet.encoded_vtxo(stranger)
    with pytest.raises(NotFound):
        await alice.wallet.address_at(5_000)
    with pytest.raises(NotFound):
        await alice.wallet.patch_movement_metadata(99, {})


# --- importing


async def _alices_vtxo(alice: Owner, *, below_sat: int = 1_000_000) -> Vtxo:
    vtxos = await alice.wallet.list_vtxos(include_all=False)
    (stored,) = [vtxo for vtxo in vtxos if vtxo.amount_sat < below_sat]
    return Vtxo.decode(await alice.wallet.encoded_vtxo(stored.id))


async def import_into(owner: Owner, *vtxos: Vtxo, **options: object) -> list[tuple[object, object]]:
    values: dict[str, object] = {
        "gap_limit": None,
        "skip_status_check": False,
        "allow_partial": False,
        **options,
    }
    stored = await owner.wallet.import_vtxos(vtxos, **values)  # type: ignore[arg-type]
    return [(vtxo.id, vtxo.state) for vtxo in stored]


async def test_a_backup_is_imported_once(net: Net, alice: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    async with net.wallet("alice-again", ALICE) as again:
        assert await import_into(again, vtxo, vtxo) == [(vtxo.id, Spendable())] * 2  # as often as given
        assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]
        assert await again.spendable_sat() == vtxo.amount_sat
        await again.wallet.send_arkoor(await again.wallet.new_address(), 1_000)
        assert await import_into(again, vtxo) == [(vtxo.id, Spent())]  # known: its state stays


async def test_a_spent_vtxo_is_imported_as_spent(net: Net, alice: Owner, bob: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 1_000)
    async with net.wallet("alice-again", ALICE) as again:
        assert await import_into(again, vtxo) == [(vtxo.id, Spent())]
        assert await again.spendable_sat() == 0


@pytest.mark.parametrize("server_settings", [ServerSettings(vtxo_lifetime=40)])
async def test_a_vtxo_that_has_expired_is_imported(net: Net, alice: Owner) -> None:
    """As by barkd since 0.6: the server may still refresh it."""
    await alice.board(100_000)
    vtxo = await _alices_vtxo(alice, below_sat=200_000)
    await net.mine(41)
    assert net.devnet.node.index.tip_height > vtxo.expiry_height
    async with net.wallet("alice-again", ALICE) as again:
        assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]


async def test_the_status_check_may_be_skipped(net: Net, alice: Owner, bob: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 1_000)
    async with net.wallet("alice-again", ALICE) as again:
        assert await import_into(again, vtxo, skip_status_check=True) == [(vtxo.id, Spendable())]


async def test_what_is_not_ours_is_not_imported(net: Net, alice: Owner, bob: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    with pytest.raises(ImportNotOurs) as failure:
        await import_into(bob, vtxo, gap_limit=7)
    assert (
        str(failure.value) == f"unable to derive the key for vtxo {vtxo.id} from this seed with a 7 gap limit"
    )
    assert await bob.wallet.list_vtxos(include_all=True) == ()


async def test_what_is_not_backed_is_not_imported(net: Net, alice: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    foreign = user_vtxos()[0]
    async with net.wallet("alice-again", ALICE) as again:
        with pytest.raises(ImportInvalid) as failure:
            await import_into(again, vtxo, foreign)
        assert chain_text(failure.value) == (
            f"vtxo {foreign.id} failed to validate: invalid: the VTXO belongs to another Ark server"
        )
        assert await again.wallet.list_vtxos(include_all=True) == ()  # all or nothing
        assert await import_into(again, foreign, vtxo, allow_partial=True) == [(vtxo.id, Spendable())]


async def test_a_vtxo_with_a_wrong_signature_is_not_imported(net: Net, alice: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    (item,) = vtxo.genesis
    assert item.transition.signature is not None
    flipped = item.transition.signature[:-1] + bytes([item.transition.signature[-1] ^ 1])
    async with net.wallet("alice-again", ALICE) as again:
        with pytest.raises(ImportInvalid) as failure:
            await import_into(again, vtxo.with_signatures((flipped,)), skip_status_check=True)
        assert chain_text(failure.value) == (
            f"vtxo {vtxo.id} failed to validate: invalid: error verifying one of the genesis transitions "
            "(idx=0/1 type=cosigned): invalid signature"
        )
        assert await again.wallet.list_vtxos(include_all=True) == ()


@dataclass
class AnchorSource:
    """The real chain source, but what it says of anchors is the test's."""

    real: ChainSource
    anchor: Tx | ChainError | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def get_tx(self, txid: Txid) -> Tx | None:
        if isinstance(self.anchor, ChainError):
            raise self.anchor
        return self.anchor


@pytest.mark.parametrize(
    ("anchor", "reason"),
    [
        (None, "anchor not found"),
        (ChainUnavailable("no answer"), "chain error: no answer"),
        (Tx(2, (), ()), "invalid: the VTXO is invalid: chain anchor vout out of range"),
    ],
)
async def test_what_the_chain_does_not_prove_is_not_imported(
    net: Net, alice: Owner, anchor: Tx | ChainError | None, reason: str
) -> None:
    vtxo = await _alices_vtxo(alice)
    async with net.wallet("alice-again", ALICE) as again:
        real = again.wallet.vtxo_import
        doubtful = VtxoImport(
            again.wallet.store,
            again.wallet.server,
            AnchorSource(again.wallet.chain, anchor),
            again.wallet.keychain,
            again.wallet.registration,
            network=Network.REGTEST,
            default_gap_limit=20,
        )
        again.wallet.vtxo_import = doubtful
        with pytest.raises(ImportInvalid) as failure:
            await import_into(again, vtxo)
        assert chain_text(failure.value) == f"vtxo {vtxo.id} failed to validate: {reason}"
        assert isinstance(failure.value, InvalidInput)
        assert await import_into(again, vtxo, allow_partial=True) == []
        again.wallet.vtxo_import = real
        assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]


@dataclass
class DoubtfulAnchors:
    """The real chain source, but no block has confirmed these, and one has spent those."""

    real: ChainSource
    unconfirmed: frozenset[Txid] = frozenset()
    taken: frozenset[OutPoint] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def tx_status(self, txid: Txid) -> TxStatus:
        return Mempool() if txid in self.unconfirmed else await self.real.tx_status(txid)

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        return outpoint in self.taken or await self.real.is_spent_confirmed(outpoint)


@pytest.mark.parametrize("is_taken", [False, True])
@pytest.mark.parametrize("skip_status_check", [False, True])
async def test_what_hangs_off_nothing_on_the_chain_is_not_imported(
    net: Net, alice: Owner, is_taken: bool, skip_status_check: bool
) -> None:
    vtxo = await _alices_vtxo(alice)
    anchor = vtxo.anchor_point
    async with net.wallet("alice-again", ALICE) as again:
        real = again.wallet.vtxo_import
        again.wallet.vtxo_import = VtxoImport(
            again.wallet.store,
            again.wallet.server,
            DoubtfulAnchors(again.wallet.chain, taken=frozenset({anchor}))
            if is_taken
            else DoubtfulAnchors(again.wallet.chain, unconfirmed=frozenset({anchor.txid})),
            again.wallet.keychain,
            again.wallet.registration,
            network=Network.REGTEST,
            default_gap_limit=20,
        )
        with pytest.raises(ImportInvalid) as failure:
            await import_into(again, vtxo, skip_status_check=skip_status_check)
        assert isinstance(failure.value.__cause__, AnchorSpent if is_taken else AnchorUnconfirmed)
        assert await again.wallet.list_vtxos(include_all=True) == ()
        again.wallet.vtxo_import = real
        assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]


async def test_an_exit_delta_that_no_wallet_agrees_to_is_not_imported(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    vtxo = await _alices_vtxo(alice)
    async with net.wallet("alice-again", ALICE) as again:
        with monkeypatch.context() as stricter:
            stricter.setattr(ark_info, "MAX_EXIT_DELTA", vtxo.exit_delta - 1)
            with pytest.raises(ImportInvalid) as failure:
                await import_into(again, vtxo, skip_status_check=True)
        assert chain_text(failure.value) == (
            f"vtxo {vtxo.id} failed to validate: invalid: its exit delta is {vtxo.exit_delta} blocks"
        )
        assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]


async def test_another_transaction_of_the_same_output_is_no_anchor(net: Net, alice: Owner) -> None:
    """Its exit transactions would spend an output that is nowhere."""
    vtxo = await _alices_vtxo(alice)
    real = await alice.wallet.chain.get_tx(vtxo.anchor_point.txid)
    assert real is not None
    substitute = Tx(real.version, real.inputs, real.outputs, real.locktime + 1)
    async with net.wallet("alice-again", ALICE) as again:
        again.wallet.vtxo_import = VtxoImport(
            again.wallet.store,
            again.wallet.server,
            AnchorSource(again.wallet.chain, substitute),
            again.wallet.keychain,
            again.wallet.registration,
            network=Network.REGTEST,
            default_gap_limit=20,
        )
        with pytest.raises(ImportInvalid):
            await import_into(again, vtxo, skip_status_check=True)
        assert await again.wallet.list_vtxos(include_all=True) == ()


async def test_a_wider_gap_finds_a_later_key(net: Net, alice: Owner) -> None:
    for _ in range(30):
        await alice.wallet.new_address()
    await alice.board(50_000)
    vtxo = await _alices_vtxo(alice, below_sat=50_000)
    async with net.wallet("alice-again", ALICE, vtxo_key_gap_limit=20) as again:
        with pytest.raises(ImportNotOurs, match="with a 20 gap limit"):
            await import_into(again, vtxo)
        assert await import_into(again, vtxo, gap_limit=50) == [(vtxo.id, Spendable())]


class TestShortLife:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(vtxo_lifetime=20)

    async def test_an_expired_vtxo_is_imported_but_not_paid_with(self, net: Net, alice: Owner) -> None:
        """It can still be exited, and perhaps refreshed; nobody else takes it."""
        await alice.board(50_000)
        vtxo = await _alices_vtxo(alice, below_sat=50_000)
        await net.mine(21)
        async with net.wallet("alice-again", ALICE) as again:
            assert await import_into(again, vtxo) == [(vtxo.id, Spendable())]
            balance = await again.wallet.balance()
            assert (balance.spendable_sat, balance.needs_refresh_sat) == (0, vtxo.amount_sat)
            with pytest.raises(NotEnoughVtxos):
                await again.wallet.send_arkoor(await alice.wallet.new_address(), 1_000)


async def test_what_is_in_flight_is_not_imported(net: Net, alice: Owner) -> None:
    vtxo = await _alices_vtxo(alice)
    net.fault("GetVtxoStatus", stage="reply", kind="mutate", path="spend_state", mutation="set", value=3)
    async with net.wallet("alice-again", ALICE) as again:
        with pytest.raises(ImportInFlight, match="neither spendable nor spent") as failure:
            await import_into(again, vtxo)
        assert failure.value.state is VtxoSpendState.UNCLAIMED


async def test_nothing_and_too_wide_a_gap_are_refused(alice: Owner) -> None:
    with pytest.raises(NothingToImport, match="No VTXOs provided"):
        await import_into(alice)
    with pytest.raises(GapLimitTooHigh):
        await import_into(alice, await _alices_vtxo(alice), gap_limit=100_001)
