"""Tag `wallet`: one URI with every way to be paid. Source: protocol sheet 02 §7.6; sheet 07 §6.2."""

from collections.abc import Awaitable
from typing import Annotated

from fastapi import Query

from barkd_py.api.deps import OnchainNotConfigured, Wallet
from barkd_py.api.errors import BadRequest, Failure
from barkd_py.api.responses import REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import bip321 as schemas
from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.units import Network
from barkd_py.errors import KnownError
from barkd_py.wallet.payments.bip321 import ArkInstruction, Bip321Uri, NotUpperCase

router = new_router("/wallet", "wallet")

_FAILED = "Failed to build BIP 321 URI"


@router.post(
    "/bip321", response_model=schemas.Bip321UriResponse, responses=REFUSED, summary="Build a BIP 321 URI"
)
async def bip321_uri(
    query: Annotated[schemas.Bip321UriQuery, Query()], body: schemas.Bip321UriRequest, wallet: Wallet
) -> object:
    """Takes new addresses and, for an amount, an invoice; they stay taken whatever comes after."""
    if body.onchain and wallet.onchain is None:
        raise OnchainNotConfigured
    if body.amount_sat == 0:
        raise Failure(f"{_FAILED}: amount cannot be zero")
    onchain = None
    if body.onchain and wallet.onchain is not None:
        onchain = await _or_failure(wallet.onchain.next_address(), "failed to get onchain address")
    ark = await _or_failure(wallet.new_address(), "failed to generate new ark address")
    bolt11 = None
    if body.amount_sat is not None:
        creation = wallet.lightning.create_invoice(body.amount_sat)
        bolt11 = await _or_failure(creation, "failed to generate lightning invoice")
    is_mainnet = wallet.network is Network.MAINNET
    uri = Bip321Uri(
        address=onchain if is_mainnet else None,
        amount_sat=body.amount_sat,
        label=body.label,
        message=body.message,
        invoices=() if bolt11 is None else (Bolt11Invoice.parse(bolt11),),
        testnet=() if onchain is None or is_mainnet else (onchain,),
        ark=(ArkInstruction(ark, ArkAddress.parse(ark)),),
    )
    try:
        text = uri.upper_case() if query.uppercase else str(uri)
    except NotUpperCase as error:
        raise BadRequest(str(error)) from None
    answer = {"ark": ark, "bolt11": bolt11, "onchain": onchain, "bip321": text}
    return {key: value for key, value in answer.items() if value is not None}


async def _or_failure(work: Awaitable[str], step: str) -> str:
    try:
        return await work
    except KnownError as error:
        raise Failure(f"{_FAILED}: {step}") from error
