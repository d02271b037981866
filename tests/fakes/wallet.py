"""A wallet in memory that does what `daemon.wallet_api` promises, and a backend that makes such wallets.

It keeps the rules that clients can see (what is refused, in which order things are listed) and invents no
others. Coins appear by `add_vtxo` and `fund`, not by any protocol.
"""

import asyncio
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.fees import (
    BoardFees,
    FeeSchedule,
    LightningReceiveFees,
    LightningSendFees,
    OffboardFees,
    PpmExpiryFeeEntry,
    RefreshFees,
    board_fee,
)
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.message import sign_message
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import DUST_SAT, BlockRef, FeeRate, Network, format_btc
from barkd_py.config import WalletConfig
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import Datadir
from barkd_py.errors import (
    BarkdError,
    InsufficientFunds,
    InvalidInput,
    KnownError,
    ServerUnavailable,
    StateConflict,
    StoreError,
)
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits import errors as exit_errors
from barkd_py.wallet.exits import states as exits
from barkd_py.wallet.movements import (
    ARKOOR_SEND,
    BOARD,
    JsonValue,
    Movement,
    MovementDestination,
    MovementStatus,
    PaymentMethod,
    PaymentMethodKind,
    Subsystem,
    UnknownMovement,
    patch_metadata,
)
from barkd_py.wallet.notifications import MovementCreated, MovementUpdated, Notifications
from barkd_py.wallet.recovery.report import RecoveryReport
from barkd_py.wallet.recovery.service import NoRecovery
from barkd_py.wallet.rendered_list import RenderedList, RenderedPages
from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome
from barkd_py.wallet.store.transaction import system_clock
from barkd_py.wallet.vtxo_states import Exited, Spendable, Spent, UnknownVtxo, VtxoState, WalletVtxo
from tests.fakes.lightning import FakeLightning
from tests.fakes.rounds import FakeOffboards, FakeRounds

SERVER_SECRET = SecretKey(b"\x11" * 32)
MAILBOX_SECRET = SecretKey(b"\x12" * 32)
NOW = datetime(2026, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)

ARK_INFO = ArkInfo(
    network="regtest",
    server_pubkey=SERVER_SECRET.public_key,
    mailbox_pubkey=MAILBOX_SECRET.public_key,
    round_interval_secs=30,
    nb_round_nonces=8,
    vtxo_exit_delta=12,
    vtxo_lifetime=144,
    htlc_send_expiry_delta=258,
    htlc_expiry_delta=40,
    max_vtxo_amount_sat=None,
    required_board_confirmations=1,
    max_user_invoice_cltv_delta=250,
    min_board_amount_sat=20_000,
    offboard_fee_rate_sat_per_kvb=7_000,
    ln_receive_anti_dos_required=False,
    fees=FeeSchedule(
        board=BoardFees(min_fee_sat=330, base_fee_sat=100, ppm=1_000),
        offboard=OffboardFees(0, 100, (PpmExpiryFeeEntry(0, 1_000),)),
        refresh=RefreshFees(0, ()),
        lightning_receive=LightningReceiveFees(0, 0),
        lightning_send=LightningSendFees(0, 0, ()),
    ),
    max_vtxo_exit_depth=5,
    max_offboard_inputs=100,
)


def render_all(texts: Iterable[bytes]) -> RenderedList:
    """A list that is not kept."""
    pages: RenderedPages[int] = RenderedPages()
    pages.append(list(enumerate(texts)))
    return pages.list()


@dataclass(frozen=True, slots=True)
class PendingBoard:
    funding_tx: Tx
    vtxo_ids: tuple[VtxoId, ...]
    amount_sat: int
    movement_id: int


@dataclass(frozen=True, slots=True)
class FeeEstimate:
    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...] = ()


@dataclass(frozen=True, slots=True)
class FeeRates:
    fast: FeeRate
    regular: FeeRate
    slow: FeeRate


@dataclass(frozen=True, slots=True)
class OnchainBalance:
    total_sat: int
    trusted_spendable_sat: int
    immature_sat: int
    trusted_pending_sat: int
    untrusted_pending_sat: int
    confirmed_sat: int


@dataclass(frozen=True, slots=True)
class OnchainUtxo:
    outpoint: OutPoint
    amount_sat: int
    confirmation_height: int | None


@dataclass(frozen=True, slots=True)
class OnchainTx:
    tx: Tx
    onchain_fee_sat: int | None
    balance_change_sat: int
    confirmation: BlockRef | None
    is_cpfp: bool = False


def some_tx(number: int, *outputs: TxOut) -> Tx:
    """A transaction that spends a made-up output."""
    prevout = OutPoint(Txid(number.to_bytes(32, "big")), 0)
    return Tx(2, (TxIn(prevout, sequence=0xFFFFFFFD),), outputs, 0)


def some_vtxo(vtxo_id: str, amount_sat: int, state: VtxoState = Spendable()) -> WalletVtxo:  # noqa: B008
    """A VTXO of the wallet's list; there is nothing behind it."""
    parsed = VtxoId.parse(vtxo_id)
    key = SERVER_SECRET.public_key
    return WalletVtxo(
        id=parsed,
        amount_sat=amount_sat,
        policy_kind="pubkey",
        user_pubkey=key,
        server_pubkey=key,
        expiry_height=1000,
        exit_delta=12,
        anchor_point=parsed.outpoint,
        exit_depth=1,
        exit_tx_weight_wu=496,
        registered=True,
        state=state,
        created_at=NOW,
    )


def onchain_address(number: int) -> str:
    """The fake on-chain wallet's addresses, from 1 on."""
    address = address_from_script(p2tr_script(bytes([number]) * 32), Network.REGTEST)
    assert address is not None
    return address


class FakeOnchain:
    """An on-chain wallet of confirmed coins with a fee of one satoshi."""

    def __init__(self) -> None:
        self.coins: dict[OutPoint, OnchainUtxo] = {}
        self.txs: list[OnchainTx] = []
        self.told_balance: OnchainBalance | None = None
        """Told instead of the sum of the coins."""
        self.syncs = 0
        self._addresses = 0

    def fund(self, amount_sat: int, height: int = 101) -> None:
        tx = some_tx(len(self.txs) + 1, TxOut(amount_sat, b"\x51\x20" + b"\x01" * 32))
        outpoint = OutPoint(tx.txid, 0)
        self.coins[outpoint] = OnchainUtxo(outpoint, amount_sat, height)
        block = BlockRef(height, type(tx.txid)(b"\x07" * 32))  # type: ignore[arg-type]
        self.txs.append(OnchainTx(tx, None, amount_sat, block))

    async def balance(self) -> OnchainBalance:
        if self.told_balance is not None:
            return self.told_balance
        total = sum(coin.amount_sat for coin in self.coins.values())
        return OnchainBalance(total, total, 0, 0, 0, total)

    async def next_address(self) -> str:
        self._addresses += 1
        return onchain_address(self._addresses)

    async def utxos(self) -> Sequence[OnchainUtxo]:
        return tuple(self.coins.values())

    async def transactions(self) -> Sequence[OnchainTx]:
        return sorted(self.txs, key=lambda entry: entry.confirmation is None)

    async def send_many(self, recipients: Sequence[tuple[bytes, int]]) -> Txid:
        if not recipients:
            raise BarkdError("error building tx") from BarkdError("Cannot build tx without recipients")
        for index, (_, amount_sat) in enumerate(recipients):
            if amount_sat < DUST_SAT:
                raise BarkdError("error building tx") from BarkdError(f"Output below the dust limit: {index}")
        needed = sum(amount_sat for _, amount_sat in recipients) + 1
        available = sum(coin.amount_sat for coin in self.coins.values())
        if available < needed:
            raise BarkdError("error building tx") from InsufficientFunds(
                f"Insufficient funds: {format_btc(available)} available of {format_btc(needed)} needed"
            )
        tx = some_tx(1000 + len(self.txs), *(TxOut(amount, script) for script, amount in recipients))
        self.coins.clear()
        self.txs.append(OnchainTx(tx, 1, -needed, None))
        if available > needed:
            change = OutPoint(tx.txid, len(recipients))
            self.coins[change] = OnchainUtxo(change, available - needed, None)
        return tx.txid

    async def drain(self, script: bytes) -> Txid:
        available = sum(coin.amount_sat for coin in self.coins.values())
        return await self.send_many([(script, max(available - 1, DUST_SAT))])

    async def sync(self) -> None:
        self.syncs += 1


class FakeExits:
    """Exits that go where a test puts them, by `statuses_by_id`; only starting and canceling do something."""

    PACKAGE_WEIGHT_WU = 1105
    """Of the one transaction that each exit has, with its child."""

    CLAIM_WEIGHT_WU = 480

    def __init__(self, wallet: "FakeWallet") -> None:
        self._wallet = wallet
        self.statuses_by_id: dict[VtxoId, exits.ExitStatus] = {}
        self.broadcast: dict[VtxoId, Txid] = {}
        """Last exit transactions that were seen on the chain."""
        self.progressed_with: list[FeeRate | None] = []
        self.claims: list[tuple[tuple[VtxoId, ...], bytes, FeeRate | None]] = []
        self.failure: BarkdError | None = None
        """Raised by everything that needs the chain."""

    def put(self, status: exits.ExitStatus) -> None:
        self.statuses_by_id[status.vtxo_id] = status

    def _reach_out(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _find(self, vtxo_id: VtxoId) -> exits.ExitStatus:
        if vtxo_id not in self.statuses_by_id:
            raise exit_errors.NotExiting(vtxo_id)
        return self.statuses_by_id[vtxo_id]

    async def start(self, vtxo_ids: Sequence[VtxoId]) -> None:
        vtxos = [await self._wallet.get_vtxo(vtxo_id) for vtxo_id in vtxo_ids]
        self._reach_out()
        for vtxo in vtxos:
            known = self.statuses_by_id.get(vtxo.id)
            if not isinstance(vtxo.state, Spendable):
                continue
            if known is not None and not isinstance(known.state, exits.Canceled):
                continue
            if vtxo.amount_sat < DUST_SAT:
                raise exit_errors.DustLimit(vtxo.id, vtxo.amount_sat)
            self.put(exits.ExitStatus(vtxo.id, exits.Start(self._wallet.tip)))

    async def start_all(self) -> None:
        await self.start([vtxo_id for vtxo_id, _ in self._wallet.stored.items()])

    async def cancel(self, vtxo_id: VtxoId) -> None:
        found = self._find(vtxo_id)
        if isinstance(found.state, exits.Canceled):
            return
        if not isinstance(found.state, exits.Start):
            raise exit_errors.CannotCancelExit(vtxo_id, found.state.type)
        self._reach_out()
        if vtxo_id in self.broadcast:
            raise exit_errors.ExitTxAlreadyBroadcast(vtxo_id, self.broadcast[vtxo_id])
        history = (*found.history, found.state)
        self.put(replace(found, state=exits.Canceled(self._wallet.tip), history=history))

    async def progress(self, fee_rate: FeeRate | None = None) -> exits.ExitProgress:
        self._reach_out()
        self.progressed_with.append(fee_rate)
        listed = [status for status in self._sorted() if not isinstance(status.state, exits.Claimed)]
        heights = [
            state.claimable_height if isinstance(state, exits.AwaitingDelta) else state.claimable_since.height
            for state in (status.state for status in listed)
            if isinstance(state, exits.AwaitingDelta | exits.Claimable | exits.ClaimInProgress)
        ]
        return exits.ExitProgress(
            exits=tuple(replace(status, history=(), packages=()) for status in listed),
            is_done=not any(isinstance(status.state, exits.Pending) for status in listed),
            claimable_height=max(heights, default=None),
        )

    async def statuses(
        self, which: exits.ExitFilter, *, with_history: bool = False, with_packages: bool = False
    ) -> Sequence[exits.ExitStatus]:
        return [
            _shown(status, with_history, with_packages)
            for status in self._sorted()
            if which is exits.ExitFilter.ALL
            or (which is exits.ExitFilter.LIVE) == exits.is_live(status.state)
        ]

    def _sorted(self) -> Sequence[exits.ExitStatus]:
        return [self.statuses_by_id[vtxo_id] for vtxo_id in sorted(self.statuses_by_id, key=str)]

    async def status(
        self, vtxo_id: VtxoId, *, with_history: bool = False, with_packages: bool = False
    ) -> exits.ExitStatus:
        return _shown(self._find(vtxo_id), with_history, with_packages)

    async def claim(
        self, vtxo_ids: Sequence[VtxoId] | None, script_pubkey: bytes, fee_rate: FeeRate | None = None
    ) -> Txid:
        if vtxo_ids is None:
            claimed = [each.vtxo_id for each in self._sorted() if isinstance(each.state, exits.Claimable)]
        else:
            claimed = list(vtxo_ids)
        for vtxo_id in claimed:
            if not isinstance(self._find(vtxo_id).state, exits.Claimable):
                raise exit_errors.VtxoNotClaimable(vtxo_id)
        if not claimed:
            raise exit_errors.ClaimMissingInputs
        total_sat = sum([(await self._wallet.get_vtxo(vtxo_id)).amount_sat for vtxo_id in claimed])
        needed_sat = (fee_rate or FeeRate(750)).fee_wu(self.CLAIM_WEIGHT_WU) + DUST_SAT
        if needed_sat > total_sat:
            raise exit_errors.ClaimFeeExceedsOutput(needed_sat, total_sat)
        self._reach_out()
        self.claims.append((tuple(claimed), script_pubkey, fee_rate))
        return some_tx(7000 + len(self.claims), TxOut(total_sat, script_pubkey)).txid

    async def estimate_fee(
        self,
        vtxo_ids: Sequence[VtxoId] | None,
        *,
        fee_rate: FeeRate | None = None,
        margin: float = 1.2,
        script_pubkey: bytes | None = None,
    ) -> exits.ExitFeeEstimate:
        if not 0 <= margin <= 1e15:
            raise exit_errors.InvalidFeeMargin(repr(margin))
        self._reach_out()
        wanted = self._wallet.stored if vtxo_ids is None else dict.fromkeys(vtxo_ids)
        for vtxo_id in wanted:
            self._check_can_exit(vtxo_id)
        rate = fee_rate or FeeRate(1251)
        package_fee_sat = rate.fee_wu(self.PACKAGE_WEIGHT_WU)
        return exits.ExitFeeEstimate(
            broadcast_fee_sat=math.ceil(len(wanted) * package_fee_sat * margin),
            claim_fee_sat=rate.fee_wu(self.CLAIM_WEIGHT_WU) if wanted else 0,
            fee_rate=rate,
            txs_to_broadcast=len(wanted),
            is_fundable=True,
        )

    def _check_can_exit(self, vtxo_id: VtxoId) -> None:
        if vtxo_id not in self._wallet.stored:
            raise exit_errors.UnknownExitVtxo(vtxo_id)
        if isinstance(self._wallet.stored[vtxo_id][0].state, Spent):
            raise exit_errors.SpentVtxo(vtxo_id)
        status = self.statuses_by_id.get(vtxo_id)
        match None if status is None else status.state:
            case exits.Claimed():
                raise exit_errors.VtxoAlreadyExited(vtxo_id)
            case exits.VtxoAlreadySpent():
                raise exit_errors.SpentVtxo(vtxo_id)
            case exits.VtxoSwept():
                raise exit_errors.SweptVtxo(vtxo_id)


def _shown(status: exits.ExitStatus, with_history: bool, with_packages: bool) -> exits.ExitStatus:
    return replace(
        status,
        history=status.history if with_history else (),
        packages=status.packages if with_packages else (),
    )


RECOVERED = tuple(
    RecoveryEntry(VtxoId.of(OutPoint(Txid(bytes([number]) * 32), 0)), outcome, amount_sat, reason)
    for number, (outcome, amount_sat, reason) in enumerate(
        [
            (RecoveryOutcome.RECOVERED, 50_000, None),
            (RecoveryOutcome.SKIPPED, 10_000, "it was spent"),
            (RecoveryOutcome.NOT_FOUND, None, "the server does not know it"),
        ],
        1,
    )
)


class FakeRecovery:
    """Nothing was ever recovered until `start`; then what `found` says."""

    def __init__(self) -> None:
        self.starts = 0
        self.resumed = 0
        self.found: RecoveryReport | None = None
        self.trouble: BarkdError | None = None

    async def start(self) -> None:
        self.starts += 1
        if self.trouble is not None:
            raise self.trouble
        if self.found is None:
            self.found = RecoveryReport(NOW, NOW, None, True, RECOVERED, 0)

    async def resume(self) -> None:
        self.resumed += 1
        if self.trouble is not None:
            raise self.trouble

    async def report(self) -> RecoveryReport:
        if self.found is None:
            raise NoRecovery
        return self.found


class FakeWallet:
    """See the module."""

    def __init__(self, network: Network = Network.REGTEST, mnemonic: str = "test " * 11 + "junk") -> None:
        self.network = network
        self.fingerprint = parse_mnemonic(mnemonic).master_key().fingerprint.hex()
        self.notifications = Notifications(system_clock)
        self.onchain: FakeOnchain | None = FakeOnchain()
        self.exits = FakeExits(self)
        self.rounds = FakeRounds(self._all_vtxos, ARK_INFO, 100)
        self.offboards = FakeOffboards(self._all_vtxos, ARK_INFO, 100)
        self.lightning = FakeLightning()
        self.recovery = FakeRecovery()
        self.ark_info: ArkInfo | None = ARK_INFO
        self.tip = 100
        self.keys: list[SecretKey] = []
        self.stored: dict[VtxoId, tuple[WalletVtxo, Vtxo | None]] = {}
        self.movements: list[Movement] = []
        self.told_balance: Balance | None = None
        """Told instead of the sum of the spendable VTXOs."""
        self.rendered_history: RenderedList | None = None
        """Answered instead of a rendering of the movements."""
        self.boards: list[PendingBoard] = []
        self.imported_with: dict[str, object] = {}
        self.in_flight: set[VtxoId] = set()
        self.started = self.closed = False
        self.taken_over = asyncio.Event()
        self.syncs = 0
        self.failure: BarkdError | None = None
        """Raised by every operation that needs the network."""

    # --- what tests do to it

    def add_vtxo(self, vtxo: WalletVtxo, full: Vtxo | None = None) -> None:
        self.stored[vtxo.id] = (vtxo, full)

    def add_movement(self, subsystem: Subsystem = ARKOOR_SEND, **fields: object) -> Movement:
        movement = replace(
            Movement(len(self.movements) + 1, MovementStatus.SUCCESSFUL, subsystem, NOW, NOW, NOW),
            **fields,  # type: ignore[arg-type]
        )
        self.movements.append(movement)
        self.notifications.publish([MovementCreated(movement)])
        return movement

    def _reach_out(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _all_vtxos(self) -> Sequence[WalletVtxo]:
        return [vtxo for vtxo, _ in self.stored.values()]

    # --- WalletApi

    @property
    def is_connected(self) -> bool:
        return self.ark_info is not None

    async def next_round_time(self) -> datetime:
        self._reach_out()
        return NOW

    async def new_address(self) -> str:
        self._reach_out()
        self.keys.append(SecretKey(bytes([len(self.keys) + 1]) * 32))
        return self._address(self.keys[-1])

    async def address_at(self, index: int) -> str:
        if index >= len(self.keys):
            raise BarkdError(f"VTXO key {index} does not exist, please derive it first")
        return self._address(self.keys[index])

    def _address(self, key: SecretKey) -> str:
        return str(
            ArkAddress.for_vtxo_key(
                key,
                server_pubkey=SERVER_SECRET.public_key,
                server_mailbox_pubkey=MAILBOX_SECRET.public_key,
                mailbox_id=SecretKey(b"\x13" * 32).public_key,
                network=self.network,
            )
        )

    async def balance(self) -> Balance:
        self._reach_out()
        if self.told_balance is not None:
            return self.told_balance
        return Balance(spendable_sat=self._spendable_sat())

    def _spendable_sat(self) -> int:
        return sum(vtxo.amount_sat for vtxo, _ in self.stored.values() if vtxo.state == Spendable())

    async def rendered_vtxos(
        self, form: Hashable, render: Callable[[WalletVtxo], bytes], *, include_all: bool
    ) -> RenderedList:
        found = [vtxo for vtxo, _ in self.stored.values()]
        if not include_all:
            found = [vtxo for vtxo in found if not isinstance(vtxo.state, Spent | Exited)]
        return render_all(map(render, sorted(found, key=lambda vtxo: (vtxo.expiry_height, -vtxo.amount_sat))))

    async def get_vtxo(self, vtxo_id: VtxoId) -> WalletVtxo:
        if vtxo_id not in self.stored:
            raise UnknownVtxo(vtxo_id)
        return self.stored[vtxo_id][0]

    async def encoded_vtxo(self, vtxo_id: VtxoId) -> bytes:
        if vtxo_id not in self.stored:
            raise UnknownVtxo(vtxo_id)
        full = self.stored[vtxo_id][1]
        assert full is not None
        return full.encode()

    async def import_vtxos(
        self, vtxos: Sequence[Vtxo], *, gap_limit: int | None, skip_status_check: bool, allow_partial: bool
    ) -> Sequence[WalletVtxo]:
        self._reach_out()
        self.imported_with = {"gap_limit": gap_limit, "skip": skip_status_check, "partial": allow_partial}
        found = []
        for vtxo in vtxos:
            if vtxo.id in self.in_flight:
                raise StateConflict(
                    f"vtxo {vtxo.id} is neither spendable nor spent, so it cannot be imported: "
                    "the server reports it as Unclaimed"
                )
            if vtxo.id in self.stored:
                found.append(self.stored[vtxo.id][0])
            elif not allow_partial:
                raise InvalidInput(
                    f"unable to derive the key for vtxo {vtxo.id} from this seed "
                    f"with a {250 if gap_limit is None else gap_limit} gap limit"
                )
        return found

    async def send_arkoor(self, address: str, amount_sat: int) -> None:
        self._reach_out()
        ArkAddress.parse(address).validate_for(SERVER_SECRET.public_key, self.network)
        available = self._spendable_sat()
        if amount_sat > available:
            raise InsufficientFunds(
                f"Insufficient money available. Needed {format_btc(amount_sat)} but "
                f"{format_btc(available)} is available"
            )
        method = PaymentMethod(PaymentMethodKind.ARK, address)
        spent = [vtxo for vtxo in self._all_vtxos() if vtxo.state == Spendable()]
        self.add_movement(
            ARKOOR_SEND,
            sent_to=(MovementDestination(method, amount_sat),),
            intended_balance_sat=-amount_sat,
            effective_balance_sat=-amount_sat,
            input_vtxos=tuple(vtxo.id for vtxo in spent[:1]),
        )

    async def sign_message(self, message: str, user_pubkey: PublicKey) -> bytes | None:
        key = next((key for key in self.keys if key.public_key == user_pubkey), None)
        return None if key is None else sign_message(key, message)

    async def sync(self) -> None:
        self.syncs += 1

    async def sync_mailbox(self) -> int:
        self._reach_out()
        return 42

    async def rendered_movements(
        self, form: Hashable, render: Callable[[Movement], bytes], *, method: PaymentMethod | None = None
    ) -> RenderedList:
        if self.rendered_history is not None:
            return self.rendered_history
        listed = sorted(self.movements, key=lambda entry: (entry.created_at, entry.id), reverse=True)
        if method is not None:
            listed = [
                movement
                for movement in self.movements
                if any(each.method == method for each in (*movement.sent_to, *movement.received_on))
            ]
        return render_all(map(render, listed))

    async def patch_movement_metadata(self, movement_id: int, patch: JsonValue) -> None:
        for index, movement in enumerate(self.movements):
            if movement.id == movement_id:
                self.movements[index] = patch_metadata(movement, patch, NOW)
                self.notifications.publish([MovementUpdated(self.movements[index])])
                return
        raise UnknownMovement(movement_id)

    async def board_amount(self, amount_sat: int) -> PendingBoard:
        self._reach_out()
        assert self.onchain is not None
        if amount_sat >= 1 << 63:
            raise OverflowError
        script = b"\x51\x20" + b"\x02" * 32
        await self.onchain.send_many([(script, amount_sat)])
        tx = some_tx(5000 + len(self.boards), TxOut(amount_sat, script))
        fee_sat = board_fee(ARK_INFO.fees, amount_sat)
        movement = self.add_movement(BOARD, status=MovementStatus.PENDING, completed_at=None)
        board = PendingBoard(tx, (VtxoId(bytes(36)),), amount_sat - fee_sat, movement.id)
        self.boards.append(board)
        return board

    async def board_all(self) -> PendingBoard:
        assert self.onchain is not None
        return await self.board_amount((await self.onchain.balance()).total_sat - 1)

    async def pending_boards(self) -> Sequence[PendingBoard]:
        return tuple(self.boards)

    async def estimate_board_fee(self, amount_sat: int) -> FeeEstimate:
        self._reach_out()
        minimum = ARK_INFO.min_board_amount_sat
        if amount_sat < minimum:
            raise InvalidInput(
                f"board amount of {format_btc(amount_sat)} does not meet minimum value of "
                f"{format_btc(minimum)}"
            )
        fee_sat = board_fee(ARK_INFO.fees, amount_sat)
        return FeeEstimate(amount_sat, fee_sat, amount_sat - fee_sat)

    async def tip_height(self) -> int:
        self._reach_out()
        return self.tip

    async def fee_rates(self) -> FeeRates:
        return FeeRates(FeeRate(1251), FeeRate(750), FeeRate(250))

    async def until_taken_over(self) -> None:
        await self.taken_over.wait()

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.notifications.stop()

    async def close(self) -> None:
        await self.stop()
        self.closed = True


@dataclass(slots=True)
class FakeBackend:
    """Makes fake wallets; a wallet exists as an empty database file.

    create_failure, open_failure, erase_failure: raised instead of making, opening or erasing one.
    commit_failure: raised when the words are kept, and nothing else is.
    """

    create_failure: KnownError | None = None
    commit_failure: KnownError | None = None
    open_failure: KnownError | None = None
    erase_failure: KnownError | None = None
    erased: int = 0
    created: list[NewWallet] = field(default_factory=list)
    opened: list[FakeWallet] = field(default_factory=list)
    configs: list[WalletConfig] = field(default_factory=list)
    network: Network = Network.REGTEST

    async def create(self, datadir: Path, new: NewWallet, keep_words: Callable[[], None]) -> None:
        assert not (datadir / "mnemonic").exists()
        (datadir / "db.sqlite").touch()
        if self.create_failure is not None:
            raise self.create_failure
        keep_words()
        if self.commit_failure is not None:
            raise self.commit_failure
        (datadir / "db.sqlite").write_text(new.mnemonic)
        self.network = new.network
        self.created.append(new)

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        if not (datadir / "db.sqlite").exists():
            raise StoreError("failed to read properties")
        self.configs.append(load_config(self.network))
        if self.open_failure is not None:
            raise self.open_failure
        wallet = FakeWallet(self.network, mnemonic)
        self.opened.append(wallet)
        return wallet

    async def holds_wallet(self, datadir: Path) -> bool:
        words, database = datadir / "mnemonic", datadir / "db.sqlite"
        return database.exists() and words.read_text() == database.read_text() != ""

    def database_name(self, datadir: Datadir) -> str:
        return ""

    def empty_file(self, datadir: Datadir) -> Path | None:
        return None

    async def erase(self, datadir: Path, wallet: WalletApi | None) -> None:
        if self.erase_failure is not None:
            raise self.erase_failure
        if wallet is not None:
            await wallet.close()
        assert all(wallet.closed for wallet in self.opened)
        self.erased += 1


UNREACHABLE = ServerUnavailable(
    "You should be connected to Ark server to perform this action: Failed to connect to Ark server: "
    "transport error"
)

_checked_backend: WalletBackend = FakeBackend()
_checked_wallet: WalletApi = FakeWallet()
