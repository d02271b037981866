"""The rules of a node's mempool, one small function each.

A rule looks at a transaction, the outputs it spends and what is confirmed or waiting already; it returns or
raises `PolicyRefusal` with the node's own text. None of them changes anything: `mempool`
runs them in the node's order (which matters, since the first refusal is what a wallet reads) and acts on the
result.

The texts are those of Bitcoin Knots 29.4.3 with ``-corepolicy=1``, that is, of Bitcoin Core 29 with the short
names that Knots puts in front. The same table of cases runs against a real node in ``tests/interop``.

Rules that Ark never meets are left out (signature operation limits, script flags beyond consensus), so a
transaction that passes here may still be refused by a real node.

Source: sheet 11 §3; BIP-68, BIP-113, BIP-125 (replacement, rules 2 to 6), BIP-431 (TRUC).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from barkd_py.bitcoin.script import RETURN, ScriptType, is_p2a, script_type
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import MAX_MONEY_SAT, SAT_PER_BTC
from barkd_py.devnet.chain.block import COINBASE_MATURITY, MAX_BLOCK_WEIGHT_WU, is_coinbase
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.pool import PoolEntry, TxPool
from barkd_py.errors import ChainError

#: Minimum fee rate of a transaction, and of what a replacement pays on top: 0.1 sat/vB.
MIN_RELAY_SAT_PER_KVB = 100
INCREMENTAL_RELAY_SAT_PER_KVB = 100

#: What ``sendrawtransaction`` and ``submitpackage`` refuse as a mistake: 0.1 BTC/kvB.
MAX_FEE_SAT_PER_KVB = SAT_PER_BTC // 10

#: The fee rate at which an output must be worth spending, else it is dust: 3 sat/vB.
_DUST_RELAY_SAT_PER_KVB = 3000

TRUC_VERSION = 3
_TRUC_MAX_VSIZE = 10_000
_TRUC_CHILD_MAX_VSIZE = 1_000

_MAX_STANDARD_WEIGHT_WU = 400_000
_MIN_STANDARD_SIZE = 65
_MAX_SCRIPT_SIG = 1650
_MAX_OP_RETURN = 83
_MAX_RELATIVES = 25
_CARVE_OUT_MAX_VSIZE = 10_000
_MAX_REPLACED = 100

_FINAL_SEQUENCE = 0xFFFF_FFFF
_LOCKTIME_THRESHOLD = 500_000_000
_SEQUENCE_DISABLED = 1 << 31
_SEQUENCE_IS_TIME = 1 << 22
_SEQUENCE_MASK = 0xFFFF
_SEQUENCE_TIME_SHIFT = 9


class Outlook(Enum):
    """Whether a package may change a refusal."""

    FINAL = auto()
    MISSING_INPUTS = auto()  # a parent in the package may make the output
    FEE = auto()  # a child in the package may pay


class PolicyRefusal(ChainError):
    """The mempool refuses a transaction.

    reason, detail: the node's short name and, after a comma, what is particular to this case.
    """

    def __init__(self, reason: str, detail: str = "", outlook: Outlook = Outlook.FINAL) -> None:
        super().__init__(f"{reason}, {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.outlook = outlook


# -- the transaction by itself -------------------------------------------------------------------------


def check_structure(tx: Tx) -> None:
    """What can be wrong with a transaction whatever the chain holds (consensus)."""
    if not tx.inputs:
        raise PolicyRefusal("bad-txns-vin-empty")
    if not tx.outputs:
        raise PolicyRefusal("bad-txns-vout-empty")
    if 4 * len(tx.serialize_without_witness()) > MAX_BLOCK_WEIGHT_WU:
        raise PolicyRefusal("bad-txns-oversize")
    _check_output_values(tx)
    if len({tx_in.prevout for tx_in in tx.inputs}) < len(tx.inputs):
        raise PolicyRefusal("bad-txns-inputs-duplicate")
    if is_coinbase(tx):
        raise PolicyRefusal("coinbase")
    if any(tx_in.prevout == OutPoint(Txid(bytes(32)), 0xFFFF_FFFF) for tx_in in tx.inputs):
        raise PolicyRefusal("bad-txns-prevout-null")


def _check_output_values(tx: Tx) -> None:
    total_sat = 0
    for output in tx.outputs:
        if output.value_sat >= 1 << 63:
            raise PolicyRefusal("bad-txns-vout-negative")
        if output.value_sat > MAX_MONEY_SAT:
            raise PolicyRefusal("bad-txns-vout-toolarge")
        total_sat += output.value_sat
        if total_sat > MAX_MONEY_SAT:
            raise PolicyRefusal("bad-txns-txouttotal-toolarge")


def check_standard(tx: Tx) -> None:
    """Version, sizes and output types that nodes relay."""
    if not 1 <= tx.version <= TRUC_VERSION:
        raise PolicyRefusal("version")
    if tx.weight_wu > _MAX_STANDARD_WEIGHT_WU:
        raise PolicyRefusal("tx-size")
    if any(len(tx_in.script_sig) > _MAX_SCRIPT_SIG for tx_in in tx.inputs):
        raise PolicyRefusal("scriptsig-size")
    if not all(_is_standard_output(output.script_pubkey) for output in tx.outputs):
        raise PolicyRefusal("scriptpubkey")
    if len(dust_outputs(tx)) > 1:
        raise PolicyRefusal("dust")
    if sum(script_type(output.script_pubkey) is ScriptType.OP_RETURN for output in tx.outputs) > 1:
        raise PolicyRefusal("multi-op-return")
    if len(tx.serialize_without_witness()) < _MIN_STANDARD_SIZE:
        raise PolicyRefusal("tx-size-small")


def _is_standard_output(script: bytes) -> bool:
    match script_type(script):
        case ScriptType.OP_RETURN:
            return len(script) <= _MAX_OP_RETURN
        case ScriptType.OTHER:
            return _is_witness_program(script) or _is_pay_to_public_key(script)
        case _:
            return True


def _is_witness_program(script: bytes) -> bool:
    """A program of a version that means nothing yet; version 0 has only the two known lengths."""
    return 4 <= len(script) <= 42 and 0x51 <= script[0] <= 0x60 and script[1] == len(script) - 2


def _is_pay_to_public_key(script: bytes) -> bool:
    return len(script) in (35, 67) and script[0] == len(script) - 2 and script[-1] == 0xAC


def dust_limit_sat(script: bytes) -> int:
    """The least that an output must hold to be worth its own spending at 3 sat/vB; 0 if unspendable."""
    if script[:1] == RETURN:
        return 0
    # Spending takes an outpoint, a length, a sequence and 107 bytes of signature and key; a witness counts
    # for a quarter.
    is_witness = _is_witness_program(script) or script_type(script) in (ScriptType.P2WPKH, ScriptType.P2WSH)
    spending_size = 32 + 4 + 1 + (107 // 4 if is_witness else 107) + 4
    size = len(TxOut(0, script).to_bytes()) + spending_size
    return size * _DUST_RELAY_SAT_PER_KVB // 1000


def dust_outputs(tx: Tx) -> tuple[int, ...]:
    """The positions of the outputs that hold less than their dust limit."""
    return tuple(
        vout
        for vout, output in enumerate(tx.outputs)
        if output.value_sat < dust_limit_sat(output.script_pubkey)
    )


# -- the transaction in the next block -----------------------------------------------------------------


def check_final(tx: Tx, chain: ChainIndex) -> None:
    """nLockTime, for the block after the tip."""
    if tx.locktime == 0 or all(tx_in.sequence == _FINAL_SEQUENCE for tx_in in tx.inputs):
        return
    is_height = tx.locktime < _LOCKTIME_THRESHOLD
    now = chain.tip_height + 1 if is_height else chain.median_time_past(chain.tip_height)
    if tx.locktime >= now:
        raise PolicyRefusal("non-final")


def check_relative_timelocks(tx: Tx, chain: ChainIndex) -> None:
    """BIP-68, for the block after the tip. An unconfirmed parent counts as being in that block."""
    if tx.version < 2:
        return
    for tx_in in tx.inputs:
        if tx_in.sequence & _SEQUENCE_DISABLED:
            continue
        confirmed = chain.tx(tx_in.prevout.txid)
        height = chain.tip_height + 1 if confirmed is None else confirmed.height
        delta = tx_in.sequence & _SEQUENCE_MASK
        if tx_in.sequence & _SEQUENCE_IS_TIME:
            since = chain.median_time_past(max(height - 1, 0))
            is_mature = since + (delta << _SEQUENCE_TIME_SHIFT) <= chain.median_time_past(chain.tip_height)
        else:
            is_mature = chain.tip_height + 1 - height >= delta
        if not is_mature:
            raise PolicyRefusal("non-BIP68-final")


def check_coinbase_maturity(tx: Tx, chain: ChainIndex) -> None:
    """A coinbase is spent in the hundredth block after its own, at the earliest."""
    for tx_in in tx.inputs:
        confirmed = chain.tx(tx_in.prevout.txid)
        if confirmed is None or not confirmed.is_coinbase:
            continue
        depth = chain.tip_height + 1 - confirmed.height
        if depth < COINBASE_MATURITY:
            raise PolicyRefusal(
                "bad-txns-premature-spend-of-coinbase", f"tried to spend coinbase at depth {depth}"
            )


def check_amounts(entry: PoolEntry) -> None:
    """The outputs hold no more than the inputs."""
    if entry.fee_sat < 0:
        value_in = sum(output.value_sat for output in entry.spent)
        value_out = sum(output.value_sat for output in entry.tx.outputs)
        raise PolicyRefusal(
            "bad-txns-in-belowout", f"value in ({btc(value_in)}) < value out ({btc(value_out)})"
        )


def check_input_standard(entry: PoolEntry) -> None:
    """The scripts that are spent are known ones, and an anchor is spent with nothing."""
    for tx_in, spent in zip(entry.tx.inputs, entry.spent, strict=True):
        if not _is_standard_output(spent.script_pubkey) or _is_unknown_program(spent.script_pubkey):
            raise PolicyRefusal("bad-txns-nonstandard-inputs")
        if is_p2a(spent.script_pubkey) and tx_in.witness:
            raise PolicyRefusal("bad-witness-anchor-not-empty")


def _is_unknown_program(script: bytes) -> bool:
    is_known = script_type(script) in (ScriptType.P2TR, ScriptType.P2A)
    return _is_witness_program(script) and not is_known


# -- fees ----------------------------------------------------------------------------------------------


def fee_for(vsize: int, sat_per_kvb: int) -> int:
    """The fee of a virtual size at a fee rate, rounded up as nodes do."""
    return -(-vsize * sat_per_kvb // 1000)


def check_dust_is_free(entry: PoolEntry) -> None:
    """A transaction with a dust output pays no fee by itself, so that nobody mines it without its child."""
    if entry.fee_sat != 0 and dust_outputs(entry.tx):
        raise PolicyRefusal("dust", "tx with dust output must be 0-fee")


def check_relay_fee(entry: PoolEntry, *, in_package: bool) -> None:
    """The minimum fee rate. Only a TRUC transaction may leave paying it to its child."""
    is_truc = entry.tx.version == TRUC_VERSION
    if in_package and is_truc:
        return
    check_fee_rate(entry.fee_sat, entry.vsize, Outlook.FEE if is_truc else Outlook.FINAL)


def check_fee_rate(fee_sat: int, vsize: int, outlook: Outlook) -> None:
    """The minimum fee rate of a transaction, or of a package as a whole."""
    needed_sat = fee_for(vsize, MIN_RELAY_SAT_PER_KVB)
    if fee_sat < needed_sat:
        raise PolicyRefusal("min relay fee not met", f"{fee_sat} < {needed_sat}", outlook)


def exceeds_max_fee(entry: PoolEntry) -> bool:
    """Whether the fee is so high that it is taken for a mistake."""
    return entry.fee_sat > fee_for(entry.vsize, MAX_FEE_SAT_PER_KVB)


def burns(tx: Tx) -> bool:
    """Whether an output that nobody can spend holds money."""
    return any(output.value_sat > 0 and output.script_pubkey[:1] == RETURN for output in tx.outputs)


# -- relatives -----------------------------------------------------------------------------------------


def check_chain_length(entry: PoolEntry, pool: TxPool) -> None:
    """At most 25 transactions in a row of ancestors or descendants."""
    ancestors = pool.ancestors(entry.tx)
    if len(ancestors) + 1 > _MAX_RELATIVES:
        raise PolicyRefusal(
            "too-long-mempool-chain", f"too many unconfirmed ancestors [limit: {_MAX_RELATIVES}]"
        )
    # One small child more, so that whoever shares a transaction can always bump it.
    carve_out = 1 if len(ancestors) == 1 and entry.vsize <= _CARVE_OUT_MAX_VSIZE else 0
    for txid in ancestors:
        ancestor = pool.get(txid)
        assert ancestor is not None
        # itself, its descendants, and the new transaction
        if len(pool.descendants(ancestor.tx)) + 2 > _MAX_RELATIVES + carve_out:
            raise PolicyRefusal(
                "too-long-mempool-chain", f"too many descendants for tx {txid} [limit: {_MAX_RELATIVES}]"
            )


def check_truc(entry: PoolEntry, pool: TxPool, parents_in_package: Sequence[PoolEntry] = ()) -> None:
    """TRUC transactions keep to themselves: one parent, one child, small. Source: BIP-431."""
    in_pool = [pool.get(txid) for txid in pool.parents(entry.tx)]
    parents = [*(parent for parent in in_pool if parent is not None), *parents_in_package]
    if entry.tx.version != TRUC_VERSION:
        _check_spends_no_truc(entry, parents)
        return
    for parent in parents:
        if parent.tx.version != TRUC_VERSION:
            raise PolicyRefusal(
                "truc-spends-nontruc",
                f"version=3 {_named(entry)} cannot spend from non-version=3 {_named(parent)}",
            )
    if entry.vsize > _TRUC_MAX_VSIZE:
        raise PolicyRefusal(
            "truc-vsize-toobig",
            f"version=3 {_named(entry)} is too big: {entry.vsize} > {_TRUC_MAX_VSIZE} virtual bytes",
        )
    if len(pool.ancestors(entry.tx)) + len(parents_in_package) > 1:
        raise PolicyRefusal("truc-ancestors-toomany", f"{_named(entry)} would have too many ancestors")
    if parents and entry.vsize > _TRUC_CHILD_MAX_VSIZE:
        raise PolicyRefusal(
            "truc-child-toobig",
            f"version=3 child {_named(entry)} is too big: "
            f"{entry.vsize} > {_TRUC_CHILD_MAX_VSIZE} virtual bytes",
        )


def _check_spends_no_truc(entry: PoolEntry, parents: Iterable[PoolEntry]) -> None:
    for parent in parents:
        if parent.tx.version == TRUC_VERSION:
            raise PolicyRefusal(
                "truc-spent-by-nontruc",
                f"non-version=3 {_named(entry)} cannot spend from version=3 {_named(parent)}",
            )


def truc_sibling(
    entry: PoolEntry, pool: TxPool, conflicts: Iterable[Txid], *, in_package: bool
) -> Txid | None:
    """The child that a TRUC parent already has and that this second one would push out.

    conflicts: what the transaction replaces anyway. In a package nothing is pushed out like this.
    """
    if entry.tx.version != TRUC_VERSION:
        return None
    siblings: set[Txid] = set()
    for txid in pool.parents(entry.tx):
        parent = pool.get(txid)
        assert parent is not None
        siblings |= pool.children(parent.tx)
    if not siblings or siblings & set(conflicts):
        return None
    if in_package or len(siblings) > 1:  # several children exist only after a reorganisation
        raise PolicyRefusal(
            "truc-descendants-toomany", f"{_named(entry)} would exceed descendant count limit"
        )
    return siblings.pop()


def check_spends_dust(entry: PoolEntry, parents: Iterable[PoolEntry]) -> None:
    """Who spends anything of a transaction with a dust output spends that output too."""
    spent = {tx_in.prevout for tx_in in entry.tx.inputs}
    for parent in parents:
        if any(parent.tx.outpoint(vout) not in spent for vout in dust_outputs(parent.tx)):
            raise PolicyRefusal(
                "missing-ephemeral-spends", f"{_named(entry)} did not spend parent's ephemeral dust"
            )


# -- replacement ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a transaction would push out.

    direct: what spends the same outputs, or is the only other child of a TRUC parent (`is_sibling`).
    evicted: these and all their descendants.
    """

    direct: tuple[PoolEntry, ...]
    evicted: tuple[PoolEntry, ...]
    is_sibling: bool = False


def check_spends_nothing_replaced(entry: PoolEntry, pool: TxPool, conflicts: Iterable[Txid]) -> None:
    """A transaction does not spend what it replaces."""
    ancestors = pool.ancestors(entry.tx)
    for conflict in conflicts:
        if conflict in ancestors:
            raise PolicyRefusal(
                "bad-txns-spends-conflicting-tx", f"{entry.txid} spends conflicting transaction {conflict}"
            )


def check_replacement(entry: PoolEntry, pool: TxPool, replacement: Replacement) -> None:
    """A replacement pays a better rate than each conflict, and more than all it evicts together."""
    reason = "insufficient fee" + (" (including sibling eviction)" if replacement.is_sibling else "")
    prefix = f"rejecting replacement {entry.txid}"
    new_rate = fee_rate(entry.fee_sat, entry.vsize)
    for conflict in replacement.direct:
        old_rate = fee_rate(conflict.fee_sat, conflict.vsize)
        if new_rate <= old_rate:
            detail = f"{prefix}; new feerate {btc_per_kvb(new_rate)} <= old feerate {btc_per_kvb(old_rate)}"
            raise PolicyRefusal(reason, detail, Outlook.FEE)
    if len(replacement.evicted) > _MAX_REPLACED:
        detail = f"{prefix}; too many potential replacements ({len(replacement.evicted)} > {_MAX_REPLACED})"
        raise PolicyRefusal("too many potential replacements", detail)
    if not replacement.is_sibling:
        _check_adds_no_unconfirmed(entry, pool, replacement)
    shortfall = _underpaid(entry.fee_sat, entry.vsize, replacement.evicted)
    if shortfall is not None:
        raise PolicyRefusal(reason, f"{prefix}, {shortfall}", Outlook.FEE)


def _check_adds_no_unconfirmed(entry: PoolEntry, pool: TxPool, replacement: Replacement) -> None:
    known = {tx_in.prevout.txid for conflict in replacement.direct for tx_in in conflict.tx.inputs}
    for index, tx_in in enumerate(entry.tx.inputs):
        if tx_in.prevout.txid in pool and tx_in.prevout.txid not in known:
            raise PolicyRefusal(
                "replacement-adds-unconfirmed",
                f"replacement {entry.txid} adds unconfirmed input, idx {index}",
            )


def check_package_replacement(parent: PoolEntry, child: PoolEntry, replacement: Replacement) -> None:
    """The same for a parent and child that enter together."""
    fee_sat, vsize = parent.fee_sat + child.fee_sat, parent.vsize + child.vsize
    if len(replacement.evicted) > _MAX_REPLACED:
        raise PolicyRefusal("package RBF failed: too many potential replacements")
    shortfall = _underpaid(fee_sat, vsize, replacement.evicted)
    if shortfall is not None:
        raise PolicyRefusal(
            "package RBF failed: insufficient anti-DoS fees",
            f"rejecting replacement {child.txid}, {shortfall}",
        )
    package_rate, parent_rate = fee_rate(fee_sat, vsize), fee_rate(parent.fee_sat, parent.vsize)
    if package_rate <= parent_rate:
        raise PolicyRefusal(
            "package RBF failed: package feerate is less than or equal to parent feerate",
            f"package feerate {btc_per_kvb(package_rate)} <= parent feerate is {btc_per_kvb(parent_rate)}",
        )
    if any(package_rate <= fee_rate(old.fee_sat, old.vsize) for old in replacement.direct):
        raise PolicyRefusal("package RBF failed: insufficient feerate: does not improve feerate diagram")


def _underpaid(fee_sat: int, vsize: int, evicted: Iterable[PoolEntry]) -> str | None:
    """Why a fee does not make up for what is evicted and for its own relay; None if it does."""
    evicted_sat = sum(entry.fee_sat for entry in evicted)
    if fee_sat < evicted_sat:
        return f"less fees than conflicting txs; {btc(fee_sat)} < {btc(evicted_sat)}"
    added_sat, needed_sat = fee_sat - evicted_sat, fee_for(vsize, INCREMENTAL_RELAY_SAT_PER_KVB)
    if added_sat < needed_sat:
        return f"not enough additional fees to relay; {btc(added_sat)} < {btc(needed_sat)}"
    return None


# -- texts ---------------------------------------------------------------------------------------------


def fee_rate(fee_sat: int, vsize: int) -> int:
    """sat/kvB, rounded down."""
    return fee_sat * 1000 // vsize


def btc(value_sat: int) -> str:
    """An amount as nodes write it in these texts, with two to eight decimals: ``0.001``, ``1.00``."""
    whole, rest = divmod(value_sat, SAT_PER_BTC)
    decimals = f"{rest:08}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals}"


def btc_per_kvb(sat_per_kvb: int) -> str:
    """A fee rate as nodes write it: ``0.00013071 BTC/kvB``."""
    return f"{sat_per_kvb // SAT_PER_BTC}.{sat_per_kvb % SAT_PER_BTC:08} BTC/kvB"


def _named(entry: PoolEntry) -> str:
    return f"tx {entry.txid} (wtxid={entry.wtxid})"
