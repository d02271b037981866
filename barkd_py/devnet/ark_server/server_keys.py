"""The server's keys, from a mnemonic that is kept beside its data.

Wallets pin the server's keys for ever, so they must outlive restarts: the mnemonic is written once,
readable by its owner only.

Source: sheet 10 §1.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from barkd_py.bitcoin.bip32 import ExtendedKey, Seed, generate_mnemonic, parse_mnemonic
from barkd_py.bitcoin.keys import PublicKey, SecretKey

MNEMONIC_FILE = "mnemonic"

#: SipHash-2-4 of the SHA-256 of "rounds", the low 31 bits.
_TREASURY_INDEX = 1_856_555_996


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """server: in every policy, and cosigning. mailbox: only takes the blinding off mailbox ids. treasury: of
    the wallet that funds rounds and offboards.
    """

    server: SecretKey
    mailbox: SecretKey
    treasury: ExtendedKey

    @classmethod
    def from_seed(cls, seed: Seed) -> "ServerKeys":
        master = seed.master_key()
        return cls(
            server=master.derive("m/2'/0'").secret_key,
            mailbox=master.derive("m/2'/1'").secret_key,
            treasury=master.derive(f"m/{_TREASURY_INDEX}'"),
        )

    @property
    def server_pubkey(self) -> PublicKey:
        return self.server.public_key

    @property
    def mailbox_pubkey(self) -> PublicKey:
        return self.mailbox.public_key


def load_or_create_seed(directory: Path) -> Seed:
    """The server's seed; a new one is stored before it is used for the first time.

    directory: created with mode 0700 if it is not there.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / MNEMONIC_FILE
    try:
        return parse_mnemonic(path.read_text())
    except FileNotFoundError:
        seed = generate_mnemonic()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(seed.words)
        file.flush()
        os.fsync(descriptor)
    return seed
