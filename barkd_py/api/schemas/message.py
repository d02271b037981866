"""Tag `message`."""

from barkd_py.api.schemas.common import Schema


class SignMessageRequest(Schema):
    message: str
    address: str


class SignedMessage(Schema):
    signature: str


class VerifyMessageRequest(Schema):
    message: str
    signature: str
    pubkey: str | None = None
    address: str | None = None


class MessageVerification(Schema):
    valid: bool
