"""Signatures that a user and the server make together, in one exchange.

The user sends a public nonce; the server answers with its own nonce and its partial signature at once, so it
never stores a secret nonce; the user verifies the partial signature, adds their own, and has the signature.
Every request gets another nonce from the server: a partial signature goes only with the nonce of the same
answer.

    user                                      server
    sec_nonce, pub_nonce ── pub_nonce ──────▶ nonce of its own, signs
    verifies, signs, adds up ◀── pub_nonce, partial ──

Boards, out-of-round payments, forfeits and the leaves of rounds all are signed like this.

Source: sheet 01 §9.3; BIP-327.
"""

from dataclasses import dataclass
from typing import NamedTuple

from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr
from barkd_py.bitcoin.musig import SecNonce, Session, aggregate_nonces, generate_nonce
from barkd_py.errors import ProtocolViolation


class BadCosignature(ProtocolViolation):
    """The other signer's nonce or partial signature is wrong. Our nonce is spent: start anew."""


class Cosignature(NamedTuple):
    """The server's part: its public nonce, 66 bytes, and its partial signature, 32 bytes."""

    pub_nonce: bytes
    partial_sig: bytes


@dataclass(frozen=True, slots=True)
class CosignTask:
    """One message for user and server to sign.

    sighash: 32 bytes. tweak: the tap tweak of the spent output, 32 bytes; None to sign under the aggregate
    key itself.
    """

    user_pubkey: PublicKey
    server_pubkey: PublicKey
    sighash: bytes
    tweak: bytes | None

    @property
    def _keys(self) -> tuple[PublicKey, PublicKey]:
        return (self.user_pubkey, self.server_pubkey)

    def _session(self, user_pub_nonce: bytes, server_pub_nonce: bytes) -> Session:
        """Raises BadCosignature for malformed nonces."""
        try:
            agg_nonce = aggregate_nonces((user_pub_nonce, server_pub_nonce))
        except ValueError as error:
            raise BadCosignature("malformed public nonce") from error
        return Session(self._keys, agg_nonce, self.sighash, self.tweak)

    def generate_nonce(self, secret_key: SecretKey) -> tuple[SecNonce, bytes]:
        """A fresh nonce pair of one of the two signers for this message."""
        return generate_nonce(secret_key, msg=self.sighash, pubkeys=self._keys)

    def cosign(self, server_secret: SecretKey, user_pub_nonce: bytes) -> Cosignature:
        """The server's part. Different every time. Raises BadCosignature for a malformed nonce."""
        sec_nonce, pub_nonce = self.generate_nonce(server_secret)
        try:
            session = self._session(user_pub_nonce, pub_nonce)
            return Cosignature(pub_nonce, session.sign(server_secret, sec_nonce))
        finally:
            sec_nonce.wipe()

    def is_cosigned(self, user_pub_nonce: bytes, cosignature: Cosignature) -> bool:
        """Whether the server's part is right."""
        try:
            session = self._session(user_pub_nonce, cosignature.pub_nonce)
        except BadCosignature:
            return False
        return session.verify_partial(cosignature.partial_sig, cosignature.pub_nonce, self.server_pubkey)

    def finish(
        self, user_secret: SecretKey, sec_nonce: SecNonce, user_pub_nonce: bytes, cosignature: Cosignature
    ) -> bytes:
        """The signature, 64 bytes, verified.

        Nothing is signed before the server's part is verified. The nonce is spent whatever the outcome.
        Raises BadCosignature; ValueError if secret and nonce are not the user's.
        """
        if user_secret.public_key != self.user_pubkey:
            raise ValueError("incorrect signing key")
        try:
            session = self._session(user_pub_nonce, cosignature.pub_nonce)
            if not session.verify_partial(cosignature.partial_sig, cosignature.pub_nonce, self.server_pubkey):
                raise BadCosignature("the server's partial signature is invalid")
            own_partial = session.sign(user_secret, sec_nonce)
            signature = session.aggregate((own_partial, cosignature.partial_sig))
        finally:
            sec_nonce.wipe()
        # Adding up proves nothing. With the server's part verified, only a wrong nonce of ours fails here.
        if not verify_schnorr(session.output_x_only, self.sighash, signature):
            raise ValueError("the nonces do not belong together")
        return signature
