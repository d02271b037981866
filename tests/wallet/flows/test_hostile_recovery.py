"""Servers that lie about what there is to recover, or do not say, and processes that die on the way.

Source: sheet 02 "Client must verify" 4-7, 11; traps 6, 7, 9, 10, 12; sheet 08 §3.4, §9; sheet 10 §14.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark import info as ark_info
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import ChainSource, Confirmed, Mempool, TxStatus
from barkd_py.devnet.ark_server.settings import Emulation, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.errors import ChainUnavailable, ServerUnavailable
from barkd_py.server_rpc.api import (
    ArkoorDelivery,
    MailboxContent,
    MailboxMessage,
    MailboxPage,
    RecoveredVtxo,
    RecoveryVtxoIds,
    UnknownMessage,
    VtxoSpendState,
    XpubRecoveryPage,
)
from barkd_py.wallet.keychain import MAX_GAP_LIMIT
from barkd_py.wallet.mailbox.pages import CheckpointsOutOfOrder, MailboxReader, checkpoint_at
from barkd_py.wallet.recovery.report import RecoveryOutcome, RecoveryReport
from barkd_py.wallet.recovery.service import Recovery, RecoveryInterrupted
from barkd_py.wallet.vtxo_states import Locked, Spendable, Spent
from barkd_py.wallet.wallet import Wallet
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, When, opener
from tests.wallet.flows.liar import Liar
from tests.wallet.flows.recoveries import recovery_with
from tests.wallet.flows.rounds import hold_round
from tests.wallet.flows.test_recovery import BOTH, found, pay, reborn, recover, spendable

OLDER = pytest.mark.parametrize("server_settings", [ServerSettings(emulate=Emulation.V0_6)], ids=["0.6"])


class Server:
    """The real server, with answers that a test wrote. recovery, regular: messages of the mailboxes."""

    def __init__(self, wallet: Wallet) -> None:
        self._real = wallet.server
        self._keychain = wallet.keychain
        self.recovery: list[MailboxContent] | None = None
        self.regular: list[MailboxContent] | None = None
        self.xpub: Callable[..., Awaitable[XpubRecoveryPage | None]] | None = None
        self.calls = 0
        self.first_checkpoint = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def read_mailbox(self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int) -> MailboxPage:
        is_recovery = mailbox_id == self._keychain.recovery_mailbox_key.public_key
        contents = self.recovery if is_recovery else self.regular
        if contents is None:
            return await self._real.read_mailbox(mailbox_id, authorization, checkpoint)
        messages = [
            MailboxMessage(number, each) for number, each in enumerate(contents, self.first_checkpoint)
        ]
        return MailboxPage(tuple(each for each in messages if each.checkpoint > checkpoint), False)

    async def recover_vtxos_by_xpub(self, xpub: bytes, **asked: Any) -> XpubRecoveryPage | None:
        self.calls += 1
        if self.xpub is None:
            return await self._real.recover_vtxos_by_xpub(xpub, **asked)
        return await self.xpub(**asked)


async def no_xpub(**_: object) -> None:
    return None


async def run(recovery: Recovery) -> RecoveryReport:
    await recovery.resume()
    return await recovery.report()


async def bodies(owner: Owner) -> Sequence[Vtxo]:
    async with owner.wallet.store.read() as tx:
        return await tx.vtxos.bodies(sorted(await spendable(owner)))


# --- ids and bodies


async def test_foreign_garbage_truncated_and_unknown_ids_hide_nothing(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 10_000)
    mine, theirs = await bodies(alice), await bodies(bob)
    nowhere = VtxoId.of(OutPoint(Txid(bytes(31) + b"\x07"), 3))
    forged = replace(mine[0], amount_sat=mine[0].amount_sat + 1)
    async with reborn(net, alice) as again:
        server = Server(again.wallet)
        server.xpub = no_xpub
        server.regular = [
            ArkoorDelivery((b"", b"garbage", mine[0].encode()[:-1], theirs[0].encode(), forged.encode())),
            UnknownMessage(),
            RecoveryVtxoIds((bytes(mine[0].id),)),
        ]
        server.recovery = [
            RecoveryVtxoIds((b"four", bytes(nowhere), *(bytes(each.id) for each in theirs))),
            ArkoorDelivery((mine[-1].encode(), mine[-1].encode())),
            *(RecoveryVtxoIds((bytes(each.id), bytes(each.id))) for each in mine),
        ]
        report = await run(recovery_with(again.wallet, server))

        assert await spendable(again) == await spendable(alice)
        assert found(report, RecoveryOutcome.FOREIGN) == {each.id for each in theirs}
        assert found(report, RecoveryOutcome.NOT_FOUND) == {nowhere}
        assert report.finished_at is not None
        assert not report.is_complete  # somebody else's VTXOs are in our mailbox
        # And again: nothing changes, nothing is found twice.
        await again.wallet.recovery.start()
        assert await spendable(again) == await spendable(alice)


@OLDER
async def test_answers_for_another_vtxo_or_none_are_asked_again(net: Net, alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 10_000)
    before = await spendable(alice)
    async with reborn(net, alice) as again:
        net.fault("GetVtxo", stage="reply", kind="mutate", path="vtxo", mutation="flip", count=1)
        net.fault("GetVtxoStatus", kind="error", code="INTERNAL", count=1)
        report = await recover(again)
        assert report.error is None
        assert await spendable(again) == before  # the retries had better answers


@BOTH
async def test_one_poisoned_id_does_not_hide_the_others(net: Net, alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 10_000)
    await pay(bob, alice, 3_000)
    before = await spendable(alice)
    poisoned = min(before)
    async with reborn(net, alice) as again:
        for rpc in ("GetVtxo", "GetVtxosByIds", "GetVtxoStatus", "GetVtxosStatusByIds"):
            net.fault(rpc, kind="error", code="INTERNAL", count=None, contains=bytes(poisoned).hex())
        net.fault("RecoverVtxosByXpub", kind="error", code="INTERNAL", count=1)
        server = Server(again.wallet)
        server.xpub, server.regular = no_xpub, []
        report = await run(recovery_with(again.wallet, server))
        assert await spendable(again) == before - {poisoned}
        assert found(report, RecoveryOutcome.FAILED) == {poisoned}
        assert not report.is_complete
        assert report.pending == 1
        net.honest()
        await again.wallet.recovery.retry()
        assert await spendable(again) == before
        report = await again.wallet.recovery.report()
        assert report.is_complete


# --- states


@BOTH
async def test_without_a_usable_state_the_chain_is_kept_and_nothing_is_spendable(
    net: Net, alice: Owner
) -> None:
    (mine,) = await spendable(alice)
    async with reborn(net, alice) as again:
        for value, rpc, path, count in (
            (0, "GetVtxosStatusByIds", "vtxos.0.spend_state", None),
            (9, "GetVtxoStatus", "spend_state", None),
            (0, "RecoverVtxosByXpub", "vtxos.0.spend_state", 1),  # the next page is empty
        ):
            net.fault(rpc, stage="reply", kind="mutate", path=path, mutation="set", value=value, count=count)
        report = await recover(again)
        assert found(report, RecoveryOutcome.FAILED) | found(report, RecoveryOutcome.LOCKED) == {mine}
        assert (await again.wallet.get_vtxo(mine)).state == Locked(None)
        assert (await again.wallet.balance()).total_sat == 0
        net.honest()
        await again.wallet.recovery.retry()
        assert (await again.wallet.get_vtxo(mine)).state == Spendable()
        assert (await again.wallet.recovery.report()).is_complete


async def test_a_server_that_calls_everything_spent_is_not_believed_for_ever(net: Net, alice: Owner) -> None:
    (mine,) = await spendable(alice)
    await net.devnet.ark_server.set_vtxo_state(mine, SpendState.SPENT)
    async with reborn(net, alice) as again:
        await recover(again)
        assert (await again.wallet.get_vtxo(mine)).state == Spent()
        assert await again.wallet.encoded_vtxo(mine) == await alice.wallet.encoded_vtxo(mine)
        # The first wallet has seen it spendable, and keeps it, out of the way of payments.
        await alice.wallet.recovery.start()
        assert (await alice.wallet.get_vtxo(mine)).state == Locked(None)
        await net.devnet.ark_server.set_vtxo_state(mine, SpendState.SPENDABLE)
        for owner in (again, alice):
            await owner.wallet.recovery.start()
            assert (await owner.wallet.get_vtxo(mine)).state == Spendable()


async def test_a_parent_that_the_server_calls_spendable_is_no_money(
    net: Net, alice: Owner, bob: Owner
) -> None:
    (parent,) = await spendable(alice)
    await pay(alice, bob, 10_000)
    before = await spendable(alice)
    await net.devnet.ark_server.set_vtxo_state(parent, SpendState.SPENDABLE)
    async with reborn(net, alice) as again:
        report = await recover(again)
        assert await spendable(again) == before
        assert (await again.wallet.get_vtxo(parent)).state == Spent()
        assert parent in found(report, RecoveryOutcome.SKIPPED)


async def test_a_chain_source_that_is_away_leaves_it_for_later(net: Net, alice: Owner) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(alice.wallet.chain, name)

        async def get_tx(self, txid: Txid) -> None:
            raise ChainUnavailable("gone")

    (mine,) = await spendable(alice)
    async with reborn(net, alice) as again:
        report = await run(recovery_with(again.wallet, again.wallet.server, Away()))
        assert found(report, RecoveryOutcome.FAILED) == {mine}
        assert await spendable(again) == set()
        # What waits in the mailbox is not taken for new while that lasts.
        await again.wallet.mailbox.sync()
        assert await spendable(again) == set()
        await again.wallet.recovery.tick()
        assert await spendable(again) == {mine}


@pytest.mark.parametrize("is_taken", [False, True])
async def test_what_hangs_off_nothing_on_the_chain_is_asked_for_again(
    net: Net, alice: Owner, is_taken: bool
) -> None:
    (body,) = await bodies(alice)

    class Doubtful:
        def __getattr__(self, name: str) -> Any:
            return getattr(alice.wallet.chain, name)

        async def tx_status(self, txid: Txid) -> TxStatus:
            is_doubtful = not is_taken and txid == body.anchor_point.txid
            return Mempool() if is_doubtful else await alice.wallet.chain.tx_status(txid)

        async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
            is_doubtful = is_taken and outpoint == body.anchor_point
            return is_doubtful or await alice.wallet.chain.is_spent_confirmed(outpoint)

    async with reborn(net, alice) as again:
        report = await run(recovery_with(again.wallet, again.wallet.server, Doubtful()))
        assert found(report, RecoveryOutcome.FAILED) == {body.id}
        assert await spendable(again) == set()
        await again.wallet.recovery.tick()
        assert await spendable(again) == {body.id}


async def test_what_was_not_confirmed_is_asked_for_again_after_a_block(net: Net, alice: Owner) -> None:
    """Without waiting for the next time, which comes later and later."""
    (body,) = await bodies(alice)
    is_confirmed = False

    class Waiting:
        def __getattr__(self, name: str) -> Any:
            return getattr(alice.wallet.chain, name)

        async def tx_status(self, txid: Txid) -> TxStatus:
            is_waiting = txid == body.anchor_point.txid and not is_confirmed
            return Mempool() if is_waiting else await alice.wallet.chain.tx_status(txid)

    async with reborn(net, alice) as again:
        recovery = recovery_with(again.wallet, again.wallet.server, Waiting())
        await run(recovery)
        await recovery.tick()
        is_confirmed = True
        await recovery.tick()
        assert await spendable(again) == set()
        recovery.note_block()
        await recovery.tick()
        assert await spendable(again) == {body.id}


async def test_a_block_that_comes_while_it_asks_makes_it_ask_once_more(net: Net, alice: Owner) -> None:
    (body,) = await bodies(alice)
    blocks = 0

    class Growing:
        """A block comes, and confirms the anchor, just after somebody has asked for it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(alice.wallet.chain, name)

        async def tx_status(self, txid: Txid) -> TxStatus:
            nonlocal blocks
            if txid != body.anchor_point.txid or blocks > 1:
                return await alice.wallet.chain.tx_status(txid)
            blocks += is_asked
            if is_asked:
                recovery.note_block()
            return Mempool()

    async with reborn(net, alice) as again:
        is_asked = False
        recovery = recovery_with(again.wallet, again.wallet.server, Growing())
        await run(recovery)
        await recovery.tick()
        is_asked = True
        recovery.note_block()
        for _ in range(2):
            await recovery.tick()
            assert await spendable(again) == set()
        await recovery.tick()
        assert await spendable(again) == {body.id}


async def test_a_late_payment_does_not_wait_for_a_recovery_that_comes_to_no_end(
    net: Net, alice: Owner
) -> None:
    (body,) = await bodies(alice)

    async def fail(**_asked: object) -> XpubRecoveryPage | None:
        raise ServerUnavailable("too much to look through")

    async with reborn(net, alice) as again:
        server = Server(again.wallet)
        server.xpub, server.regular, server.recovery = fail, [], []
        recovery = recovery_with(again.wallet, server)
        with pytest.raises(RecoveryInterrupted):
            await recovery.resume()
        async with again.wallet.store.transaction() as tx:
            await tx.recovery.add_pending([body.id])  # as the mailbox does
        with pytest.raises(RecoveryInterrupted):
            await recovery.tick()
        assert await spendable(again) == {body.id}


async def test_an_exit_delta_that_no_wallet_agrees_to_is_no_money(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (body,) = await bodies(alice)
    async with reborn(net, alice) as again:
        await again.wallet.server.info()  # the server itself is still agreed to
        monkeypatch.setattr(ark_info, "MAX_EXIT_DELTA", body.exit_delta - 1)
        report = await run(recovery_with(again.wallet, again.wallet.server))
        assert found(report, RecoveryOutcome.FAILED) == {body.id}
        assert await spendable(again) == set()


async def test_what_another_server_has_cosigned_is_no_money(net: Net, alice: Owner) -> None:
    (body,) = await bodies(alice)
    async with reborn(net, alice) as again:
        server = Server(again.wallet)
        server.xpub = no_xpub
        liar = Liar(server)
        liar.lies["info"] = lambda info: replace(info, server_pubkey=SecretKey(b"\x44" * 32).public_key)
        report = await run(recovery_with(again.wallet, liar))
        assert found(report, RecoveryOutcome.FOREIGN) == {body.id}
        assert await spendable(again) == set()


class Denying:
    """A chain source that knows no transaction, for as long as it denies them."""

    def __init__(self, chain: ChainSource) -> None:
        self._chain = chain
        self.denies = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def get_tx(self, txid: Txid) -> Tx | None:
        return None if self.denies else await self._chain.get_tx(txid)


async def test_coins_are_looked_for_again_when_the_chain_source_knows_what_it_denied(
    net: Net, alice: Owner
) -> None:
    """It knew no transaction while the wallet was recovered, and so no coin either."""
    looks: list[str] = []
    chain = Denying(alice.wallet.chain)

    async def look() -> None:
        looks.append("look")
        if not chain.denies and len(looks) == 1:
            raise ChainUnavailable("it is busy")

    (mine,) = await spendable(alice)
    async with reborn(net, alice) as again:
        recovery = recovery_with(again.wallet, again.wallet.server, chain, rescan_onchain=look)
        assert found(await run(recovery), RecoveryOutcome.FAILED) == {mine}
        looks.clear()
        await recovery.catch_up()
        assert looks == []
        chain.denies = False
        await recovery.catch_up()
        assert await spendable(again) == {mine}
        assert len(looks) == 1
        for _ in range(2):  # what failed is made up for, once
            await recovery.catch_up()
            assert len(looks) == 2


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "killed"])
async def test_coins_that_are_to_be_looked_for_again_are_after_a_restart(
    net: Net, alice: Owner, fails: bool
) -> None:
    """The last look for them failed, or was not over when the daemon was killed."""
    chain = Denying(alice.wallet.chain)

    async def look() -> None:
        if chain.denies:
            return
        if fails:
            raise ChainUnavailable("it is busy")
        await asyncio.Event().wait()

    looks: list[str] = []

    async def look_again() -> None:
        looks.append("look")

    async with reborn(net, alice) as again:
        recovery = recovery_with(again.wallet, again.wallet.server, chain, rescan_onchain=look)
        finished_at = (await run(recovery)).finished_at
        chain.denies = False
        await recovery.retry()
        await recovery.close()
        for _ in range(2):
            restarted = recovery_with(again.wallet, again.wallet.server, rescan_onchain=look_again)
            await restarted.catch_up()
            assert len(looks) == 1
            assert (await restarted.report()).finished_at == finished_at is not None
            await restarted.close()


@pytest.mark.parametrize("server_settings", [ServerSettings(), ServerSettings(emulate=Emulation.V0_6)])
@pytest.mark.parametrize("how_far", ["broadcast", "confirmed"])
async def test_an_exit_goes_on_where_the_lost_wallet_left_it(net: Net, alice: Owner, how_far: str) -> None:
    """Whether its transactions were seen or confirmed, the coin ends up in the on-chain wallet."""
    await alice.fund_onchain(100_000)
    (mine,) = await spendable(alice)
    async with alice.wallet.store.read() as tx:
        vtxo = await tx.vtxos.body(mine)
    await alice.wallet.exits.start([mine])
    seen = Confirmed if how_far == "confirmed" else Mempool
    while not isinstance(await alice.wallet.chain.tx_status(vtxo.point.txid), seen):
        await alice.wallet.exits.progress()
        if how_far == "confirmed":
            await net.mine()
    await alice.wallet.close()
    async with reborn(net, alice) as again:
        wallet = again.wallet
        report = await recover(again)
        if how_far == "confirmed":
            assert found(report, RecoveryOutcome.EXITED) == {mine}
        else:  # what is only seen may never be mined; it counts from the next block on
            await net.mine()
            await wallet.chain.fetch_tip()
        await wallet.sync()
        assert (await wallet.exits.status(mine)).vtxo_id == mine
        async with asyncio.timeout(120):
            while (await wallet.exits.status(mine)).state.type != "claimable":
                await net.mine(2)
                await wallet.chain.fetch_tip()
                await wallet.exits.progress()
        assert mine not in await spendable(again)
        assert wallet.onchain is not None
        await wallet.onchain.sync()
        before_sat = (await wallet.onchain.balance()).total_sat
        address = await wallet.onchain.next_address()
        await wallet.exits.claim(None, parse_address(address, wallet.network), FeeRate(1_000))
        await net.mine()
        await wallet.onchain.sync()
        gained_sat = (await wallet.onchain.balance()).total_sat - before_sat
        assert vtxo.amount_sat - 2_000 < gained_sat < vtxo.amount_sat
        await wallet.recovery.start()
        assert (await wallet.balance()).spendable_sat == 0


# --- the search by extended key


async def test_indexes_are_checked_and_keys_far_ahead_need_proof(net: Net, alice: Owner, bob: Owner) -> None:
    await pay(alice, bob, 1_000)
    mine, theirs = await bodies(alice), await bodies(bob)
    async with reborn(net, alice) as again:
        far = replace(mine[0], policy=PubkeyPolicy(alice.wallet.keys.vtxo_pubkey(5_000)))
        told = [
            RecoveredVtxo(theirs[0], 0, VtxoSpendState.SPENDABLE),
            RecoveredVtxo(far, 5_000, VtxoSpendState.SPENT),
        ]

        async def search(**_: object) -> XpubRecoveryPage:
            return XpubRecoveryPage(tuple(told), 10, have_more=False, cursor=None)

        server = Server(again.wallet)
        server.xpub, server.regular, server.recovery = search, [], []
        report = await run(recovery_with(again.wallet, server))
        assert found(report, RecoveryOutcome.FOREIGN) == {theirs[0].id, far.id}
        assert await again.wallet.keychain.next_index() < 30
        assert await spendable(again) == set()


@pytest.mark.parametrize(
    ("scanned", "cursor", "bound"),
    [(0, None, 1), (0, "same", 2), (50_000, None, MAX_GAP_LIMIT // 50_000), (0, "new", 20)],
)
async def test_a_search_without_an_end_ends(
    net: Net, alice: Owner, scanned: int, cursor: str | None, bound: int
) -> None:
    async with reborn(net, alice) as again:
        server = Server(again.wallet)
        server.regular, server.recovery = [], []

        async def search(**_: object) -> XpubRecoveryPage:
            number = server.calls if cursor == "new" else 1
            where = None if cursor is None else VtxoId.of(OutPoint(Txid(number.to_bytes(32, "big")), 0))
            return XpubRecoveryPage((), scanned, have_more=True, cursor=where)

        server.xpub = search
        report = await run(recovery_with(again.wallet, server, max_xpub_pages=20))
        assert report.finished_at is not None
        assert server.calls == bound
        assert await again.wallet.keychain.next_index() == 0


async def test_a_search_that_fails_is_made_up_for_and_the_mailboxes_are_read_meanwhile(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 10_000)
    before = await spendable(alice)
    net.fault("RecoverVtxosByXpub", kind="error", code="INTERNAL", count=None, text="no index today")
    async with reborn(net, alice) as again:
        with pytest.raises(RecoveryInterrupted):
            await again.wallet.recovery.resume()
        assert await spendable(again) == before
        report = await again.wallet.recovery.report()
        assert report.finished_at is None
        assert "no index today" in (report.error or "")
        assert not await again.wallet.recovery.is_mailbox_blocked()
        net.honest()
        await again.wallet.recovery.tick()
        report = await again.wallet.recovery.report()
        assert report.finished_at is not None
        assert report.error is None


# --- mailboxes


async def test_a_mailbox_that_goes_back_or_never_ends_is_left(net: Net, alice: Owner) -> None:
    async with reborn(net, alice) as again:
        server = Server(again.wallet)
        server.xpub = no_xpub

        async def backwards(mailbox_id: PublicKey, authorization: bytes, checkpoint: int) -> MailboxPage:
            return MailboxPage(
                (MailboxMessage(5, UnknownMessage()), MailboxMessage(5, UnknownMessage())), True
            )

        server.read_mailbox = backwards  # type: ignore[method-assign]
        recovery = recovery_with(again.wallet, server)
        with pytest.raises(RecoveryInterrupted) as interrupted:
            await recovery.resume()
        assert isinstance(interrupted.value.__cause__, CheckpointsOutOfOrder)
        assert await recovery.is_mailbox_blocked()  # nobody knows what of it is spent

        reads = 0

        async def endless(mailbox_id: PublicKey, authorization: bytes, checkpoint: int) -> MailboxPage:
            nonlocal reads
            reads += 1
            return MailboxPage((MailboxMessage(checkpoint + 1, UnknownMessage()),), True)

        server.read_mailbox = endless  # type: ignore[method-assign]
        reader = MailboxReader(server, again.wallet.keychain.mailbox_key, max_pages=7)
        assert len([page async for page in reader.read(0)]) == reads == 7


async def test_messages_of_the_future_stop_no_recovery(
    net: Net, alice: Owner, bob: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's clock was days ahead, and it goes on counting from there."""
    await pay(alice, bob, 1_000)
    await pay(alice, bob, 2_000)
    first, second = await bodies(bob)
    async with reborn(net, bob) as again:
        server = Server(again.wallet)
        server.xpub = no_xpub
        server.first_checkpoint = checkpoint_at(time.time() + 3 * 86_400)
        server.regular = [UnknownMessage(), ArkoorDelivery((first.encode(),))]
        server.recovery = [UnknownMessage(), RecoveryVtxoIds((bytes(second.id),))]
        recovery = recovery_with(again.wallet, server)
        report = await run(recovery)
        assert found(report, RecoveryOutcome.RECOVERED) == {first.id, second.id} == await spendable(again)
        assert report.is_complete
        assert not await recovery.is_mailbox_blocked()
        assert str(server.first_checkpoint + 1) in caplog.text


async def test_a_server_that_is_away_is_asked_when_it_is_back(net: Net, alice: Owner) -> None:
    before = await spendable(alice)
    async with reborn(net, alice) as again:
        net.fault("ReadMailbox", kind="error", code="UNAVAILABLE", count=None)
        with pytest.raises(RecoveryInterrupted):
            await again.wallet.recovery.resume()
        assert await again.wallet.recovery.is_mailbox_blocked()
        net.honest()
        await again.wallet.sync()
        assert await spendable(again) == before
        assert not await again.wallet.recovery.is_mailbox_blocked()


# --- keys


@OLDER
async def test_the_gap_limit_is_kept_and_can_be_raised_later(net: Net, alice: Owner, bob: Owner) -> None:
    addresses = [await bob.wallet.new_address() for _ in range(8)]
    for index in (5, 7):
        await alice.wallet.send_arkoor(addresses[index], 1_000 * index)
    async with reborn(net, bob, vtxo_key_gap_limit=5) as again:
        report = await recover(again)
        assert await again.spendable_sat() == 12_000  # 0…5 are tried, then 6…11
        assert report.is_complete
        assert (await again.wallet.new_address()) == await bob.wallet.new_address()
    async with reborn(net, bob, "narrow", vtxo_key_gap_limit=4) as narrow:
        report = await recover(narrow)
        assert await narrow.spendable_sat() == 0
        assert len(found(report, RecoveryOutcome.FOREIGN)) == 2
    async with net.owner("narrow", bob.seed, vtxo_key_gap_limit=6) as wider:
        await wider.wallet.recovery.start()
        assert await wider.spendable_sat() == 12_000


# --- rounds


@BOTH
async def test_a_round_that_was_held_for_the_lost_wallet_is_finished(net: Net, alice: Owner) -> None:
    (mine,) = await spendable(alice)
    had = await alice.spendable_sat()
    await alice.wallet.rounds.refresh_delegated([mine])
    await hold_round(net)  # the wallet is gone before it hears of it
    await net.mine()
    async with reborn(net, alice) as again:
        await recover(again)
        await again.wallet.mailbox.sync()
        await again.wallet.rounds.sync()
        balance = await again.wallet.balance()
        assert balance.spendable_sat + balance.pending_in_round_sat > 0
        assert had - 5_000 < balance.total_sat <= had


# --- dying on the way


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_commit_changes_nothing_in_the_end(
    net: Net, alice: Owner, bob: Owner, when: When
) -> None:
    await pay(alice, bob, 10_000)
    await pay(bob, alice, 4_000)
    before = await spendable(alice)
    async with reborn(net, alice, "first"):
        pass
    made: list[CrashingStore] = []

    async def is_killed(crash_at: int) -> bool:
        """Run a recovery that dies there, and another process that finishes it."""
        name = f"killed-{crash_at}"
        owner = Owner(net, await net.databases.copy("first", name), alice.seed, {})
        await owner.open(opener(made))
        await owner.wallet.registration.close()  # it commits as well, whenever it gets to it
        made[-1].arm(crash_at, when)
        killed = False
        try:
            await owner.wallet.recovery.resume()
        except Crash:
            killed = True
        made[-1].arm(None)
        await owner.restart()
        await owner.wallet.recovery.resume()
        await owner.wallet.mailbox.sync()
        assert await spendable(owner) == before, crash_at
        assert (await owner.wallet.recovery.report()).is_complete, crash_at
        await owner.wallet.close()
        return killed

    crash_at = 0
    while await is_killed(crash_at):
        crash_at += 1
    assert crash_at > 5
