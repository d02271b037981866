"""Taproot outputs with up to two script leaves, which is all that Ark uses.

Source: BIP-341; sheet 01 §4.2.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce

from barkd_py.bitcoin.hashes import tagged_hash
from barkd_py.bitcoin.keys import PublicKey, x_only_tweak_add
from barkd_py.bitcoin.script import p2tr_script

LEAF_VERSION = 0xC0


@lru_cache(maxsize=16_384)
def leaf_hash(script: bytes) -> bytes:
    """The hash of a leaf of version C0; its script has fewer than 253 bytes."""
    if len(script) >= 0xFD:
        raise ValueError("leaf script is too long")
    return tagged_hash("TapLeaf", bytes((LEAF_VERSION, len(script))) + script)


def tap_tweak(internal_key: bytes, merkle_root: bytes | None) -> bytes:
    """The tweak, 32 bytes, that turns an internal key into the output key."""
    return tagged_hash("TapTweak", internal_key + (merkle_root or b""))


def _branch_hash(one: bytes, other: bytes) -> bytes:
    """Of two nodes, 32 bytes each, in whatever order."""
    return tagged_hash("TapBranch", b"".join(sorted((one, other))))


@dataclass(frozen=True)
class TaprootOutput:
    """A taproot output: internal key, 32 bytes, and none, one or two leaf scripts.

    The order of two leaves changes only their index. Not slotted: it remembers what it has computed.
    """

    internal_key: bytes
    leaves: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.leaves) > 2:
            raise ValueError("at most two leaves")

    @cached_property
    def merkle_root(self) -> bytes | None:
        hashes = [leaf_hash(script) for script in self.leaves]  # two at most
        return reduce(_branch_hash, hashes) if hashes else None

    @cached_property
    def tweak(self) -> bytes:
        """The tap tweak, 32 bytes."""
        return tap_tweak(self.internal_key, self.merkle_root)

    @cached_property
    def output_point(self) -> PublicKey:
        return x_only_tweak_add(self.internal_key, self.tweak)

    @property
    def output_key(self) -> bytes:
        """The x coordinate of the output key, 32 bytes."""
        return self.output_point.x_only

    @property
    def parity(self) -> int:
        return self.output_point.parity

    @property
    def script_pubkey(self) -> bytes:
        return p2tr_script(self.output_point.x_only)

    def control_block(self, index: int) -> bytes:
        """What proves that a leaf belongs to the output key: 33 bytes, or 65 with a sibling."""
        sibling = leaf_hash(self.leaves[1 - index]) if len(self.leaves) == 2 else b""
        self.leaves[index]  # raises IndexError for a leaf that is not there
        return bytes((LEAF_VERSION | self.parity,)) + self.internal_key + sibling


def commits_to(script_pubkey: bytes, script: bytes, control_block: bytes) -> bool:
    """Whether a taproot output is open to a leaf script with this control block. Source: BIP-341."""
    path = control_block[33:]
    if len(control_block) < 33 or len(path) % 32:
        return False
    node = leaf_hash(script)
    for begin in range(0, len(path), 32):
        node = _branch_hash(node, path[begin : begin + 32])
    internal_key = control_block[1:33]
    try:
        output = x_only_tweak_add(internal_key, tap_tweak(internal_key, node))
    except ValueError:
        return False
    return control_block[0] == LEAF_VERSION | output.parity and script_pubkey == p2tr_script(output.x_only)
