"""Boards that meet crashes, outages, refusals, lies and double spends."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.fees import AmountAfterFeeIsDust, BoardFees, FeeExceedsAmount
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import DUST_SAT, BlockRef, FeeRate
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    Confirmed,
    Mempool,
    NotFound,
    TxStatus,
)
from barkd_py.devnet.ark_server.settings import DEFAULT_FEES, ServerSettings
from barkd_py.errors import (
    BarkdError,
    ChainError,
    ChainUnavailable,
    ServerRejected,
    ServerUnavailable,
    chain_text,
)
from barkd_py.server_rpc.errors import ConversionError
from barkd_py.wallet.boards.errors import BoardBelowMinimum, BoardTooLarge, BoardTooSmall
from barkd_py.wallet.boards.probe import Dead, Pushed, Undecided, probe
from barkd_py.wallet.boards.service import Boards
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.movements import BOARD, Movement, MovementStatus
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.wallet import Wallet
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, Twice, When, opener

AMOUNT_SAT = 100_000
NET_SAT = AMOUNT_SAT - 330


async def boards(wallet: Wallet) -> list[Movement]:
    return [movement for movement in await wallet.list_movements() if movement.subsystem == BOARD]


async def complete(net: Net, wallet: Wallet) -> None:
    """Confirm what is in the mempool, and drive the boards."""
    await net.mine()
    await wallet.chain.fetch_tip()
    await wallet.boards.drive_all()


# --- what is refused before anything is broadcast


async def test_less_than_the_server_wants_is_refused(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(100_000)
    with pytest.raises(BoardTooSmall) as failure:
        await bob.wallet.board_amount(19_999)
    assert str(failure.value) == (
        "board amount of 0.00019999 BTC is less than minimum board amount required by server (0.00020000 BTC)"
    )
    assert await bob.wallet.pending_boards() == ()


async def test_dust_and_more_than_there_is_are_refused(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(100_000)
    with pytest.raises(BarkdError) as failure:
        await bob.wallet.board_amount(0)
    assert chain_text(failure.value) == "error building tx: Output below the dust limit: 0"
    with pytest.raises(BarkdError) as failure:
        await bob.wallet.board_amount(100_000)
    assert chain_text(failure.value).startswith("error building tx: Insufficient funds")


@pytest.mark.parametrize(
    ("path", "mutation", "error"),
    [
        ("partial_sig", "flip", BadCosignature),
        ("pub_nonce", "flip", (BadCosignature, ConversionError)),
        ("partial_sig", "clear", ConversionError),
    ],
)
async def test_nothing_is_broadcast_for_a_wrong_cosignature(
    net: Net, bob: Owner, path: str, mutation: str, error: type[Exception]
) -> None:
    await bob.fund_onchain(200_000)
    mempool_before = len(net.devnet.node.pool)
    net.fault("RequestBoardCosign", stage="reply", kind="mutate", path=path, mutation=mutation)
    with pytest.raises(error):
        await bob.wallet.board_amount(AMOUNT_SAT)
    assert len(net.devnet.node.pool) == mempool_before
    assert await boards(bob.wallet) == []
    assert await bob.wallet.pending_boards() == ()
    await bob.wallet.board_amount(AMOUNT_SAT)  # the coins are free


@pytest.mark.parametrize(
    ("code", "error"), [("INVALID_ARGUMENT", ServerRejected), ("INTERNAL", ServerUnavailable)]
)
async def test_nothing_is_stored_if_the_server_does_not_cosign(
    net: Net, bob: Owner, code: str, error: type[Exception]
) -> None:
    await bob.fund_onchain(200_000)
    net.fault("RequestBoardCosign", kind="error", code=code)
    with pytest.raises(error):
        await bob.wallet.board_amount(AMOUNT_SAT)
    assert await boards(bob.wallet) == []
    assert await bob.wallet.pending_boards() == ()


# --- as it should go


async def test_everything_can_be_boarded(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(150_000)
    pending = await bob.wallet.board_all()
    assert len(pending.funding_tx.outputs) == 1
    await complete(net, bob.wallet)
    assert await bob.spendable_sat() == pending.amount_sat
    assert bob.wallet.onchain is not None
    assert (await bob.wallet.onchain.balance()).total_sat == 0


async def test_two_boards_at_once_choose_different_coins(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(150_000)
    await bob.fund_onchain(150_000)
    first = await bob.wallet.board_amount(AMOUNT_SAT)
    second = await bob.wallet.board_amount(AMOUNT_SAT)
    spent = {tx_in.prevout for tx_in in first.funding_tx.inputs}
    assert spent.isdisjoint(tx_in.prevout for tx_in in second.funding_tx.inputs)
    await complete(net, bob.wallet)
    assert await bob.spendable_sat() == 2 * NET_SAT


async def test_boards_that_begin_at_the_same_time_choose_different_coins(net: Net, bob: Owner) -> None:
    for _ in range(2):
        await bob.fund_onchain(150_000)
    boards = await asyncio.gather(*(bob.wallet.board_amount(AMOUNT_SAT) for _ in range(2)))
    first, second = ({tx_in.prevout for tx_in in board.funding_tx.inputs} for board in boards)
    assert first.isdisjoint(second)
    await complete(net, bob.wallet)
    assert await bob.spendable_sat() == 2 * NET_SAT


async def test_a_registered_board_is_in_the_recovery_mailbox(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(150_000)
    (vtxo_id,) = (await bob.wallet.board_amount(AMOUNT_SAT)).vtxo_ids
    await bob.wallet.registration.catch_up()
    assert not (await bob.wallet.get_vtxo(vtxo_id)).registered  # the server does not know it yet
    await complete(net, bob.wallet)
    await bob.wallet.registration.catch_up()
    assert (await bob.wallet.get_vtxo(vtxo_id)).registered


async def test_the_fee_estimate_is_the_fee(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(400_000)
    estimate = await bob.wallet.estimate_board_fee(350_000)
    assert (estimate.gross_amount_sat, estimate.net_amount_sat) == (350_000, 350_000 - estimate.fee_sat)
    pending = await bob.wallet.board_amount(350_000)
    assert pending.amount_sat == estimate.net_amount_sat
    assert (await boards(bob.wallet))[0].offchain_fee_sat == estimate.fee_sat


async def test_the_estimate_tells_of_the_minimum(net: Net, bob: Owner) -> None:
    assert (await bob.wallet.estimate_board_fee(20_000)).net_amount_sat == 19_670
    with pytest.raises(BoardBelowMinimum) as failure:
        await bob.wallet.estimate_board_fee(19_999)
    assert str(failure.value) == (
        "board amount of 0.00019999 BTC does not meet minimum value of 0.00020000 BTC"
    )


class TestLimitedServer:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(max_vtxo_amount_sat=300_000)

    async def test_the_estimate_tells_of_the_limit(self, net: Net, bob: Owner) -> None:
        with pytest.raises(BoardTooLarge, match="exceeds maximum value"):
            await bob.wallet.estimate_board_fee(300_001)


def charging(board_sat: int) -> ServerSettings:
    """Whatever is boarded costs so much."""
    board = BoardFees(min_fee_sat=0, base_fee_sat=board_sat, ppm=0)
    return ServerSettings(fees=replace(DEFAULT_FEES, board=board))


@pytest.mark.parametrize("left_sat", [-1, 0, 1, DUST_SAT - 1])
class TestGreedyServer:
    @pytest.fixture
    def server_settings(self, left_sat: int) -> ServerSettings:
        return charging(AMOUNT_SAT - left_sat)

    async def test_a_fee_that_leaves_nothing_or_dust_is_not_paid(
        self, net: Net, bob: Owner, left_sat: int
    ) -> None:
        """Of what is left below the dust limit, nothing could ever get to the chain."""
        await bob.fund_onchain(3 * AMOUNT_SAT)
        assert bob.wallet.onchain is not None
        before = await bob.wallet.onchain.balance()
        with pytest.raises(FeeExceedsAmount if left_sat <= 0 else AmountAfterFeeIsDust):
            await bob.wallet.board_amount(AMOUNT_SAT)
        assert await boards(bob.wallet) == []
        assert list(await bob.wallet.list_vtxos(include_all=True)) == []
        assert await bob.wallet.onchain.balance() == before


class TestFairServer:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return charging(AMOUNT_SAT - DUST_SAT)

    async def test_what_is_left_may_be_as_little_as_the_dust_limit(self, net: Net, bob: Owner) -> None:
        await bob.fund_onchain(3 * AMOUNT_SAT)
        board = await bob.wallet.board_amount(AMOUNT_SAT)
        (vtxo,) = await bob.wallet.list_vtxos(include_all=False)
        assert (board.vtxo_ids, vtxo.amount_sat) == ((vtxo.id,), DUST_SAT)


# --- crashes

BOARD_COMMIT = 2
"""The one that stores a board; before it are those of its key and of the change of its funding transaction.
What is cut off before this was never accepted, and what is cut off after it is boarded."""


@pytest.mark.both_stores
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_commit_boards_once_or_not_at_all(net: Net, bob: Owner, when: When) -> None:
    boarded = 0
    for number in range(14):
        await bob.fund_onchain(150_000)
        await bob.wallet.close()
        stores: list[CrashingStore] = []
        wallet = await bob.open(opener(stores))
        await wallet.server.info()
        stores[0].arm(number, when)
        crashed = False
        try:
            await wallet.board_amount(AMOUNT_SAT)
            await complete(net, wallet)
        except Crash:
            crashed = True
        is_stored = number > BOARD_COMMIT or (number == BOARD_COMMIT and when == "after")
        if not is_stored:
            assert len(net.devnet.node.pool) == 0, "broadcast before it was stored"
        wallet = await bob.restart()
        await wallet.boards.drive_all()
        await complete(net, wallet)
        await wallet.boards.drive_all()
        assert await wallet.pending_boards() == ()
        async with wallet.store.read() as tx:
            assert await tx.vtxos.list([StateKind.LOCKED]) == ()
        movements = await boards(wallet)
        assert all(movement.status is MovementStatus.SUCCESSFUL for movement in movements)
        assert len(movements) - boarded == is_stored, f"commit {number}"
        boarded = len(movements)
        assert await bob.spendable_sat() == boarded * NET_SAT
        if not crashed:
            break
    else:
        pytest.fail("a board has more commits than this test expects")


async def test_every_step_may_run_twice(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(150_000)
    wallet = bob.wallet
    machine = Twice(wallet.boards._machine)
    twice = Boards(
        wallet.store,
        wallet.executor,
        machine,  # type: ignore[arg-type]
        wallet.keychain,
        wallet.server,
        wallet.chain,
        wallet.onchain,
        wallet.locks,
    )
    pending = await twice.board_amount(AMOUNT_SAT)
    await net.mine()
    await wallet.chain.fetch_tip()
    await twice.drive_all()
    assert machine.steps == ["Broadcasting", "Confirming", "Confirming"]
    assert await wallet.pending_boards() == ()
    assert await bob.spendable_sat() == pending.amount_sat
    assert len(await boards(wallet)) == 1


# --- outages


@pytest.mark.parametrize("stage", ["before", "after-commit"])
@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT", "UNAVAILABLE"])
async def test_registration_goes_on_until_it_succeeds(net: Net, bob: Owner, stage: str, code: str) -> None:
    """Not even a refusal ends it: the money is in the funding output."""
    await bob.fund_onchain(150_000)
    net.fault("RegisterBoardVtxo", stage=stage, kind="error", code=code, count=2)
    await bob.wallet.board_amount(AMOUNT_SAT)
    await complete(net, bob.wallet)
    await bob.wallet.boards.drive_all()
    assert (await bob.wallet.balance()).pending_board_sat == NET_SAT
    await bob.wallet.boards.drive_all()
    assert await bob.spendable_sat() == NET_SAT
    assert [movement.status for movement in await boards(bob.wallet)] == [MovementStatus.SUCCESSFUL]


class TestShortLife:
    @pytest.fixture
    def server_settings(self) -> ServerSettings:
        return ServerSettings(vtxo_lifetime=30)

    async def test_a_board_that_is_never_registered_is_exited_before_it_expires(
        self, net: Net, bob: Owner
    ) -> None:
        wallet = bob.wallet
        await bob.fund_onchain(150_000)
        net.fault("RegisterBoardVtxo", kind="error", code="INTERNAL", count=None)
        (vtxo_id,) = (await wallet.board_amount(AMOUNT_SAT)).vtxo_ids
        expiry_height = (await wallet.get_vtxo(vtxo_id)).expiry_height
        one_transaction = 1
        last_calm_height = expiry_height - wallet.config.vtxo_exit_margin - one_transaction - 1
        await net.mine(last_calm_height - (await wallet.chain.fetch_tip()).height)
        await wallet.chain.fetch_tip()
        await wallet.boards.drive_all()
        assert not await wallet.exits.statuses(ExitFilter.ALL)
        await complete(net, wallet)
        await wallet.boards.drive_all()
        (started,) = await wallet.exits.statuses(ExitFilter.ALL)
        assert started.vtxo_id == vtxo_id
        (movement,) = await boards(wallet)
        assert (movement.status, movement.exited_vtxos) == (MovementStatus.PENDING, (vtxo_id,))
        # The server may still take it, as long as nothing of the exit is on the chain.
        net.honest()
        await wallet.boards.drive_all()
        assert await wallet.pending_boards() == ()


# --- double spends


async def test_a_funding_input_that_is_spent_for_good_ends_the_board(net: Net, bob: Owner) -> None:
    wallet = bob.wallet
    assert wallet.onchain is not None
    await bob.fund_onchain(150_000)
    script = parse_address(await wallet.onchain.next_address(), wallet.network)
    other = await wallet.onchain.build_drain(script, FeeRate(2_000))
    await wallet.board_amount(AMOUNT_SAT)
    await net.devnet.node.mine_exactly([other.tx])
    await wallet.chain.fetch_tip()
    await wallet.boards.drive_all()
    assert await wallet.pending_boards() == ()
    (movement,) = await boards(wallet)
    assert movement.status is MovementStatus.FAILED
    assert movement.effective_balance_sat == 0
    (vtxo,) = await wallet.list_vtxos(include_all=True)
    assert vtxo.state.kind is StateKind.SPENT
    assert (await wallet.balance()).total_sat == 0
    await wallet.onchain.sync()
    assert (await wallet.onchain.balance()).total_sat == other.tx.outputs[0].value_sat


async def test_a_board_survives_a_reorg(net: Net, bob: Owner) -> None:
    wallet = bob.wallet
    await bob.fund_onchain(150_000)
    net.fault("RegisterBoardVtxo", kind="error", code="INTERNAL")
    await wallet.board_amount(AMOUNT_SAT)
    await complete(net, wallet)
    await net.devnet.node.reorg(1)
    await wallet.chain.fetch_tip()
    await wallet.boards.drive_all()
    assert len(await wallet.pending_boards()) == 1
    await complete(net, wallet)
    assert await bob.spendable_sat() == NET_SAT


# --- the conflict probe

PARENT = Tx(2, (), (TxOut(1_000, b""),))
FUNDING = Tx(2, (TxIn(PARENT.outpoint(0)),), (TxOut(900, b""),))
BLOCK = BlockRef(5, BlockHash(bytes(32)))


@dataclass
class ProbedChain:
    """Says what the test sets about the parent and the broadcast."""

    parent: TxStatus | ChainUnavailable = field(default_factory=Mempool)
    spent: bool | ChainUnavailable = False
    broadcast: ChainError | None = None
    offered: list[Tx] = field(default_factory=list)

    async def tx_status(self, txid: Txid) -> TxStatus:
        assert txid == PARENT.txid
        if isinstance(self.parent, ChainUnavailable):
            raise self.parent
        return self.parent

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        if isinstance(self.spent, ChainUnavailable):
            raise self.spent
        return self.spent

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        self.offered.extend(txs)
        if self.broadcast is not None:
            raise self.broadcast


def refusal(kind: BroadcastErrorKind) -> BroadcastError:
    return BroadcastError(kind, "no")


@pytest.mark.parametrize(
    ("chain", "result"),
    [
        (ProbedChain(), Pushed),
        (ProbedChain(parent=Confirmed(BLOCK)), Pushed),
        (ProbedChain(parent=NotFound()), Undecided),
        (ProbedChain(parent=ChainUnavailable("down")), Undecided),
        (ProbedChain(parent=Confirmed(BLOCK), spent=True), Dead),
        (ProbedChain(parent=Confirmed(BLOCK), spent=ChainUnavailable("down")), Undecided),
        (ProbedChain(broadcast=refusal(BroadcastErrorKind.KNOWN)), Pushed),
        (ProbedChain(broadcast=refusal(BroadcastErrorKind.MISSING_OR_SPENT)), Dead),
        (ProbedChain(broadcast=refusal(BroadcastErrorKind.LOW_FEE)), Undecided),
        (ProbedChain(broadcast=refusal(BroadcastErrorKind.OTHER)), Undecided),
        (ProbedChain(broadcast=ChainUnavailable("down")), Undecided),
    ],
)
async def test_only_proof_condemns_a_funding_transaction(chain: ProbedChain, result: type) -> None:
    assert isinstance(await probe(chain, FUNDING), result)  # type: ignore[arg-type]
    assert bool(chain.offered) == (isinstance(chain.parent, Mempool | Confirmed) and chain.spent is False)


async def test_a_board_is_broadcast_when_it_is_answered_whoever_looks_at_boards_meanwhile(
    net: Net, bob: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop may wake just when it has been stored, because of a block say."""
    await bob.fund_onchain(200_000)
    looks: list[asyncio.Task[None]] = []
    executor = bob.wallet.boards._executor
    store_new = executor.store_new

    async def store_and_look(machine: Any, action_id: str, prepare: Any) -> Any:
        state = await store_new(machine, action_id, prepare)
        looks.append(asyncio.create_task(bob.wallet.boards.drive_all()))
        async with asyncio.timeout(60):
            while not executor._locks.is_held(action_id):
                await asyncio.sleep(0)
        return state

    monkeypatch.setattr(executor, "store_new", store_and_look)
    board = await bob.wallet.board_amount(AMOUNT_SAT)
    assert board.funding_tx.txid in net.devnet.node.pool
    await asyncio.gather(*looks)
