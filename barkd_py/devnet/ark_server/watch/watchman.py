"""The watchman: what a server does on the chain when VTXOs get there, or expire.

Every output of the frontier (`follower`) that is confirmed is looked at. c is the height of its confirmation,
E the expiry, Δ the exit delta:

| output | what happens |
|---|---|
| expiry, checkpoint, above a round's leaf | from E on the server sweeps it |
| forfeited in a round | the server takes it with the unlock preimage |
| paid with over Lightning | with the preimage of a settled payment, from c + Δ on the server takes it |
| granted for a Lightning receive | from its HTLC's expiry, and c + Δ, on the server takes it back |
| a user's, spent off-chain | once 2 blocks deep, the transaction that spends it is broadcast |
| a user's, otherwise | the server takes it if one of its clauses lets the server alone |

So who exits a VTXO that was paid away sees its checkpoint appear; who exits one that was swapped in a round
loses it to the forfeit. A transaction without a fee of its own is broadcast with a child that pays.

The real server does this every few seconds. Here it happens when it is asked for, so that a test decides.

Source: sheet 10 §10.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select

from barkd_py.ark.claim import ClaimInput, build_claim_tx, claim_weight_wu, sign_claim_tx
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import P2A_SCRIPT, Tx, Txid, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.tables import vtxo
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow
from barkd_py.errors import BarkdError, ChainError, chain_text

log = logging.getLogger(__name__)

MAX_CLAIM_INPUTS = 20

PROGRESS_DEPTH = 2
"""How many blocks a user's output must have on it before its next transaction is broadcast."""

FindPreimage = Callable[[Connection, bytes], bytes | None]
Push = Callable[[Tx], Awaitable[object]]

_Claims = Sequence[tuple[VtxoId, ClaimInput]]


@dataclass(frozen=True, slots=True)
class Reaction:
    """One transaction that was broadcast. outputs: those of the frontier that it spends, or leads to.

    progress: the transaction was signed before by a user; otherwise it is the server's own claim.
    """

    txid: Txid
    outputs: tuple[VtxoId, ...]
    progress: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """An output with which something was to be done, and why it did not work."""

    output: VtxoId
    error: str


@dataclass(frozen=True, slots=True)
class Patrol:
    """What came of looking at everything once."""

    reactions: tuple[Reaction, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Work:
    """What there is to do. next_txs: the next transaction by output, signed."""

    claims: dict[VtxoId, ClaimInput]
    next_txs: dict[VtxoId, Tx]


class Watchman:
    """See the module.

    push: gets a transaction that pays nothing itself into the mempool, with a child. payout: the script that
    claims pay to. find_preimage: by its SHA-256, of forfeits that were handed in and of payments.
    """

    def __init__(
        self,
        keys: ServerKeys,
        store: Store,
        chain: ServerChain,
        *,
        push: Push,
        payout: Callable[[], Awaitable[bytes]],
        fee_rate: FeeRate,
        find_preimage: FindPreimage,
    ) -> None:
        self._keys = keys
        self._store = store
        self._chain = chain
        self._push = push
        self._payout = payout
        self._fee_rate = fee_rate
        self._find_preimage = find_preimage

    async def patrol(self) -> Patrol:
        """Look at everything once, and do what there is to do. Safe to repeat.

        What the follower has processed counts, so let it catch up first. Raises ChainError.
        """
        tip_height = (await self._chain.tip()).height
        rows = await self._unspent(await self._store.transact(_confirmed_frontier))
        work = await self._store.transact(partial(self._work, rows=rows, tip_height=tip_height))
        reactions: list[Reaction] = []
        problems: list[Problem] = []
        for output, tx in work.next_txs.items():
            try:
                if (broadcast := await self._progress(output, tx)) is not None:
                    reactions.append(broadcast)
            except BarkdError as error:
                problems.append(Problem(output, chain_text(error)))
        for group in _groups(list(work.claims.items()), MAX_CLAIM_INPUTS):
            for claimed, outcome in await self._claim(group, tip_height):
                outputs = tuple(output for output, _ in claimed)
                if isinstance(outcome, Txid):
                    reactions.append(Reaction(outcome, outputs, progress=False))
                else:
                    problems.extend(Problem(output, chain_text(outcome)) for output in outputs)
        for problem in problems:
            log.info("output %s: %s", problem.output, problem.error)
        return Patrol(tuple(reactions), tuple(problems))

    async def _unspent(self, rows: Iterable[VtxoRow]) -> list[VtxoRow]:
        return [row for row in rows if not await self._chain.is_spent(row.id.outpoint)]

    # --- deciding

    def _work(self, connection: Connection, rows: Iterable[VtxoRow], tip_height: int) -> _Work:
        work = _Work({}, {})
        for row in rows:
            assert row.confirmed_height is not None
            if row.is_user_vtxo and row.spent_by is not None:
                known = vtxo_rows.find_virtual_tx(connection, row.spent_by)
                is_deep = tip_height - row.confirmed_height >= PROGRESS_DEPTH
                if known is not None and known.signed is not None and is_deep:
                    work.next_txs[row.id] = known.signed
                continue
            if (claim := self._claimable(connection, row, tip_height)) is not None:
                work.claims[row.id] = claim
        return work

    def _claimable(self, connection: Connection, row: VtxoRow, tip_height: int) -> ClaimInput | None:
        """The output by the first clause that lets the server alone spend it in the next block."""
        assert row.confirmed_height is not None
        for index, clause in enumerate(row.vtxo.clauses):
            if clause.pubkey != self._keys.server_pubkey:
                continue
            if tip_height < max(clause.locktime or 0, row.confirmed_height + (clause.sequence or 0)):
                continue
            preimage = None
            if clause.hash is not None:
                preimage = self._find_preimage(connection, clause.hash)
                if preimage is None:
                    continue
            control_block = row.vtxo.output_taproot.control_block(index)
            return ClaimInput(row.vtxo.point, row.vtxo.output, clause, control_block, preimage)
        return None

    # --- acting

    async def _progress(self, output: VtxoId, tx: Tx) -> Reaction | None:
        """Broadcast the next transaction, or first what else it spends (the connector of an offboard)."""
        for tx_in in tx.inputs:
            txid = tx_in.prevout.txid
            if tx_in.prevout == output.outpoint or await self._chain.confirmed_height(txid) is not None:
                continue
            if await self._chain.get_tx(txid) is not None:
                return None
            known = await self._store.transact(partial(vtxo_rows.find_virtual_tx, txid=txid))
            if known is None or known.signed is None:
                return None
            await self._broadcast(known.signed)
            return Reaction(txid, (output,), progress=True)
        await self._broadcast(tx)
        return Reaction(tx.txid, (output,), progress=True)

    async def _broadcast(self, tx: Tx) -> None:
        if any(output.script_pubkey == P2A_SCRIPT for output in tx.outputs):
            await self._push(tx)
        else:
            await self._chain.broadcast(tx)

    async def _claim(self, claims: _Claims, tip_height: int) -> Sequence[tuple[_Claims, Txid | ChainError]]:
        """One transaction for all; if that fails, one for each."""
        try:
            return [(claims, await self._claim_together([claim for _, claim in claims], tip_height))]
        except ChainError as error:
            if len(claims) == 1:
                return [(claims, error)]
        return [outcome for claim in claims for outcome in await self._claim([claim], tip_height)]

    async def _claim_together(self, claims: Sequence[ClaimInput], tip_height: int) -> Txid:
        script = await self._payout()
        total_sat = sum(claim.output.value_sat for claim in claims)
        fee_sat = self._fee_rate.fee_wu(claim_weight_wu(claims, [TxOut(total_sat, script)]))
        if total_sat < fee_sat + DUST_SAT:
            raise NotWorthIt(total_sat, fee_sat)
        unsigned = build_claim_tx(claims, [TxOut(total_sat - fee_sat, script)], locktime=tip_height)
        tx = sign_claim_tx(unsigned, claims, self._secret_of)
        await self._chain.broadcast(tx)
        return tx.txid

    def _secret_of(self, pubkey: PublicKey) -> SecretKey:
        assert pubkey == self._keys.server_pubkey
        return self._keys.server


class NotWorthIt(ChainError):
    """Outputs that the fee would eat up."""

    def __init__(self, total_sat: int, fee_sat: int) -> None:
        super().__init__(f"{total_sat} sat are not worth a fee of {fee_sat} sat")


def _confirmed_frontier(connection: Connection) -> list[VtxoRow]:
    query = select(vtxo.c.id).where(vtxo.c.is_frontier, vtxo.c.confirmed_height.is_not(None))
    ids = [VtxoId(found) for found in connection.execute(query.order_by(vtxo.c.seq)).scalars()]
    return list(vtxo_rows.find_all(connection, ids).values())


def _groups(items: _Claims, size: int) -> Iterable[_Claims]:
    return (items[start : start + size] for start in range(0, len(items), size))
