"""Mnemonics: what is read, what is refused and in which words, and that nothing shows."""

import pickle

import pytest

from barkd_py.bitcoin.bip32 import InvalidMnemonic, generate_mnemonic, parse_mnemonic

WORDS = "abandon " * 11 + "about"
# Source: BIP-39's own vector without passphrase; sheet 02 §1.9.
SEED = (
    "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
    "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4"
)


@pytest.mark.parametrize("text", [WORDS, f"  {WORDS}\n", WORDS.replace(" ", "\t \n")])
def test_white_space_does_not_matter(text: str) -> None:
    seed = parse_mnemonic(text)
    assert seed.words == WORDS
    assert seed.seed_bytes.hex() == SEED


@pytest.mark.parametrize("count", [12, 15, 18, 21, 24])
def test_every_length_is_made_and_read(count: int) -> None:
    seed = generate_mnemonic(count)
    assert len(seed.words.split()) == count
    assert parse_mnemonic(seed.words).seed_bytes == seed.seed_bytes


def test_no_two_are_alike() -> None:
    assert generate_mnemonic().words != generate_mnemonic().words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two words", "mnemonic has an invalid word count: 2. Word count must be 12, 15, 18, 21, or 24"),
        ("", "mnemonic has an invalid word count: 0. Word count must be 12, 15, 18, 21, or 24"),
        ("abandon " * 12, "the mnemonic has an invalid checksum"),
        ("abandon " * 11 + "xyzzy", "mnemonic contains an unknown word (word 11)"),
        (WORDS.upper(), "mnemonic contains an unknown word (word 0)"),
        (WORDS.replace("about", "About"), "mnemonic contains an unknown word (word 11)"),
        ("ábaco " * 12, "mnemonic contains an unknown word (word 0)"),  # Spanish
    ],
)
def test_bad_words_are_refused_in_upstreams_words(text: str, reason: str) -> None:
    with pytest.raises(InvalidMnemonic) as failure:
        parse_mnemonic(text)
    assert str(failure.value) == reason


def test_a_refusal_repeats_no_word() -> None:
    """Most of the words may be right."""
    with pytest.raises(InvalidMnemonic) as failure:
        parse_mnemonic("zebra " * 11 + "secretword")
    assert "zebra" not in str(failure.value)
    assert "secretword" not in str(failure.value)


def test_a_seed_shows_itself_to_nobody() -> None:
    seed = parse_mnemonic(WORDS)
    assert repr(seed) == "Seed(redacted)"
    assert "abandon" not in f"{seed} {seed.master_key()!r} {seed.master_key()}"
    with pytest.raises(TypeError):
        pickle.dumps(seed)
