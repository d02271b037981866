"""MuSig2 signatures of several keys (BIP-327); the only user of the MuSig2 binding.

Ark sorts the keys of every aggregation by their 33 bytes, so their order never matters. A signer makes a
nonce pair, all public nonces are added up, each signer makes a partial signature within a `Session`, and the
partial signatures add up to one BIP-340 signature under the aggregate key, tweaked if the session has a
tweak.

A secret nonce signs once: using it for two messages gives the secret key away. `SecNonce` therefore is
consumed by signing, cannot be copied or pickled, and is wiped when it is no longer needed. Adding partial
signatures up proves nothing; verify each of them, or the result.

Source: BIP-327; sheet 01 §4.1, §9.3.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Never

from btclib_secp256k1 import musig as native

from barkd_py.bitcoin.keys import PublicKey, SecretKey

PUBLIC_NONCE_BYTES = 66


@lru_cache(maxsize=8_192)
def _combine(sorted_keys: tuple[bytes, ...]) -> PublicKey:
    return PublicKey(native.KeyAggCache(sorted_keys).pubkey_get())


def combine(public_keys: Iterable[PublicKey]) -> PublicKey:
    """The aggregate of at least one key, in any order. A single key's aggregate is not that key."""
    return _combine(_sorted(public_keys))


def _sorted(public_keys: Iterable[PublicKey]) -> tuple[bytes, ...]:
    return tuple(sorted(key.data for key in public_keys))


@lru_cache(maxsize=1_024)
def is_public_nonce(data: bytes) -> bool:
    """Whether 66 bytes are two points, neither of them infinity."""
    try:
        native.pubnonce_parse(data)
    except ValueError:
        return False
    return True


class SecNonce:
    """A secret nonce, good for one signature. It keeps the bytes inside libsecp256k1's buffer."""

    __slots__ = ("_native",)

    def __init__(self, native_nonce: native.SecretNonce) -> None:
        self._native = native_nonce

    def take(self) -> native.SecretNonce:
        """Hand the nonce over to the one signature it is good for."""
        return self._native

    def wipe(self) -> None:
        """Make it useless. Safe to repeat."""
        self._native.wipe()

    def __copy__(self) -> Never:
        raise TypeError("a secret nonce is not copied")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a secret nonce is not copied")

    def __reduce__(self) -> Never:
        raise TypeError("a secret nonce is not pickled")

    def __repr__(self) -> str:
        return "SecNonce(redacted)"


def generate_nonce(
    secret_key: SecretKey, *, msg: bytes | None = None, pubkeys: Iterable[PublicKey] | None = None
) -> tuple[SecNonce, bytes]:
    """A fresh nonce pair: the secret one, and the 66 bytes for the other signers.

    The message and the signers' keys are mixed into it when they are known already.
    """
    cache = None if pubkeys is None else native.KeyAggCache(_sorted(pubkeys))
    nonce = native.nonce_gen(secret_key.public_key.data, secret_key.secret_bytes, msg, cache)
    return SecNonce(nonce), nonce.pubnonce


def aggregate_nonces(public_nonces: Sequence[bytes]) -> bytes:
    """The sum of all signers' public nonces, 66 bytes. Raises ValueError if one is malformed."""
    return native.nonce_agg(public_nonces)


class Session:
    """One message being signed by several keys.

    tweak: 32 bytes added to the aggregate key the x-only way (a tap tweak), or None. Raises ValueError for an
    aggregate nonce or a tweak that is none. Of the signers' keys, the order is free.
    """

    __slots__ = ("_cache", "_session", "output_key")

    def __init__(
        self, pubkeys: Iterable[PublicKey], agg_nonce: bytes, msg32: bytes, tweak: bytes | None = None
    ) -> None:
        self._cache = native.KeyAggCache(_sorted(pubkeys))
        if tweak is not None:
            self._cache.pubkey_xonly_tweak_add(tweak)
        self._session = native.Session(agg_nonce, msg32, self._cache)
        self.output_key = PublicKey(self._cache.pubkey_get())
        """The aggregate key, tweaked if there is a tweak: what the final signature verifies under."""

    @property
    def output_x_only(self) -> bytes:
        return self.output_key.x_only

    def sign(self, secret_key: SecretKey, sec_nonce: SecNonce) -> bytes:
        """A partial signature, 32 bytes. The nonce is spent afterwards, whatever the outcome.

        Raises ValueError if the nonce was spent before, or was made for another key.
        """
        return sec_nonce.take().partial_sign(secret_key.secret_bytes, self._cache, self._session)

    def verify_partial(self, partial: bytes, pub_nonce: bytes, pubkey: PublicKey) -> bool:
        """Whether a signer's partial signature is right; False for any malformed part."""
        try:
            return self._session.partial_sig_verify(partial, pub_nonce, pubkey.data, self._cache)
        except ValueError:
            return False

    def aggregate(self, partials: Sequence[bytes]) -> bytes:
        """The final signature, 64 bytes, **not verified**. Raises ValueError for a malformed part."""
        return self._session.partial_sig_agg(partials)
