"""Our own Ark addresses: one per VTXO key, the same text every time it is built.

They are built from the server keys that the wallet is pinned to, so a server that changes its mailbox key
cannot have payments delivered elsewhere, and no network is needed. Source: sheet 02 §1.8, §2.4.
"""

from collections.abc import Mapping, Sequence

from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.keychain import Keychain, UnknownKey
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.keys import VtxoKey


class Addresses:
    def __init__(self, store: Store, keychain: Keychain, server: ArkServerApi, network: Network) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._network = network
        self._pins: tuple[PublicKey, PublicKey] | None = None

    async def new(self) -> str:
        """An address that was never handed out; its key is stored when this returns.

        Asks for the server's keys first, so that a wallet that never met its server burns no key.
        """
        pins = await self._server_keys()
        return self._build(await self._keychain.reserve(), pins)

    async def at(self, index: int) -> str:
        """The address of a key that was handed out. Raises UnknownKeyIndex."""
        key = await self._keychain.at(index)
        return self._build(key, await self._server_keys())

    async def of_keys(self, public_keys: Sequence[PublicKey]) -> Mapping[PublicKey, str]:
        """The addresses of keys of ours. Raises UnknownKey."""
        if not public_keys:
            return {}
        pins = await self._server_keys()
        async with self._store.read() as tx:
            found = await tx.keys.find_many(public_keys)
        for public_key in public_keys:
            if public_key not in found:
                raise UnknownKey(public_key)
        return {public_key: self._build(found[public_key], pins) for public_key in public_keys}

    def _build(self, key: VtxoKey, pins: tuple[PublicKey, PublicKey]) -> str:
        server_pubkey, mailbox_pubkey = pins
        address = ArkAddress.for_vtxo_key(
            self._keychain.secret(key),
            server_pubkey=server_pubkey,
            server_mailbox_pubkey=mailbox_pubkey,
            mailbox_id=self._keychain.mailbox_key.public_key,
            network=self._network,
        )
        return address.encode()

    async def _server_keys(self) -> tuple[PublicKey, PublicKey]:
        """The pinned pair; a wallet that never met its server meets it now, which pins it."""
        if self._pins is None:
            self._pins = await self._keychain.pinned_server()
        if self._pins is None:
            info = await self._server.info()
            return info.server_pubkey, info.mailbox_pubkey
        return self._pins
