"""HTLCs of payments that an earlier life of this wallet began: a recovery finds them, and nothing else.

The invoice is lost, and so is everything that was agreed but what the HTLCs say for themselves: a hash, a
key of ours, a height. That is enough for the end of a payment. It goes on where the server is asked for the
HTLCs: what became of the payment is asked first, so a preimage settles it; a payment that failed or expired
gives the HTLCs back; and if the server keeps them they exit before it is too late, as those of any other.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence

from barkd_py.ark.policy import ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.chain.source import ChainSource
from barkd_py.wallet.actions.executor import save_action
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.send.machine import LightningSendMachine
from barkd_py.wallet.lightning.send.states import Payment, Stuck, exit_by
from barkd_py.wallet.movements import LIGHTNING_SEND, MovementUpdate, PaymentMethod, PaymentMethodKind
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, Locked

log = logging.getLogger(__name__)


class HtlcAdoption:
    """exit_margin: in blocks, of the configuration."""

    def __init__(
        self,
        store: Store,
        machine: LightningSendMachine,
        keychain: Keychain,
        chain: ChainSource,
        *,
        exit_margin: int,
    ) -> None:
        self._store = store
        self._machine = machine
        self._keychain = keychain
        self._chain = chain
        self._exit_margin = exit_margin

    async def adopt(self, vtxo_ids: Collection[VtxoId]) -> Sequence[str]:
        """Make payments of those of the VTXOs that are HTLCs and that nothing holds; their actions' ids.

        An HTLC of a hash whose payment is under way here is left for later. Raises ChainUnavailable.
        """
        if not vtxo_ids:
            return ()
        tip_height = (await self._chain.tip()).height
        adopted = []
        async with self._store.transaction() as tx:
            rows = await tx.vtxos.find_many(vtxo_ids)
            held = [vtxo_id for vtxo_id, row in rows.items() if row.state == Locked(None)]
            groups: dict[ServerHtlcSendPolicy, list[Vtxo]] = defaultdict(list)
            for vtxo in await tx.vtxos.bodies(held):
                if isinstance(vtxo.policy, ServerHtlcSendPolicy):
                    groups[vtxo.policy].append(vtxo)
            for policy, htlcs in groups.items():
                action_id = send_action_id(policy.payment_hash)
                if await tx.actions.find(action_id) is None:
                    await self._adopt(tx, action_id, policy, htlcs, tip_height)
                    adopted.append(action_id)
        return adopted

    async def _adopt(
        self,
        tx: Transaction,
        action_id: str,
        policy: ServerHtlcSendPolicy,
        htlcs: Sequence[Vtxo],
        tip_height: int,
    ) -> None:
        htlc_ids = tuple(htlc.id for htlc in htlcs)
        htlc_sat = sum(htlc.amount_sat for htlc in htlcs)
        revocation_key = (await self._keychain.reserve_in(tx)).public_key
        movement = await tx.movements.create(
            LIGHTNING_SEND,
            MovementUpdate(
                intended_balance_sat=-htlc_sat,
                effective_balance_sat=-htlc_sat,
                metadata={
                    "htlc_vtxos": [str(htlc_id) for htlc_id in htlc_ids],
                    "payment_hash": policy.payment_hash.hex(),
                    "payment_preimage": None,
                },
            ),
        )
        payment = Payment(
            payment_hash=policy.payment_hash,
            invoice="",
            method=PaymentMethod(PaymentMethodKind.CUSTOM, ""),
            amount_sat=htlc_sat,
            fee_sat=0,
            input_ids=(),
            change_sat=(),
            htlc_pubkey=policy.user_pubkey,
            revocation_pubkey=revocation_key,
            htlc_expiry_height=policy.htlc_expiry_height,
            exit_by_height=exit_by(htlcs, self._exit_margin, deeper_by=0, tip_height=tip_height),
            movement_id=movement.id,
        )
        state = Stuck(payment, htlc_ids)
        await tx.vtxos.steal_lock(htlc_ids, ActionHolder(action_id))
        await save_action(tx, self._machine, action_id, state)
        log.info("%s: %d sat in HTLCs of a payment that was under way", action_id, htlc_sat)
