"""Where the keys of an Ark wallet come from.

    m/350'          the wallet: its fingerprint names it
    m/350'/0'       account of the VTXO keys; signs for the recovery by extended public key
    m/350'/0'/i     VTXO key i, the only step that is not hardened
    m/350'/1'       the mailbox
    m/350'/2'       the recovery mailbox

The keys are the same on every network. Nothing else comes from the mnemonic: round cosign keys, nonces and
preimages are random.

Source: protocol sheet 02 §1.2, §1.3.
"""

from functools import lru_cache

from barkd_py.bitcoin.bip32 import HARDENED, ExtendedKey, Seed
from barkd_py.bitcoin.keys import PublicKey, SecretKey

MAX_VTXO_KEY_INDEX = HARDENED - 1


class WalletKeys:
    """All secret keys of one Ark wallet; shows none of them in ``repr``."""

    __slots__ = ("_account", "_derive", "_mailbox", "_recovery_mailbox", "_root")

    def __init__(self, seed: Seed) -> None:
        self._root = seed.master_key().derive("m/350'")
        self._account = self._root.derive("m/0'")
        self._mailbox = self._root.derive("m/1'").secret_key
        self._recovery_mailbox = self._root.derive("m/2'").secret_key
        self._derive = lru_cache(maxsize=1024)(self._derive_vtxo_key)

    @property
    def fingerprint(self) -> str:
        """8 lower-case hex digits, of ``m/350'`` (not of the master key)."""
        return self._root.fingerprint.hex()

    @property
    def mailbox_key(self) -> SecretKey:
        return self._mailbox

    @property
    def recovery_mailbox_key(self) -> SecretKey:
        return self._recovery_mailbox

    @property
    def account(self) -> ExtendedKey:
        """The extended key of the VTXO account."""
        return self._account

    def vtxo_key(self, index: int) -> SecretKey:
        """VTXO key number index. Raises ValueError from 2^31 on, where derivation would be hardened."""
        if not 0 <= index <= MAX_VTXO_KEY_INDEX:
            raise ValueError(f"VTXO key index {index} is out of range")
        return self._derive(index)

    def vtxo_pubkey(self, index: int) -> PublicKey:
        return self.vtxo_key(index).public_key

    def account_xpub(self, *, mainnet: bool) -> bytes:
        """The 78 bytes that a server can find the wallet's VTXOs by."""
        return self._account.xpub_bytes(mainnet=mainnet)

    def _derive_vtxo_key(self, index: int) -> SecretKey:
        return self._account.child(index).secret_key

    def __repr__(self) -> str:
        return f"WalletKeys(fingerprint={self.fingerprint}, redacted)"
