"""Asking for the HTLC VTXOs of a payment that has come, and looking at them. Source: sheet 05 §5.3."""

import secrets
from collections.abc import Callable, Sequence

from barkd_py.ark.attestations import attest, lightning_receive_message
from barkd_py.ark.lightning_receive import (
    ClaimWindow,
    GrantRefused,
    GrantTerms,
    grant_expiry_height,
    verify_grant,
)
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.chain.source import ChainSource
from barkd_py.server_rpc.api import ArkServerApi, LightningReceiveGrant, RoundInput
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.receive.states import AwaitingPayment
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.anchors import Anchors

PROOF_MIN_BLOCKS = 2
"""A VTXO that proves that we have money must not be about to expire."""
PROOF_CANDIDATES = 100


class Grants:
    """choose: one of several proofs."""

    def __init__(
        self,
        store: Store,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        anchors: Anchors,
        window: ClaimWindow,
        *,
        choose: Callable[[Sequence[WalletVtxo]], WalletVtxo] = secrets.choice,
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._anchors = anchors
        self._window = window
        self._choose = choose

    async def request(self, state: AwaitingPayment) -> tuple[Sequence[Vtxo], int]:
        """The granted VTXOs, fully verified, and the fee.

        Raises ServerRejected and ProtocolViolation for what asking again will hardly change.
        """
        terms = state.terms
        info = await self._server.info()
        tip = await self._chain.fetch_tip()
        grant: LightningReceiveGrant = await self._server.prepare_lightning_receive_claim(
            payment_hash=terms.payment_hash,
            user_pubkey=terms.user_pubkey,
            htlc_recv_expiry_height=grant_expiry_height(tip.height, terms.cltv_delta),
            anti_dos=await self._proof(state, tip.height),
        )
        vtxos = grant.htlc_vtxos
        wanted = GrantTerms(
            terms.payment_hash, terms.user_pubkey, terms.amount_sat, terms.fee_sat, self._window
        )
        fee_sat = verify_grant(
            vtxos, wanted, info=info, tip_height=tip.height, reported_sat=grant.receive.amount_sat
        )
        await self._anchors.prove(vtxos)
        async with self._store.read() as tx:
            if await tx.vtxos.known([vtxo.id for vtxo in vtxos]):
                raise GrantRefused("the server granted a VTXO that was ours before")
        return vtxos, fee_sat

    async def _proof(self, state: AwaitingPayment, tip_height: int) -> RoundInput | str | None:
        """That we are no stranger: a token, or a VTXO of ours, which is not spent by that."""
        token = state.terms.token
        if token is not None and state.refusals == 0:
            return token
        async with self._store.read() as tx:
            spendable = await tx.vtxos.payable(limit=PROOF_CANDIDATES)
        fit = [
            vtxo
            for vtxo in spendable
            if vtxo.policy_kind == PubkeyPolicy.KIND and vtxo.expiry_height > tip_height + PROOF_MIN_BLOCKS
        ]
        if not fit:
            return token
        vtxo = self._choose(fit)
        key = await self._keychain.secret_for(vtxo.user_pubkey)
        message = lightning_receive_message(state.terms.payment_hash, vtxo.id)
        return RoundInput(vtxo.id, attest(message, key))
