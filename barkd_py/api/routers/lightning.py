"""Tag `lightning`: payments that go out. Source: protocol sheet 05 §7, sheet 07 §6.2, §6.7."""

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.errors import BadRequest, Failure
from barkd_py.api.responses import REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import lightning as schemas
from barkd_py.api.values import payment_hash_of
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import InvalidInput, KnownError, chain_text
from barkd_py.wallet.lightning.send.invoices import LightningDestination
from barkd_py.wallet.payments.request import (
    InvoiceDestination,
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
    parse_lightning_destination,
)

router = new_router("/lightning", "lightning")

_NO_DESTINATION = "argument is not a valid BOLT-11 invoice, BOLT-12 offer, Lightning address or LNURL"


@router.post(
    "/pay",
    response_model=schemas.LightningPayResponse,
    responses=REFUSED,
    summary="Send a Lightning payment",
)
async def pay(body: schemas.LightningPayRequest, wallet: Wallet) -> object:
    destination = parse_lightning_destination(body.destination)
    if destination is None:
        raise InvalidInput(_NO_DESTINATION)
    payment_hash = await pay_over_lightning(
        wallet, destination, body.amount_sat, body.comment, body.retry_for_secs
    )
    return {"message": "Payment initiated successfully", "payment_hash": payment_hash.hex()}


@router.get(
    "/sends/{identifier}",
    response_model=schemas.LightningSendInfo,
    responses=REFUSED,
    summary="Get send status",
)
async def get_send_status(identifier: str, wallet: Wallet) -> object:
    """By payment hash or invoice."""
    payment_hash = payment_hash_of(identifier)
    if payment_hash is None:
        raise InvalidInput("identifier is not a valid payment hash or invoice")
    return render.lightning_send(await wallet.lightning.send(payment_hash))


async def pay_over_lightning(
    wallet: WalletApi,
    destination: LightningDestination,
    amount_sat: int | None,
    comment: str | None,
    retry_for_secs: int | None,
) -> bytes:
    """The payment hash. Whatever keeps a payment from being made is a failure, and its text is bare."""
    match destination:
        case InvoiceDestination() if comment is not None:
            raise InvalidInput("comment is not supported for BOLT-11 invoices")
        case OfferDestination() if comment is not None:
            raise InvalidInput("comment is not supported for BOLT-12 offers")
        case LightningAddressDestination() if amount_sat is None:
            raise BadRequest("amount is required for Lightning addresses")
        case LnurlDestination() if amount_sat is None:
            raise BadRequest("amount is required for LNURL")
    try:
        return await wallet.lightning.pay(
            destination, amount_sat, comment=comment, retry_for_secs=retry_for_secs
        )
    except KnownError as error:
        raise Failure(chain_text(error)) from None
