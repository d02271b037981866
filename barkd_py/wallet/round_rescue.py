"""When a round that was held does not end: its inputs get to the chain in time, and what becomes of them
there ends the round.

The server counts the inputs as spent, and may hold back what the new VTXOs need for ever. From their expiry
on it can sweep the inputs, so an exit starts while there is still a block for each transaction of it, and the
margin (`exit_heights`). Nothing is lost by that: whoever exits a forfeited VTXO can take its output after the
exit delta, unless the server takes it before with the forfeit, for which it shows the preimage.

It may show it late: put the forfeit on the chain in the last block of the delay, and take that output in the
last block of another one. The new VTXOs must be worth something then, and so have time for an exit as well;
nothing is forfeited for others (`ark.rounds.verify_exitable`).

| an input's output | what follows |
|---|---|
| may be claimed | it is claimed at once, to the on-chain wallet: the server may still take it |
| was claimed by us | with all inputs so, and 6 blocks deep, the round has failed, and nothing is lost |
| was taken with the forfeit, and the forfeit's output | |
| · with the preimage | that is in the witness: it opens the new VTXOs, from the mempool already |
| · not at all | after the input's exit delta it is ours again, and claimed |

So in the end there are the inputs' coins, or the new VTXOs. The preimage is checked like the server's: by the
hash that the VTXOs hang on, and then they are validated in full. It is stored in them, with the end of the
round, before anybody can use them.

What was not forfeited is not claimed without being told: there is no hurry.

Source: sheet 10 §14; sheet 04 §7 (forfeit outputs).
"""

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.claim import extract_preimage
from barkd_py.ark.deadlines import exit_start_height, late_preimage_blocks
from barkd_py.ark.rounds import HarkForfeit, unlock_vtxos
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import OutPoint, Txid
from barkd_py.chain.source import ChainSource, Confirmed, Spend
from barkd_py.errors import BarkdError, ChainUnavailable, StateConflict, chain_text
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.exits.claims.homeward import HomewardClaims
from barkd_py.wallet.exits.payloads import decode_state
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.exits.states import AwaitingDelta, Claimable, Claimed, ClaimInProgress, ExitState
from barkd_py.wallet.rounds.driver import Rescue
from barkd_py.wallet.rounds.machine import TakenBack, Unlocked
from barkd_py.wallet.rounds.states import Delegated, Issued, Round, RoundState, is_held
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import UNSPENT, WalletVtxo

log = logging.getLogger(__name__)

_ON_CHAIN = AwaitingDelta | Claimable | ClaimInProgress | Claimed
_SIGNATURE = bytes(64)
"""Of a forfeit: nothing of its output depends on it."""


class InputsOnTheirWay(StateConflict):
    """An input that was not forfeited was claimed on the chain: it must not be forfeited any more."""

    def __init__(self) -> None:
        super().__init__("inputs of the round are being taken on the chain")


class _Fate(enum.Enum):
    """What became of an input's output."""

    OPEN = enum.auto()
    CLAIMABLE = enum.auto()
    CLAIMED = enum.auto()
    """By us, in a block that is not deep, or in the mempool."""
    TAKEN_BACK = enum.auto()
    """By us, for good."""
    LEFT_LYING = enum.auto()
    """In the forfeit's output, which is ours now, and unclaimed."""


def exit_heights(state: RoundState, inputs: Sequence[WalletVtxo], exit_margin: int) -> dict[VtxoId, int]:
    """From which height on each input of a held round has to exit."""
    heights = {vtxo.id: exit_start_height(vtxo, exit_margin) for vtxo in inputs}
    if isinstance(state, Issued) and state.forfeits_sent:
        new_exits_at = min(exit_start_height(vtxo, exit_margin) for vtxo in state.vtxos)
        for vtxo in inputs:
            shown_after = late_preimage_blocks(vtxo, exit_margin)
            heights[vtxo.id] = min(heights[vtxo.id], new_exits_at - shown_after)
    return heights


@dataclass(frozen=True, slots=True)
class _Exited:
    """An input that is on the chain, and its exit."""

    vtxo: Vtxo
    state: ExitState


class RoundRescue(Rescue):
    """exit_margin: config `vtxo_exit_margin`."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        exits: Exits,
        claims: HomewardClaims,
        *,
        exit_margin: int,
    ) -> None:
        self._store = store
        self._chain = chain
        self._exits = exits
        self._claims = claims
        self._exit_margin = exit_margin

    async def exit_in_time(self, round_: Round) -> None:
        if not is_held(round_.state):
            return
        async with self._store.read() as tx:
            inputs = await tx.vtxos.get_many(round_.inputs)
        heights = exit_heights(round_.state, inputs, self._exit_margin)
        unspent = {vtxo.id for vtxo in inputs if vtxo.state.kind in UNSPENT}
        try:
            tip = await self._chain.tip()
            due = {
                vtxo_id: height
                for vtxo_id, height in heights.items()
                if vtxo_id in unspent and height <= tip.height
            }
            if due:
                await self._exits.start_given_up(due)
        except BarkdError as error:
            log.warning("inputs of a round cannot exit now: %s", chain_text(error))

    async def look(self, round_: Round) -> Unlocked | TakenBack | None:
        exited = await self._exited(round_)
        if not exited:
            return None
        try:
            return await self._look_at(round_, exited)
        except InputsOnTheirWay:
            raise
        except BarkdError as error:
            log.warning("what became of a round's inputs on the chain is not known: %s", chain_text(error))
            return None

    async def _exited(self, round_: Round) -> list[_Exited]:
        async with self._store.read() as tx:
            rows = await tx.exits.find_many(round_.inputs)
            states = {
                vtxo_id: decode_state(rows[vtxo_id].state) for vtxo_id in round_.inputs if vtxo_id in rows
            }
            on_chain = [vtxo_id for vtxo_id, state in states.items() if isinstance(state, _ON_CHAIN)]
            bodies = await tx.vtxos.bodies(on_chain)
        return [_Exited(vtxo, states[vtxo.id]) for vtxo in bodies]

    async def _look_at(self, round_: Round, exited: Sequence[_Exited]) -> Unlocked | TakenBack | None:
        state = round_.state
        assert isinstance(state, Issued | Delegated), "the round was held"
        is_forfeited = isinstance(state, Issued) and state.forfeits_sent
        fates: dict[Vtxo, _Fate] = {}
        for each in exited:
            fate = await self._fate(each, state.unlock_hash)
            if isinstance(fate, _Fate):
                fates[each.vtxo] = fate
            elif isinstance(state, Issued) and is_forfeited:
                log.warning("the server took %s on the chain, and has shown the preimage", each.vtxo.id)
                return Unlocked(unlock_vtxos(state.vtxos, fate, state.funding_tx))
        if len(fates) == len(round_.inputs) and set(fates.values()) == {_Fate.TAKEN_BACK}:
            return TakenBack("the server did not end the round: the inputs were taken back on the chain")
        if is_forfeited:
            await self._claim(fates, state.unlock_hash)
        elif {_Fate.CLAIMED, _Fate.TAKEN_BACK} & set(fates.values()):
            raise InputsOnTheirWay
        return None

    async def _fate(self, exited: _Exited, unlock_hash: bytes) -> _Fate | bytes:
        """Or the preimage. Raises ChainError: nothing is known then."""
        vtxo = exited.vtxo
        status = await self._chain.tx_status(vtxo.point.txid)
        if not isinstance(status, Confirmed):
            return _Fate.OPEN
        spend = await self._chain.spender(vtxo.point, since_height=status.block.height)
        if spend is None:
            return _Fate.CLAIMABLE if isinstance(exited.state, Claimable) else _Fate.OPEN
        forfeit = HarkForfeit(vtxo, unlock_hash)
        if spend.txid == forfeit.tx.txid:
            return await self._fate_of_forfeit(forfeit, spend)
        async with self._store.read() as tx:
            is_ours = await tx.exits.find_claim(spend.txid) is not None
        return await self._claimed(spend) if is_ours else _Fate.OPEN

    async def _fate_of_forfeit(self, forfeit: HarkForfeit, spend: Spend) -> _Fate | bytes:
        tip = await self._chain.tip()
        block = spend.status.block if isinstance(spend.status, Confirmed) else None
        output = OutPoint(spend.txid, 0)
        taken = await self._chain.spender(output, since_height=tip.height if block is None else block.height)
        if taken is None:
            is_ours = block is not None and block.height + forfeit.vtxo.exit_delta <= tip.height
            return _Fate.LEFT_LYING if is_ours else _Fate.OPEN
        preimage = await self._shown_preimage(taken.txid, output, forfeit.unlock_hash)
        # There is one other way to spend it, and that is ours.
        return await self._claimed(taken) if preimage is None else preimage

    async def _shown_preimage(self, txid: Txid, output: OutPoint, unlock_hash: bytes) -> bytes | None:
        tx = await self._chain.get_tx(txid)
        witness = None
        if tx is not None and tx.txid == txid:
            witness = next((tx_in.witness for tx_in in tx.inputs if tx_in.prevout == output), None)
        if witness is None:
            raise ChainUnavailable(f"the transaction {txid}, which is said to spend {output}, is not had")
        return extract_preimage(witness, unlock_hash)

    async def _claimed(self, spend: Spend) -> _Fate:
        if not isinstance(spend.status, Confirmed):
            return _Fate.CLAIMED
        confirmations = (await self._chain.tip()).height - spend.status.block.height + 1
        return _Fate.TAKEN_BACK if confirmations >= FINAL_CONFIRMATIONS else _Fate.CLAIMED

    async def _claim(self, fates: dict[Vtxo, _Fate], unlock_hash: bytes) -> None:
        """What can be claimed now; the rest with the next sync."""
        claimable = [vtxo.id for vtxo, fate in fates.items() if fate is _Fate.CLAIMABLE]
        left = [vtxo for vtxo, fate in fates.items() if fate is _Fate.LEFT_LYING]
        try:
            if claimable:
                await self._claims.claim(claimable)
            for vtxo in left:
                txid = await self._claims.claim_output(HarkForfeit(vtxo, unlock_hash).server_vtxo(_SIGNATURE))
                log.warning("the server left the forfeit of %s lying: it is claimed in %s", vtxo.id, txid)
        except BarkdError as error:
            log.error("inputs of a round cannot be claimed now: %s", chain_text(error))
