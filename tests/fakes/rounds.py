"""Rounds and offboards of the fake wallet: what is refused, in barkd's words, and what is answered."""

from collections.abc import Callable, Sequence

from barkd_py.ark.fees import VtxoFeeInfo, offboard_fee, subtract_fee_above_dust
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import BarkdError, InsufficientFunds, StateConflict
from barkd_py.wallet.offboards.errors import (
    CannotLock,
    DuplicateOffboardInput,
    OffboardLeavesDust,
    SendBelowDust,
    TooManyOffboardInputs,
)
from barkd_py.wallet.offboards.service import OffboardResult
from barkd_py.wallet.offboards.terms import OffboardEstimate, OffboardTarget, min_output_sat
from barkd_py.wallet.rounds.participation import (
    DuplicateInput,
    InputNotSpendable,
    UnknownInput,
    output_amount_sat,
)
from barkd_py.wallet.rounds.service import NotBuilt, NothingToRefresh, NotStored
from barkd_py.wallet.rounds.states import Delegated, Output, Pending, Round, RoundInfo, RoundState, Waiting
from barkd_py.wallet.vtxo_states import ActionHolder, Lock, Spendable, UnknownVtxo, WalletVtxo, next_state
from barkd_py.wallet.vtxos.selection import SelectionLimits, fee_infos, select_with_fee

FEE_RATE = FeeRate(250)
OUTPUT_KEY = SecretKey(b"\x21" * 32).public_key
OFFBOARD_TX = Tx(2, (TxIn(OutPoint(Txid(b"\x31" * 32), 0)),), (TxOut(1, b"\x51"),))

Stored = Callable[[], Sequence[WalletVtxo]]


class FakeRounds:
    """stored: the wallet's VTXOs. infos: what `list` answers. foreign: VTXOs with counterparty risk."""

    def __init__(self, stored: Stored, info: ArkInfo, tip_height: int) -> None:
        self._stored = stored
        self._ark_info = info
        self._tip_height = tip_height
        self.infos: list[RoundInfo] = []
        self.foreign: set[VtxoId] = set()
        self.failure: BarkdError | None = None

    async def refresh(self, vtxo_ids: Sequence[VtxoId]) -> RoundInfo:
        return self._start(vtxo_ids, Waiting(), None)

    async def refresh_all(self) -> RoundInfo:
        return await self.refresh([vtxo.id for vtxo in self._stored() if vtxo.state == Spendable()])

    async def refresh_counterparty(self) -> RoundInfo:
        return await self.refresh([vtxo.id for vtxo in self._stored() if vtxo.id in self.foreign])

    async def refresh_delegated(self, vtxo_ids: Sequence[VtxoId], height: int | None = None) -> RoundInfo:
        try:
            return self._start(vtxo_ids, Delegated(b"\x41" * 32), height)
        except NotBuilt as error:
            raise NotStored from error.__cause__

    async def list(self) -> Sequence[RoundInfo]:
        if self.failure is not None:
            raise self.failure
        return tuple(self.infos)

    def _start(self, vtxo_ids: Sequence[VtxoId], state: RoundState, height: int | None) -> RoundInfo:
        if not vtxo_ids:
            raise NothingToRefresh
        try:
            inputs = self._inputs(vtxo_ids)
            amount_sat = output_amount_sat(
                inputs, self._ark_info, self._tip_height if height is None else height
            )
        except BarkdError as error:
            raise NotBuilt from error
        for vtxo in inputs:
            if vtxo.state != Spendable():
                raise NotStored from InputNotSpendable(vtxo)
        round_ = Round(tuple(vtxo_ids), (Output(amount_sat, OUTPUT_KEY),), state, scheduled_height=height)
        self.infos.append(RoundInfo(len(self.infos) + 1, round_, Pending(), 1))
        return self.infos[-1]

    def _inputs(self, vtxo_ids: Sequence[VtxoId]) -> Sequence[WalletVtxo]:
        stored = {vtxo.id: vtxo for vtxo in self._stored()}
        for index, vtxo_id in enumerate(vtxo_ids):
            if vtxo_id in vtxo_ids[:index]:
                raise DuplicateInput(vtxo_id)
            if vtxo_id not in stored:
                raise UnknownInput(vtxo_id)
        return [stored[vtxo_id] for vtxo_id in vtxo_ids]


class FakeOffboards:
    """sent: what left, to whom. VTXOs stay as they are."""

    def __init__(self, stored: Stored, info: ArkInfo, tip_height: int) -> None:
        self._stored = stored
        self._ark_info = info
        self._tip_height = tip_height
        self.sent: list[tuple[OffboardTarget, int]] = []

    async def offboard(self, vtxo_ids: Sequence[VtxoId], target: OffboardTarget) -> OffboardResult:
        vtxos = self._find(vtxo_ids)
        if len(vtxos) > self._ark_info.max_offboard_inputs:
            raise TooManyOffboardInputs(len(vtxos), self._ark_info.max_offboard_inputs)
        if len(set(vtxo_ids)) != len(vtxo_ids):
            raise DuplicateOffboardInput
        gross_sat = sum(vtxo.amount_sat for vtxo in vtxos)
        fee_sat = self._fee_sat(gross_sat, fee_infos(vtxos, self._tip_height), target.script_pubkey)
        try:
            net_sat = subtract_fee_above_dust(
                gross_sat, fee_sat, dust_sat=min_output_sat(target.script_pubkey)
            )
        except InsufficientFunds as error:
            raise OffboardLeavesDust from error
        for vtxo in vtxos:
            try:
                next_state(vtxo.id, vtxo.state, Lock(ActionHolder("00")))
            except StateConflict as error:
                raise CannotLock from error
        return self._send(target, net_sat)

    async def offboard_all(self, target: OffboardTarget) -> OffboardResult:
        return await self.offboard([vtxo.id for vtxo in self._spendable()], target)

    async def send(self, amount_sat: int, target: OffboardTarget) -> OffboardResult:
        minimum_sat = min_output_sat(target.script_pubkey)
        if amount_sat < minimum_sat:
            raise SendBelowDust(target.address, minimum_sat)
        self._select(amount_sat, target.script_pubkey)
        return self._send(target, amount_sat)

    async def estimate(self, vtxo_ids: Sequence[VtxoId], script_pubkey: bytes) -> OffboardEstimate:
        vtxos = self._find(vtxo_ids)
        gross_sat = sum(vtxo.amount_sat for vtxo in vtxos)
        fee_sat = self._fee_sat(gross_sat, fee_infos(vtxos, self._tip_height), script_pubkey)
        return OffboardEstimate(gross_sat, fee_sat, max(0, gross_sat - fee_sat), tuple(vtxo_ids))

    async def estimate_all(self, script_pubkey: bytes) -> OffboardEstimate:
        return await self.estimate([vtxo.id for vtxo in self._spendable()], script_pubkey)

    async def estimate_send(self, amount_sat: int, script_pubkey: bytes) -> OffboardEstimate:
        try:
            fee_sat, spent = self._select(amount_sat, script_pubkey)
        except InsufficientFunds:
            fee_sat, spent = self._fee_sat(amount_sat, [VtxoFeeInfo.fresh(amount_sat)], script_pubkey), ()
        return OffboardEstimate(amount_sat + fee_sat, fee_sat, amount_sat, spent)

    def _spendable(self) -> list[WalletVtxo]:
        return [vtxo for vtxo in self._stored() if vtxo.state == Spendable()]

    def _find(self, vtxo_ids: Sequence[VtxoId]) -> list[WalletVtxo]:
        stored = {vtxo.id: vtxo for vtxo in self._stored()}
        for vtxo_id in vtxo_ids:
            if vtxo_id not in stored:
                raise UnknownVtxo(vtxo_id)
        return [stored[vtxo_id] for vtxo_id in vtxo_ids]

    def _select(self, amount_sat: int, script_pubkey: bytes) -> tuple[int, tuple[VtxoId, ...]]:
        selection = select_with_fee(
            self._spendable(),
            amount_sat,
            lambda amount, infos: self._fee_sat(amount, infos, script_pubkey),
            tip_height=self._tip_height,
            limits=SelectionLimits(max_inputs=self._ark_info.max_offboard_inputs),
        )
        return selection.fee_sat, tuple(vtxo.id for vtxo in selection.vtxos)

    def _fee_sat(self, amount_sat: int, infos: Sequence[VtxoFeeInfo], script_pubkey: bytes) -> int:
        return offboard_fee(
            self._ark_info.fees, amount_sat, infos, script_pubkey=script_pubkey, fee_rate=FEE_RATE
        )

    def _send(self, target: OffboardTarget, net_sat: int) -> OffboardResult:
        self.sent.append((target, net_sat))
        return OffboardResult(OFFBOARD_TX.txid, len(self.sent))
