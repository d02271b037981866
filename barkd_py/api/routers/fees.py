"""Tag `fees`: what an operation would cost."""

from typing import Annotated

from fastapi import Query

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.errors import failing
from barkd_py.api.responses import FAILED, REFUSED, REFUSED_OR_NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import fees as schemas
from barkd_py.api.values import parse_destination_script, parse_known_vtxo_ids
from barkd_py.errors import InvalidInput

router = new_router("/fees", "fees")


@router.get(
    "/board",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fee of a board",
)
async def board_fee(query: Annotated[schemas.FeeEstimateQuery, Query()], wallet: Wallet) -> object:
    with failing("Failed to estimate board fee"):
        return render.fee_estimate(await wallet.estimate_board_fee(query.amount_sat))


@router.get(
    "/lightning/pay",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fee of a Lightning payment",
)
async def lightning_send_fee(query: Annotated[schemas.FeeEstimateQuery, Query()], wallet: Wallet) -> object:
    with failing("Failed to estimate lightning send fee"):
        return render.fee_estimate(await wallet.lightning.estimate_pay(query.amount_sat))


@router.get(
    "/lightning/receive",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fee of receiving over Lightning",
)
async def lightning_receive_fee(
    query: Annotated[schemas.FeeEstimateQuery, Query()], wallet: Wallet
) -> object:
    with failing("Failed to estimate lightning receive fee"):
        return render.fee_estimate(await wallet.lightning.estimate_receive(query.amount_sat))


@router.get(
    "/offboard-all",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fee of offboarding everything",
)
async def offboard_all_fee(
    query: Annotated[schemas.OffboardAllFeeEstimateQuery, Query()], wallet: Wallet
) -> object:
    script = parse_destination_script(query.address, wallet.network)
    with failing("Failed to estimate offboard-all fee"):
        return render.fee_estimate(await wallet.offboards.estimate_all(script))


@router.post(
    "/offboard",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Estimate the fee of offboarding VTXOs",
)
async def offboard_fee(body: schemas.OffboardFeeEstimateRequest, wallet: Wallet) -> object:
    if not body.vtxos:
        raise InvalidInput("No VTXO IDs provided")
    script = parse_destination_script(body.address, wallet.network)
    vtxo_ids = await parse_known_vtxo_ids(wallet, body.vtxos)
    with failing("Failed to estimate offboard fee"):
        return render.fee_estimate(await wallet.offboards.estimate(vtxo_ids, script))


@router.get(
    "/send-onchain",
    response_model=schemas.FeeEstimateResponse,
    responses=REFUSED,
    summary="Estimate the fee of a send on-chain",
)
async def send_onchain_fee(
    query: Annotated[schemas.SendOnchainFeeEstimateQuery, Query()], wallet: Wallet
) -> object:
    script = parse_destination_script(query.address, wallet.network)
    with failing("Failed to estimate send-onchain fee"):
        return render.fee_estimate(await wallet.offboards.estimate_send(query.amount_sat, script))


@router.get(
    "/onchain",
    response_model=schemas.OnchainFeeRatesResponse,
    responses=FAILED,
    summary="Get on-chain fee rates",
)
async def onchain_fee_rates(wallet: Wallet) -> object:
    return render.fee_rates(await wallet.fee_rates())
