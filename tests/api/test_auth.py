"""Tokens and the Authorization header. Source: protocol sheet 07 §3."""

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.api.auth import (
    AuthToken,
    InvalidToken,
    authorize,
    load_or_create_token,
    load_token,
    store_token,
)
from barkd_py.datadir import Datadir
from barkd_py.errors import AuthError

TOKEN = AuthToken(b"\x2a" * 32)
ENCODED = "ACoqKioqKioqKioqKioqKioqKioqKioqKioqKioqKioq"


@pytest.mark.parametrize(
    ("secret", "encoded"),
    [(b"\x2a" * 32, ENCODED), (bytes(range(32)), "AAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f")],
)
def test_documented_tokens(secret: bytes, encoded: str) -> None:
    assert AuthToken(secret).encode() == encoded
    assert AuthToken.decode(encoded) == AuthToken(secret)


@given(st.binary(min_size=32, max_size=32))
def test_a_token_survives_its_text(secret: bytes) -> None:
    encoded = AuthToken(secret).encode()
    assert len(encoded) == 44
    assert AuthToken.decode(f" {encoded}\n") == AuthToken(secret)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid format"),
        (ENCODED[:40], "invalid format"),
        (ENCODED + "AAAA", "invalid format"),
        (base64.urlsafe_b64encode(b"\x01" + b"\x2a" * 32).decode(), "unknown version"),
        ("AAAAAAA!", "invalid base64: Invalid symbol 33, offset 7."),
        (ENCODED + "=", "invalid base64: Invalid symbol 61, offset 44."),
        ("AB", "invalid base64: Invalid last symbol 66, offset 1."),
    ],
)
def test_bad_tokens_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        AuthToken.decode(text)
    assert str(refused.value) == message


def test_a_token_shows_itself_to_nobody() -> None:
    assert ENCODED not in f"{TOKEN!r} {TOKEN}"
    assert "2a2a" not in f"{TOKEN!r}"


def test_one_different_bit_is_another_token() -> None:
    assert AuthToken(b"\x2a" * 31 + b"\x2b") != TOKEN


class Watched(bytes):
    """A secret that must not be compared byte by byte: that ends at the first difference."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared in a time that depends on the secret")

    def __hash__(self) -> int:
        return super().__hash__()


@pytest.mark.parametrize("given", [b"\x2a" * 32, b"\x2b" * 32])
def test_secrets_are_compared_in_constant_time(given: bytes) -> None:
    token = AuthToken(Watched(b"\x2a" * 32))
    assert (AuthToken(Watched(given)) == token) is (given == b"\x2a" * 32)


def test_white_space_after_bearer_does_not_matter() -> None:
    authorize([(b"authorization", b"Bearer    " + ENCODED.encode())], TOKEN)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "missing auth token"),
        ([b"bearer " + ENCODED.encode()], "missing auth token"),
        ([b"Bearer"], "missing auth token"),
        ([b"Bearer x"], "invalid auth token"),
        ([b"Bearer " + AuthToken(bytes(32)).encode().encode()], "invalid auth token"),
        ([b"Bearer x", b"Bearer " + ENCODED.encode()], "multiple authorization headers are not allowed"),
        ([b"Bearer \xff"], "authorization header is not valid UTF-8"),
    ],
)
def test_other_headers_are_refused(values: list[bytes], message: str) -> None:
    with pytest.raises(AuthError) as refused:
        authorize([(b"authorization", value) for value in values], TOKEN)
    assert str(refused.value) == message


def test_a_header_of_another_scheme_may_come_first() -> None:
    authorize([(b"authorization", b"Basic dTpw"), (b"authorization", b"Bearer " + ENCODED.encode())], TOKEN)


# --- the file


def test_the_token_file_holds_the_token_alone_for_the_owner_alone(tmp_path: Path) -> None:
    datadir = Datadir(tmp_path)
    token = load_or_create_token(datadir)
    assert datadir.auth_token.read_text() == token.encode()
    assert stat.S_IMODE(datadir.auth_token.stat().st_mode) == 0o600
    assert load_or_create_token(datadir) == token


def test_a_newline_at_the_end_of_the_file_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / "auth_token").write_text(ENCODED + "\n")
    assert load_token(Datadir(tmp_path)) == TOKEN


def test_a_stored_token_replaces_a_symbolic_link_and_not_its_target(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("untouched")
    (tmp_path / "auth_token").symlink_to(target)
    store_token(Datadir(tmp_path), TOKEN)
    assert target.read_text() == "untouched"
    assert (tmp_path / "auth_token").read_text() == ENCODED
