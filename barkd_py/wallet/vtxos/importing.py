"""Importing VTXOs that somebody else kept: a backup, or another wallet of the same seed.

Each VTXO is proven against its on-chain anchor, its key must follow from the seed, and the server says
whether it is spent. What is being spent at this moment is not imported. All rows are stored in one
transaction.

With `allow_partial` a VTXO that fails is logged and left out; else it stops everything and nothing is stored.

Source: sheet 02 §6.9.
"""

import logging
from collections.abc import Sequence

from barkd_py.ark.attestations import attest, vtxo_status_message
from barkd_py.ark.info import is_safe_exit_delta
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId, VtxoInvalid
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, ChainError, InvalidInput, StateConflict, chain_text
from barkd_py.server_rpc.api import ArkServerApi, VtxoSpendState
from barkd_py.server_rpc.errors import ConversionError
from barkd_py.wallet.keychain import MAX_GAP_LIMIT, GapLimitTooHigh, Keychain
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import NewVtxo, Spendable, Spent, VtxoState, WalletVtxo
from barkd_py.wallet.vtxos.anchors import AnchorLook
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)


class NothingToImport(InvalidInput):
    def __init__(self) -> None:
        super().__init__("No VTXOs provided")


class ImportInvalid(InvalidInput):
    """The VTXO is not proven: it contradicts itself, its anchor or this wallet's server, or the chain source
    does not answer; the cause says how.
    """

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"vtxo {vtxo_id} failed to validate")
        self.vtxo_id = vtxo_id


class ImportNotOurs(InvalidInput):
    def __init__(self, vtxo_id: VtxoId, gap_limit: int) -> None:
        super().__init__(
            f"unable to derive the key for vtxo {vtxo_id} from this seed with a {gap_limit} gap limit"
        )
        self.vtxo_id = vtxo_id


_IN_BARKDS_WORDS = {
    VtxoSpendState.UNCLAIMED: "Unclaimed",
    VtxoSpendState.UNREGISTERED: "Unregistered",
    VtxoSpendState.HTLC_RECV_UNCLAIMED: "HtlcRecvUnclaimed",
}


class ImportInFlight(StateConflict):
    """state: None if the server gave none that is known."""

    def __init__(self, vtxo_id: VtxoId, state: VtxoSpendState | None) -> None:
        reported = "Unspecified" if state is None else _IN_BARKDS_WORDS[state]
        super().__init__(
            f"vtxo {vtxo_id} is neither spendable nor spent, so it cannot be imported: the server"
            f" reports it as {reported}"
        )
        self.vtxo_id = vtxo_id
        self.state = state


class Unproven(BarkdError):
    """Why a VTXO is not believed, in a word; the cause says more."""


class AnchorUnknown(Unproven):
    """The chain source does not know the transaction that the VTXO hangs off."""

    def __init__(self) -> None:
        super().__init__("anchor not found")


class ForeignServer(VtxoInvalid):
    def __init__(self) -> None:
        super().__init__("the VTXO belongs to another Ark server")


class UnsafeExitDelta(VtxoInvalid):
    def __init__(self, exit_delta: int) -> None:
        super().__init__(f"its exit delta is {exit_delta} blocks")


class VtxoImport:
    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        registration: Registration,
        *,
        network: Network,
        default_gap_limit: int,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._registration = registration
        self._network = network
        self._default_gap_limit = default_gap_limit

    async def run(
        self, vtxos: Sequence[Vtxo], *, gap_limit: int | None, skip_status_check: bool, allow_partial: bool
    ) -> tuple[WalletVtxo, ...]:
        """The stored VTXOs, those that were stored before included; in the order given, as often as given.

        Raises NothingToImport, GapLimitTooHigh, ImportInvalid, ImportNotOurs, ImportInFlight, ServerError.
        """
        gap = self._default_gap_limit if gap_limit is None else gap_limit
        if not vtxos:
            raise NothingToImport
        if gap > MAX_GAP_LIMIT:
            raise GapLimitTooHigh(gap)
        wanted = {vtxo.id: vtxo for vtxo in vtxos}
        async with self._store.read() as tx:
            known = await tx.vtxos.known(list(wanted))
        fresh = [vtxo for vtxo_id, vtxo in wanted.items() if vtxo_id not in known]
        skipped: set[VtxoId] = set()

        def leave_out(vtxo: Vtxo, error: BarkdError) -> None:
            if not allow_partial:
                raise error
            log.warning("not importing a VTXO: %s", chain_text(error))
            skipped.add(vtxo.id)

        for vtxo in fresh:
            try:
                await self._validate(vtxo)
            except ImportInvalid as error:
                leave_out(vtxo, error)
        valid = [vtxo for vtxo in fresh if vtxo.id not in skipped]
        ours = await self._keychain.gap_scan({vtxo.user_pubkey for vtxo in valid}, gap)
        look = AnchorLook(self._chain)
        new: list[NewVtxo] = []
        for vtxo in valid:
            if vtxo.user_pubkey not in ours:
                leave_out(vtxo, ImportNotOurs(vtxo.id, gap))
                continue
            try:
                state: VtxoState = Spendable() if skip_status_check else await self._state(vtxo)
                if state == Spendable():
                    await self._look_at_anchor(vtxo, look)
            except BarkdError as error:
                leave_out(vtxo, error)
                continue
            new.append(NewVtxo(vtxo, state))
        async with self._store.transaction() as tx:
            await tx.vtxos.insert(new)
            found = await tx.vtxos.get_many([vtxo_id for vtxo_id in wanted if vtxo_id not in skipped])
        self._registration.wake()
        stored = {vtxo.id: vtxo for vtxo in found}
        return tuple(stored[vtxo.id] for vtxo in vtxos if vtxo.id in stored)

    async def _validate(self, vtxo: Vtxo) -> None:
        """Raises ImportInvalid."""
        try:
            await self._prove(vtxo)
        except Unproven as error:
            raise ImportInvalid(vtxo.id) from error

    async def _prove(self, vtxo: Vtxo) -> None:
        """Raises Unproven."""
        try:
            pins = await self._keychain.pinned_server()
            if pins is not None and vtxo.server_pubkey != pins[0]:
                raise ForeignServer
            if not is_safe_exit_delta(vtxo.exit_delta, is_mainnet=self._network is Network.MAINNET):
                raise UnsafeExitDelta(vtxo.exit_delta)
            anchor = await self._chain.get_tx(vtxo.anchor_point.txid)
            if anchor is None:
                raise AnchorUnknown
            validate(vtxo, anchor)
        except ChainError as error:
            raise Unproven("chain error") from error
        except VtxoInvalid as error:
            raise Unproven("invalid") from error

    async def _look_at_anchor(self, vtxo: Vtxo, look: AnchorLook) -> None:
        """What has been spent may have been taken by whoever it was given to. Raises ImportInvalid."""
        try:
            await look.check(vtxo)
        except ChainError as error:
            raise ImportInvalid(vtxo.id) from error

    async def _state(self, vtxo: Vtxo) -> VtxoState:
        """Raises ImportInFlight, ServerError."""
        secret = await self._keychain.secret_for(vtxo.user_pubkey)
        attestation = attest(vtxo_status_message(vtxo.id), secret)
        try:
            state = await self._server.get_vtxo_status(vtxo.id, attestation)
        except ConversionError:
            raise ImportInFlight(vtxo.id, None) from None
        match state:
            case VtxoSpendState.SPENDABLE:
                return Spendable()
            case VtxoSpendState.SPENT:
                return Spent()
            case _:
                raise ImportInFlight(vtxo.id, state)
