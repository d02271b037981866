"""Tag `wallet`: refreshes, and the rounds that they take part in. Source: protocol sheet 07 §6.2, §7.5."""

from collections.abc import Sequence

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.responses import FAILED, NOT_FOUND, REFUSED, REFUSED_OR_NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import rounds as schemas
from barkd_py.api.values import parse_vtxo_id
from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import InvalidInput, NotFound
from barkd_py.wallet.rounds.service import NothingToRefresh

router = new_router("/wallet", "wallet")


@router.post(
    "/refresh/vtxos",
    response_model=schemas.PendingRoundInfo,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Refresh specific VTXOs",
)
async def refresh_vtxos(body: schemas.RefreshRequest, wallet: Wallet) -> object:
    return render.round_info(await wallet.rounds.refresh(_vtxo_ids(body.vtxos)))


@router.post(
    "/refresh/delegated/vtxos",
    response_model=schemas.PendingRoundInfo,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Let the server refresh specific VTXOs",
)
async def refresh_delegated(body: schemas.DelegatedRefreshRequest, wallet: Wallet) -> object:
    return render.round_info(await wallet.rounds.refresh_delegated(_vtxo_ids(body.vtxos), body.height))


@router.post(
    "/refresh/all", response_model=schemas.PendingRoundInfo, responses=REFUSED, summary="Refresh all VTXOs"
)
async def refresh_all(wallet: Wallet) -> object:
    try:
        return render.round_info(await wallet.rounds.refresh_all())
    except NothingToRefresh as error:
        raise InvalidInput(str(error)) from None


@router.post(
    "/refresh/counterparty",
    response_model=schemas.PendingRoundInfo,
    responses=NOT_FOUND,
    summary="Refresh VTXOs that others could undo",
)
async def refresh_counterparty(wallet: Wallet) -> object:
    try:
        return render.round_info(await wallet.rounds.refresh_counterparty())
    except NothingToRefresh:
        raise NotFound("No VTXO to refresh") from None


@router.get(
    "/rounds",
    response_model=list[schemas.PendingRoundInfo],
    responses=FAILED,
    summary="List round participations",
)
async def pending_rounds(wallet: Wallet) -> object:
    return [render.round_info(info) for info in await wallet.rounds.list()]


def _vtxo_ids(texts: Sequence[str]) -> Sequence[VtxoId]:
    if not texts:
        raise InvalidInput("No VTXO IDs provided")
    return [parse_vtxo_id(text, "Invalid VTXO id") for text in texts]
