"""Automatic refresh: what must be refreshed is taken into the next round, and what should goes along.

It happens unasked, at the first attempt of any round, so a daemon that is left alone keeps its money alive.
What another participation joins this attempt with is left to it; what the server was asked to refresh for us
is left to the server until time presses. What the server would not take, and what came to nothing in a series
of rounds, is left alone for some blocks: the reason is in the history.

Source: sheet 04 §13, §15; sheet 09 §1.10.
"""

from collections.abc import Collection, Mapping, Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.selection import RefreshRules, select_for_maintenance

QUIET_BLOCKS = 6
"""How long a VTXO is left alone that could not be refreshed."""


def select_inputs(
    spendable: Sequence[WalletVtxo],
    rules: RefreshRules,
    *,
    joining: Collection[VtxoId],
    delegated: Collection[VtxoId],
    refused: Mapping[VtxoId, int],
) -> tuple[WalletVtxo, ...]:
    """What to refresh now.

    joining, delegated: inputs of participations in person, and of those that the server has. refused: the
    height at which a VTXO could not be refreshed.
    """

    def is_urgent(vtxo: WalletVtxo) -> bool:
        return rules.tip_height > vtxo.expiry_height - rules.refresh_threshold // 2

    exclude = {
        vtxo.id
        for vtxo in spendable
        if vtxo.id in joining
        or (vtxo.id in delegated and not is_urgent(vtxo))
        or (vtxo.id in refused and rules.tip_height < refused[vtxo.id] + QUIET_BLOCKS)
    }
    return select_for_maintenance(spendable, rules, exclude=exclude)
