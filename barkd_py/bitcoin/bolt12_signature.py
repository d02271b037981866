"""Signatures of BOLT-12: over the root of a Merkle tree of the records, so that parts can be shown alone.

Each record has a leaf, and beside it a nonce that only depends on the first record and the type; so nobody
can guess a hidden record by trying values. Source: BOLT-12, signature calculation.
"""

from collections.abc import Iterable

from barkd_py.bitcoin.hashes import sha256, tagged_hash
from barkd_py.bitcoin.tlv import TlvRecord

SIGNATURE_TYPES = range(240, 1001)


def merkle_root(records: Iterable[TlvRecord]) -> bytes:
    """The root over all records but signatures; 32 bytes. There must be one at least."""
    signed = [record for record in records if record.type not in SIGNATURE_TYPES]
    nonce_tag = sha256(b"LnNonce" + signed[0].encoded)
    nodes = [
        _branch(tagged_hash("LnLeaf", record.encoded), sha256(nonce_tag + nonce_tag + record.encoded_type))
        for record in signed
    ]
    while len(nodes) > 1:
        pairs = [_branch(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        nodes = pairs + nodes[len(pairs) * 2 :]
    return nodes[0]


def signature_digest(message: str, root: bytes) -> bytes:
    """What is signed: 32 bytes. message: `invoice` or `invoice_request`."""
    return tagged_hash(f"lightning{message}signature", root)


def _branch(one: bytes, other: bytes) -> bytes:
    return tagged_hash("LnBranch", min(one, other) + max(one, other))
