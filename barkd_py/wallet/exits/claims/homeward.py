"""Claims that nobody asked for, to the on-chain wallet, at the fast fee rate: of what cannot wait.

Everything else stays where it is until somebody claims it (`sending`).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from barkd_py.ark.claim import claim_input
from barkd_py.ark.vtxo import ServerVtxo, VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain.source import ChainSource
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits.claim_tx import build_claim, secrets_of
from barkd_py.wallet.exits.costs.worth import MAX_AUTOMATIC_FEE_RATE
from barkd_py.wallet.keychain import Keychain

log = logging.getLogger(__name__)


ClaimExits = Callable[[Sequence[VtxoId], bytes, FeeRate], Awaitable[Txid]]
"""`Exits.claim`."""


class HomewardClaims:
    """Without an on-chain wallet nothing is claimed, and the log says so."""

    def __init__(
        self,
        claim_exits: ClaimExits,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        keychain: Keychain,
        network: Network,
    ) -> None:
        self._claim_exits = claim_exits
        self._chain = chain
        self._onchain = onchain
        self._keychain = keychain
        self._network = network
        self._script: bytes | None = None

    async def claim(self, vtxo_ids: Sequence[VtxoId]) -> None:
        """The outputs of exits that are claimable. Raises as `Exits.claim`."""
        if self._onchain is None:
            log.error("the exits of %s have to be claimed", ", ".join(map(str, vtxo_ids)))
            return
        script = await self._next_script(self._onchain)
        await self._claim_exits(vtxo_ids, script, await self._fee_rate())
        self._script = None

    async def claim_output(self, output: ServerVtxo) -> Txid | None:
        """An output that no exit leads to; its delay is over. The id of the claim, which is not stored.

        Raises ChainError, ExitError, NotClaimable.
        """
        if self._onchain is None:
            log.error("the output %s has to be claimed", output.point)
            return None
        user_pubkey = output.policy.user_pubkey
        path = claim_input(output, is_ours=lambda key: key == user_pubkey, find_preimage=lambda _: None)
        claim = build_claim(
            [path],
            await self._next_script(self._onchain),
            await self._fee_rate(),
            tip_height=(await self._chain.tip()).height,
            find_secret=await secrets_of(self._keychain, [path]),
        )
        await self._chain.broadcast(claim.tx)
        await self._onchain.record(claim.tx, foreign_outputs={path.outpoint: path.output})
        self._script = None
        return claim.tx.txid

    async def _fee_rate(self) -> FeeRate:
        """Bounded, as nobody looks at it: a chain source that exaggerates must not turn claims into fees."""
        return min((await self._chain.fee_rates()).fast, MAX_AUTOMATIC_FEE_RATE)

    async def _next_script(self, onchain: OnchainWallet) -> bytes:
        """A claim that failed does not use up an address."""
        if self._script is None:
            self._script = parse_address(await onchain.next_address(), self._network)
        return self._script
