"""The bearer token: one version byte (0) and 32 secret bytes, in unpadded base64url: 44 characters.

Source: protocol sheet 07 §3.
"""

import base64
import binascii
import hmac
import logging
import secrets
import string
from collections.abc import Iterable
from typing import Final

from barkd_py.datadir import Datadir, FileFailure, write_private
from barkd_py.errors import AuthError, BarkdError

log = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
_VERSION: Final = 0
_ALPHABET: Final = frozenset((string.ascii_letters + string.digits + "-_").encode())


class InvalidToken(BarkdError):
    """Text that is no token."""


class AuthToken:
    """A token. Compares in constant time and never shows itself but by `encode`."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == SECRET_BYTES
        self._secret = secret

    @classmethod
    def generate(cls) -> "AuthToken":
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def decode(cls, text: str) -> "AuthToken":
        """Read a token; white space around it is ignored. Raises InvalidToken."""
        data = _decode_base64url(text.strip())
        if not data:
            raise InvalidToken("invalid format")
        if data[0] != _VERSION:
            raise InvalidToken("unknown version")
        if len(data) != 1 + SECRET_BYTES:
            raise InvalidToken("invalid format")
        return cls(data[1:])

    def encode(self) -> str:
        """The 44 characters. A secret."""
        return base64.urlsafe_b64encode(bytes((_VERSION,)) + self._secret).decode().rstrip("=")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AuthToken) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self._secret)

    def __repr__(self) -> str:
        return "AuthToken(redacted)"


def _decode_base64url(text: str) -> bytes:
    """Strict: no padding, no other alphabet, no bits left over."""
    data = text.encode()
    for offset, symbol in enumerate(data):
        if symbol not in _ALPHABET:
            raise InvalidToken(f"invalid base64: Invalid symbol {symbol}, offset {offset}.")
    if len(data) % 4 == 1:
        raise InvalidToken(f"invalid base64: Invalid input length: {len(data)}")
    try:
        decoded = base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
    except binascii.Error as error:
        raise InvalidToken(f"invalid base64: {error}") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != data:
        offset = len(data) - 1
        raise InvalidToken(f"invalid base64: Invalid last symbol {data[offset]}, offset {offset}.")
    return decoded


def authorize(headers: Iterable[tuple[bytes, bytes]], token: AuthToken) -> None:
    """Check the Authorization headers of a request, which come in lower case. Raises AuthError.

    Headers with another scheme than Bearer do not matter, as long as they come first.
    """
    bearer: str | None = None
    for name, value in headers:
        if name != b"authorization":
            continue
        if bearer is not None:
            raise AuthError("multiple authorization headers are not allowed")
        if any(byte != 0x09 and not 0x20 <= byte <= 0x7E for byte in value):
            raise AuthError("authorization header is not valid UTF-8")
        trimmed = value.strip(b" \t")  # blanks around a value are not part of it
        if trimmed.startswith(b"Bearer "):
            bearer = trimmed[7:].decode("ascii").strip()
    if bearer is None:
        raise AuthError("missing auth token")
    try:
        given = AuthToken.decode(bearer)
    except InvalidToken:
        raise AuthError("invalid auth token") from None
    if given != token:
        raise AuthError("invalid auth token")


# --- the token file


def load_token(datadir: Datadir) -> AuthToken | None:
    """The stored token, or None. Raises InvalidToken for a file that holds something else."""
    try:
        text = datadir.auth_token.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidToken(f"failed to read {datadir.auth_token}") from FileFailure(error)
    return AuthToken.decode(text)


def store_token(datadir: Datadir, token: AuthToken) -> None:
    write_private(datadir.auth_token, token.encode().encode())


def load_or_create_token(datadir: Datadir) -> AuthToken:
    token = load_token(datadir)
    if token is None:
        token = AuthToken.generate()
        store_token(datadir, token)
        log.info("No auth token found — generated a new one. Use `barkd secret show` to view it.")
    return token
