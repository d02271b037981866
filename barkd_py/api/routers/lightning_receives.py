"""Tag `lightning`: payments that come in. Source: protocol sheet 05 §7, sheet 07 §6.7."""

from barkd_py.api import render
from barkd_py.api.deps import ClientContract, Wallet
from barkd_py.api.errors import BadRequest, Failure, failing
from barkd_py.api.responses import FAILED, REFUSED, REFUSED_OR_NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import lightning_receives as schemas
from barkd_py.api.values import payment_hash_of
from barkd_py.ark.address import ArkAddress, InvalidArkAddress
from barkd_py.bitcoin.hashes import sha256
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import InvalidInput, KnownError, NotFound
from barkd_py.wallet.lightning.receive.service import LightningReceive

router = new_router("/lightning/receives", "lightning")


@router.post(
    "/invoice", response_model=schemas.InvoiceInfo, responses=FAILED, summary="Create a BOLT11 invoice"
)
async def generate_invoice(body: schemas.LightningInvoiceRequest, wallet: Wallet) -> object:
    with failing("Failed to create invoice"):
        invoice = await wallet.lightning.create_invoice(
            body.amount_sat, description=body.description, token=body.token
        )
    return {"invoice": invoice}


@router.post(
    "/invoice/for-address",
    response_model=schemas.InvoiceInfo,
    responses=REFUSED,
    summary="Create a BOLT11 invoice for an Ark address",
)
async def generate_invoice_for_address(
    body: schemas.LightningInvoiceForAddressRequest, wallet: Wallet
) -> object:
    try:
        address = ArkAddress.parse(body.address)
    except InvalidArkAddress as error:
        raise BadRequest("address is not a valid Ark address") from error
    try:
        await wallet.lightning.check_invoice_address(address)
    except InvalidInput as error:
        raise BadRequest("invalid arkoor address") from error
    except KnownError as error:
        raise Failure("Failed to create invoice for address") from error
    with failing("Failed to create invoice for address"):
        invoice = await wallet.lightning.create_invoice_for(
            address, body.amount_sat, description=body.description
        )
    return {"invoice": invoice}


@router.get(
    "",
    response_model=list[schemas.LightningReceiveInfo],
    responses=FAILED,
    summary="List all pending receive statuses",
)
async def list_receive_statuses(wallet: Wallet, contract: ClientContract) -> object:
    return [render.lightning_receive(receive, contract) for receive in await wallet.lightning.receives()]


@router.get(
    "/{identifier}",
    response_model=schemas.LightningReceiveInfo,
    responses=REFUSED_OR_NOT_FOUND,
    summary="Get receive status",
)
async def get_receive_status(identifier: str, wallet: Wallet, contract: ClientContract) -> object:
    """By payment hash, invoice or preimage.

    Upstream finds none by its preimage, and answers 500 if there is nothing.
    """
    payment_hash = payment_hash_of(identifier)
    if payment_hash is None:
        raise InvalidInput("identifier is not a valid payment hash, invoice or preimage")
    return render.lightning_receive(await _find(wallet, payment_hash), contract)


@router.delete(
    "/{identifier}",
    responses=REFUSED_OR_NOT_FOUND,
    summary="Cancel a pending receive",
)
async def cancel_receive(identifier: str, wallet: Wallet) -> None:
    """By payment hash or invoice."""
    payment_hash = payment_hash_of(identifier)
    if payment_hash is None:
        raise InvalidInput("identifier is not a valid payment hash or invoice")
    with failing("Failed to cancel lightning receive"):
        await wallet.lightning.cancel_receive(payment_hash)


async def _find(wallet: WalletApi, named: bytes) -> LightningReceive:
    """Raises NotFound if it is neither a payment hash nor a preimage of ours."""
    for payment_hash in (named, sha256(named)):
        try:
            return await wallet.lightning.receive(payment_hash)
        except NotFound:
            pass
    raise NotFound("No invoice found", (named.hex(),))
