"""Boards: cosigning the exit transaction, and taking the confirmed board into the books.

Cosigning stores nothing and may be repeated; every answer has another nonce. Registering is idempotent.

Source: sheet 10 §6.2; sheet 03 §1.3.
"""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.board import (
    BoardAmountInvalid,
    BoardTemplate,
    NotABoard,
    board_server_vtxos,
    server_cosign_board,
    template_of_board,
)
from barkd_py.ark.cosign import Cosignature
from barkd_py.ark.fees import FeeOverflow, board_fee
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId, VtxoInvalid
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint, Tx
from barkd_py.bitcoin.units import format_btc
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import BOARD_LIFETIME_SLACK_BLOCKS, MAX_BOARD_INPUTS, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store


@dataclass(frozen=True, slots=True)
class BoardRequest:
    """What a client wants to board. funding_tx: unsigned; None where the server does not ask for it."""

    amount_sat: int
    user_pubkey: PublicKey
    expiry_height: int
    utxo: OutPoint
    pub_nonce: bytes
    funding_tx: Tx | None


class Boards:
    """The server's side of boards."""

    def __init__(self, settings: ServerSettings, keys: ServerKeys, store: Store, chain: ServerChain) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._chain = chain

    async def cosign(self, request: BoardRequest) -> Cosignature:
        """Sign the exit transaction for the server's own fee and exit delta."""
        template = self._template(request)
        await self._check_lifetime(request.expiry_height)
        if request.funding_tx is not None:
            await self._check_funding_tx(request.funding_tx, request.utxo)
        return server_cosign_board(template, self._keys.server, request.pub_nonce)

    def _template(self, request: BoardRequest) -> BoardTemplate:
        settings = self._settings
        if request.amount_sat < settings.smallest_board_sat:
            raise BadArgument(f"board amount must be at least {format_btc(settings.smallest_board_sat)}")
        if settings.max_vtxo_amount_sat is not None and request.amount_sat > settings.max_vtxo_amount_sat:
            raise BadArgument(f"board amount exceeds limit of {format_btc(settings.max_vtxo_amount_sat)}")
        try:
            fee_sat = board_fee(settings.fees, request.amount_sat)
        except FeeOverflow:
            raise Failure("fee overflowed") from None
        try:
            return BoardTemplate(
                user_pubkey=request.user_pubkey,
                server_pubkey=self._keys.server_pubkey,
                amount_sat=request.amount_sat,
                fee_sat=fee_sat,
                expiry_height=request.expiry_height,
                exit_delta=settings.vtxo_exit_delta,
                utxo=request.utxo,
            )
        except BoardAmountInvalid as error:
            raise BadArgument("Board amount cannot support required fee") from error

    async def _check_lifetime(self, expiry_height: int) -> None:
        tip = await self._chain.tip()
        if expiry_height < tip.height:
            raise BadArgument(f"VTXO already expired: {expiry_height} (tip = {tip.height})")
        lifetime = expiry_height - tip.height
        if lifetime > self._settings.vtxo_lifetime + BOARD_LIFETIME_SLACK_BLOCKS:
            raise BadArgument(
                f"requested VTXO lifetime {lifetime} is too high "
                f"(server VTXO lifetime is {self._settings.vtxo_lifetime})"
            )

    async def _check_funding_tx(self, funding_tx: Tx, utxo: OutPoint) -> None:
        if len(funding_tx.inputs) > MAX_BOARD_INPUTS:
            raise BadArgument(f"invalid funding tx: too many inputs (max is {MAX_BOARD_INPUTS})")
        if utxo.vout >= len(funding_tx.outputs):
            raise BadArgument("board outpoint does not match funding tx (vout)")
        if utxo.txid != funding_tx.txid:
            raise BadArgument("board outpoint does not match funding tx (txid)")
        await self._store.transact(partial(_check_not_virtual, funding_tx=funding_tx))
        for tx_in in funding_tx.inputs:
            if await self._chain.get_tx(tx_in.prevout.txid) is None:
                raise BadArgument(f"invalid funding tx: unknown input tx {tx_in.prevout.txid}")

    async def register(self, vtxo: Vtxo) -> None:
        """Take a signed board into the books, once its funding transaction is deep enough."""
        funding_tx, confirmed_height = await self._confirmed_funding_tx(vtxo)
        if await self._chain.is_spent(vtxo.anchor_point):
            raise BadArgument("VTXO funding output is already spent, user exit in progress")
        try:
            validate(vtxo, funding_tx)
        except VtxoInvalid as error:
            raise BadArgument("invalid vtxo") from error
        try:
            template_of_board(vtxo, funding_tx, self._keys.server_pubkey)
        except NotABoard as error:
            raise BadArgument("vtxo is not a board") from error
        write = partial(_insert_board, vtxo=vtxo, funding_tx=funding_tx, confirmed_height=confirmed_height)
        await self._store.transact(write)

    async def _confirmed_funding_tx(self, vtxo: Vtxo) -> tuple[Tx, int]:
        txid = vtxo.anchor_point.txid
        funding_tx = await self._chain.get_tx(txid)
        if funding_tx is None:
            raise Failure(f"funding tx not found: {txid}")
        confirmed_height = await self._chain.confirmed_height(txid)
        if confirmed_height is None:
            raise Failure("board funding tx still unconfirmed")
        confirmations = (await self._chain.tip()).height - confirmed_height + 1
        required = self._settings.required_board_confirmations
        if confirmations < required:
            raise BadArgument(f"funding tx has {confirmations} confirmations, requires {required}: {vtxo.id}")
        return funding_tx, confirmed_height


def _check_not_virtual(connection: Connection, funding_tx: Tx) -> None:
    txid = funding_tx.txid
    if vtxo_rows.find_virtual_tx(connection, txid) is not None:
        raise BadArgument(f"invalid funding tx: known as virtual tx: {txid}")
    for tx_in in funding_tx.inputs:
        vtxo_id = VtxoId.of(tx_in.prevout)
        if vtxo_rows.find(connection, vtxo_id) is not None:
            raise BadArgument(f"invalid funding tx: input is a VTXO: {vtxo_id}")


def _insert_board(connection: Connection, vtxo: Vtxo, funding_tx: Tx, confirmed_height: int) -> None:
    """Store the funding output, already spent by the exit transaction, and the user's VTXO."""
    funding_output, _ = board_server_vtxos(vtxo)
    (exit_tx,) = vtxo.exit_transactions()
    vtxo_rows.put_virtual_txs(connection, [], signed=[funding_tx], is_funding=True)
    vtxo_rows.put_virtual_txs(connection, [exit_tx.txid])
    vtxo_rows.insert_spent(
        connection, funding_output, exit_tx.txid, is_frontier=True, confirmed_height=confirmed_height
    )
    vtxo_rows.insert_new(connection, [vtxo], SpendState.SPENDABLE)
