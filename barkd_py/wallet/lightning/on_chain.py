"""Taking on chain what a server does not pay: the exits of HTLC VTXOs, and the claims of these exits.

Unlike an ordinary exit, that of an HTLC VTXO must not wait for somebody to claim it: after the HTLC's expiry
the server may take the output. So it is claimed as soon as it can be, to the on-chain wallet, at the fast fee
rate. Source: sheet 05 §5.9.
"""

import logging
from collections.abc import Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.lightning.receive.machine import ExitSeam

log = logging.getLogger(__name__)


class LightningExits(ExitSeam):
    def __init__(
        self, exits: Exits, chain: ChainSource, onchain: OnchainWallet | None, network: Network
    ) -> None:
        self._exits = exits
        self._chain = chain
        self._onchain = onchain
        self._network = network
        self._script: bytes | None = None

    async def start(self, vtxo_id: VtxoId) -> None:
        await self._exits.start_held(vtxo_id)

    async def claim(self, vtxo_ids: Sequence[VtxoId]) -> None:
        if self._onchain is None:
            await super().claim(vtxo_ids)
            return
        if self._script is None:  # a claim that failed does not use up an address
            self._script = parse_address(await self._onchain.next_address(), self._network)
        fee_rates = await self._chain.fee_rates()
        await self._exits.claim(vtxo_ids, self._script, fee_rates.fast)
        self._script = None
