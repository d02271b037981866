"""Tag `history`: what happened to the off-chain balance."""

import re
from typing import Annotated, Any

from fastapi import Body, Query
from pydantic_core import to_json

from barkd_py.api import render
from barkd_py.api.contract import Contract
from barkd_py.api.deps import ClientContract, Wallet
from barkd_py.api.errors import BadRequest, Failure
from barkd_py.api.reply import ListReply, Reply, list_reply
from barkd_py.api.responses import EMPTY, FAILED, REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import history as schemas
from barkd_py.api.schemas.common import U32
from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.address import WrongNetworkAddress, canonical_address, parse_address
from barkd_py.bitcoin.bolt12 import InvalidOffer, Offer
from barkd_py.bitcoin.units import Network
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import InvalidInput, NotFound, chain_text
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.request import decode_lnurl, is_invoice, is_lightning_address

router = new_router("/history", "history")


@router.get(
    "",
    response_model=list[schemas.Movement],
    responses=REFUSED,
    operation_id="list",
    summary="List wallet movements, all or those with one payment method",
)
async def list_history(
    query: Annotated[schemas.HistoryQuery, Query()], wallet: Wallet, contract: ClientContract
) -> object:
    if query.type is None and query.value is None:
        return await all_movements(wallet, contract)
    if query.type is None or query.value is None:
        raise InvalidInput("`type` and `value` must be supplied together")
    method = _parse_method(query.type, query.value, wallet.network)
    return await all_movements(wallet, contract, method)


@router.post(
    "/{id}/metadata",
    response_model=None,
    responses={**EMPTY, **FAILED},
    summary="Change the metadata of a movement with a JSON merge patch",
)
async def update_metadata(
    id: U32,
    patch: Annotated[Any, Body(media_type="application/merge-patch+json")],
    wallet: Wallet,
) -> None:
    try:
        await wallet.patch_movement_metadata(id, patch)
    except NotFound:
        raise Failure(
            f"Movement Load Error: Unable to load movement ({id}) from persister: Movement {id} not found"
        ) from None


async def all_movements(
    wallet: WalletApi, contract: Contract, method: PaymentMethod | None = None
) -> Reply | ListReply:
    """The whole history, newest first; or what has one payment method, oldest first."""
    words = contract.on_new_path()  # who states nothing gets the same, and so shares what is kept
    return list_reply(
        await wallet.rendered_movements(
            words, lambda movement: to_json(render.movement(movement, words)), method=method
        )
    )


def _parse_method(kind: str, value: str, network: Network) -> PaymentMethod:
    """The payment method to look for, in the form in which the wallet stores it."""
    try:
        known = PaymentMethodKind(kind)
    except ValueError:
        raise BadRequest(f"invalid payment method: unknown payment method type: {kind}") from None
    problem: str | None = None
    match known:
        case PaymentMethodKind.ARK:
            try:
                value = str(ArkAddress.parse(value))
            except InvalidInput as error:
                problem = f"invalid ark address: {chain_text(error)}"
        case PaymentMethodKind.BITCOIN:
            try:
                parse_address(value, network)
            except WrongNetworkAddress:
                pass
            except InvalidInput as error:
                problem = f"invalid bitcoin address: {chain_text(error)}"
            value = canonical_address(value)
        case PaymentMethodKind.OUTPUT_SCRIPT:
            bad = re.search("[^0-9a-fA-F]", value)
            if len(value.encode()) % 2:
                problem = (
                    "invalid output script hex: odd length, failed to create bytes from hex: "
                    f"odd hex string length {len(value.encode())}"
                )
            elif bad is not None:
                problem = (
                    "invalid output script hex: invalid char, failed to create bytes from hex: "
                    f"invalid hex char {ord(bad[0])}"
                )
            value = value.lower()
        case PaymentMethodKind.INVOICE:
            if not is_invoice(value):
                problem = "invalid invoice: cannot parse invoice"
            value = value.lower()
        case PaymentMethodKind.OFFER:
            try:
                value = str(Offer.parse(value))
            except InvalidOffer:
                reason = "InvalidChar" if "1" in value else "MissingSeparator"
                problem = f"invalid offer: Bech32(Parse(Char({reason})))"
        case PaymentMethodKind.LIGHTNING_ADDRESS if not is_lightning_address(value):
            problem = "invalid lightning address: InvalidLightningAddress"
        case PaymentMethodKind.LNURL:
            if decode_lnurl(value) is None:
                problem = "invalid lnurl: InvalidLnUrl"
            value = value.lower()
        case _:
            pass
    if problem is not None:
        raise BadRequest(f"invalid payment method: {problem}")
    return PaymentMethod(known, value)
