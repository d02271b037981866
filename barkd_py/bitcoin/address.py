"""On-chain addresses: from text to output script and back, by network.

Source: BIP-173, BIP-350; sheet 02 §7; sheet 07 §2.3 (texts).
"""

from collections.abc import Sequence

from bitcoin.base58 import InvalidBase58Error
from bitcoin.base58 import decode as base58_decode
from bitcoin.base58 import encode as base58_encode

from barkd_py.bitcoin.hashes import sha256d
from barkd_py.bitcoin.script import ScriptType, script_type
from barkd_py.bitcoin.units import Network
from barkd_py.errors import InvalidInput

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHARSET_INDEX = {character: index for index, character in enumerate(CHARSET)}
_BECH32_CONST = 1
BECH32M_CONST = 0x2BC830A3
_HRPS = ("bcrt", "bc", "tb")

_P2PKH_VERSION = {True: 0x00, False: 0x6F}
_P2SH_VERSION = {True: 0x05, False: 0xC4}


class InvalidAddress(InvalidInput):
    """Text that is no bitcoin address."""


class WrongNetworkAddress(InvalidInput):
    """An address of another network.

    address: as it was given. network: the one that was wanted.
    """

    def __init__(self, address: str, network: Network) -> None:
        super().__init__(f"validation error: address {address} is not valid on {network.bitcoin_name}")
        self.address = address
        self.network = network


# --- bech32 ---------------------------------------------------------------------------------------------


def bech32_polymod(values: Sequence[int]) -> int:
    """The checksum of BIP-173 over 5-bit values."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def bech32_hrp_expand(hrp: str) -> list[int]:
    return [ord(character) >> 5 for character in hrp] + [0] + [ord(character) & 31 for character in hrp]


def bech32_encode(hrp: str, symbols: Sequence[int], constant: int) -> str:
    """Text of 5-bit symbols with their checksum. constant: 1 for bech32, `BECH32M_CONST` for bech32m."""
    values = [*bech32_hrp_expand(hrp), *symbols]
    polymod = bech32_polymod([*values, 0, 0, 0, 0, 0, 0]) ^ constant
    checksum = [polymod >> 5 * (5 - index) & 31 for index in range(6)]
    return hrp + "1" + "".join(CHARSET[symbol] for symbol in [*symbols, *checksum])


def bech32_split(text: str) -> tuple[str, list[int]] | None:
    """The lower-case human readable part and the symbols with the checksum; None if malformed."""
    if not text.isascii() or (text.lower() != text and text.upper() != text):
        return None
    hrp, separator, data = text.lower().rpartition("1")
    if not separator or not hrp or any(not 33 <= ord(character) <= 126 for character in hrp):
        return None
    symbols = [_CHARSET_INDEX.get(character, -1) for character in data]
    return None if -1 in symbols else (hrp, symbols)


def to_5_bits(data: bytes) -> list[int]:
    """Regroup bytes into 5-bit symbols, padded with zero bits."""
    count = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << (count * 5 - len(data) * 8)
    return [number >> 5 * (count - 1 - index) & 31 for index in range(count)]


def to_8_bits(symbols: Sequence[int]) -> tuple[bytes, int, int]:
    """Regroup 5-bit symbols into bytes: the bytes, the number of bits left over, and their value."""
    number = 0
    for symbol in symbols:
        number = number << 5 | symbol
    left_over = len(symbols) * 5 % 8
    data = (number >> left_over).to_bytes(len(symbols) * 5 // 8, "big")
    return data, left_over, number & ((1 << left_over) - 1)


# --- addresses ------------------------------------------------------------------------------------------


def parse_address(text: str, network: Network) -> bytes:
    """The output script of an address. Raises InvalidAddress, or WrongNetworkAddress."""
    segwit = _parse_segwit(text)
    if segwit is not None:
        hrp, script = segwit
        if hrp not in _HRPS:
            raise _invalid("tried to parse an unknown hrp", f"unknown hrp: {hrp}")
        if hrp != network.onchain_hrp:
            raise WrongNetworkAddress(text, network)
        return script
    is_mainnet, script = _parse_base58(text)
    if is_mainnet != network.is_mainnet:
        raise WrongNetworkAddress(text, network)
    return script


def canonical_address(text: str) -> str:
    """An address as it is shown, however it was given: segwit ones in lower case."""
    return text if _parse_segwit(text) is None else text.lower()


def address_from_script(script: bytes, network: Network) -> str | None:
    """The address of an output script, or None if it has none."""
    hrp = network.onchain_hrp
    match script_type(script):
        case ScriptType.P2PKH:
            return _base58check(_P2PKH_VERSION[network.is_mainnet], script[3:23])
        case ScriptType.P2SH:
            return _base58check(_P2SH_VERSION[network.is_mainnet], script[2:22])
        case ScriptType.P2WPKH | ScriptType.P2WSH:
            return bech32_encode(hrp, [0, *to_5_bits(script[2:])], _BECH32_CONST)
        case ScriptType.P2TR | ScriptType.P2A:
            return bech32_encode(hrp, [1, *to_5_bits(script[2:])], BECH32M_CONST)
        case ScriptType.OP_RETURN:
            return None
        case ScriptType.OTHER:
            return _future_witness_address(script, hrp)


def _future_witness_address(script: bytes, hrp: str) -> str | None:
    is_program = 4 <= len(script) <= 42 and 0x51 <= script[0] <= 0x60 and script[1] == len(script) - 2
    if not is_program:
        return None
    return bech32_encode(hrp, [script[0] - 0x50, *to_5_bits(script[2:])], BECH32M_CONST)


def _parse_segwit(text: str) -> tuple[str, bytes] | None:
    """The human readable part in lower case, and the script; None for what is no segwit address."""
    split = bech32_split(text)
    if split is None or len(text) > 90:
        return None
    hrp, symbols = split
    if len(symbols) < 7 or symbols[0] > 16:
        return None
    version = symbols[0]
    constant = bech32_polymod([*bech32_hrp_expand(hrp), *symbols])
    if constant != (_BECH32_CONST if version == 0 else BECH32M_CONST):
        return None
    program, left_over, padding = to_8_bits(symbols[1:-6])
    if left_over > 4 or padding or len(program) not in ((20, 32) if version == 0 else range(2, 41)):
        return None
    opcode = 0 if version == 0 else 0x50 + version
    return hrp, bytes((opcode, len(program))) + program


def _parse_base58(text: str) -> tuple[bool, bytes]:
    length = len(text.encode(errors="replace"))
    if length > 50:
        problem = f"legacy address is too long: {length} (max 50 characters)"
        raise _invalid("legacy address base58 string", problem)
    payload = _checked_base58(text)
    if len(payload) != 21:
        problem = f"decoded base58 data was an invalid length: {length} (expected 21)"
        raise _invalid("legacy address base58 data", problem)
    version, body = payload[0], payload[1:]
    for is_mainnet in (True, False):
        if version == _P2PKH_VERSION[is_mainnet]:
            return is_mainnet, b"\x76\xa9\x14" + body + b"\x88\xac"
        if version == _P2SH_VERSION[is_mainnet]:
            return is_mainnet, b"\xa9\x14" + body + b"\x87"
    problem = f"invalid legacy address prefix in decoded base58 data {version}"
    raise _invalid("legacy address base58 prefix", problem)


def _checked_base58(text: str) -> bytes:
    """The data without its checksum."""
    try:
        data = bytes(base58_decode(text))
    except InvalidBase58Error:
        invalid = next(byte for byte in text.encode(errors="replace") if byte not in _BASE58_ALPHABET)
        problem = f"decode: invalid base58 character {invalid:#x}"
        raise _invalid("base58 error", problem) from None
    if len(data) < 4:
        problem = f"base58 decoded data was not long enough, must be at least 4 byte: {len(data)}"
        raise _invalid("base58 error", f"too short: {problem}")
    payload, checksum = data[:-4], data[-4:]
    expected = sha256d(payload)[:4]
    if checksum != expected:
        was, wanted = (int.from_bytes(part, "little") for part in (checksum, expected))
        problem = f"base58 checksum {was:#x} does not match expected {wanted:#x}"
        raise _invalid("base58 error", f"incorrect checksum: {problem}")
    return payload


_BASE58_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _invalid(what: str, problem: str) -> InvalidAddress:
    return InvalidAddress(f"{what}: {problem}")


def _base58check(version: int, body: bytes) -> str:
    payload = bytes((version,)) + body
    return str(base58_encode(payload + sha256d(payload)[:4]))
