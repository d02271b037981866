"""RIPEMD-160, which OpenSSL may lack."""

import hashlib
from typing import Never

import pytest

from barkd_py.bitcoin.hashes import hash160, ripemd160


# Source: Dobbertin, Bosselaers, Preneel: RIPEMD-160, a strengthened version of RIPEMD, appendix B.
@pytest.mark.parametrize("is_missing", [False, True])
@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"abcdefghijklmnopqrstuvwxyz", "f71c27109c692c1b56bbdceb5b9d2865b3708dbc"),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_ripemd160_does_not_need_openssl(
    monkeypatch: pytest.MonkeyPatch, data: bytes, digest: str, is_missing: bool
) -> None:
    def unsupported(name: str, *_: object, **__: object) -> Never:
        raise ValueError(f"unsupported hash type {name}")

    if is_missing:
        monkeypatch.setattr(hashlib, "new", unsupported)
    assert ripemd160(data).hex() == digest


def test_hash160_of_the_generator() -> None:
    """Source: BIP-173, whose P2WPKH examples pay to this key."""
    generator = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
    assert hash160(generator).hex() == "751e76e8199196d454941c45d1b3a323f1433bd6"
