"""Tag `wallet`: from Ark to the chain with the server's help. Source: protocol sheet 07 §6.2."""

from barkd_py.api import render
from barkd_py.api.deps import Onchain, Wallet
from barkd_py.api.responses import REFUSED, REFUSED_OR_NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import rounds as schemas
from barkd_py.api.values import parse_known_vtxo_ids, parse_payee_script
from barkd_py.bitcoin.address import canonical_address
from barkd_py.daemon.wallet_api import OnchainApi, WalletApi
from barkd_py.errors import InvalidInput
from barkd_py.wallet.offboards.terms import OffboardTarget

router = new_router("/wallet", "wallet")


@router.post(
    "/offboard/vtxos",
    response_model=schemas.OffboardResult,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Offboard specific VTXOs",
)
async def offboard_vtxos(body: schemas.OffboardVtxosRequest, wallet: Wallet, onchain: Onchain) -> object:
    if not body.vtxos:
        raise InvalidInput("No VTXO IDs provided")
    target = await _target(wallet, onchain, body.address)
    vtxo_ids = await parse_known_vtxo_ids(wallet, body.vtxos)
    return render.offboard_result(await wallet.offboards.offboard(vtxo_ids, target))


@router.post(
    "/offboard/all",
    response_model=schemas.OffboardResult,
    responses=REFUSED,
    summary="Offboard all VTXOs",
)
async def offboard_all(body: schemas.OffboardAllRequest, wallet: Wallet, onchain: Onchain) -> object:
    target = await _target(wallet, onchain, body.address)
    return render.offboard_result(await wallet.offboards.offboard_all(target))


@router.post(
    "/send-onchain",
    response_model=schemas.OffboardResult,
    responses=REFUSED,
    summary="Send on-chain from the Ark balance",
)
async def send_onchain(body: schemas.SendOnchainRequest, wallet: Wallet) -> object:
    script = parse_payee_script(body.destination, wallet.network)
    target = OffboardTarget(canonical_address(body.destination), script)
    return render.offboard_result(await wallet.offboards.send(body.amount_sat, target))


async def _target(wallet: WalletApi, onchain: OnchainApi, address: str | None) -> OffboardTarget:
    """The given address, or a new one of the on-chain wallet. Raises BadRequest."""
    text = await onchain.next_address() if address is None else address
    return OffboardTarget(canonical_address(text), parse_payee_script(text, wallet.network))
