"""Policies: their bytes, their taproot outputs, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.clause import HashLock
from barkd_py.ark.policy import (
    MAX_DELTA,
    MAX_HEIGHT,
    CheckpointPolicy,
    ExpiryPolicy,
    HarkForfeitPolicy,
    HarkLeafPolicy,
    PubkeyPolicy,
    ServerHtlcReceivePolicy,
    ServerHtlcSendPolicy,
    ServerOwnedPolicy,
    ServerPolicy,
    decode_policy,
    decode_server_policy,
    encode_policy,
)
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.musig import combine
from barkd_py.errors import chain_text
from tests.ark import strategies
from tests.ark.worked_examples import (
    COMBINED,
    EXIT_DELTA,
    EXPIRY_HEIGHT,
    HTLC_EXPIRY_DELTA,
    HTLC_EXPIRY_HEIGHT,
    PAYMENT_HASH,
    SERVER,
    UNLOCK_HASH,
    USER,
)
from tests.support.vectors import Case, params

V0, V1 = HashLock.V0, HashLock.V1
SEND = (USER, PAYMENT_HASH, HTLC_EXPIRY_HEIGHT)
RECEIVE = (*SEND, HTLC_EXPIRY_DELTA)


@pytest.mark.parametrize("case", params("policies"))
def test_policies_match_upstream(case: Case) -> None:
    encoded = bytes.fromhex(case["encoded"])
    policy = decode_server_policy(encoded)
    assert encode_policy(policy) == encoded
    assert policy.kind == case["policy_type"]
    assert _hex(policy.user_pubkey) == case["policy_user_pubkey"]

    server = PublicKey.from_hex(case["server_pubkey"])
    taproot = policy.taproot(server, case["exit_delta"], case["expiry_height"])
    expected = case["taproot"]
    assert taproot.internal_key.hex() == expected["internal_key"]
    assert (taproot.merkle_root and taproot.merkle_root.hex()) == expected["merkle_root"]
    assert taproot.tweak.hex() == expected["tap_tweak"]
    assert taproot.output_key.hex() == expected["output_key"]
    assert taproot.parity == expected["output_key_parity"]
    assert taproot.script_pubkey.hex() == expected["script_pubkey"]

    if case["is_user_policy"]:
        assert decode_policy(encoded) == policy
    else:
        with pytest.raises(DecodeError, match=rf"^invalid protocol encoding: .* {encoded[0]:#x}$"):
            decode_policy(encoded)


def _hex(key: PublicKey | None) -> str | None:
    return None if key is None else key.hex()


def test_the_keys_of_the_worked_examples_combine() -> None:
    assert combine((USER, SERVER)).hex() == COMBINED
    assert combine((SERVER, USER)).hex() == COMBINED
    alone = "036ecb3974569567b5ed39ecf6dd4ae399f5c41be9cf2dca6054e10299b671a77c"
    assert combine((USER,)).hex() == alone


# Source: sheet 01 §17.2. Policy, tap tweak, output key.
WORKED_EXAMPLES: list[tuple[ServerPolicy, str, str]] = [
    (
        PubkeyPolicy(USER),
        "78b9640f859155786c4923b1d634d20b02663f1c4d061c4411f15e386951a63f",
        "e2b1152658195dae2fb792bdf7adb276e1c21f06b33588b9bd8429591bb964ea",
    ),
    (
        ServerHtlcSendPolicy(*SEND, V0),
        "73eb8faee6eef9eb0a33b9bb0a3b763133de48c6f9ea8e3bfdb90db35f6cd26a",
        "01efe9692394c526fcb0c2aeb56780d983e7b69ea29740596ccb9fdbf1d1d9fd",
    ),
    (
        ServerHtlcReceivePolicy(*RECEIVE, V0),
        "267aabc4acfa034fe9d88bffc012af2bb2f0659728071876a06bdade3dbc21dc",
        "a002b20f7a2f586aa4faa6f02dc412b7a921a40943f37f2f92f14ae71ec90a99",
    ),
    (
        CheckpointPolicy(USER),
        "a77a828ce5ccaca57a4b78f16499219334c6ee95c9b990ee15918aeb91593005",
        "652675904a84ea02e24b57b3d547203d2ce71526113d35bf4d02e0b4efbe9a2d",
    ),
    (
        ExpiryPolicy(bytes.fromhex(COMBINED)[1:]),
        "a77a828ce5ccaca57a4b78f16499219334c6ee95c9b990ee15918aeb91593005",
        "652675904a84ea02e24b57b3d547203d2ce71526113d35bf4d02e0b4efbe9a2d",
    ),
    (
        HarkLeafPolicy(USER, UNLOCK_HASH, V0),
        "6b38fb2cd798cdbc7317563e1b64ef1eb03949cfea8c73cedb5644ec00d22dee",
        "348f542cfd794f7c5008c497daf8ad5eaceba37508a7ace3775c14af8ef48309",
    ),
    (
        HarkForfeitPolicy(USER, UNLOCK_HASH, V0),
        "7607f306cfce2334517f2815dbd9d7f63717aabe7fa4a410460568bbf6afb014",
        "143bf75f01d9b324f97c85ab34b51d6b09cdc6d417a7b039bd4c35b6197297f2",
    ),
    (
        ServerOwnedPolicy(),
        "d6170973b832ff085066ea949f03321c39f8b4416c4fafd9a771e6947c2e8342",
        "adc61eeec20c5c0668264ba9a59b5bc2fa89feb2efd07574a10e1beedbb209ee",
    ),
    (
        ServerHtlcReceivePolicy(*RECEIVE, V1),
        "fdc3878fec987936426d2d54a4b94f9e99e11f4bbbffd42d9c932cc3adcc3db5",
        "ab4a53738c1a0c7b407a75ec5fc16c0799504818312a732ed5608626653295d6",
    ),
    (
        ServerHtlcSendPolicy(*SEND, V1),
        "e8954a20a9234a01d2289273196a5de10ca024f36c95b7416fecc7db6bf91c83",
        "67984140dc44759b3d58ca506e2754dce8a58fdb8b14e586654f49d388ab3dae",
    ),
    (
        HarkLeafPolicy(USER, UNLOCK_HASH, V1),
        "6a0c11f31161d8f08c9a5d4e301c42a442aac54fb1d93fcaf1ed4d7dcf58bbb7",
        "0d0185128653771dc2dc7db724fbb35dfa1671cd458378786b3327a5c5a3831d",
    ),
    (
        HarkForfeitPolicy(USER, UNLOCK_HASH, V1),
        "41e48a2fa88c482c0cdbab5e243a710ccb8745d352463ef3d7087efaba9de71b",
        "ae027f4156eacfa775f87534610c229f489f313e885aa4b001dedaf30821ecea",
    ),
]


@pytest.mark.parametrize(("policy", "tweak", "output_key"), WORKED_EXAMPLES)
def test_worked_examples(policy: ServerPolicy, tweak: str, output_key: str) -> None:
    taproot = policy.taproot(SERVER, EXIT_DELTA, EXPIRY_HEIGHT)
    assert taproot.tweak.hex() == tweak
    assert taproot.output_key.hex() == output_key


def test_only_the_stated_policies_depend_on_delta_and_expiry() -> None:
    def output(policy: ServerPolicy, exit_delta: int, expiry_height: int) -> bytes:
        return policy.taproot(SERVER, exit_delta, expiry_height).output_key

    for policy, _, _ in WORKED_EXAMPLES:
        before = output(policy, EXIT_DELTA, EXPIRY_HEIGHT)
        is_swept = isinstance(policy, CheckpointPolicy | ExpiryPolicy | HarkLeafPolicy)
        is_server_owned = isinstance(policy, ServerOwnedPolicy)
        assert (output(policy, EXIT_DELTA, EXPIRY_HEIGHT + 1) != before) is is_swept
        assert (output(policy, EXIT_DELTA + 1, EXPIRY_HEIGHT) == before) is (is_swept or is_server_owned)


def test_fields_are_encoded_in_order() -> None:
    """The receive policy's expiry comes before its delta, and v1 send is 09, not 08."""
    receive = encode_policy(ServerHtlcReceivePolicy(*RECEIVE))
    assert receive.hex() == "08" + USER.hex() + PAYMENT_HASH.hex() + "aa860100" + "2800"
    assert encode_policy(ServerHtlcSendPolicy(*SEND)).hex() == "09" + receive[1:-2].hex()
    assert encode_policy(HarkLeafPolicy(USER, UNLOCK_HASH)).hex() == "0a" + USER.hex() + UNLOCK_HASH.hex()


@pytest.mark.parametrize("case", params("invalid", decoder="vtxo-policy"))
def test_user_policies_are_refused_as_upstream_does(case: Case) -> None:
    _check_decoder(case, lambda data: encode_policy(decode_policy(data)))


@pytest.mark.parametrize("case", params("invalid", decoder="server-vtxo-policy"))
def test_server_policies_are_refused_as_upstream_does(case: Case) -> None:
    _check_decoder(case, lambda data: encode_policy(decode_server_policy(data)))


def _check_decoder(case: Case, decode: strategies.Reencode) -> None:
    data, expected = bytes.fromhex(case["hex"]), case["result"]
    if expected["ok"]:
        assert decode(data).hex() == expected["reencoded"]
        return
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert str(caught.value) == expected["error"]
    assert chain_text(caught.value) == expected["error_chain"]
    assert caught.value.kind.value == expected["variant"]


@given(strategies.server_policies)
def test_every_policy_round_trips(policy: ServerPolicy) -> None:
    assert decode_server_policy(encode_policy(policy)) == policy


@given(strategies.server_policies, st.data())
def test_a_changed_byte_gives_another_policy_or_none(policy: ServerPolicy, data: st.DataObject) -> None:
    changed = strategies.change_a_byte(data, encode_policy(policy))
    try:
        other = decode_server_policy(changed)
    except DecodeError:
        return
    assert other != policy
    assert encode_policy(other) == changed


@given(strategies.server_policies, st.data())
def test_a_truncated_policy_is_refused(policy: ServerPolicy, data: st.DataObject) -> None:
    encoded = encode_policy(policy)
    length = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        decode_server_policy(encoded[:length])


def test_values_that_would_not_encode_are_refused() -> None:
    ServerHtlcReceivePolicy(USER, bytes(32), MAX_HEIGHT, MAX_DELTA)
    with pytest.raises(ValueError, match="htlc_expiry"):
        ServerHtlcSendPolicy(USER, bytes(32), MAX_HEIGHT + 1)
    with pytest.raises(ValueError, match="htlc_expiry_delta"):
        ServerHtlcReceivePolicy(USER, bytes(32), 0, MAX_DELTA + 1)
    with pytest.raises(ValueError, match="payment_hash"):
        ServerHtlcSendPolicy(USER, bytes(31), 0)
    with pytest.raises(ValueError, match="unlock_hash"):
        HarkLeafPolicy(USER, bytes(33))
