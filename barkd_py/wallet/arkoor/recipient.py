"""What is checked of an Ark address before anything is paid to it, or asked for in its name."""

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.mailbox import decode_blinded_id
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.units import Network
from barkd_py.errors import ServerError
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.arkoor.errors import AddressUnchecked, UnusableMailbox


async def verify_server(address: ArkAddress, server: ArkServerApi, network: Network) -> ArkInfo:
    """The address is of our server, whose info this is.

    Raises InvalidInput for the address, and AddressUnchecked if the server was never reached.
    """
    try:
        info = await server.info()
    except ServerError as error:
        if server.cached_info is not None:
            raise
        raise AddressUnchecked(error) from None
    address.validate_for(info.server_pubkey, network)
    return info


def verify_mailboxes(address: ArkAddress) -> None:
    """Raises UnusableMailbox: parsing an address looks at the length only."""
    for blinded_id in address.mailbox_ids():
        try:
            decode_blinded_id(blinded_id)
        except DecodeError as error:
            raise UnusableMailbox from error
