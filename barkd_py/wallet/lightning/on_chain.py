"""Taking on chain what a server does not pay: the exits of HTLC VTXOs, and the claims of these exits.

Unlike an ordinary exit, that of an HTLC VTXO must not wait for somebody to claim it: after the HTLC's expiry
the server may take the output. So it is claimed as soon as it can be, to the on-chain wallet, at the fast fee
rate. Source: sheet 05 §5.9.
"""

from collections.abc import Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.exits.claims.homeward import HomewardClaims
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.lightning.receive.machine import ExitSeam


class LightningExits(ExitSeam):
    def __init__(self, exits: Exits, claims: HomewardClaims) -> None:
        self._exits = exits
        self._claims = claims

    async def start(self, vtxo_id: VtxoId) -> None:
        await self._exits.start_held(vtxo_id)

    async def claim(self, vtxo_ids: Sequence[VtxoId]) -> None:
        await self._claims.claim(vtxo_ids)
