"""Signatures by user and server: nothing is signed for a server that did not sign rightly."""

import pytest

from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey, verify_schnorr, x_only_tweak_add
from barkd_py.bitcoin.musig import combine
from tests.ark.worked_examples import SERVER, SERVER_SECRET, USER, USER_SECRET

MESSAGE = sha256(b"what is signed")
TWEAK = sha256(b"tap tweak")
STRANGER = SecretKey(bytes([0x77] * 32))
TASK = CosignTask(USER, SERVER, MESSAGE, TWEAK)


@pytest.mark.parametrize("tweak", [None, TWEAK])
@pytest.mark.parametrize("user", [bytes([number] * 32) for number in range(1, 9)])
def test_both_together_sign(tweak: bytes | None, user: bytes) -> None:
    """With many keys, so that every combination of odd and even points comes up."""
    secret = SecretKey(user)
    task = CosignTask(secret.public_key, SERVER, MESSAGE, tweak)
    sec_nonce, pub_nonce = task.generate_nonce(secret)
    answer = task.cosign(SERVER_SECRET, pub_nonce)
    assert task.is_cosigned(pub_nonce, answer)
    signature = task.finish(secret, sec_nonce, pub_nonce, answer)
    internal = combine((SERVER, secret.public_key)).x_only
    key = internal if tweak is None else x_only_tweak_add(internal, tweak).x_only
    assert verify_schnorr(key, MESSAGE, signature)


def tampered(answer: Cosignature) -> list[Cosignature]:
    """Answers that are wrong, each in another way."""
    flipped = answer.partial_sig[:-1] + bytes((answer.partial_sig[-1] ^ 1,))
    _, other_nonce = TASK.generate_nonce(SERVER_SECRET)
    return [
        answer._replace(partial_sig=flipped),
        answer._replace(partial_sig=b"\xff" * 32),
        answer._replace(partial_sig=answer.partial_sig[:31]),
        answer._replace(pub_nonce=other_nonce),
        answer._replace(pub_nonce=bytes(66)),
        answer._replace(pub_nonce=answer.pub_nonce[:65]),
    ]


@pytest.mark.parametrize("index", range(6))
def test_a_wrong_answer_is_refused_and_spends_the_nonce(index: int) -> None:
    sec_nonce, pub_nonce = TASK.generate_nonce(USER_SECRET)
    answer = TASK.cosign(SERVER_SECRET, pub_nonce)
    wrong = tampered(answer)[index]
    assert not TASK.is_cosigned(pub_nonce, wrong)
    with pytest.raises(BadCosignature):
        TASK.finish(USER_SECRET, sec_nonce, pub_nonce, wrong)
    with pytest.raises(ValueError):
        TASK.finish(USER_SECRET, sec_nonce, pub_nonce, answer)


@pytest.mark.parametrize(
    "task",
    [
        CosignTask(USER, SERVER, sha256(b"another message"), TWEAK),
        CosignTask(USER, SERVER, MESSAGE, None),
        CosignTask(USER, SERVER, MESSAGE, sha256(b"another tweak")),
        CosignTask(USER, STRANGER.public_key, MESSAGE, TWEAK),
    ],
)
def test_an_answer_to_another_question_is_refused(task: CosignTask) -> None:
    sec_nonce, pub_nonce = TASK.generate_nonce(USER_SECRET)
    answer = task.cosign(STRANGER if task.server_pubkey != SERVER else SERVER_SECRET, pub_nonce)
    with pytest.raises(BadCosignature):
        TASK.finish(USER_SECRET, sec_nonce, pub_nonce, answer)


def test_answers_differ_and_do_not_mix() -> None:
    """The server stores nothing: the partial signature goes with the nonce of the same answer only."""
    _, pub_nonce = TASK.generate_nonce(USER_SECRET)
    first, second = TASK.cosign(SERVER_SECRET, pub_nonce), TASK.cosign(SERVER_SECRET, pub_nonce)
    assert first.pub_nonce != second.pub_nonce
    assert first.partial_sig != second.partial_sig
    assert not TASK.is_cosigned(pub_nonce, Cosignature(first.pub_nonce, second.partial_sig))


def test_a_nonce_signs_once() -> None:
    sec_nonce, pub_nonce = TASK.generate_nonce(USER_SECRET)
    TASK.finish(USER_SECRET, sec_nonce, pub_nonce, TASK.cosign(SERVER_SECRET, pub_nonce))
    with pytest.raises(ValueError):
        TASK.finish(USER_SECRET, sec_nonce, pub_nonce, TASK.cosign(SERVER_SECRET, pub_nonce))


def test_the_user_signs_with_the_user_s_key_and_nonce() -> None:
    sec_nonce, pub_nonce = TASK.generate_nonce(USER_SECRET)
    answer = TASK.cosign(SERVER_SECRET, pub_nonce)
    with pytest.raises(ValueError, match="incorrect signing key"):
        TASK.finish(STRANGER, sec_nonce, pub_nonce, answer)
    other_sec_nonce, _ = TASK.generate_nonce(USER_SECRET)
    with pytest.raises(ValueError, match="nonces"):
        TASK.finish(USER_SECRET, other_sec_nonce, pub_nonce, answer)


@pytest.mark.parametrize("nonce", [bytes(66), b"\x02" * 65, b""])
def test_the_server_refuses_a_malformed_nonce(nonce: bytes) -> None:
    with pytest.raises(BadCosignature, match="malformed public nonce"):
        TASK.cosign(SERVER_SECRET, nonce)


def test_a_verified_answer_is_completed_once_and_by_the_asker() -> None:
    sec_nonce, pub_nonce = TASK.generate_nonce(USER_SECRET)
    verified = TASK.verify(pub_nonce, TASK.cosign(SERVER_SECRET, pub_nonce))
    key = x_only_tweak_add(combine((SERVER, USER)).x_only, TWEAK).x_only
    assert verify_schnorr(key, MESSAGE, verified.complete(USER_SECRET, sec_nonce))
    with pytest.raises(ValueError):
        verified.complete(USER_SECRET, sec_nonce)
    answerer_nonce, _ = TASK.generate_nonce(SERVER_SECRET)
    with pytest.raises(ValueError, match="incorrect signing key"):
        verified.complete(SERVER_SECRET, answerer_nonce)
