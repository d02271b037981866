"""The end of every round: old VTXOs against new ones.

    1. the funding transaction is deep enough in *our* chain
    2. the server and we sign the leaf of each new VTXO; each is proven now, but for the preimage
    3. they can be exited, what they hang off is still there, and there is time for two exits, should the
       server keep the preimage
    4. a forfeit of each input, bound to the hash that the new VTXOs hang on; stored as sent, then sent
    5. the preimage opens the new VTXOs, which are validated in full

Every step can be repeated, and is, from the top, until the preimage is there. Nothing is forfeited that does
not lead to what was asked for: 2 and 3 are where a round that the server faked ends.

Source: sheet 04 §7, §18, §23.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.cosign import CosignTask
from barkd_py.ark.rounds import (
    FUNDING_VOUT,
    HarkForfeit,
    RoundRejected,
    finish_leaf,
    leaf_task,
    unlock_vtxos,
    verify_exitable,
    verify_leaf_exits,
)
from barkd_py.ark.validation import verify_locked_leaf
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import BroadcastError, ChainSource, Confirmed, Mempool, NotFound
from barkd_py.errors import ChainError
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.conflicts import find_conflict
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.rounds.machine import ForfeitsReady, Unlocked
from barkd_py.wallet.rounds.states import Issued, Round
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxos.anchors import AnchorLook


class FundingTxRejected(ChainError):
    """A round's funding transaction is nowhere, and cannot be broadcast; the cause says why.

    It is tried again until it is certain never to be. Nothing was forfeited: the inputs can be exited.
    """

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"hark funding tx {txid} server sent us is rejected by mempool")
        self.txid = txid


class FundingTxDoubleSpent(ChainError):
    """A round's funding transaction can never be: another one has spent what it spends, and is deep."""

    def __init__(self, txid: Txid, by: Txid) -> None:
        super().__init__(f"round transaction {txid} was double-spent by {by}")
        self.txid = txid
        self.by = by


@dataclass(frozen=True, slots=True)
class SwapLimits:
    """required_confirmations: of the funding transaction. exit_margin: blocks that an exit may take."""

    required_confirmations: int
    exit_margin: int


class Swapper:
    """Carries a swap out, as far as it is possible now."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        limits: SwapLimits,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._limits = limits

    async def is_deep(self, funding_tx: Tx) -> bool:
        """Whether the funding transaction has its confirmations; broadcasts it if nobody has it.

        Raises FundingTxRejected, FundingTxDoubleSpent, ChainUnavailable.
        """
        required = self._limits.required_confirmations
        match await self._chain.tx_status(funding_tx.txid):
            case Confirmed(block):
                tip = await self._chain.tip()
                return tip.height - block.height + 1 >= required
            case Mempool():
                return required == 0
            case NotFound():
                try:
                    await self._chain.broadcast(funding_tx)
                except BroadcastError as error:
                    conflict = await find_conflict(self._chain, funding_tx)
                    if conflict is not None and conflict.is_final:
                        raise FundingTxDoubleSpent(funding_tx.txid, conflict.txid) from error
                    raise FundingTxRejected(funding_tx.txid) from error
                return False

    async def prepare(self, round_: Round, state: Issued) -> ForfeitsReady:
        """Leaves and forfeits, signed; nothing is sent.

        Raises ServerError, ProtocolViolation, ChainError: the next sync begins anew.
        """
        async with self._store.read() as tx:
            stored = await tx.vtxos.get_many(round_.inputs)
            inputs = await tx.vtxos.bodies(round_.inputs)
        known = {vtxo.id for vtxo in stored if vtxo.registered}
        await self._server.register_vtxo_transactions([vtxo for vtxo in inputs if vtxo.id not in known])
        vtxos = tuple([await self._sign_leaf(vtxo) for vtxo in state.vtxos])
        for vtxo in vtxos:
            _verify_before_forfeiting(vtxo, state)
        if not state.forfeits_sent:
            tip = await self._chain.tip()
            verify_exitable(vtxos, inputs, tip_height=tip.height, exit_margin=self._limits.exit_margin)
            for vtxo in vtxos:
                verify_leaf_exits(vtxo)
            await self._look_at_anchor(vtxos)
        forfeits = await self._sign_forfeits(inputs, state.unlock_hash)
        return ForfeitsReady(vtxos, forfeits)

    async def _look_at_anchor(self, vtxos: Sequence[Vtxo]) -> None:
        """The keys of a tree that is signed for others are all the server's, which can spend its root again.

        Raises AnchorUnfit, ChainUnavailable.
        """
        if not self._limits.required_confirmations:
            return  # then nothing is asked of the chain
        look = AnchorLook(self._chain)
        for vtxo in vtxos:
            await look.check(vtxo)

    async def forfeit(self, state: Issued, forfeits: Sequence[bytes]) -> Unlocked:
        """The VTXOs, complete and valid. Raises ServerError, ProtocolViolation: it must be tried again."""
        preimage = await self._server.forfeit_vtxos(forfeits)
        return Unlocked(unlock_vtxos(state.vtxos, preimage, state.funding_tx))

    async def _sign_leaf(self, vtxo: Vtxo) -> Vtxo:
        if vtxo.hark_leaf.signature is not None:
            return vtxo
        secret = await self._keychain.secret_for(vtxo.user_pubkey)
        task: CosignTask = leaf_task(vtxo)
        sec_nonce, pub_nonce = task.generate_nonce(secret)
        try:
            answer = await self._server.request_leaf_vtxo_cosign(vtxo.id, pub_nonce)
            return finish_leaf(vtxo, secret, sec_nonce, pub_nonce, answer)
        finally:
            sec_nonce.wipe()

    async def _sign_forfeits(self, inputs: Sequence[Vtxo], unlock_hash: bytes) -> tuple[bytes, ...]:
        """One bundle per input. Our nonces are new every time."""
        secrets = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        nonces = await self._server.request_forfeit_nonces(unlock_hash, [vtxo.id for vtxo in inputs])
        if len(nonces) != len(inputs):
            raise RoundRejected(f"expected {len(inputs)} forfeit nonces, received {len(nonces)}")
        return await asyncio.to_thread(_bundles, inputs, secrets, nonces, unlock_hash)


def _bundles(
    inputs: Sequence[Vtxo], secrets: Sequence[SecretKey], nonces: Sequence[bytes], unlock_hash: bytes
) -> tuple[bytes, ...]:
    return tuple(
        HarkForfeit(vtxo, unlock_hash).sign(secret, nonce).encode()
        for vtxo, secret, nonce in zip(inputs, secrets, nonces, strict=True)
    )


def _verify_before_forfeiting(vtxo: Vtxo, state: Issued) -> None:
    """Once more, however the leaf came to us. Raises RoundRejected, VtxoInvalid, LeafNotLocked."""
    if vtxo.unlock_hash != state.unlock_hash:
        raise RoundRejected(f"VTXO {vtxo.id} is locked to another hash than we forfeit to")
    if vtxo.hark_leaf.user_pubkey != vtxo.user_pubkey:
        raise RoundRejected(f"the leaf of VTXO {vtxo.id} has another key than its policy")
    if vtxo.anchor_point != state.funding_tx.outpoint(FUNDING_VOUT):
        raise RoundRejected(f"VTXO {vtxo.id} is not anchored in the round's funding transaction")
    verify_locked_leaf(vtxo, state.funding_tx)
