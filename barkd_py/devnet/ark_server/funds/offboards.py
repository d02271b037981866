"""Offboards: VTXOs against an output of a transaction of the server's.

Preparing makes the transaction and locks its coins and the inputs, for a session of some seconds; finishing
takes the forfeits, books everything, and only then lets the transaction out. A session can be finished once:
whatever goes wrong kills it. Both calls may be repeated with the same answer while the session lasts.

The order of the checks is part of the protocol: wallets conclude from a refused fee rate or amount that the
inputs are unspent.

Source: sheet 10 §6.8; sheet 03 §3.7.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.ark.attestations import is_attested, offboard_request_message
from barkd_py.ark.connectors import CONNECTOR_SAT, connector_taproot
from barkd_py.ark.cosign import BadCosignature, Cosignature
from barkd_py.ark.fees import (
    AmountAfterFeeIsDust,
    FeeExceedsAmount,
    FeeOverflow,
    VtxoFeeInfo,
    offboard_fee,
    subtract_fee_above_dust,
)
from barkd_py.ark.offboard import (
    CONNECTOR_VOUT,
    OffboardForfeits,
    OffboardRequestInvalid,
    verify_offboard_request,
)
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.script import dust_limit_sat
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import FeeRate, format_btc
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.faults import Faults
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.funds.treasury import Draft, Treasury, TreasuryEmpty
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import MAX_OFFBOARD_INPUTS, ServerSettings
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.tables import offboard
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow
from barkd_py.devnet.ark_server.vtxos.flux import AlreadyLocked, FluxLocks
from barkd_py.errors import ChainError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OffboardRequest:
    """What somebody wants on chain. deduct_fee: whether the fee comes out of the inputs' whole amount."""

    net_amount_sat: int
    script_pubkey: bytes
    deduct_fee: bool
    fee_rate: FeeRate

    @property
    def destination(self) -> TxOut:
        return TxOut(self.net_amount_sat, self.script_pubkey)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The unsigned transaction, and the server's nonces for the forfeits, in input order."""

    tx: Tx
    pub_nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Session:
    """An offboard that can be finished, until the clock says so."""

    request: OffboardRequest
    vtxos: tuple[Vtxo, ...]
    draft: Draft
    connector_secret: SecretKey = field(repr=False)
    sec_nonces: tuple[SecNonce, ...] = field(repr=False)
    pub_nonces: tuple[bytes, ...]
    ends_at: float

    @property
    def input_ids(self) -> tuple[VtxoId, ...]:
        return tuple(vtxo.id for vtxo in self.vtxos)

    @property
    def forfeits(self) -> OffboardForfeits:
        return OffboardForfeits(self.vtxos, self.draft.tx)

    @property
    def prepared(self) -> Prepared:
        return Prepared(self.draft.tx, self.pub_nonces)


@dataclass(frozen=True, slots=True)
class _Finished:
    signed_tx: Tx
    ends_at: float


@dataclass(frozen=True, slots=True)
class OffboardParts:
    """What offboards are made with. clock: Unix seconds."""

    settings: ServerSettings
    keys: ServerKeys
    store: Store
    chain: ServerChain
    locks: FluxLocks
    treasury: Treasury
    fee_rates: FeeRates
    faults: Faults
    clock: Callable[[], float]


class Offboards:
    """The server's side of offboards."""

    def __init__(self, parts: OffboardParts) -> None:
        self._parts = parts
        self._store = parts.store
        self._sessions: dict[Txid, _Session] = {}
        self._finished: dict[Txid, _Finished] = {}

    # --- preparing

    async def prepare(
        self, request: OffboardRequest, input_ids: Sequence[VtxoId], attestations: Sequence[bytes]
    ) -> Prepared:
        """Propose a transaction, and open a session. Raises Failure."""
        _check_request(request, input_ids)
        self.sweep()
        try:
            self._parts.locks.lock(input_ids)
        except AlreadyLocked as error:
            same = self._pending(request, input_ids)
            if same is None:
                raise Failure("some VTXO is already locked by another process") from error
            _check_attestations(request, same.vtxos, attestations)
            return same.prepared
        try:
            session = await self._open(request, input_ids, attestations)
        except BaseException:
            self._parts.locks.release(input_ids)
            raise
        self._sessions[session.draft.tx.txid] = session
        return session.prepared

    def _pending(self, request: OffboardRequest, input_ids: Sequence[VtxoId]) -> _Session | None:
        """The open session of exactly this request."""
        return next(
            (
                session
                for session in self._sessions.values()
                if session.request == request and session.input_ids == tuple(input_ids)
            ),
            None,
        )

    async def _open(
        self, request: OffboardRequest, input_ids: Sequence[VtxoId], attestations: Sequence[bytes]
    ) -> _Session:
        if len(attestations) != len(input_ids):
            raise BadArgument("wrong number of attestations")
        rows, vtxos = await self._store.transact(partial(_read, vtxo_ids=input_ids))
        tip = await self._parts.chain.tip()
        for row in rows:
            vtxo_rows.check_spendable(row, tip_height=tip.height)
        self._check_fee_rate(request.fee_rate)
        self._check_amount(request, vtxos, tip.height)
        _check_attestations(request, vtxos, attestations)
        connector_secret = SecretKey.generate()
        draft = await self._draft(request, len(vtxos), connector_secret)
        forfeits = OffboardForfeits(tuple(vtxos), draft.tx)
        pairs = [task.generate_nonce(self._parts.keys.server) for task in forfeits.tasks]
        return _Session(
            request=request,
            vtxos=tuple(vtxos),
            draft=draft,
            connector_secret=connector_secret,
            sec_nonces=tuple(sec_nonce for sec_nonce, _ in pairs),
            pub_nonces=tuple(pub_nonce for _, pub_nonce in pairs),
            ends_at=self._parts.clock() + self._parts.settings.offboard_session_secs,
        )

    def _check_fee_rate(self, fee_rate: FeeRate) -> None:
        if not self._parts.fee_rates.accepts(fee_rate):
            current = self._parts.fee_rates.regular
            raise BadArgument(
                f"fee rate is no longer valid: provided = {fee_rate.sat_per_kwu}, "
                f"expected = {current.sat_per_kwu}"
            )

    def _check_amount(self, request: OffboardRequest, vtxos: Sequence[Vtxo], tip_height: int) -> None:
        """Whether the inputs pay for the output and the fee; they may pay more."""
        gross_sat = sum(vtxo.amount_sat for vtxo in vtxos)
        fee_sat = self._fee_sat(request, vtxos, tip_height, gross_sat)
        if request.deduct_fee:
            expected_sat = _net_amount_sat(request, gross_sat, fee_sat)
            if request.net_amount_sat > expected_sat:
                raise BadArgument(
                    "offboard net amount does not match expected amount: "
                    f"provided = {format_btc(request.net_amount_sat)}, expected = {format_btc(expected_sat)}"
                )
        elif request.net_amount_sat + fee_sat > gross_sat:
            raise BadArgument(
                "offboard gross amount does not match expected amount: "
                f"provided = {format_btc(gross_sat)}, "
                f"expected = {format_btc(request.net_amount_sat + fee_sat)} ({format_btc(fee_sat)} fee)"
            )

    def _fee_sat(
        self, request: OffboardRequest, vtxos: Sequence[Vtxo], tip_height: int, gross_sat: int
    ) -> int:
        infos = [
            VtxoFeeInfo.at_tip(
                amount_sat=each.amount_sat, expiry_height=each.expiry_height, tip_height=tip_height
            )
            for each in vtxos
        ]
        try:
            return offboard_fee(
                self._parts.settings.fees,
                gross_sat if request.deduct_fee else request.net_amount_sat,
                infos,
                script_pubkey=request.script_pubkey,
                fee_rate=request.fee_rate,
            )
        except FeeOverflow:
            raise Failure("unable to calculate fee for offboard") from None

    async def _draft(self, request: OffboardRequest, nb_inputs: int, connector_secret: SecretKey) -> Draft:
        connector = connector_taproot(connector_secret.public_key)
        outputs = [request.destination, TxOut(CONNECTOR_SAT * nb_inputs, connector.script_pubkey)]
        try:
            draft = await self._parts.treasury.draft(outputs, request.fee_rate)
        except TreasuryEmpty as error:
            raise Failure("bdk failed to create offboard tx") from error
        try:
            return replace(draft, tx=await self._parts.faults.reshape("offboard.tx", draft.tx))
        except BaseException:
            self._parts.treasury.release(draft)
            raise

    # --- finishing

    async def finish(self, txid: Txid, answers: Sequence[bytes], partials: Sequence[bytes]) -> Tx:
        """Take the forfeits, and let the transaction out; the signed transaction. Raises Failure."""
        self.sweep()
        finished = self._finished.get(txid)
        if finished is not None:
            return finished.signed_tx
        # Taken out at once: who forfeits wrongly does not get a second chance.
        session = self._sessions.pop(txid, None)
        if session is None:
            raise BadArgument("unknown offboard txid")
        try:
            signed_tx = await self._finish(session, answers, partials)
        finally:
            self._close(session)
        self._finished[txid] = _Finished(signed_tx, session.ends_at)
        await self._broadcast(signed_tx)
        return signed_tx

    async def _finish(self, session: _Session, pub_nonces: Sequence[bytes], partials: Sequence[bytes]) -> Tx:
        if len(pub_nonces) != len(session.vtxos):
            raise BadArgument("incorrect number of public nonces")
        if len(partials) != len(session.vtxos):
            raise BadArgument("incorrect number of partial signatures")
        forfeit_txs = self._sign_forfeits(session, list(map(Cosignature, pub_nonces, partials)))
        signed_tx = self._parts.treasury.sign(session.draft)
        try:
            await self._parts.chain.check(signed_tx)
        except ChainError as error:
            raise Failure("mempool rejected offboard tx") from error
        await self._parts.faults.pass_point("offboard.book")
        await self._store.transact(
            partial(_book, session=session, signed_tx=signed_tx, forfeit_txs=forfeit_txs)
        )
        return signed_tx

    def _sign_forfeits(self, session: _Session, answers: Sequence[Cosignature]) -> tuple[Tx, ...]:
        for vtxo, task, pub_nonce, answer in zip(
            session.vtxos, session.forfeits.tasks, session.pub_nonces, answers, strict=True
        ):
            if not task.is_cosigned(pub_nonce, answer, by=task.user_pubkey):
                cause = BadCosignature(f"invalid partial signature for VTXO {vtxo.id}")
                raise BadArgument("invalid partial forfeit signatures") from cause
        return session.forfeits.finish(
            answers,
            server_secret=self._parts.keys.server,
            sec_nonces=session.sec_nonces,
            server_pub_nonces=session.pub_nonces,
            connector_secret=session.connector_secret,
        )

    def _close(self, session: _Session) -> None:
        """Free what a session holds."""
        for sec_nonce in session.sec_nonces:
            sec_nonce.wipe()
        self._parts.locks.release(session.input_ids)
        self._parts.treasury.release(session.draft)

    # --- afterwards

    def sweep(self) -> None:
        """End the sessions whose time is over."""
        now = self._parts.clock()
        for txid, session in list(self._sessions.items()):
            if session.ends_at <= now:
                self._close(self._sessions.pop(txid))
        self._finished = {txid: each for txid, each in self._finished.items() if each.ends_at > now}

    @property
    def open_sessions(self) -> list[Txid]:
        return list(self._sessions)

    async def run(self) -> None:
        """End sessions in time, and broadcast what the node has not taken yet."""
        while True:
            await self.broadcast_pending()
            await asyncio.sleep(self._parts.settings.offboard_check_secs)
            self.sweep()

    async def broadcast_pending(self) -> None:
        for tx in await self._store.transact(_not_broadcast):
            await self._broadcast(tx)

    async def _broadcast(self, tx: Tx) -> None:
        try:
            if not await self._parts.faults.pass_point("offboard.broadcast"):
                return
            await self._parts.chain.broadcast(tx)
        except (ChainError, Failure) as error:
            log.warning("offboard %s is not accepted: %s", tx.txid, error)
        else:
            await self._store.transact(partial(_mark_broadcast, txid=tx.txid))


# --- checks


def _check_request(request: OffboardRequest, input_ids: Sequence[VtxoId]) -> None:
    if len(input_ids) > MAX_OFFBOARD_INPUTS:
        raise BadArgument("too many inputs")
    if not input_ids:
        # The real server fails somewhere further on.
        raise BadArgument("no inputs")
    try:
        verify_offboard_request(request.destination)
    except OffboardRequestInvalid as error:
        raise BadArgument("invalid offboard request") from error


def _net_amount_sat(request: OffboardRequest, gross_sat: int, fee_sat: int) -> int:
    """What is left of whole inputs. Raises Failure."""
    dust_sat = dust_limit_sat(request.script_pubkey) or 0
    try:
        return subtract_fee_above_dust(gross_sat, fee_sat, dust_sat=dust_sat)
    except (FeeExceedsAmount, AmountAfterFeeIsDust) as error:
        raise Failure(str(error)) from None


def _check_attestations(
    request: OffboardRequest, vtxos: Sequence[Vtxo], attestations: Sequence[bytes]
) -> None:
    if len(attestations) != len(vtxos):
        raise BadArgument("wrong number of attestations")
    message = offboard_request_message(
        net_amount_sat=request.net_amount_sat,
        script_pubkey=request.script_pubkey,
        input_ids=[vtxo.id for vtxo in vtxos],
    )
    for vtxo, attestation in zip(vtxos, attestations, strict=True):
        if not is_attested(message, vtxo.user_pubkey, attestation):
            cause = Failure("signature failed verification")
            raise BadArgument(f"invalid attestations for vtxo {vtxo.id}") from cause


# --- the rows


def _read(connection: Connection, vtxo_ids: Sequence[VtxoId]) -> tuple[list[VtxoRow], list[Vtxo]]:
    rows = vtxo_rows.get_all(connection, vtxo_ids)
    return rows, [row.user_vtxo() for row in rows]


def _book(connection: Connection, session: _Session, signed_tx: Tx, forfeit_txs: Sequence[Tx]) -> None:
    """Store the offboard, its forfeits and what makes their connectors; spend the inputs and the coins."""
    fan_out = _signed_fan_out(session)
    virtual = [*forfeit_txs, *([] if fan_out is None else [fan_out])]
    vtxo_rows.put_virtual_txs(connection, [], signed=[signed_tx], is_funding=True)
    vtxo_rows.put_virtual_txs(connection, [], signed=virtual)
    spends = [(vtxo.id, tx.txid) for vtxo, tx in zip(session.vtxos, forfeit_txs, strict=True)]
    vtxo_rows.spend_in_offboard(connection, spends, signed_tx.txid)
    Treasury.record(connection, session.draft)
    values = {"txid": bytes(signed_tx.txid), "signed_tx": signed_tx.serialize(), "is_broadcast": False}
    connection.execute(insert(offboard).values(values))


def _signed_fan_out(session: _Session) -> Tx | None:
    """The transaction that makes the connectors, signed with their key."""
    fan_out = session.forfeits.fan_out
    if fan_out is None:
        return None
    spent = session.draft.tx.outputs[CONNECTOR_VOUT]
    tweak = connector_taproot(session.connector_secret.public_key).tweak
    secret = session.connector_secret.x_only_tweak_add(tweak)
    signature = secret.sign_schnorr(taproot_key_spend_sighash(fan_out, 0, [spent]))
    (tx_in,) = fan_out.inputs
    signed = TxIn(tx_in.prevout, sequence=tx_in.sequence, witness=(signature,))
    return replace(fan_out, inputs=(signed,))


def _not_broadcast(connection: Connection) -> list[Tx]:
    query = select(offboard.c.signed_tx).where(~offboard.c.is_broadcast)
    return [Tx.parse(data) for data in connection.execute(query).scalars()]


def _mark_broadcast(connection: Connection, txid: Txid) -> None:
    """The node has it: from here on the treasury keeps it in the mempool."""
    this = offboard.c.txid == bytes(txid)
    data = connection.execute(select(offboard.c.signed_tx).where(this)).scalar_one()
    connection.execute(update(offboard).where(this).values(is_broadcast=True))
    tx = Tx.parse(data)
    Treasury.record(connection, Draft(tx, (), {}), tx)
