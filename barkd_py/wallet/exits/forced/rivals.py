"""Who else may take the outputs on the way to a VTXO, once they are on the chain.

A VTXO's exit transactions lead from the anchor over intermediate outputs to its own. While the deepest output
that is confirmed is one that all its keys must sign for, nobody can take it from us. But some can be taken by
one party alone after a while, unless the next transaction of our chain is confirmed first:

| output, spent by a transition | who takes it alone |
|---|---|
| cosigned: a board, a node of a round's tree | the server, from the expiry height on |
| hash-locked: what is above the leaf of a round | the same |
| arkoor, out of a checkpoint | the same |
| arkoor, out of a VTXO with the pubkey policy | its user, an exit delta after its confirmation |
| arkoor, out of anything else: an HTLC VTXO, for one | not known |

The genesis keeps only the tap tweak of what an arkoor transition spends. Tweaks commit to all clauses, so one
that equals the tweak of a checkpoint, or of a pubkey policy, proves that there are no others.

What is not known counts as somebody else's. It cannot be taken at once all the same: either the server was
honest when it cosigned the output, and every clause that it cosigns waits for the exit delta at least; or it
was not, and then it may sign for any output of the chain at any time, together with whoever held it, which no
watching helps against (the risk of payments that were not refreshed yet).

Source: sheet 01 §6.2, §7, §16.10.
"""

import enum
from collections.abc import Collection, Sequence
from functools import lru_cache

from barkd_py.ark.clause import DelayedSign
from barkd_py.ark.genesis import ArkoorTransition, CosignedTransition, HashLockedTransition, cosigned_taproot
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.musig import combine
from barkd_py.bitcoin.taproot import TaprootOutput


class Rival(enum.Enum):
    """Who may take an output alone, other than us."""

    SERVER_AT_EXPIRY = enum.auto()
    """The server, from the expiry height on."""
    NOBODY = enum.auto()
    """It was a VTXO of ours."""
    SOMEBODY = enum.auto()
    """A former owner after the exit delta, or nobody knows who and how."""


def arkoor_pubkeys(vtxo: Vtxo) -> frozenset[PublicKey]:
    """The keys of former owners; some may be ours."""
    return frozenset(pubkey for pubkeys in vtxo.past_arkoor_pubkeys for pubkey in pubkeys)


def rivals_of(vtxo: Vtxo, ours: Collection[PublicKey]) -> Sequence[Rival]:
    """For each exit transaction, who else may take the output that it spends. ours: our keys among the
    `arkoor_pubkeys`.
    """
    rivals = []
    for item in vtxo.genesis:
        match item.transition:
            case CosignedTransition() | HashLockedTransition():
                rivals.append(Rival.SERVER_AT_EXPIRY)
            case ArkoorTransition() as transition:
                rivals.append(_of_arkoor(transition, vtxo, ours))
    return rivals


def _of_arkoor(transition: ArkoorTransition, vtxo: Vtxo, ours: Collection[PublicKey]) -> Rival:
    signers = (*transition.client_pubkeys, vtxo.server_pubkey)
    if transition.tap_tweak == cosigned_taproot(signers, vtxo.server_pubkey, vtxo.expiry_height).tweak:
        return Rival.SERVER_AT_EXPIRY
    match transition.client_pubkeys:
        case (owner,) if owner in ours:
            taproot = _pubkey_taproot(owner, vtxo.server_pubkey, vtxo.exit_delta)
            return Rival.NOBODY if transition.tap_tweak == taproot.tweak else Rival.SOMEBODY
        case _:
            return Rival.SOMEBODY


@lru_cache(maxsize=4_096)
def _pubkey_taproot(owner: PublicKey, server_pubkey: PublicKey, exit_delta: int) -> TaprootOutput:
    internal = combine((owner, server_pubkey)).x_only
    return TaprootOutput(internal, (DelayedSign(owner, exit_delta).script,))
