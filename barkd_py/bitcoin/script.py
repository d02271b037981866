"""Scripts: the opcodes that Ark uses, how things are pushed, and the standard output types.

Source: BIP-62 (minimal pushes), BIP-65, BIP-112; sheet 01 §4.3, §11.
"""

from enum import Enum

from bitcoin.core.script import (
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSEQUENCEVERIFY,
    OP_CHECKSIG,
    OP_DROP,
    OP_EQUALVERIFY,
    OP_HASH160,
    OP_RETURN,
    OP_SIZE,
    CScript,
    CScriptInvalidError,
)

from barkd_py.bitcoin.tx import P2A_SCRIPT

CSV = bytes((int(OP_CHECKSEQUENCEVERIFY),))
CLTV = bytes((int(OP_CHECKLOCKTIMEVERIFY),))
DROP = bytes((int(OP_DROP),))
SIZE = bytes((int(OP_SIZE),))
EQUALVERIFY = bytes((int(OP_EQUALVERIFY),))
HASH160 = bytes((int(OP_HASH160),))
CHECKSIG = bytes((int(OP_CHECKSIG),))
RETURN = bytes((int(OP_RETURN),))

__all__ = [
    "CHECKSIG",
    "CLTV",
    "CSV",
    "DROP",
    "EQUALVERIFY",
    "HASH160",
    "P2A_SCRIPT",
    "RETURN",
    "SIZE",
    "ScriptType",
    "dust_limit_sat",
    "is_op_return",
    "is_p2a",
    "is_p2tr",
    "is_push_only",
    "op_return_script",
    "p2tr_script",
    "push_data",
    "push_int",
    "script_type",
]


def push_int(value: int) -> bytes:
    """Push a number that is not negative, in the shortest way."""
    if value < 0:
        raise ValueError("only numbers that are not negative are pushed")
    if value == 0:
        return b"\x00"
    if value <= 16:
        return bytes((0x50 + value,))
    # One bit more than the number needs, for the sign.
    return push_data(value.to_bytes(value.bit_length() // 8 + 1, "little"))


def push_data(data: bytes) -> bytes:
    """Push bytes, with the shortest length prefix."""
    length = len(data)
    if length <= 75:
        return bytes((length,)) + data
    if length <= 0xFF:
        return b"\x4c" + length.to_bytes(1, "little") + data
    if length <= 0xFFFF:
        return b"\x4d" + length.to_bytes(2, "little") + data
    return b"\x4e" + length.to_bytes(4, "little") + data


def p2tr_script(output_x_only: bytes) -> bytes:
    """The output script of a taproot output key."""
    return b"\x51\x20" + output_x_only


def op_return_script(data: bytes) -> bytes:
    """An output that carries data and can never be spent."""
    return RETURN + push_data(data)


def is_push_only(script: bytes) -> bool:
    """Whether a script does nothing but push data; one that ends within a push does not."""
    try:
        return bool(CScript(script).is_push_only())
    except CScriptInvalidError:
        return False


class ScriptType(Enum):
    """The output types that relay, by who may be paid with them."""

    P2PKH = "p2pkh"
    P2SH = "p2sh"
    P2WPKH = "p2wpkh"
    P2WSH = "p2wsh"
    P2TR = "p2tr"
    P2A = "p2a"
    OP_RETURN = "op_return"
    OTHER = "other"


def is_p2tr(script: bytes) -> bool:
    return len(script) == 34 and script[:2] == b"\x51\x20"


def is_p2a(script: bytes) -> bool:
    return script == P2A_SCRIPT


def is_op_return(script: bytes) -> bool:
    return script[:1] == RETURN


def script_type(script: bytes) -> ScriptType:
    """The type of an output script."""
    length, head, tail = len(script), script[:3], script[-2:]
    if is_p2tr(script):
        return ScriptType.P2TR
    if length == 22 and head[:2] == b"\x00\x14":
        return ScriptType.P2WPKH
    if length == 34 and head[:2] == b"\x00\x20":
        return ScriptType.P2WSH
    if length == 25 and head == b"\x76\xa9\x14" and tail == b"\x88\xac":
        return ScriptType.P2PKH
    if length == 23 and head[:2] == b"\xa9\x14" and tail[-1:] == b"\x87":
        return ScriptType.P2SH
    if is_p2a(script):
        return ScriptType.P2A
    if is_op_return(script):
        return ScriptType.OP_RETURN
    return ScriptType.OTHER


_DUST_SAT = {
    ScriptType.P2PKH: 546,
    ScriptType.P2SH: 540,
    # Upstream's constant, 90·3; nodes relay from 294 on.
    ScriptType.P2WPKH: 270,
    ScriptType.P2WSH: 330,
    ScriptType.P2TR: 330,
    ScriptType.OP_RETURN: 0,
}


def dust_limit_sat(script: bytes) -> int | None:
    """The smallest amount of an output with this script; None if the script itself is not standard.

    Source: sheet 01 §11.
    """
    kind = script_type(script)
    if kind is ScriptType.OP_RETURN and len(script) > 83:
        return None
    return _DUST_SAT.get(kind)
