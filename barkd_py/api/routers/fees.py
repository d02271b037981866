"""Tag `fees`: what an operation would cost."""

from typing import Annotated

from fastapi import Query

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.errors import failing
from barkd_py.api.responses import FAILED, REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import fees as schemas

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
    "/onchain",
    response_model=schemas.OnchainFeeRatesResponse,
    responses=FAILED,
    summary="Get on-chain fee rates",
)
async def onchain_fee_rates(wallet: Wallet) -> object:
    return render.fee_rates(await wallet.fee_rates())
