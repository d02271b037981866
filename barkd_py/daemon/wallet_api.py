"""What the daemon and its REST API may ask of a wallet.

`barkd_py.wallet.wallet.Wallet` provides it, and the fake wallet of the tests does: both are checked against
the Protocols here, so the API cannot come to depend on more. Everything is in domain types; nothing here
knows of HTTP. Errors are `barkd_py.errors` classes whose chain of causes is what clients read.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.config import WalletConfig
from barkd_py.datadir import Datadir
from barkd_py.wallet.exits.states import ExitFeeEstimate, ExitFilter, ExitProgress, ExitStatus
from barkd_py.wallet.lightning.receive.service import LightningReceive
from barkd_py.wallet.lightning.send.invoices import LightningDestination
from barkd_py.wallet.lightning.send.service import LightningSend
from barkd_py.wallet.movements import JsonValue, Movement, PaymentMethod
from barkd_py.wallet.notifications import Notifications
from barkd_py.wallet.offboards.terms import OffboardTarget
from barkd_py.wallet.recovery.report import RecoveryReport
from barkd_py.wallet.rendered_list import RenderedList
from barkd_py.wallet.rounds.states import RoundInfo
from barkd_py.wallet.vtxo_states import WalletVtxo


class Balance(Protocol):
    """The off-chain balance; the fields are disjoint and their sum is the total. Source: sheet 09 §7."""

    @property
    def spendable_sat(self) -> int: ...
    @property
    def needs_refresh_sat(self) -> int: ...
    @property
    def pending_lightning_send_sat(self) -> int: ...
    @property
    def claimable_lightning_receive_sat(self) -> int: ...
    @property
    def pending_in_round_sat(self) -> int: ...
    @property
    def pending_board_sat(self) -> int: ...
    @property
    def pending_arkoor_send_sat(self) -> int: ...
    @property
    def pending_offboard_sat(self) -> int: ...
    @property
    def pending_exit_sat(self) -> int: ...


class PendingBoard(Protocol):
    """A board whose funding transaction is not confirmed yet. amount_sat: net of the board fee."""

    @property
    def funding_tx(self) -> Tx: ...
    @property
    def vtxo_ids(self) -> Sequence[VtxoId]: ...
    @property
    def amount_sat(self) -> int: ...
    @property
    def movement_id(self) -> int: ...


class FeeEstimate(Protocol):
    """gross: what leaves the wallet (for a board: what goes in before fees); net: gross less the fee."""

    @property
    def gross_amount_sat(self) -> int: ...
    @property
    def fee_sat(self) -> int: ...
    @property
    def net_amount_sat(self) -> int: ...
    @property
    def vtxos_spent(self) -> Sequence[VtxoId]: ...


class FeeRates(Protocol):
    @property
    def fast(self) -> FeeRate: ...
    @property
    def regular(self) -> FeeRate: ...
    @property
    def slow(self) -> FeeRate: ...


class OnchainBalance(Protocol):
    @property
    def total_sat(self) -> int: ...
    @property
    def trusted_spendable_sat(self) -> int: ...
    @property
    def immature_sat(self) -> int: ...
    @property
    def trusted_pending_sat(self) -> int: ...
    @property
    def untrusted_pending_sat(self) -> int: ...
    @property
    def confirmed_sat(self) -> int: ...


class OnchainUtxo(Protocol):
    @property
    def outpoint(self) -> OutPoint: ...
    @property
    def amount_sat(self) -> int: ...
    @property
    def confirmation_height(self) -> int | None: ...


class OnchainTx(Protocol):
    """onchain_fee_sat: None where not every input is known, so for most incoming transactions."""

    @property
    def tx(self) -> Tx: ...
    @property
    def onchain_fee_sat(self) -> int | None: ...
    @property
    def balance_change_sat(self) -> int: ...
    @property
    def confirmation(self) -> BlockRef | None: ...
    @property
    def is_cpfp(self) -> bool: ...


class OnchainApi(Protocol):
    """The on-chain wallet. Scripts are of the right network already; amounts are in satoshi."""

    async def balance(self) -> OnchainBalance: ...

    async def next_address(self) -> str: ...

    async def utxos(self) -> Sequence[OnchainUtxo]: ...

    async def transactions(self) -> Sequence[OnchainTx]:
        """Oldest first: confirmed ones by height, then unconfirmed ones by when they were first seen."""

    async def send_many(self, recipients: Sequence[tuple[bytes, int]]) -> Txid:
        """Pay (script, amount) pairs at the regular fee rate; stored before it is broadcast."""

    async def drain(self, script: bytes) -> Txid: ...

    async def sync(self) -> None: ...


class PackageFee(Protocol):
    """What an exit transaction and the child that pays for it cost together."""

    @property
    def fee_sat(self) -> int: ...
    @property
    def fee_rate(self) -> FeeRate: ...


class ExitsApi(Protocol):
    """Emergency exits. Errors are those of `barkd_py.wallet.exits.errors`, each with a tag."""

    async def start(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """Start exits, in this order; an error leaves the earlier ones started.

        VTXOs that are exiting already, spent, exited, or locked by anything but a round are passed over.
        Raises NotFound (UnknownVtxo) before anything is started; DustLimit, NonStandardExit,
        TipRetrievalFailure.
        """

    async def start_all(self) -> None:
        """Start an exit of every spendable or locked VTXO that can be exited."""

    async def cancel(self, vtxo_id: VtxoId) -> None:
        """Call an exit off. Canceling twice is a success.

        Raises NotExiting, CannotCancelExit, ExitTxAlreadyBroadcast, TransactionRetrievalFailure.
        """

    async def progress(self, fee_rate: FeeRate | None = None) -> ExitProgress:
        """Bring the on-chain wallet and every live exit forward now.

        fee_rate: for children that are made or replaced; None: the fast one. Not enough funds and the like
        are errors of single exits, in the answer. Raises OnchainSyncFailure, or ChainError if the chain
        source is away.
        """

    async def statuses(
        self, which: ExitFilter, *, with_history: bool = False, with_packages: bool = False
    ) -> Sequence[ExitStatus]:
        """By VTXO id. Never waits for the network."""

    async def status(
        self, vtxo_id: VtxoId, *, with_history: bool = False, with_packages: bool = False
    ) -> ExitStatus:
        """Also of a finished exit. Raises NotExiting."""

    async def claim(
        self, vtxo_ids: Sequence[VtxoId] | None, script_pubkey: bytes, fee_rate: FeeRate | None = None
    ) -> Txid:
        """Spend matured exits to one script; stored, then broadcast.

        vtxo_ids: None for all that are claimable. fee_rate: None: the regular one.
        Raises NotExiting, VtxoNotClaimable, ClaimMissingInputs, ClaimFeeExceedsOutput,
        ClaimMissingSignableClause, BroadcastError (nothing has changed then), ChainUnavailable (it may be
        under way; it is broadcast again until it is seen, or refused).
        """

    async def estimate_fee(
        self,
        vtxo_ids: Sequence[VtxoId] | None,
        *,
        fee_rate: FeeRate | None = None,
        margin: float = 1.2,
        script_pubkey: bytes | None = None,
    ) -> ExitFeeEstimate:
        """What exits would cost from here on. vtxo_ids: None for all spendable ones.

        fee_rate: for both legs; None: fast for the transactions, regular for the claim.
        script_pubkey: where the claim goes, if that is known.
        Raises InvalidFeeMargin, UnknownExitVtxo, VtxoAlreadyExited, SpentVtxo, SweptVtxo, NonStandardExit.
        """


class RoundsApi(Protocol):
    """Refreshes. All errors are failures of the operation, but `NothingToRefresh`."""

    async def refresh(self, vtxo_ids: Sequence[VtxoId]) -> RoundInfo:
        """Refresh exactly these in the next round; returns once that is stored.

        Raises NothingToRefresh, NotBuilt, NotStored.
        """

    async def refresh_all(self) -> RoundInfo:
        """As `refresh`, of every spendable VTXO."""

    async def refresh_counterparty(self) -> RoundInfo:
        """As `refresh`, of the spendable VTXOs that somebody else could undo."""

    async def refresh_delegated(self, vtxo_ids: Sequence[VtxoId], height: int | None = None) -> RoundInfo:
        """Let the server refresh these, from a height on. Raises NothingToRefresh, NotStored."""

    async def list(self) -> Sequence[RoundInfo]:
        """Every participation, after looking what became of it. Raises LockTimeout."""


class OffboardResult(Protocol):
    """The transaction is out."""

    @property
    def offboard_txid(self) -> Txid: ...
    @property
    def movement_id(self) -> int: ...


class OffboardsApi(Protocol):
    """Payments from Ark to the chain; each returns when its transaction is out."""

    async def offboard(self, vtxo_ids: Sequence[VtxoId], target: OffboardTarget) -> OffboardResult:
        """Let these VTXOs leave, whole; the fee is taken from them. Raises UnknownVtxo among others."""

    async def offboard_all(self, target: OffboardTarget) -> OffboardResult: ...

    async def send(self, amount_sat: int, target: OffboardTarget) -> OffboardResult:
        """Pay an amount; the fee comes on top."""

    async def estimate(self, vtxo_ids: Sequence[VtxoId], script_pubkey: bytes) -> FeeEstimate:
        """What `offboard` would cost. Raises UnknownVtxo."""

    async def estimate_all(self, script_pubkey: bytes) -> FeeEstimate: ...

    async def estimate_send(self, amount_sat: int, script_pubkey: bytes) -> FeeEstimate:
        """What `send` would cost; at most, if there is too little for it."""


class LightningApi(Protocol):
    """Payments over Lightning. Hashes and preimages are 32 bytes."""

    async def pay(
        self,
        destination: LightningDestination,
        amount_sat: int | None,
        *,
        comment: str | None = None,
        retry_for_secs: int | None = None,
        wait: bool = False,
    ) -> bytes:
        """Pay; the payment hash. Without `wait` it returns once the server has been told to pay.

        Naming an invoice again that is being paid goes on with that payment, whatever else is asked.
        comment: for Lightning addresses and LNURLs. retry_for_secs: how long the server may look for a route.
        Raises what keeps the payment from being started, or undid it; the amount or destination is not
        judged by the caller.
        """

    async def send(self, payment_hash: bytes) -> LightningSend:
        """How far a payment is; one that is not known is in state `unknown`."""

    async def estimate_pay(self, amount_sat: int) -> FeeEstimate:
        """What a payment would cost; at most, if there is too little for it."""

    async def create_invoice(
        self, amount_sat: int, *, description: str | None = None, token: str | None = None
    ) -> str:
        """A new BOLT11 invoice of this amount; the server keeps its fee of what comes in.

        token: for a server that wants one from a wallet without VTXOs.
        """

    async def check_invoice_address(self, address: ArkAddress) -> None:
        """Raises InvalidInput for an address that `create_invoice_for` must not be given."""

    async def create_invoice_for(
        self, address: ArkAddress, amount_sat: int, *, description: str | None = None
    ) -> str:
        """As `create_invoice`; what comes in is handed on to the address."""

    async def receives(self) -> Sequence[LightningReceive]:
        """The payments that are expected, or are coming in; oldest first."""

    async def receive(self, payment_hash: bytes) -> LightningReceive:
        """One of these, or one that has settled. Raises NotFound."""

    async def cancel_receive(self, payment_hash: bytes) -> None:
        """Give up an invoice that nobody has paid. Raises NotFound, StateConflict."""

    async def estimate_receive(self, amount_sat: int) -> FeeEstimate:
        """What the server would keep of an amount."""


class RecoveryApi(Protocol):
    """Finding VTXOs again from the mnemonic."""

    async def start(self) -> None:
        """Begin anew, unless one is under way; returns at its end. It goes on if the caller is cancelled.

        Raises RecoveryInterrupted: it goes on later.
        """

    async def resume(self) -> None:
        """As `start`, for what is pending only."""

    async def report(self) -> RecoveryReport:
        """Of the one that is under way, or the last one. Raises NoRecovery."""


class WalletApi(Protocol):
    """One open wallet."""

    @property
    def network(self) -> Network: ...

    @property
    def fingerprint(self) -> str:
        """BIP-32 fingerprint of the master key, 8 lower-case hex digits."""

    @property
    def notifications(self) -> Notifications: ...

    @property
    def onchain(self) -> OnchainApi | None: ...

    @property
    def exits(self) -> ExitsApi: ...

    @property
    def rounds(self) -> RoundsApi: ...

    @property
    def offboards(self) -> OffboardsApi: ...

    @property
    def lightning(self) -> LightningApi: ...

    @property
    def recovery(self) -> RecoveryApi: ...

    async def until_taken_over(self) -> None:
        """Return when another daemon runs the wallet; never, if its database is not shared."""

    @property
    def is_connected(self) -> bool:
        """Whether the Ark server was ever reached since the wallet was opened."""

    @property
    def ark_info(self) -> ArkInfo | None: ...

    async def next_round_time(self) -> datetime: ...

    async def new_address(self) -> str: ...

    async def address_at(self, index: int) -> str:
        """The Ark address of a key that was derived before. Raises if there is none with this index."""

    async def balance(self) -> Balance: ...

    async def rendered_vtxos(
        self, form: Hashable, render: Callable[[WalletVtxo], bytes], *, include_all: bool
    ) -> RenderedList:
        """Spendable and locked VTXOs (all: spent and exited too), by expiry height, then largest first.

        Each as `render` puts it; what was rendered is kept under the form's name.
        """

    async def get_vtxo(self, vtxo_id: VtxoId) -> WalletVtxo:
        """Raises NotFound."""

    async def encoded_vtxo(self, vtxo_id: VtxoId) -> bytes:
        """Raises NotFound."""

    async def import_vtxos(
        self,
        vtxos: Sequence[Vtxo],
        *,
        gap_limit: int | None,
        skip_status_check: bool,
        allow_partial: bool,
    ) -> Sequence[WalletVtxo]:
        """Raises InvalidInput for one that cannot be ours, ImportInFlight for one that is in use."""

    async def send_arkoor(self, address: str, amount_sat: int) -> None:
        """Pay an Ark address; returns once the payment is cosigned and delivered.

        Raises InvalidInput for an address that cannot be paid, InsufficientFunds.
        """

    async def sign_message(self, message: str, user_pubkey: PublicKey) -> bytes | None:
        """64 bytes; None if the key is not one that this wallet has derived."""

    async def sync(self) -> None:
        """Bring everything up to date; what fails is logged."""

    async def sync_mailbox(self) -> int:
        """Fetch and handle all mail; the checkpoint that was reached."""

    async def rendered_movements(
        self, form: Hashable, render: Callable[[Movement], bytes], *, method: PaymentMethod | None = None
    ) -> RenderedList:
        """All, newest first; with a method those that have it in sent_to or received_on, oldest first.

        As in `rendered_vtxos`; what has a certain method is not kept.
        """

    async def patch_movement_metadata(self, movement_id: int, patch: JsonValue) -> None:
        """Raises NotFound."""

    async def board_amount(self, amount_sat: int) -> PendingBoard: ...

    async def board_all(self) -> PendingBoard: ...

    async def pending_boards(self) -> Sequence[PendingBoard]: ...

    async def estimate_board_fee(self, amount_sat: int) -> FeeEstimate: ...

    async def tip_height(self) -> int: ...

    async def fee_rates(self) -> FeeRates: ...

    async def start(self) -> None:
        """Try to reach the server once (failure is only logged) and start the background work."""

    async def close(self) -> None:
        """Stop the background work, end subscriptions and polls, close the store. Safe to repeat."""

    async def stop(self) -> None:
        """The same, and the store stays open: no other daemon can have the wallet. Safe to repeat."""


@dataclass(frozen=True, slots=True)
class NewWallet:
    """What a wallet is made from.

    mnemonic: BIP-39 words. birthday_height: None for a new wallet, or where the chain source needs none.
    recover: the words have been used before, so there may be something to find.
    without_server: go on if the Ark server cannot be reached.
    """

    network: Network
    config: WalletConfig
    mnemonic: str
    birthday_height: int | None
    recover: bool
    without_server: bool

    def __repr__(self) -> str:
        return f"NewWallet({self.network.value}, recover={self.recover})"


class WalletBackend(Protocol):
    """How wallets come to be. The caller holds the locks of the data directory and cleans up after errors."""

    async def create(self, datadir: Path, new: NewWallet, keep_words: Callable[[], None]) -> None:
        """Make the database and the wallet in it, scan the chain, recover; nothing stays open.

        keep_words: called just before the database holds a wallet; what it raises prevents that.
        Errors begin with the texts of sheet 07 §6.2: `failed to create a chain source client with the
        config: …`, `chain source version check failed: …`, `error creating wallet: error creating new
        wallet: Failed to connect to provided server: …`.
        """

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        """Open the wallet without starting its background work.

        load_config: the settings, once the database has told the network. Raises StoreError `failed to
        read properties` if the database holds no wallet.
        """

    async def holds_wallet(self, datadir: Path) -> bool:
        """Whether the database holds the wallet of the data directory's words. Raises StoreError."""

    def database_name(self, datadir: Datadir) -> str:
        """Where wallets' rows are, without password; empty: in the data directory. Raises StoreError."""

    def empty_file(self, datadir: Datadir) -> Path | None:
        """The SQLite file that a URL names, if it is in the data directory and is surely nobody's wallet."""

    async def erase(self, datadir: Path, wallet: WalletApi | None) -> None:
        """Destroy what of the data directory's own wallet is kept outside of it; of another one nothing.

        wallet: it was loaded, and is stopped. It is closed afterwards, unless others might have its database:
        that is for the caller to do, once the directory is empty too. Raises StoreError.
        """
