"""Units of bitcoin: amounts, fee rates, networks, and the block a thing is known in.

Amounts are plain ``int`` in satoshi, named ``…_sat`` (``…_msat`` for Lightning). Nothing here is a float
except the one conversion from a fee rate that a person wrote as a decimal.
"""

import enum
import math
from dataclasses import dataclass

from barkd_py.bitcoin.tx import BlockHash

DUST_SAT = 330
"""The smallest taproot output that relays, and the least that a VTXO may hold."""

SAT_PER_BTC = 100_000_000

MAX_MONEY_SAT = 21_000_000 * SAT_PER_BTC


_MAX_SAT_PER_KWU = 2**64 - 1


class Network(enum.Enum):
    """A network, by the name that barkd's API uses."""

    MAINNET = "mainnet"
    TESTNET = "testnet"
    TESTNET4 = "testnet4"
    SIGNET = "signet"
    MUTINYNET = "mutinynet"
    REGTEST = "regtest"

    @property
    def bitcoin_name(self) -> str:
        """The name that bitcoin software uses; mutinynet is a signet. Source: sheet 02 §1.4."""
        return {"mainnet": "bitcoin", "mutinynet": "signet"}.get(self.value, str(self.value))

    @property
    def is_mainnet(self) -> bool:
        return self is Network.MAINNET

    @property
    def onchain_hrp(self) -> str:
        """The human readable part of segwit addresses."""
        match self:
            case Network.MAINNET:
                return "bc"
            case Network.REGTEST:
                return "bcrt"
            case _:
                return "tb"

    @classmethod
    def from_bitcoin_name(cls, name: str) -> "Network":
        """The network of a bitcoin name (``bitcoin``, ``signet``, …). Raises ValueError for any other."""
        for network in cls:
            if network.bitcoin_name == name:
                return network
        raise ValueError(f"unknown network: {name}")


@dataclass(frozen=True, slots=True, order=True)
class FeeRate:
    """A fee rate in satoshi per 1000 weight units; rounding is always up, so that a fee never falls short.

    Source: sheet 06 §1 (rounding).
    """

    sat_per_kwu: int

    @classmethod
    def from_sat_per_kvb(cls, sat_per_kvb: int) -> "FeeRate":
        return cls((sat_per_kvb + 3) // 4)

    @classmethod
    def from_sat_per_vb(cls, sat_per_vb: float) -> "FeeRate":
        """From a decimal that a person wrote. Raises ValueError if not finite, or negative after rounding."""
        exact = sat_per_vb * 250
        if not math.isfinite(exact):
            raise ValueError("fee rate is not a finite number")
        sat_per_kwu = math.ceil(exact)
        if sat_per_kwu < 0:
            raise ValueError("fee rate is negative")
        if sat_per_kwu > _MAX_SAT_PER_KWU:
            raise ValueError("fee rate is too large")
        return cls(sat_per_kwu)

    @property
    def sat_per_kvb(self) -> int:
        return self.sat_per_kwu * 4

    @property
    def sat_per_vb_ceil(self) -> int:
        return -(-self.sat_per_kwu // 250)

    def fee_wu(self, weight_wu: int) -> int:
        """The fee in satoshi for a weight."""
        return -(-self.sat_per_kwu * weight_wu // 1000)

    def __str__(self) -> str:
        return f"{self.sat_per_kwu} sat/kwu"


@dataclass(frozen=True, slots=True, order=True)
class BlockRef:
    """A block: its height and its hash, so that a reorg is noticed."""

    height: int
    hash: BlockHash

    def __str__(self) -> str:
        return f"{self.height}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "BlockRef":
        """The inverse of ``str``. Raises ValueError."""
        height, separator, block_hash = text.partition(":")
        if not separator or not height.isdecimal():
            raise ValueError("invalid block reference")
        return cls(int(height), BlockHash.from_hex(block_hash))


def format_btc(amount_sat: int) -> str:
    """The amount as error messages show it: ``0.00030000 BTC``, ``0 BTC``, ``2 BTC``. Source: sheet 03 §0."""
    sign = "-" if amount_sat < 0 else ""
    whole_btc, rest_sat = divmod(abs(amount_sat), SAT_PER_BTC)
    return f"{sign}{whole_btc}.{rest_sat:08} BTC" if rest_sat else f"{sign}{whole_btc} BTC"
