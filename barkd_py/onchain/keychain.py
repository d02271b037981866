"""The wallet's addresses: one BIP-86 keychain, for receiving and for change alike.

``tr(m/86'/C'/0'/0/*)`` with C = 0 on mainnet and 1 elsewhere. Source: sheet 06 §7.1.
"""

import bdkpython as bdk

from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.units import Network

STOP_GAP = 50
"""So many addresses in a row that were never used end a search for old ones."""

CHANGE_GAP = 20
"""Change goes no further than so many addresses past the last paid one: other wallets search no further.
Source: BIP-44.
"""

LOOKAHEAD = STOP_GAP
"""Scripts past the last revealed one that are recognised, so that reading blocks finds as many."""

KEYCHAIN = bdk.KeychainKind.EXTERNAL

_BDK_NETWORK = {
    Network.MAINNET: bdk.Network.BITCOIN,
    Network.TESTNET: bdk.Network.TESTNET,
    Network.TESTNET4: bdk.Network.TESTNET4,
    Network.SIGNET: bdk.Network.SIGNET,
    Network.MUTINYNET: bdk.Network.SIGNET,
    Network.REGTEST: bdk.Network.REGTEST,
}


def bdk_network(network: Network) -> bdk.Network:
    return _BDK_NETWORK[network]


def wallet_descriptor(seed: Seed, network: Network) -> bdk.Descriptor:
    """The descriptor with its private key. BDK keeps the secret; ``str`` of it shows the public part only."""
    kind = bdk.NetworkKind.MAIN if network.is_mainnet else bdk.NetworkKind.TEST
    secret = bdk.DescriptorSecretKey(kind, bdk.Mnemonic.from_string(seed.words), None)
    return bdk.Descriptor.new_bip86(secret, KEYCHAIN, kind)


class Keychain:
    """The scripts by index, derived once each. Implements `barkd_py.chain.source.ScriptWatch`."""

    def __init__(self, descriptor: bdk.Descriptor, network: Network, last_revealed: int | None) -> None:
        self._descriptor = descriptor
        self._network = bdk_network(network)
        self._revealed_count = 0 if last_revealed is None else last_revealed + 1
        self._scripts: list[bytes] = []
        self._index_by_script: dict[bytes, int] = {}
        self._extend()

    @property
    def revealed_count(self) -> int:
        return self._revealed_count

    @property
    def last_revealed(self) -> int | None:
        return self._revealed_count - 1 if self._revealed_count else None

    @property
    def window_count(self) -> int:
        return self._revealed_count + LOOKAHEAD

    def index_of(self, script_pubkey: bytes) -> int | None:
        return self._index_by_script.get(script_pubkey)

    def script(self, index: int) -> bytes:
        if index < len(self._scripts):
            return self._scripts[index]
        return self._derive_script(index)

    def address(self, index: int) -> str:
        return str(self._derive(index))

    def found(self, index: int) -> None:
        """Count everything up to this index as revealed. Never goes back."""
        if index >= self._revealed_count:
            self._revealed_count = index + 1
            self._extend()

    def _derive(self, index: int) -> bdk.Address:
        return self._descriptor.derive_address(index, self._network)

    def _derive_script(self, index: int) -> bytes:
        return bytes(self._derive(index).script_pubkey().to_bytes())

    def _extend(self) -> None:
        for index in range(len(self._scripts), self.window_count):
            script = self._derive_script(index)
            self._scripts.append(script)
            self._index_by_script[script] = index
