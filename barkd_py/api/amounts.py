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
    "uBTC": 2, "ubtc": 2,
    "bit": 2, "bits": 2, "BIT": 2, "BITS": 2,
    "satoshi": 0, "satoshis": 0, "SATOSHI": 0, "SATOSHIS": 0,
    "sat": 0, "sats": 0, "SAT": 0, "SATS": 0,
    "nBTC": -1, "nbtc": -1,
    "mSAT": -3, "msat": -3, "mSATs": -3, "msats": -3,
    "pBTC": -4, "pbtc": -4,
}  # fmt: skip
_U64_MAX: Final = 2**64 - 1
_BYTES_MAX: Final = 50


class BadAmount(ValueError):
    """The text is no amount; the message says why, for clients."""


def parse_amount(text: str) -> int:
    """Satoshis of an amount with its denomination, exactly. Raises BadAmount."""
    number, denomination = _split(text)
    exponent = _DENOMINATIONS.get(denomination)
    if exponent is None:
        raise BadAmount("invalid denomination: denomination parse error")
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
        raise BadAmount("invalid amount: the input has too few digits: the input is empty")
    if len(number.encode(errors="replace")) > _BYTES_MAX:
        raise BadAmount(f"invalid amount: input string is too long: the maximum is {_BYTES_MAX} characters")
    digits = number.removeprefix("-")
    sign_length = len(number) - len(digits)
    if not digits:
        raise BadAmount(
            "invalid amount: the input has too few digits: there are no digits following the minus (-) sign"
        )
    if exponent <= 0:
        whole = _in_whole_satoshis(digits, -exponent, sign_length)
        amount_sat = _read_digits(whole, 0, sign_length)
    else:
        amount_sat = _read_digits(digits, exponent, sign_length)
    if sign_length and amount_sat:
        raise BadAmount("invalid amount: amount out of range: the amount is less than 0")
    return amount_sat


def _in_whole_satoshis(digits: str, places: int, sign_length: int) -> str:
    """Without the last places of a whole number, which must be zeros, and without its fraction."""
    position = _too_precise_at(digits, places)
    if position is None:
        whole = digits.partition(".")[0]
        return whole[: len(whole) - places]
    if digits.isascii() and digits.isdigit() and not digits.strip("0"):
        return "0"
    raise _too_precise(position + sign_length)


def _too_precise_at(digits: str, places: int) -> int | None:
    """Where the part begins that is less than a satoshi; None if there is none."""
    point = digits.find(".")
    whole = digits if point < 0 else digits[:point]
    if places >= len(whole):
        return 0
    for position in range(len(whole) - 1, len(whole) - 1 - places, -1):
        if digits[position] != "0":
            return position
    return next((at for at in range(len(whole) + 1, len(digits)) if digits[at] != "0"), None)


def _too_precise(position: int) -> BadAmount:
    what = (
        f"the digits starting from position {position} represent a sub-satoshi amount"
        if position
        else "the amount is less than 1 satoshi but it's not zero"
    )
    return BadAmount(f"invalid amount: amount has a too high precision: {what}")


def _read_digits(digits: str, decimals_max: int, sign_length: int) -> int:
    value = 0
    decimals: int | None = None
    for position, character in enumerate(digits, sign_length):
        if character.isascii() and character.isdigit():
            value = value * 10 + int(character)
            if value > _U64_MAX:
                raise _too_large()
            if decimals is not None:
                if decimals == decimals_max:
                    raise _too_precise(position)
                decimals += 1
        elif character == "." and decimals is None:
            decimals = 0
        elif character == ".":
            raise BadAmount(
                "invalid amount: invalid character in the input: "
                "there is more than one decimal separator (dot) in the input"
            )
        else:
            raise BadAmount(
                "invalid amount: invalid character in the input: "
                f"the character '{character}' at position {position} is not a valid digit"
            )
    value *= int(10 ** (decimals_max - (decimals or 0)))
    if value > _U64_MAX:
        raise _too_large()
    return value


def _too_large() -> BadAmount:
    return BadAmount(f"invalid amount: amount out of range: the amount is greater than {_U64_MAX}")
