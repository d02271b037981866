"""Values that several routers read from their requests, and what is said when they are wrong."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from barkd_py.api.errors import BadRequest, Missing
from barkd_py.ark.vtxo import BadVtxoId, VtxoId
from barkd_py.bitcoin.address import InvalidAddress, WrongNetworkAddress, parse_address
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice, InvalidBolt12Invoice
from barkd_py.bitcoin.units import Network
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import NotFound

_HASH: Final = re.compile("[0-9a-fA-F]{64}")


def parse_destination_script(text: str, network: Network) -> bytes:
    """The script of a bitcoin address. Raises BadRequest."""
    try:
        return parse_address(text, network)
    except InvalidAddress as error:
        raise BadRequest("Invalid destination address") from error
    except WrongNetworkAddress as error:
        raise BadRequest("Address is not valid for configured network") from error


def parse_payee_script(text: str, network: Network) -> bytes:
    """As `parse_destination_script`, for those who are told in other words. Raises BadRequest."""
    try:
        return parse_address(text, network)
    except InvalidAddress as error:
        raise BadRequest("invalid destination address") from error
    except WrongNetworkAddress as error:
        raise BadRequest("address is not valid for configured network") from error


def parse_vtxo_id(text: str, problem: str) -> VtxoId:
    """problem: what a text that is no id is called. Raises BadRequest."""
    try:
        return VtxoId.parse(text)
    except BadVtxoId as error:
        raise BadRequest(problem) from error


async def parse_known_vtxo_ids(wallet: WalletApi, texts: Sequence[str]) -> Sequence[VtxoId]:
    """Ids of VTXOs that the wallet has. Raises BadRequest or Missing for the first that is none."""
    vtxo_ids = []
    for text in texts:
        vtxo_id = parse_vtxo_id(text, "Invalid VTXO id")
        try:
            await wallet.get_vtxo(vtxo_id)
        except NotFound:
            raise vtxo_not_found(vtxo_id) from None
        vtxo_ids.append(vtxo_id)
    return vtxo_ids


def vtxo_not_found(vtxo_id: VtxoId) -> Missing:
    """The error about a VTXO that the wallet does not have."""
    return Missing(f"VTXO not found: The VTXO with id {vtxo_id} cannot be found", str(vtxo_id))


def payment_hash_of(identifier: str) -> bytes | None:
    """The payment hash that is named, by itself or by its invoice; 32 bytes. None if neither is.

    An invoice for an offer will do, too: it is what a payment under way shows.
    """
    if _HASH.fullmatch(identifier) is not None:
        return bytes.fromhex(identifier)
    with suppress(InvalidInvoice):
        return Bolt11Invoice.parse(identifier).payment_hash
    with suppress(InvalidBolt12Invoice):
        return Bolt12Invoice.parse(identifier).payment_hash
    return None
