"""Claiming: from exits that may be claimed to one transaction on its way.

A claim is stored and its exits are `claim-in-progress` before it is broadcast; if the node refuses it, all is
as before. So a crash around the broadcast leaves a claim that the next run broadcasts again.

Source: sheet 06 §5.
"""

import logging
from collections.abc import Sequence

from barkd_py.ark.claim import ClaimInput
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate
from barkd_py.chain.source import BroadcastError, ChainSource
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits.claim_tx import Claim, ClaimPaths, build_claim, secrets_of
from barkd_py.wallet.exits.driver import ExitDriver
from barkd_py.wallet.exits.errors import (
    ClaimMissingSignableClause,
    InvalidWalletState,
    NotExiting,
    VtxoNotClaimable,
)
from barkd_py.wallet.exits.rows import LiveExit, row_after
from barkd_py.wallet.exits.states import Claimable, ClaimInProgress
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import EXITS, NamedLocks
from barkd_py.wallet.store import Store

log = logging.getLogger(__name__)


class Claims:
    """Makes claims."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        keychain: Keychain,
        locks: NamedLocks,
        driver: ExitDriver,
        paths: ClaimPaths,
    ) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._keychain = keychain
        self._locks = locks
        self._driver = driver
        self._paths = paths

    async def claim(
        self, vtxo_ids: Sequence[VtxoId] | None, script_pubkey: bytes, fee_rate: FeeRate | None = None
    ) -> Txid:
        """Claim exits to one script: these, or all that may be claimed; the id of the claim."""
        rate = fee_rate or (await self._chain.fee_rates()).regular
        async with self._locks.hold(EXITS):
            exits, tip = await self._claimable(vtxo_ids)
            inputs = await self._claim_inputs([exit_.row.vtxo_id for exit_ in exits])
            claim = build_claim(
                inputs,
                script_pubkey,
                rate,
                tip_height=tip.height,
                find_secret=await secrets_of(self._keychain, inputs),
            )
            await self._send_claim(exits, claim, tip)
        if self._onchain is not None and self._onchain.is_mine(script_pubkey):
            spent = {each.outpoint: each.output for each in inputs}
            await self._onchain.record(claim.tx, foreign_outputs=spent)
        return claim.tx.txid

    async def _claimable(self, vtxo_ids: Sequence[VtxoId] | None) -> tuple[list[LiveExit], BlockRef]:
        """The exits to claim, in the given order, and the tip at which they were just seen claimable."""
        wanted = None if vtxo_ids is None else tuple(dict.fromkeys(vtxo_ids))
        async with self._store.read() as tx:
            exiting = await tx.exits.find_many(wanted or ())
        for vtxo_id in wanted or ():
            if vtxo_id not in exiting:
                raise NotExiting(vtxo_id)
        looked = await self._driver.look(wanted)
        exits = looked.exits
        if wanted is None:
            wanted = tuple(
                [vtxo_id for vtxo_id, exit_ in exits.items() if isinstance(exit_.state, Claimable)]
            )
        for vtxo_id in wanted:
            if vtxo_id not in exits or not isinstance(exits[vtxo_id].state, Claimable):
                raise VtxoNotClaimable(vtxo_id)
        return [exits[vtxo_id] for vtxo_id in wanted], looked.tip

    async def _claim_inputs(self, vtxo_ids: Sequence[VtxoId]) -> list[ClaimInput]:
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.bodies(vtxo_ids)
        inputs: list[ClaimInput] = []
        for vtxo, path in zip(vtxos, await self._paths.find(vtxos), strict=True):
            if path is None:
                raise ClaimMissingSignableClause(vtxo.id)
            last = vtxo.exit_transactions()[-1]
            if last.txid != vtxo.point.txid or last.outputs[vtxo.point.vout] != path.output:
                raise InvalidWalletState(f"the exit of {vtxo.id} does not lead to its output")
            inputs.append(path)
        return inputs

    async def _send_claim(self, exits: Sequence[LiveExit], claim: Claim, tip: BlockRef) -> None:
        """Store, broadcast; undo if it is refused."""
        async with self._store.transaction() as tx:
            await tx.exits.save_claim(claim.tx)
            for exit_ in exits:
                assert isinstance(exit_.state, Claimable)
                state = ClaimInProgress(tip.height, exit_.state.claimable_since, claim.tx.txid)
                await tx.exits.save(row_after(exit_.row, state, [exit_.state]))
        try:
            await self._chain.broadcast(claim.tx)
        except BroadcastError:
            async with self._store.transaction() as tx:
                await tx.exits.delete_claim(claim.tx.txid)
                for exit_ in exits:
                    await tx.exits.save(exit_.row)
            raise
        log.info("claim %s of %d exits was broadcast, fee %d sat", claim.tx.txid, len(exits), claim.fee_sat)
