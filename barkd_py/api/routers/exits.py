"""Tag `exits`: emergency exits, from VTXOs to coins on the chain without the server.

Source: protocol sheet 07 §6.10, §8.2; sheet 06 §3.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Final

from fastapi import Query, Request

from barkd_py.api import render
from barkd_py.api.contract import Contract
from barkd_py.api.deps import ClientContract, Wallet, get_wallet
from barkd_py.api.errors import BadRequest, Failure, failing
from barkd_py.api.params import read_query
from barkd_py.api.reply import Reply
from barkd_py.api.responses import FAILED, REFUSED, REFUSED_OR_NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import exits as schemas
from barkd_py.api.values import parse_destination_script, parse_vtxo_id, vtxo_not_found
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import ChainError, InvalidInput, KnownError, NotFound
from barkd_py.wallet.exits.errors import (
    CannotCancelExit,
    ExitTxAlreadyBroadcast,
    InvalidFeeMargin,
    NotExiting,
    OnchainSyncFailure,
    SpentVtxo,
    SweptVtxo,
    UnknownExitVtxo,
    VtxoAlreadyExited,
    VtxoNotClaimable,
)
from barkd_py.wallet.exits.states import ExitFilter

router = new_router("/exits", "exits")

_ALL_STATUSES_PATH: Final = "/api/v1/exits/status/all"
_DEFAULT_FEE_MARGIN: Final = 1.2

_MIN_FEE_RATE: Final = FeeRate.from_sat_per_kvb(1000)
"""Below it, children would pay next to nothing and nobody would relay them."""


# --- start, cancel, progress


@router.post(
    "/start/vtxos",
    response_model=schemas.ExitStartResponse,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Start exits of specific VTXOs",
)
async def exit_start_vtxos(body: schemas.ExitStartRequest, wallet: Wallet) -> object:
    if not body.vtxos:
        raise InvalidInput("No VTXO IDs provided")
    vtxo_ids = await _known_vtxo_ids(wallet, body.vtxos)
    with failing("Failed to start exit for VTXOs"):
        await wallet.exits.start(vtxo_ids)
    return {"message": "Exit started successfully"}


@router.post(
    "/start/all",
    response_model=schemas.ExitStartResponse,
    responses=FAILED,
    summary="Start exits of all VTXOs",
)
async def exit_start_all(wallet: Wallet) -> object:
    with failing("Failed to start exit for entire wallet"):
        await wallet.exits.start_all()
    return {"message": "Exit started successfully"}


@router.post(
    "/cancel/{vtxo_id}",
    response_model=schemas.ExitCancelResponse,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Cancel an exit",
)
async def exit_cancel(vtxo_id: str, wallet: Wallet) -> object:
    exiting = _parse_vtxo_id(vtxo_id)
    try:
        await wallet.exits.cancel(exiting)
    except NotExiting:
        raise NotFound("No exit found for VTXO", (str(exiting),)) from None
    except CannotCancelExit as error:
        raise InvalidInput(f"Exit can no longer be canceled (state: {error.state})") from None
    except ExitTxAlreadyBroadcast as error:
        raise InvalidInput(
            f"Exit can no longer be canceled (final exit tx {error.txid} has already been broadcast)"
        ) from None
    except KnownError as error:
        raise Failure("Failed to cancel exit") from error
    return {"message": "Exit canceled successfully"}


@router.post(
    "/progress",
    response_model=schemas.ExitProgressResponse,
    responses=REFUSED,
    summary="Progress exits",
)
async def exit_progress(
    body: schemas.ExitProgressRequest, wallet: Wallet, contract: ClientContract
) -> object:
    fee_rate = _fee_rate(body.fee_rate)
    if fee_rate is not None and fee_rate < _MIN_FEE_RATE:
        if await wallet.exits.statuses(ExitFilter.LIVE, with_history=False, with_packages=False):
            raise BadRequest(f"Fee rate must be at least {_MIN_FEE_RATE.sat_per_kvb} sat/kvB")
        fee_rate = None
    try:
        progress = await wallet.exits.progress(fee_rate)
    except OnchainSyncFailure:
        raise
    except KnownError as error:
        raise Failure("error making progress on exit process") from error
    rates = await wallet.fee_rates()
    return render.exit_progress(progress, contract.on_old_path(), fee_rate or rates.fast)


# --- status


@router.get(
    "/status",
    response_model=list[schemas.ExitTransactionStatus],
    responses={308: {"description": "Moved to /exits/status/all"}, **FAILED},
    deprecated=True,
    summary="List all exit statuses",
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": {"type": "boolean"}}
            for name in schemas.ExitStatusQuery.model_fields
        ]
    },
)
async def get_all_exit_status_deprecated(request: Request, contract: ClientContract) -> object:
    """For clients of 0.1.4 the list; newer ones are sent on, and keep their query on the way."""
    query: bytes = request.scope["query_string"]
    if contract is Contract.V0_8_0:
        location = _ALL_STATUSES_PATH.encode() + (b"?" + query if query else b"")
        return Reply(308, headers=((b"location", location),))
    wanted = read_query(schemas.ExitStatusQuery, query)
    wallet = get_wallet(request)
    with failing("Failed to list exits"):
        return await _list(wallet, ExitFilter.ALL, wanted, contract.on_old_path())


@router.get(
    "/status/all",
    response_model=list[schemas.ExitTransactionStatus],
    responses=FAILED,
    summary="List all exits",
)
async def get_all_exit_status(
    query: Annotated[schemas.ExitStatusQuery, Query()], wallet: Wallet, contract: ClientContract
) -> object:
    with failing("Failed to list exits"):
        return await _list(wallet, ExitFilter.ALL, query, contract.on_new_path())


@router.get(
    "/status/live",
    response_model=list[schemas.ExitTransactionStatus],
    responses=FAILED,
    summary="List exits that go on",
)
async def get_live_exit_status(
    query: Annotated[schemas.ExitStatusQuery, Query()], wallet: Wallet, contract: ClientContract
) -> object:
    with failing("Failed to list live exits"):
        return await _list(wallet, ExitFilter.LIVE, query, contract.on_new_path())


@router.get(
    "/status/finished",
    response_model=list[schemas.ExitTransactionStatus],
    responses=FAILED,
    summary="List exits that are over",
)
async def get_finished_exits(
    query: Annotated[schemas.ExitStatusQuery, Query()], wallet: Wallet, contract: ClientContract
) -> object:
    with failing("Failed to list finished exits"):
        return await _list(wallet, ExitFilter.FINISHED, query, contract.on_new_path())


@router.get(
    "/status/vtxo/{vtxo_id}",
    response_model=schemas.ExitTransactionStatus,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Get the status of an exit",
)
async def get_exit_status_by_vtxo_id(
    vtxo_id: str,
    query: Annotated[schemas.ExitStatusQuery, Query()],
    wallet: Wallet,
    contract: ClientContract,
) -> object:
    return await _status(wallet, vtxo_id, query, contract.on_new_path())


@router.get(
    "/status/{vtxo_id}",
    response_model=schemas.ExitTransactionStatus,
    responses=REFUSED_OR_NOT_FOUND,
    deprecated=True,
    summary="Get the status of an exit",
)
async def get_exit_status_by_vtxo_id_deprecated(
    vtxo_id: str,
    query: Annotated[schemas.ExitStatusQuery, Query()],
    wallet: Wallet,
    contract: ClientContract,
) -> object:
    return await _status(wallet, vtxo_id, query, contract.on_old_path())


async def _list(
    wallet: WalletApi, which: ExitFilter, query: schemas.ExitStatusQuery, contract: Contract
) -> object:
    exits = await wallet.exits.statuses(
        which, with_history=bool(query.history), with_packages=bool(query.transactions)
    )
    fast = (await wallet.fee_rates()).fast
    return [
        render.exit_status(exit_, contract, fast, with_history=bool(query.history))
        for exit_ in exits
        if render.knows_exit_state(exit_.state, contract)
    ]


async def _status(
    wallet: WalletApi, vtxo_id_text: str, query: schemas.ExitStatusQuery, contract: Contract
) -> object:
    vtxo_id = _parse_vtxo_id(vtxo_id_text)
    not_found = NotFound("VTXO not found", (str(vtxo_id),))
    try:
        exit_ = await wallet.exits.status(
            vtxo_id, with_history=bool(query.history), with_packages=bool(query.transactions)
        )
    except NotExiting:
        raise not_found from None
    if not render.knows_exit_state(exit_.state, contract):
        raise not_found
    fast = (await wallet.fee_rates()).fast
    return render.exit_status(exit_, contract, fast, with_history=bool(query.history))


# --- claim, fee


@router.post(
    "/claim/all",
    response_model=schemas.ExitClaimResponse,
    responses=REFUSED,
    summary="Claim all exits",
)
async def exit_claim_all(body: schemas.ExitClaimAllRequest, wallet: Wallet) -> object:
    script = parse_destination_script(body.destination, wallet.network)
    await _claim(wallet, None, script, body.fee_rate)
    return {"message": "Exit claimed successfully"}


@router.post(
    "/claim/vtxos",
    response_model=schemas.ExitClaimResponse,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Claim specific exits",
)
async def exit_claim_vtxos(body: schemas.ExitClaimVtxosRequest, wallet: Wallet) -> object:
    script = parse_destination_script(body.destination, wallet.network)
    vtxo_ids = tuple(dict.fromkeys(await _known_vtxo_ids(wallet, body.vtxos)))
    await _claim(wallet, vtxo_ids, script, body.fee_rate)
    return {"message": "Exit claimed successfully"}


async def _claim(
    wallet: WalletApi, vtxo_ids: Sequence[VtxoId] | None, script: bytes, sat_per_kvb: int | None
) -> Txid:
    try:
        return await wallet.exits.claim(vtxo_ids, script, _fee_rate(sat_per_kvb))
    except (NotExiting, VtxoNotClaimable) as error:
        raise InvalidInput(f"Unspendable VTXO provided: {error.vtxo}") from None
    except ChainError as error:
        raise Failure("Failed to broadcast transaction") from error
    except KnownError as error:
        raise Failure("Failed to drain exits") from error


@router.get(
    "/fee",
    response_model=schemas.EmergencyExitFeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fees of an exit",
)
async def emergency_exit_fee(
    query: Annotated[schemas.EmergencyExitFeeQuery, Query()], wallet: Wallet
) -> object:
    vtxo_ids = None if query.vtxo_ids is None else _listed_vtxo_ids(query.vtxo_ids)
    fee_rate = None if query.fee_rate_sat_per_vb is None else _decimal_fee_rate(query.fee_rate_sat_per_vb)
    script = None
    if query.destination is not None:
        script = parse_destination_script(query.destination, wallet.network)
    margin = _DEFAULT_FEE_MARGIN if query.fee_margin is None else query.fee_margin
    try:
        estimate = await wallet.exits.estimate_fee(
            vtxo_ids, fee_rate=fee_rate, margin=margin, script_pubkey=script
        )
    except InvalidFeeMargin:
        raise InvalidInput(f"Invalid fee margin {_decimal_text(margin)}") from None
    except UnknownExitVtxo as error:
        raise InvalidInput(f"Provided VTXO {error.vtxo} is unknown") from None
    except VtxoAlreadyExited as error:
        raise InvalidInput(f"Provided VTXO {error.vtxo} has already exited") from None
    except SpentVtxo as error:
        raise InvalidInput(f"Provided VTXO {error.vtxo} has already been spent") from None
    except SweptVtxo as error:
        raise InvalidInput(
            f"An intermediate output of VTXO {error.vtxo} has been swept and the exit cannot be completed. "
            "You can still attempt to do a refresh and get a fresh VTXO"
        ) from None
    except KnownError as error:
        raise Failure("Failed to estimate emergency exit fee") from error
    return render.exit_fee_estimate(estimate)


def _listed_vtxo_ids(text: str) -> Sequence[VtxoId]:
    return [_parse_vtxo_id(part.strip()) for part in text.split(",") if part.strip()]


def _decimal_fee_rate(sat_per_vb: float) -> FeeRate:
    try:
        return FeeRate.from_sat_per_vb(sat_per_vb)
    except ValueError:
        # Not its cause: it would become part of the message.
        raise BadRequest("Fee rate must be finite and non-negative") from None


def _decimal_text(value: float) -> str:
    """A number without an exponent: clients know barkd's spelling of it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else str(value)
    return format(Decimal(repr(value)), "f").removesuffix(".0")


# --- what the routes share


def _parse_vtxo_id(text: str) -> VtxoId:
    return parse_vtxo_id(text, "Invalid VTXO ID")


async def _known_vtxo_ids(wallet: WalletApi, texts: Sequence[str]) -> Sequence[VtxoId]:
    """Ids of VTXOs that the wallet has. Raises BadRequest or Missing for the first that is none."""
    vtxo_ids = []
    for text in texts:
        vtxo_id = _parse_vtxo_id(text)
        try:
            await wallet.get_vtxo(vtxo_id)
        except NotFound:
            raise vtxo_not_found(vtxo_id) from None
        vtxo_ids.append(vtxo_id)
    return vtxo_ids


def _fee_rate(sat_per_kvb: int | None) -> FeeRate | None:
    return None if sat_per_kvb is None else FeeRate.from_sat_per_kvb(sat_per_kvb)
