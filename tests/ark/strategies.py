"""What hypothesis makes Ark's objects from."""

from collections.abc import Callable

from hypothesis import strategies as st

from barkd_py.ark.clause import HashLock
from barkd_py.ark.genesis import ArkoorTransition, CosignedTransition, GenesisItem, HashLockedTransition
from barkd_py.ark.policy import (
    MAX_DELTA,
    MAX_HEIGHT,
    CheckpointPolicy,
    ExpiryPolicy,
    HarkForfeitPolicy,
    HarkLeafPolicy,
    Policy,
    PubkeyPolicy,
    ServerHtlcReceivePolicy,
    ServerHtlcSendPolicy,
    ServerOwnedPolicy,
    ServerPolicy,
)
from barkd_py.ark.vtxo import MAX_U64, Vtxo
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SECP256K1_ORDER, SecretKey
from barkd_py.bitcoin.tx import OutPoint, Txid, TxOut

Reencode = Callable[[bytes], bytes]
Build = Callable[[], object]

bytes32 = st.binary(min_size=32, max_size=32)
public_keys = st.integers(1, 2**64).map(lambda number: SecretKey(number.to_bytes(32, "big")).public_key)
heights = st.integers(0, MAX_HEIGHT)
deltas = st.integers(0, MAX_DELTA)
locks = st.sampled_from(HashLock)
amounts_sat = st.integers(0, 2_100_000_000_000_000)
# Values that fit their field, beyond all money.
u64s = st.integers(0, MAX_U64)

policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(PubkeyPolicy, public_keys),
    st.builds(ServerHtlcSendPolicy, public_keys, bytes32, heights, locks),
    st.builds(ServerHtlcReceivePolicy, public_keys, bytes32, heights, deltas, locks),
)
server_policies: st.SearchStrategy[ServerPolicy] = st.one_of(
    policies,
    st.builds(CheckpointPolicy, public_keys),
    st.builds(ExpiryPolicy, public_keys.map(lambda key: key.x_only)),
    st.builds(HarkLeafPolicy, public_keys, bytes32, locks),
    st.builds(HarkForfeitPolicy, public_keys, bytes32, locks),
    st.just(ServerOwnedPolicy()),
)

outpoints = st.builds(OutPoint, bytes32.map(Txid), st.integers(0, 0xFFFF_FFFF))
# Never all zero, which means "no signature".
signatures = st.none() | st.binary(min_size=64, max_size=64).filter(any)
tweaks = st.integers(0, SECP256K1_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
key_lists = st.lists(public_keys, min_size=1, max_size=4).map(tuple)
transitions = st.one_of(
    st.builds(CosignedTransition, key_lists, signatures),
    st.builds(ArkoorTransition, st.just(()) | key_lists, tweaks, signatures),
    st.builds(HashLockedTransition, public_keys, signatures, bytes32, st.none(), locks),
    st.builds(
        lambda key, signature, preimage, lock: HashLockedTransition(
            key, signature, sha256(preimage), preimage, lock
        ),
        public_keys,
        signatures,
        bytes32,
        locks,
    ),
)
tx_outs = st.builds(TxOut, u64s, st.binary(max_size=100))


@st.composite
def genesis_items(draw: st.DrawFn) -> GenesisItem:
    siblings = draw(st.lists(tx_outs, max_size=4))
    output_idx = draw(st.integers(0, len(siblings)))
    return GenesisItem(draw(transitions), output_idx, tuple(siblings), draw(u64s))


vtxos = st.builds(
    Vtxo,
    amount_sat=u64s,
    expiry_height=heights,
    server_pubkey=public_keys,
    exit_delta=deltas,
    anchor_point=outpoints,
    policy=policies,
    # Another txid than any that hypothesis finds, so that genesis items are expected.
    point=st.just(OutPoint(Txid(bytes([0xA5] * 32)), 0)),
    genesis=st.lists(genesis_items(), min_size=1, max_size=3).map(tuple),
)


def change_a_byte(data: st.DataObject, encoded: bytes) -> bytes:
    """The bytes with one of them changed."""
    index = data.draw(st.integers(0, len(encoded) - 1))
    flip = data.draw(st.integers(1, 255))
    return encoded[:index] + bytes((encoded[index] ^ flip,)) + encoded[index + 1 :]
