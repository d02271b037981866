"""Amounts as text with a denomination: `10000 sat`, `1000sats`, `0.1 BTC`.

Source: protocol sheet 07 §6.9 (POST onchain/send-many).
"""

import re
from typing import Final

# Denomination to the power of ten of a satoshi.
_DENOMINATIONS: Final = {
    "BTC": 8, "btc": 8,
    "cBTC": 6, "cbtc": 6,
    "mBTC": 5, "mbtc": 5,
    "uBTC": 2, "ubtc": 2, "µBTC": 2, "µbtc": 2,
    "bit": 2, "bits": 2, "BIT": 2, "BITS": 2,
    "satoshi": 0, "satoshis": 0, "SATOSHI": 0, "SATOSHIS": 0,
    "sat": 0, "sats": 0, "SAT": 0, "SATS": 0,
}  # fmt: skip
_U64_MAX: Final = 2**64 - 1
_DIGITS_MAX: Final = 50


class BadAmount(ValueError):
    """The text is no amount; the message says why, for clients."""


def parse_amount(text: str) -> int:
    """Satoshis of an amount with its denomination, exactly. Raises BadAmount."""
    number, denomination = _split(text)
    exponent = _DENOMINATIONS.get(denomination)
    if exponent is None:
        raise BadAmount(f"invalid denomination: unknown denomination: {denomination}")
    return _satoshis(number, exponent)


def _split(text: str) -> tuple[str, str]:
    if " " in text:
        number, _, denomination = text.partition(" ")
        return number, denomination
    letter = re.search(r"[^\W\d_]", text)
    if letter is None:
        raise BadAmount("the input doesn't contain a denomination")
    return text[: letter.start()], text[letter.start() :]


def _satoshis(number: str, exponent: int) -> int:
    if not number:
        raise BadAmount("invalid amount: missing digits in the input: the input is empty")
    if len(number) > _DIGITS_MAX:
        raise BadAmount(f"invalid amount: input string is too long: the maximum is {_DIGITS_MAX} characters")
    digits = number.removeprefix("-")
    whole, _, fraction = digits.partition(".")
    for position, character in enumerate(number):
        if not (character.isascii() and character.isdigit()) and not (
            (character == "-" and position == 0) or (character == "." and number.count(".") == 1)
        ):
            raise BadAmount(
                "invalid amount: invalid character in the input: "
                f"the character '{character}' at position {position} is not a valid digit"
            )
    if not whole + fraction:
        raise BadAmount("invalid amount: missing digits in the input: there are no digits")
    if len(fraction.rstrip("0")) > exponent:
        raise BadAmount("invalid amount: the amount is too precise: there is no smaller unit than a satoshi")
    amount_sat: int = int(whole or "0") * int(10**exponent) + int(
        (fraction + "0" * exponent)[:exponent] or "0"
    )
    if number.startswith("-") and amount_sat:
        raise BadAmount("invalid amount: amount out of range: the amount is less than 0")
    if amount_sat > _U64_MAX:
        raise BadAmount(
            "invalid amount: amount out of range: the amount is greater than 184467440737.09551615"
        )
    return amount_sat
