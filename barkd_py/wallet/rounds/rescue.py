"""When a round that was held does not end: until when its inputs have to be on the way to the chain.

The server counts the inputs as spent, and may hold back what the new VTXOs need for ever. From their expiry
on it can sweep the inputs, so an exit starts while there is still a block for each transaction of it, and the
margin. Nothing is lost by that: whoever exits a forfeited VTXO can take its output after the exit delta,
unless the server takes it before with the forfeit, for which it shows the preimage.

It may show it late: put the forfeit on the chain in the last block of the delay, and take that output in the
last block of another one. The new VTXOs must be worth something then, and so have time for an exit as well;
nothing is forfeited for others (`ark.rounds.verify_exitable`).

What is done on the chain is `wallet.round_rescue`. Source: sheet 10 §14; sheet 04 §7.
"""

from collections.abc import Sequence
from typing import Protocol

from barkd_py.ark.deadlines import exit_start_height, late_preimage_blocks
from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.rounds.machine import TakenBack, Unlocked
from barkd_py.wallet.rounds.states import Issued, Round, RoundState
from barkd_py.wallet.vtxo_states import WalletVtxo


class Rescue(Protocol):
    """What is done about a round that was held, besides asking the server. Neither call fails because the
    chain source is away: the next sync makes up for it.
    """

    async def look(self, round_: Round) -> Unlocked | TakenBack | None:
        """What the chain says about the inputs, if that decides.

        Raises InputsOnTheirWay while the server must not be asked.
        """

    async def exit_in_time(self, round_: Round) -> None:
        """Start the exits of the inputs for which it is time."""


def exit_heights(state: RoundState, inputs: Sequence[WalletVtxo], exit_margin: int) -> dict[VtxoId, int]:
    """From which height on each input of a held round has to exit."""
    heights = {vtxo.id: exit_start_height(vtxo, exit_margin) for vtxo in inputs}
    if isinstance(state, Issued) and state.forfeits_sent:
        new_exits_at = min(exit_start_height(vtxo, exit_margin) for vtxo in state.vtxos)
        for vtxo in inputs:
            shown_after = late_preimage_blocks(vtxo, exit_margin)
            heights[vtxo.id] = min(heights[vtxo.id], new_exits_at - shown_after)
    return heights
