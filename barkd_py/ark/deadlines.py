"""Until when something has to have begun, so that it ends before a VTXO expires. Heights and blocks, pure.

An exit is one transaction after the other, each with a block of its own; how many, is the VTXO's depth. A
margin is for blocks in which fees are too low (config `vtxo_exit_margin`).

Source: sheet 06 §2.7; sheet 10 §14.
"""

from typing import Protocol

ARKOOR_EXIT_DEPTH = 2
"""Of what is paid out of round, beyond its input: the checkpoint, and the payment."""


class Exitable(Protocol):
    """exit_depth: transactions of an exit."""

    @property
    def expiry_height(self) -> int: ...
    @property
    def exit_delta(self) -> int: ...
    @property
    def exit_depth(self) -> int: ...


def exit_start_height(vtxo: Exitable, exit_margin: int, *, deeper_by: int = 0) -> int:
    """The height at which the exit has to start. deeper_by: of a VTXO that comes out of this one."""
    return vtxo.expiry_height - exit_margin - vtxo.exit_depth - deeper_by


def late_preimage_blocks(forfeited: Exitable, exit_margin: int) -> int:
    """How long after the exit of a forfeited VTXO starts the server may show the preimage at the latest.

    It puts the forfeit on the chain in the last block of the delay, and takes that output in the last block
    of another one.
    """
    return exit_margin + forfeited.exit_depth + 2 * forfeited.exit_delta
