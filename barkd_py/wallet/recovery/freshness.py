"""Whether the state of a wallet, put back from a backup, is still the newest there is.

An old state loses money: what was received or changed since is not in it. Four things can tell, and none of
them can be talked away by a server that wants the state to look *older* than it is to do harm, for the answer
to an old state is only a warning:

* a VTXO that is spendable in it was spent at the server, or one of an offboard that has not begun to give it
  up: once restored, that would be refused, and look as if nothing had been paid;
* a VTXO of it is on the chain, though the state knows of no exit;
* the recovery mailbox names VTXOs of which the state has never heard;
* an on-chain coin was spent, also one that came in since, by a transaction of which the state has never
  heard. It may have paid for a board, of which nobody but the wallet knows. Coins that only came in are no
  sign: they are found again, and anybody can send some.

What cannot be asked is not fresh: `FreshnessUnknown`.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import BarkdError
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import ArkServerApi, RecoveryVtxoIds, VtxoSpendState
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.mailbox.pages import MailboxReader
from barkd_py.wallet.offboards.states import FORMAT, not_given_up
from barkd_py.wallet.recovery.evidence import Evidence
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import UNSPENT, Spendable, WalletVtxo

_BATCH = 100


class FreshnessUnknown(BarkdError):
    """Server or chain source could not be asked; the cause says why."""

    def __init__(self) -> None:
        super().__init__("whether this is the newest state of the wallet cannot be found out")


@dataclass(frozen=True, slots=True)
class Staleness:
    """What has happened since: VTXOs spent, on the chain, and new ones; payments of the on-chain wallet."""

    spent: tuple[VtxoId, ...] = ()
    on_chain: tuple[VtxoId, ...] = ()
    unheard_of: tuple[VtxoId, ...] = ()
    payments: tuple[Txid, ...] = ()

    @property
    def is_stale(self) -> bool:
        return bool(self.spent or self.on_chain or self.unheard_of or self.payments)

    def __str__(self) -> str:
        parts = [
            f"{len(ids)} {what}"
            for ids, what in (
                (self.spent, "of its VTXOs were spent since"),
                (self.on_chain, "of its VTXOs are on the chain"),
                (self.unheard_of, "VTXOs were made that it does not have"),
                (self.payments, "on-chain payments were made that it does not have"),
            )
            if ids
        ]
        return "; ".join(parts) or "nothing has happened since"


async def look(
    store: Store,
    server: ArkServerApi,
    chain: ChainSource,
    keychain: Keychain,
    evidence: Evidence,
    onchain: OnchainWallet | None,
) -> Staleness:
    """Changes nothing. Raises FreshnessUnknown."""
    rows = await _unspent(store)
    try:
        spent: list[VtxoId] = []
        on_chain: list[VtxoId] = []
        for start in range(0, len(rows), _BATCH):
            vtxos = rows[start : start + _BATCH]
            statuses = await evidence.statuses(vtxos)
            missing = [vtxo.id for vtxo in vtxos if vtxo.id not in statuses]
            if missing:
                raise FreshnessUnknown from BarkdError(f"the server does not say what became of {missing[0]}")
            spent += [vtxo.id for vtxo in vtxos if statuses[vtxo.id] is VtxoSpendState.SPENT]
            for vtxo in vtxos:
                if isinstance(await chain.tx_status(vtxo.id.outpoint.txid), Confirmed):
                    on_chain.append(vtxo.id)
        unheard_of = await _unheard_of(store, server, keychain)
        payments = () if onchain is None else await onchain.unheard_of_payments()
        return Staleness(tuple(spent), tuple(on_chain), unheard_of, payments)
    except FreshnessUnknown:
        raise
    except BarkdError as error:
        raise FreshnessUnknown from error


async def _unspent(store: Store) -> Sequence[WalletVtxo]:
    """VTXOs that the server had not taken when the state was the newest. Other operations than offboards get
    the same answers once more when they are repeated, so it does not matter how far they have come since.
    """
    async with store.read() as tx:
        spendable = [row for row in await tx.vtxos.list() if row.state == Spendable()]
        offboards = [FORMAT.decode(row.payload) for row in await tx.actions.list(ActionKind.OFFBOARD)]
        kept = [vtxo_id for state in offboards for vtxo_id in not_given_up(state)]
        return [*spendable, *(row for row in await tx.vtxos.get_many(kept) if row.state.kind in UNSPENT)]


async def _unheard_of(store: Store, server: ArkServerApi, keychain: Keychain) -> tuple[VtxoId, ...]:
    """Ids in the recovery mailbox that the wallet neither holds nor has looked into."""
    found: dict[VtxoId, None] = {}
    async with aclosing(MailboxReader(server, keychain.recovery_mailbox_key).read(0)) as pages:
        async for messages in pages:
            ids = [
                VtxoId.from_bytes(data)
                for message in messages
                if isinstance(message.content, RecoveryVtxoIds)
                for data in message.content.vtxo_ids
                if len(data) == 36
            ]
            found.update(dict.fromkeys(await _unknown(store, ids)))
    return tuple(found)


async def _unknown(store: Store, ids: Sequence[VtxoId]) -> Sequence[VtxoId]:
    async with store.read() as tx:
        known = await tx.vtxos.known(ids)
        looked_into = await tx.recovery.outcomes(ids)
    return [vtxo_id for vtxo_id in ids if vtxo_id not in known and vtxo_id not in looked_into]
