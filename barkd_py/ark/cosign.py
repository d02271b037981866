"""Signatures that a user and the server make together, in one exchange.

One side sends a public nonce; the other answers with its own nonce and its partial signature at once, so it
never stores a secret nonce; the first side verifies the partial signature, adds its own, and has the
signature. Every request gets another nonce: a partial signature goes only with the nonce of the same answer.

    who asks                                  who answers
    sec_nonce, pub_nonce ── pub_nonce ──────▶ nonce of its own, signs
    verifies, signs, adds up ◀── pub_nonce, partial ──

The user asks for boards, out-of-round payments and the leaves of rounds; the server asks for forfeits.

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
    """An answer: the signer's public nonce, 66 bytes, and its partial signature, 32 bytes."""

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

    def _other(self, pubkey: PublicKey) -> PublicKey:
        """The other signer. Raises ValueError if the key is neither's."""
        if pubkey not in self._keys:
            raise ValueError("incorrect signing key")
        return self.server_pubkey if pubkey == self.user_pubkey else self.user_pubkey

    def _session(self, one_pub_nonce: bytes, other_pub_nonce: bytes) -> Session:
        """Raises BadCosignature for malformed nonces."""
        try:
            agg_nonce = aggregate_nonces((one_pub_nonce, other_pub_nonce))
        except ValueError as error:
            raise BadCosignature("malformed public nonce") from error
        return Session(self._keys, agg_nonce, self.sighash, self.tweak)

    def generate_nonce(self, secret_key: SecretKey) -> tuple[SecNonce, bytes]:
        """A fresh nonce pair of one of the two signers for this message."""
        return generate_nonce(secret_key, msg=self.sighash, pubkeys=self._keys)

    def cosign(self, secret_key: SecretKey, asker_pub_nonce: bytes) -> Cosignature:
        """The answer of one signer to the other's nonce. Different every time.

        Raises BadCosignature for a malformed nonce; ValueError if the secret is neither signer's.
        """
        self._other(secret_key.public_key)
        sec_nonce, pub_nonce = self.generate_nonce(secret_key)
        try:
            session = self._session(asker_pub_nonce, pub_nonce)
            return Cosignature(pub_nonce, session.sign(secret_key, sec_nonce))
        finally:
            sec_nonce.wipe()

    def is_cosigned(
        self, asker_pub_nonce: bytes, cosignature: Cosignature, by: PublicKey | None = None
    ) -> bool:
        """Whether an answer is right. by: who answered; the server unless given."""
        try:
            self.verify(asker_pub_nonce, cosignature, by)
        except BadCosignature:
            return False
        return True

    def verify(
        self, asker_pub_nonce: bytes, cosignature: Cosignature, by: PublicKey | None = None
    ) -> "VerifiedCosignature":
        """An answer proven right, ready for the asker's part. by: who answered; the server unless given.

        Raises BadCosignature; the asker's nonce is not touched.
        """
        session = self._session(asker_pub_nonce, cosignature.pub_nonce)
        signer = self.server_pubkey if by is None else by
        if not session.verify_partial(cosignature.partial_sig, cosignature.pub_nonce, signer):
            raise BadCosignature("the other signer's partial signature is invalid")
        return VerifiedCosignature(self, signer, cosignature.partial_sig, session)

    def finish(
        self, secret_key: SecretKey, sec_nonce: SecNonce, pub_nonce: bytes, cosignature: Cosignature
    ) -> bytes:
        """The signature, 64 bytes, verified; by the side that asked.

        Nothing is signed before the other's part is verified. The nonce is spent whatever the outcome.
        Raises BadCosignature; ValueError if secret and nonce are not the asker's.
        """
        try:
            other = self._other(secret_key.public_key)
            return self.verify(pub_nonce, cosignature, other).complete(secret_key, sec_nonce)
        finally:
            sec_nonce.wipe()


@dataclass(frozen=True, slots=True)
class VerifiedCosignature:
    """A right answer, from `CosignTask.verify` alone: whoever holds one need not verify again."""

    _task: CosignTask
    _signer: PublicKey
    _partial_sig: bytes
    _session: Session

    def complete(self, secret_key: SecretKey, sec_nonce: SecNonce) -> bytes:
        """The signature, 64 bytes, verified. The nonce is spent whatever the outcome.

        Raises ValueError if secret and nonce are not the asker's.
        """
        task, session = self._task, self._session
        try:
            if task._other(secret_key.public_key) != self._signer:
                raise ValueError("incorrect signing key")
            own_partial = session.sign(secret_key, sec_nonce)
            signature = session.aggregate((own_partial, self._partial_sig))
        finally:
            sec_nonce.wipe()
        # Adding up proves nothing. With the other's part verified, only a wrong nonce of ours fails here.
        if not verify_schnorr(session.output_x_only, task.sighash, signature):
            raise ValueError("the nonces do not belong together")
        return signature
