"""Tag `message`: messages signed with the key of an Ark address."""

from barkd_py.api.deps import Wallet
from barkd_py.api.errors import BadRequest
from barkd_py.api.responses import REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import message as schemas
from barkd_py.ark.address import ArkAddress, InvalidArkAddress
from barkd_py.bitcoin import message
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import InvalidInput

router = new_router("/message", "message")


@router.post("/sign", response_model=schemas.SignedMessage, responses=REFUSED, summary="Sign a message")
async def sign_message(body: schemas.SignMessageRequest, wallet: Wallet) -> object:
    address = _parse_address(body.address)
    signature = await wallet.sign_message(body.message, address.user_pubkey)
    if signature is None:
        raise BadRequest("address does not belong to this wallet or its key has not been derived")
    return {"signature": signature.hex()}


@router.post(
    "/verify",
    response_model=schemas.MessageVerification,
    responses=REFUSED,
    summary="Verify a signed message",
)
async def verify_message(body: schemas.VerifyMessageRequest) -> object:
    signature = _parse_signature(body.signature)
    match body.pubkey, body.address:
        case str(pubkey), None:
            key = _parse_pubkey(pubkey)
        case None, str(address):
            key = _parse_address(address).user_pubkey
        case _:
            raise InvalidInput("exactly one of pubkey and address must be set")
    return {"valid": message.verify_message(key, body.message, signature)}


def _parse_address(text: str) -> ArkAddress:
    try:
        return ArkAddress.parse(text)
    except InvalidArkAddress as error:
        raise BadRequest("invalid ark address") from error


def _parse_signature(text: str) -> bytes:
    try:
        signature = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        signature = b""
    if len(signature) != 64:
        raise BadRequest("invalid signature: malformed signature")
    return signature


def _parse_pubkey(text: str) -> PublicKey:
    try:
        return PublicKey.from_hex(text)
    except ValueError as error:
        raise BadRequest(f"invalid pubkey: {error}") from None
