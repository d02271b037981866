"""Tag `wallet`: the wallet itself, its addresses and VTXOs, payments."""

import re
from typing import Annotated, Final

from fastapi import Query
from pydantic_core import to_json

from barkd_py.api import render
from barkd_py.api.deps import ClientContract, CurrentRuntime, State, Wallet
from barkd_py.api.errors import BadRequest, Failure, Unprocessable, failing
from barkd_py.api.reply import list_reply
from barkd_py.api.responses import (
    EMPTY,
    FAILED,
    NOT_FOUND,
    REFUSED,
    REFUSED_OR_BUSY,
    REFUSED_OR_NOT_FOUND,
)
from barkd_py.api.routers.history import all_movements
from barkd_py.api.routers.lightning import pay_over_lightning
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import history as history_schemas
from barkd_py.api.schemas import wallet as schemas
from barkd_py.api.schemas.common import U32
from barkd_py.api.values import parse_vtxo_id, vtxo_not_found
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.units import Network
from barkd_py.config import GAP_LIMIT_MAX
from barkd_py.daemon.new_wallet import Bitcoind, CookieAuth, CreateWallet, Esplora, UserPassAuth
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import (
    BarkdError,
    InsufficientFunds,
    InvalidInput,
    KnownError,
    NotFound,
    StateConflict,
    chain_text,
)
from barkd_py.wallet.payments.request import (
    ArkadeDestination,
    ArkDestination,
    BitcoinDestination,
    parse_destination,
)

router = new_router("/wallet", "wallet")

_HEX: Final = re.compile("(?:[0-9a-fA-F]{2})*")
_NO_DESTINATION = (
    "Argument is not a valid destination. Supported are: Ark addresses, BOLT-11 invoices, "
    "BOLT-12 offers, Lightning addresses and LNURL"
)


# --- the wallet itself


@router.get(
    "",
    response_model=schemas.WalletExistsResponse,
    responses=FAILED,
    summary="Fingerprint of the loaded wallet",
)
async def wallet_exists(runtime: CurrentRuntime) -> object:
    return {"fingerprint": runtime.fingerprint}


@router.post("", response_model=schemas.CreateWalletResponse, include_in_schema=False)
@router.post(
    "/create", response_model=schemas.CreateWalletResponse, responses=REFUSED, summary="Create a wallet"
)
async def create_wallet(body: schemas.CreateWalletRequest, runtime: CurrentRuntime) -> object:
    fingerprint = await runtime.create(
        CreateWallet(
            network=Network(body.network.value),
            ark_server=body.ark_server,
            access_token=body.ark_server_access_token,
            chain_source=_chain_source(body.chain_source),
            mnemonic=body.mnemonic,
            birthday_height=body.birthday_height,
            gap_limit=body.gap_limit,
            force=body.force,
        )
    )
    return {"fingerprint": fingerprint}


@router.delete(
    "", response_model=schemas.WalletDeleteResponse, responses=REFUSED, summary="Delete the wallet"
)
async def wallet_delete(body: schemas.WalletDeleteRequest, runtime: CurrentRuntime) -> object:
    outcome = await runtime.delete(body.fingerprint, dangerous=body.dangerous)
    return {
        "deleted": outcome.deleted,
        "fingerprint": outcome.fingerprint,
        "message": outcome.message,
    }


@router.get(
    "/mnemonic",
    response_model=schemas.MnemonicResponse,
    responses=NOT_FOUND,
    summary="Get the mnemonic phrase",
)
async def mnemonic(state: State) -> object:
    if not state.expose_mnemonic:
        raise NotFound("Mnemonic endpoint is disabled")
    return {"mnemonic": state.runtime.datadir.read_mnemonic()}


def _chain_source(
    config: schemas.BitcoindChainSource | schemas.EsploraChainSource | None,
) -> Bitcoind | Esplora | None:
    match config:
        case schemas.EsploraChainSource(esplora=esplora):
            return Esplora(esplora.url)
        case schemas.BitcoindChainSource(bitcoind=bitcoind):
            auth = bitcoind.bitcoind_auth
            if isinstance(auth, schemas.CookieAuth):
                return Bitcoind(bitcoind.bitcoind, CookieAuth(auth.cookie.cookie))
            return Bitcoind(bitcoind.bitcoind, UserPassAuth(auth.user_pass.user, auth.user_pass.password))
        case None:
            return None


# --- the server


@router.get(
    "/connected",
    response_model=schemas.ConnectedResponse,
    responses=FAILED,
    summary="Whether the Ark server was reached",
)
async def connected(wallet: Wallet) -> object:
    return {"connected": wallet.is_connected}


@router.get(
    "/ark-info", response_model=schemas.ArkInfo, responses=NOT_FOUND, summary="Parameters of the Ark server"
)
async def ark_info(wallet: Wallet) -> object:
    info = wallet.ark_info
    if info is None:
        raise NotFound("Wallet not connected to an Ark server", ("ark server",))
    return render.ark_info(info)


@router.get(
    "/next-round",
    response_model=schemas.NextRoundStart,
    responses=NOT_FOUND,
    summary="Start of the next round",
)
async def next_round(wallet: Wallet) -> object:
    start = await wallet.next_round_time()
    return {"start_time": render.timestamp(start.replace(microsecond=0))}


# --- addresses, balance, VTXOs


@router.post(
    "/addresses/next",
    response_model=schemas.ArkAddressResponse,
    responses=FAILED,
    summary="Get a new Ark address",
)
async def address(wallet: Wallet) -> object:
    with failing("Failed to generate new address"):
        return {"address": await wallet.new_address()}


@router.get(
    "/addresses/index/{index}",
    response_model=schemas.ArkAddressResponse,
    responses=FAILED,
    summary="Get the Ark address of a derived key",
)
async def peek_address(index: U32, wallet: Wallet) -> object:
    with failing(f"Failed to get address at index {index}"):
        return {"address": await wallet.address_at(index)}


@router.get("/balance", response_model=schemas.Balance, responses=FAILED, summary="Get the off-chain balance")
async def balance(wallet: Wallet) -> object:
    with failing("Failed to get wallet balance"):
        return render.balance(await wallet.balance())


@router.get("/vtxos", response_model=list[schemas.WalletVtxoInfo], responses=FAILED, summary="List VTXOs")
async def vtxos(
    query: Annotated[schemas.VtxosQuery, Query()], wallet: Wallet, contract: ClientContract
) -> object:
    words = contract.on_new_path()  # who states nothing gets the same, and so shares what is kept
    return list_reply(
        await wallet.rendered_vtxos(
            words, lambda vtxo: to_json(render.vtxo(vtxo, words)), include_all=bool(query.all)
        )
    )


@router.get(
    "/vtxos/{id}", response_model=schemas.WalletVtxoInfo, responses=REFUSED_OR_NOT_FOUND, summary="Get a VTXO"
)
async def get_vtxo(id: str, wallet: Wallet, contract: ClientContract) -> object:
    vtxo_id = parse_vtxo_id(id, "Invalid VTXO id")
    try:
        return render.vtxo(await wallet.get_vtxo(vtxo_id), contract)
    except NotFound:
        raise vtxo_not_found(vtxo_id) from None


@router.get(
    "/vtxos/{id}/encoded",
    response_model=schemas.EncodedVtxoResponse,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Get the encoding of a VTXO",
)
async def get_vtxo_encoded(id: str, wallet: Wallet) -> object:
    vtxo_id = parse_vtxo_id(id, "Invalid VTXO id")
    try:
        return {"encoded": (await wallet.encoded_vtxo(vtxo_id)).hex()}
    except NotFound:
        raise vtxo_not_found(vtxo_id) from None


@router.post(
    "/import-vtxo",
    response_model=list[schemas.WalletVtxoInfo],
    responses=REFUSED_OR_BUSY,
    summary="Import VTXOs of this wallet's keys",
)
async def import_vtxo(body: schemas.ImportVtxoRequest, wallet: Wallet, contract: ClientContract) -> object:
    if not body.vtxos:
        raise InvalidInput("No VTXOs provided")
    if body.gap_limit is not None and body.gap_limit > GAP_LIMIT_MAX:
        raise InvalidInput(f"gap_limit {body.gap_limit} is above the maximum of {GAP_LIMIT_MAX}")
    given = [_parse_vtxo(text) for text in body.vtxos]
    try:
        imported = await wallet.import_vtxos(
            given,
            gap_limit=body.gap_limit,
            skip_status_check=body.skip_status_check,
            allow_partial=body.allow_partial,
        )
    except InvalidInput:
        raise
    except StateConflict as error:
        raise Unprocessable(chain_text(error)) from None
    except KnownError as error:
        raise Failure("Failed to import VTXOs: unexpected error") from error
    return [render.vtxo(vtxo, contract) for vtxo in imported]


def _parse_vtxo(text: str) -> Vtxo:
    """As by barkd, hex and content are read in one go: what is no hex is where the text ends."""
    length = len(text.encode(errors="replace"))
    if length % 2:
        problem = f"odd hex string length {length}"
        raise BadRequest(f"invalid vtxo hex: I/O error: {problem}: {problem}")
    hexadecimal = _HEX.match(text)
    assert hexadecimal is not None
    try:
        vtxo = Vtxo.decode_hex(hexadecimal[0])
    except DecodeError as error:
        raise BadRequest("invalid vtxo hex") from error
    if hexadecimal[0] != text:
        raise BadRequest("invalid vtxo hex: invalid protocol encoding: trailing bytes")
    return vtxo


# --- history, under its old names


@router.get(
    "/movements",
    response_model=list[history_schemas.Movement],
    responses=FAILED,
    deprecated=True,
    summary="List wallet movements",
)
async def movements(wallet: Wallet, contract: ClientContract) -> object:
    return await all_movements(wallet, contract)


@router.get(
    "/history",
    response_model=list[history_schemas.Movement],
    responses=FAILED,
    deprecated=True,
    summary="List wallet movements",
)
async def history(wallet: Wallet, contract: ClientContract) -> object:
    return await all_movements(wallet, contract)


# --- sync, send


@router.post("/sync", response_model=None, responses=EMPTY, summary="Sync the wallet")
async def sync(wallet: Wallet) -> None:
    await wallet.sync()


@router.post(
    "/sync/mailbox", response_model=schemas.MailboxSyncResponse, responses=FAILED, summary="Sync the mailbox"
)
async def sync_mailbox(wallet: Wallet) -> object:
    with failing("failed to sync mailbox"):
        return {"checkpoint": await wallet.sync_mailbox()}


@router.post("/send", response_model=schemas.SendResponse, responses=REFUSED, summary="Send a payment")
async def send(body: schemas.SendRequest, wallet: Wallet) -> object:
    match parse_destination(body.destination, wallet.network):
        case ArkDestination():
            await _send_arkoor(wallet, body.destination, body.amount_sat)
            return {"message": "Payment sent successfully"}
        case ArkadeDestination():
            raise InvalidInput("Ark address is for different server")
        case BitcoinDestination(_, problem):
            raise _refusal_on_chain(problem, body)
        case None:
            raise InvalidInput(_NO_DESTINATION)
        case destination:
            payment_hash = await pay_over_lightning(
                wallet, destination, body.amount_sat, body.comment, body.retry_for_secs
            )
            return {"message": "Payment sent successfully", "payment_hash": payment_hash.hex()}


async def _send_arkoor(wallet: WalletApi, destination: str, amount_sat: int | None) -> None:
    if amount_sat is None:
        raise Failure("amount missing")
    if amount_sat == 0:
        raise Failure("Cannot send 0 sats")
    try:
        await wallet.send_arkoor(destination, amount_sat)
    except InvalidInput as error:
        raise BadRequest("invalid arkoor address") from error
    except InsufficientFunds as error:
        raise Failure(chain_text(error)) from None


def _refusal_on_chain(problem: str | None, body: schemas.SendRequest) -> BarkdError:
    """Why a bitcoin address is not paid here; `send-onchain` does that."""
    if problem is not None:
        return Failure(f"bitcoin address is not valid for configured network: {problem}")
    if body.amount_sat is None:
        return Failure("amount missing")
    return Failure("offboards are temporarily disabled")
