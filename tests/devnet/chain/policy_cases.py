"""What a node's mempool says, as tables: one row per rule, played on any node.

A row puts the node in the state that the rule is about and returns the transaction, or the package, that is
offered then. Its decorator holds the answer of Bitcoin Knots 29.4.3 with ``-corepolicy=1``; the same rows are
played on that node by the interop tests. Placeholders name transactions of the row: ``{tx.txid}``.

Source: sheet 11 §2.2, §3.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import MAX_MONEY_SAT, SAT_PER_BTC
from tests.devnet.purse import (
    COIN_SAT,
    Coin,
    Purse,
    anchor,
    coin_of,
    exit_child,
    exit_parent,
    pay,
    spend,
)

Names = Mapping[str, Tx]

MISSING_INPUTS = "bad-txns-inputs-missingorspent"
UNKNOWN_COIN = Coin(OutPoint(Txid(b"\x07" * 32), 0), pay(1000))


# -- single transactions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TxCase:
    """offer: returns the raw transaction in hex, and what the text names. code None: it is accepted."""

    name: str
    offer: Callable[[Purse], Awaitable[tuple[str, Names]]]
    code: int | None
    text: str = ""

    async def play(self, purse: Purse) -> tuple[str, str]:
        """The transaction to submit and the text that must come."""
        raw, names = await self.offer(purse)
        return raw, self.text.format(**names)


TX_CASES: list[TxCase] = []

_TxPlay = Callable[[Purse], Awaitable[Tx | tuple[Tx, Names]]]


def _with_names(play: _TxPlay) -> Callable[[Purse], Awaitable[tuple[str, Names]]]:
    async def offer(purse: Purse) -> tuple[str, Names]:
        result = await play(purse)
        tx, names = result if isinstance(result, tuple) else (result, {})
        return tx.serialize().hex(), {"tx": tx, **names}

    return offer


def refused(text: str, code: int = -26) -> Callable[[_TxPlay], _TxPlay]:
    def register(play: _TxPlay) -> _TxPlay:
        TX_CASES.append(TxCase(getattr(play, "__name__", "case"), _with_names(play), code, text))
        return play

    return register


def accepted(play: _TxPlay) -> _TxPlay:
    TX_CASES.append(TxCase(getattr(play, "__name__", "case"), _with_names(play), None))
    return play


def _undecodable(name: str, raw: str) -> None:
    async def offer(_purse: Purse) -> tuple[str, Names]:
        return raw, {}

    text = "TX decode failed. Make sure the tx has at least one input."
    TX_CASES.append(TxCase(name, offer, -22, text))


_undecodable("not_hex", "zz")
_undecodable("cut_short", "0200")
_undecodable("nothing", "")


async def _with_a_byte_too_many(purse: Purse) -> tuple[str, Names]:
    tx = spend([purse.coin()], [pay(99_000)])
    return tx.serialize().hex() + "00", {}


TX_CASES.append(
    TxCase(
        "trailing_byte",
        _with_a_byte_too_many,
        -22,
        "TX decode failed. Make sure the tx has at least one input.",
    )
)


@accepted
async def plain(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)])


@accepted
async def in_the_mempool_already(purse: Purse) -> Tx:
    tx = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(tx)
    return tx


@accepted
async def in_the_mempool_with_another_witness(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)]))
    return spend([coin], [pay(99_000)], aux=b"\x01" * 32)


@refused("Transaction outputs already in utxo set", code=-27)
async def mined_already(purse: Purse) -> Tx:
    tx = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(tx)
    await purse.node.mine()
    return tx


@refused(MISSING_INPUTS, code=-25)
async def mined_and_all_outputs_spent(purse: Purse) -> Tx:
    tx = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(tx, spend([coin_of(tx, 0)], [pay(98_000)]))
    await purse.node.mine()
    return tx


@refused(MISSING_INPUTS, code=-25)
async def unknown_input(purse: Purse) -> Tx:
    return spend([UNKNOWN_COIN], [pay(900)])


@refused(MISSING_INPUTS, code=-25)
async def input_spent_in_a_block(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)]))
    await purse.node.mine()
    return spend([coin], [pay(98_000)])


@refused("bad-txns-vout-empty")
async def no_outputs(purse: Purse) -> Tx:
    return spend([purse.coin()], [])


@refused("bad-txns-inputs-duplicate")
async def same_input_twice(purse: Purse) -> Tx:
    coin = purse.coin()
    return spend([coin, coin], [pay(900)])


@refused("bad-txns-vout-toolarge")
async def output_above_all_money(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(MAX_MONEY_SAT + 1)])


@refused("bad-txns-vout-negative")
async def negative_output(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(2**64 - 1)])


@refused("bad-txns-txouttotal-toolarge")
async def outputs_together_above_all_money(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(MAX_MONEY_SAT), pay(1)])


@refused("bad-txns-prevout-null")
async def one_input_spends_nothing(purse: Purse) -> Tx:
    nothing = Coin(OutPoint(Txid(bytes(32)), 0xFFFF_FFFF), pay(1))
    return spend([purse.coin(), nothing], [pay(900)])


@refused("coinbase")
async def coinbase(purse: Purse) -> Tx:
    mined = purse.node.index.tx(purse.node.index.tip.txids[0])
    assert mined is not None
    return replace(mined.tx, inputs=(replace(mined.tx.inputs[0], script_sig=b"\x01\x07"),))


@refused("version")
async def version_0(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], version=0)


@refused("version")
async def version_4(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], version=4)


@refused("tx-size-small")
async def smaller_than_65_bytes(purse: Purse) -> Tx:
    tx = exit_parent(purse.coin(), anchor_sat=1000, fee_sat=1000)
    await purse.broadcast(tx)
    return spend([coin_of(tx, 1)], [pay(0, b"\x6a")])


@refused("scriptpubkey")
async def unknown_output_script(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000, b"\x51")])


@accepted
async def output_of_a_future_witness_version(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000, b"\x52\x20" + bytes(32))])


@refused("scriptpubkey")
async def too_much_data_in_op_return(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(0, b"\x6a\x4c\x54" + b"a" * 84), pay(90_000)])


@refused("multi-op-return")
async def two_op_returns(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(0, b"\x6a\x01a"), pay(0, b"\x6a\x01a"), pay(90_000)])


@refused("Unspendable output exceeds maximum configured by user (maxburnamount)", code=-25)
async def money_in_op_return(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(1, b"\x6a\x01a"), pay(90_000)])


@refused("Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)", code=-25)
async def absurd_fee(purse: Purse) -> Tx:
    return spend([await purse.rich_coin(SAT_PER_BTC)], [pay(1000)])


# -- time


@refused("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99")
async def coinbase_at_depth_99(purse: Purse) -> Tx:
    return _coinbase_spend(purse, depth=99)


@refused("mempool-script-verify-flag-failed", code=-26)
async def coinbase_at_depth_100(purse: Purse) -> Tx:
    """Mature; it is the faucet's, so only the missing signature is wrong."""
    return _coinbase_spend(purse, depth=100)


def _coinbase_spend(purse: Purse, depth: int) -> Tx:
    index = purse.node.index
    block = index.block_at(index.tip_height + 1 - depth)
    assert block is not None
    mined = index.tx(block.txids[0])
    assert mined is not None
    return spend([coin_of(mined.tx, 0)], [pay(mined.tx.outputs[0].value_sat - 10_000)])


@refused("non-final")
async def locktime_above_the_tip(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], locktime=purse.node.index.tip_height + 1)


@accepted
async def locktime_at_the_tip(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], locktime=purse.node.index.tip_height)


@accepted
async def locktime_that_final_inputs_switch_off(purse: Purse) -> Tx:
    locktime = purse.node.index.tip_height + 1000
    return spend([purse.coin()], [pay(99_000)], locktime=locktime, sequence=0xFFFF_FFFF)


@refused("non-final")
async def locktime_of_tomorrow(purse: Purse) -> Tx:
    tomorrow = purse.node.index.tip.header.time + 86_400
    return spend([purse.coin()], [pay(99_000)], locktime=tomorrow)


@refused("non-BIP68-final")
async def relative_timelock_one_block_early(purse: Purse) -> Tx:
    coin = await purse.rich_coin(COIN_SAT)
    await purse.node.mine(3)
    return spend([coin], [pay(99_000)], sequence=5)


@accepted
async def relative_timelock_over(purse: Purse) -> Tx:
    coin = await purse.rich_coin(COIN_SAT)
    await purse.node.mine(4)
    return spend([coin], [pay(99_000)], sequence=5)


@refused("non-BIP68-final")
async def relative_timelock_on_an_unconfirmed_parent(purse: Purse) -> Tx:
    parent = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(parent)
    return spend([coin_of(parent, 0)], [pay(98_000)], sequence=1)


@accepted
async def relative_timelock_switched_off(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], sequence=(1 << 31) | 1000)


@accepted
async def relative_timelock_of_a_version_that_has_none(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], sequence=1000, version=1)


@refused("non-BIP68-final")
async def relative_timelock_in_seconds(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], sequence=(1 << 22) | 0xFFFF)


# -- money


@refused("bad-txns-in-belowout, value in (0.001) < value out (0.00100001)")
async def more_out_than_in(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(COIN_SAT + 1)])


@refused("min relay fee not met, 1 < 12")
async def fee_below_the_minimum(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(COIN_SAT - 1)])


@refused("min relay fee not met, 11 < 12")
async def fee_one_below_the_minimum(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(COIN_SAT - 11)], version=3)


@accepted
async def fee_at_the_minimum(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(COIN_SAT - 12)])


@refused("dust, tx with dust output must be 0-fee")
async def dust_with_a_fee(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(329), pay(90_000)])


@accepted
async def smallest_taproot_output(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(330), pay(90_000)])


@refused("dust, tx with dust output must be 0-fee")
async def anchor_below_its_dust_limit(purse: Purse) -> Tx:
    return spend([purse.coin()], [anchor(239), pay(90_000)])


@accepted
async def smallest_anchor(purse: Purse) -> Tx:
    return spend([purse.coin()], [anchor(240), pay(90_000)])


@refused("dust")
async def two_dust_outputs(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(329), pay(329), pay(COIN_SAT - 658)])


@refused("min relay fee not met, 0 < 16")
async def one_dust_output_without_a_child(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(329), pay(COIN_SAT - 329)])


@refused("missing-ephemeral-spends, tx {tx.txid} (wtxid={tx.wtxid}) did not spend parent's ephemeral dust")
async def later_child_that_misses_the_dust(purse: Purse) -> Tx:
    parent = exit_parent(purse.coin())
    await purse.submit(parent, exit_child(parent, purse.coin()))
    return spend([coin_of(parent, 0)], [pay(50_000)], version=3)


@refused("bad-witness-anchor-not-empty")
async def anchor_spent_with_a_witness(purse: Purse) -> Tx:
    parent = exit_parent(purse.coin(), anchor_sat=1000, fee_sat=1000)
    await purse.broadcast(parent)
    return exit_child(parent, purse.coin(), anchor_witness=(b"x",))


# -- TRUC


@refused(
    "truc-vsize-toobig, version=3 tx {tx.txid} (wtxid={tx.wtxid}) is too big: 10173 > 10000 virtual bytes"
)
async def truc_above_10000_vbytes(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(330)] * 235, version=3)


@refused(
    "truc-child-toobig, version=3 child tx {tx.txid} (wtxid={tx.wtxid}) is too big: 1143 > 1000 virtual bytes"
)
async def truc_child_above_1000_vbytes(purse: Purse) -> Tx:
    parent = spend([purse.coin()], [pay(90_000)], version=3)
    await purse.broadcast(parent)
    return spend([coin_of(parent, 0)], [pay(500)] * 25, version=3)


@refused("truc-ancestors-toomany, tx {tx.txid} (wtxid={tx.wtxid}) would have too many ancestors")
async def truc_grandchild(purse: Purse) -> Tx:
    parent = spend([purse.coin()], [pay(90_000)], version=3)
    child = spend([coin_of(parent, 0)], [pay(80_000)], version=3)
    await purse.broadcast(parent, child)
    return spend([coin_of(child, 0)], [pay(70_000)], version=3)


@refused("truc-ancestors-toomany, tx {tx.txid} (wtxid={tx.wtxid}) would have too many ancestors")
async def truc_with_two_parents(purse: Purse) -> Tx:
    parents = [spend([purse.coin()], [pay(90_000)], version=3) for _ in range(2)]
    await purse.broadcast(*parents)
    return spend([coin_of(parent, 0) for parent in parents], [pay(100_000)], version=3)


@refused(
    "truc-spends-nontruc, version=3 tx {tx.txid} (wtxid={tx.wtxid}) cannot spend "
    "from non-version=3 tx {parent.txid} (wtxid={parent.wtxid})"
)
async def truc_child_of_an_ordinary_parent(purse: Purse) -> tuple[Tx, Names]:
    parent = spend([purse.coin()], [pay(90_000)])
    await purse.broadcast(parent)
    return spend([coin_of(parent, 0)], [pay(80_000)], version=3), {"parent": parent}


@refused(
    "truc-spent-by-nontruc, non-version=3 tx {tx.txid} (wtxid={tx.wtxid}) cannot spend "
    "from version=3 tx {parent.txid} (wtxid={parent.wtxid})"
)
async def ordinary_child_of_a_truc_parent(purse: Purse) -> tuple[Tx, Names]:
    parent = spend([purse.coin()], [pay(90_000)], version=3)
    await purse.broadcast(parent)
    return spend([coin_of(parent, 0)], [pay(80_000)]), {"parent": parent}


@accepted
async def truc_child_of_a_confirmed_ordinary_parent(purse: Purse) -> Tx:
    parent = spend([purse.coin()], [pay(90_000)])
    await purse.broadcast(parent)
    await purse.node.mine()
    return spend([coin_of(parent, 0)], [pay(80_000)], version=3)


async def _truc_parent_with_a_child(purse: Purse) -> Tx:
    """Its first output is spent by a child that pays 1000 sat."""
    parent = spend([purse.coin()], [pay(40_000), pay(40_000)], version=3)
    await purse.broadcast(parent, spend([coin_of(parent, 0)], [pay(39_000)], version=3))
    return parent


@refused(
    "insufficient fee (including sibling eviction), rejecting replacement {tx.txid}; "
    "new feerate 0.00004504 BTC/kvB <= old feerate 0.00009009 BTC/kvB"
)
async def second_child_that_pays_less(purse: Purse) -> Tx:
    parent = await _truc_parent_with_a_child(purse)
    return spend([coin_of(parent, 1)], [pay(39_500)], version=3)


@refused(
    "insufficient fee (including sibling eviction), rejecting replacement {tx.txid}, "
    "not enough additional fees to relay; 0.00000001 < 0.00000012"
)
async def second_child_that_pays_hardly_more(purse: Purse) -> Tx:
    parent = await _truc_parent_with_a_child(purse)
    return spend([coin_of(parent, 1)], [pay(38_999)], version=3)


@accepted
async def second_child_that_pays_more(purse: Purse) -> Tx:
    parent = await _truc_parent_with_a_child(purse)
    return spend([coin_of(parent, 1)], [pay(30_000)], version=3)


# -- replacement


@refused(
    "insufficient fee, rejecting replacement {tx.txid}; "
    "new feerate 0.00009000 BTC/kvB <= old feerate 0.00009009 BTC/kvB"
)
async def replacement_at_a_lower_rate(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)]))
    return spend([coin], [pay(99_001)])


@refused(
    "insufficient fee, rejecting replacement {tx.txid}, "
    "not enough additional fees to relay; 0.00000011 < 0.00000012"
)
async def replacement_one_sat_short(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)]))
    return spend([coin], [pay(98_989)])


@accepted
async def replacement_that_pays_just_enough(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)]))
    return spend([coin], [pay(98_988)])


@accepted
async def replacement_of_what_did_not_ask_for_it(purse: Purse) -> Tx:
    coin = purse.coin()
    await purse.broadcast(spend([coin], [pay(99_000)], sequence=0xFFFF_FFFF))
    return spend([coin], [pay(90_000)])


@refused(
    "insufficient fee, rejecting replacement {tx.txid}, less fees than conflicting txs; 0.00003 < 0.0001"
)
async def replacement_that_pays_less_than_all_it_evicts(purse: Purse) -> Tx:
    coin = purse.coin()
    first = spend([coin], [pay(99_000)])
    await purse.broadcast(first, spend([coin_of(first, 0)], [pay(90_000)]))
    return spend([coin], [pay(97_000)])


@refused("bad-txns-spends-conflicting-tx, {tx.txid} spends conflicting transaction {first.txid}")
async def replacement_that_spends_what_it_replaces(purse: Purse) -> tuple[Tx, Names]:
    coin = purse.coin()
    first = spend([coin], [pay(99_000)])
    await purse.broadcast(first)
    return spend([coin, coin_of(first, 0)], [pay(90_000)]), {"first": first}


@refused("replacement-adds-unconfirmed, replacement {tx.txid} adds unconfirmed input, idx 1")
async def replacement_with_a_new_unconfirmed_input(purse: Purse) -> Tx:
    coin = purse.coin()
    other = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(spend([coin], [pay(99_000)]), other)
    return spend([coin, coin_of(other, 0)], [pay(90_000)])


# -- relatives and scripts


@refused("too-long-mempool-chain, too many unconfirmed ancestors [limit: 25]")
async def twenty_sixth_in_a_row(purse: Purse) -> Tx:
    tx = spend([purse.coin()], [pay(99_000)])
    for _ in range(25):
        await purse.broadcast(tx)
        tx = spend([coin_of(tx, 0)], [pay(tx.outputs[0].value_sat - 200)])
    return tx


@refused("too-long-mempool-chain, too many descendants for tx {parent.txid} [limit: 25]")
async def too_many_children(purse: Purse) -> tuple[Tx, Names]:
    """The limit is 25 with the parent; one small child more is let in."""
    parent = spend([purse.coin()], [pay(3000)] * 30)
    await purse.broadcast(parent)
    children = [spend([coin_of(parent, vout)], [pay(2000)]) for vout in range(26)]
    await purse.broadcast(*children[:25])
    return children[25], {"parent": parent}


@refused(
    "mempool-script-verify-flag-failed (Invalid Schnorr signature), input 0 of {tx.txid} "
    "(wtxid {tx.wtxid}), spending {tx.inputs[0].prevout}"
)
async def wrong_signature(purse: Purse) -> Tx:
    return spend([purse.coin()], [pay(99_000)], break_signature=True)


@refused(
    "mempool-script-verify-flag-failed (Invalid Schnorr signature), input 0 of {tx.txid} "
    "(wtxid {tx.wtxid}), spending {tx.inputs[0].prevout}"
)
async def wrong_signature_on_an_unconfirmed_coin(purse: Purse) -> Tx:
    parent = spend([purse.coin()], [pay(99_000)])
    await purse.broadcast(parent)
    return spend([coin_of(parent, 0)], [pay(98_000)], break_signature=True)


# -- packages ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PackageCase:
    """play: returns the package, and what the texts name besides.

    results: by position in the package; what the answer must hold of each, with names filled in.
    no_results: the answer must not judge single transactions at all.
    """

    name: str
    play: Callable[[Purse], Awaitable[tuple[tuple[Tx, ...], Names]]]
    message: str
    results: tuple[Mapping[str, Any], ...] = ()
    replaced: tuple[str, ...] = field(default=())


PACKAGE_CASES: list[PackageCase] = []

_PackagePlay = Callable[[Purse], Awaitable[tuple[Tx, ...] | tuple[tuple[Tx, ...], Names]]]


def package(
    message: str, *results: Mapping[str, Any], replaced: tuple[str, ...] = ()
) -> Callable[[_PackagePlay], _PackagePlay]:
    def register(play: _PackagePlay) -> _PackagePlay:
        async def named(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
            result: tuple[Any, ...] = await play(purse)
            txs, names = result if isinstance(result[-1], dict) else (result, {})
            roles = ("tx",) if len(txs) == 1 else ("parent", "child")
            return txs, {**dict(zip(roles, txs, strict=True)), **names}

        PACKAGE_CASES.append(
            PackageCase(getattr(play, "__name__", "case"), named, message, results, replaced)
        )
        return play

    return register


def error(text: str) -> Mapping[str, Any]:
    return {"error": text}


def fees(base: float, effective_rate: float | None = None, *, includes: str = "") -> Mapping[str, Any]:
    """includes: the roles of the transactions that were judged together."""
    judged: dict[str, Any] = {"base": base}
    if effective_rate is not None:
        judged["effective-feerate"] = effective_rate
        judged["effective-includes"] = [f"{{{role}.wtxid}}" for role in includes.split()]
    return {"fees": judged}


NO_FEE = error("min relay fee not met, 0 < 13")
ORPHAN = error(MISSING_INPUTS)


@package(
    "success",
    {"vsize": 124, **fees(0.0, 3.61e-05, includes="parent child")},
    {"vsize": 153, **fees(1e-05, 3.61e-05, includes="parent child")},
)
async def new_parent_and_child(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin())


@package("success", fees(0.0), fees(1e-05))
async def the_same_package_again(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    return parent, child


@package("success", fees(1e-05))
async def a_package_of_one_that_is_there(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    return (child,)


@package("success", fees(1e-05, 9.009e-05, includes="tx"))
async def a_package_of_one(purse: Purse) -> tuple[Tx, ...]:
    return (spend([purse.coin()], [pay(99_000)]),)


@package("success", fees(0.0), fees(2e-05, 0.00013071, includes="child"), replaced=("{first.txid}",))
async def child_replaced(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
    parent, funding = exit_parent(purse.coin()), purse.coin()
    first = exit_child(parent, funding)
    await purse.submit(parent, first)
    return (parent, exit_child(parent, funding, fee_sat=2000)), {"first": first}


@package("success", fees(0.0), fees(2e-05, 0.00013071, includes="child"), replaced=("{first.txid}",))
async def child_replaced_by_one_with_other_money(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
    parent = exit_parent(purse.coin())
    first = exit_child(parent, purse.coin())
    await purse.submit(parent, first)
    return (parent, exit_child(parent, purse.coin(), fee_sat=2000)), {"first": first}


@package(
    "transaction failed",
    fees(0.0),
    error(
        "insufficient fee, rejecting replacement {child.txid}, "
        "not enough additional fees to relay; 0.00000001 < 0.00000016"
    ),
)
async def replacement_pays_too_little(purse: Purse) -> tuple[Tx, ...]:
    parent, funding = exit_parent(purse.coin()), purse.coin()
    await purse.submit(parent, exit_child(parent, funding))
    return parent, exit_child(parent, funding, fee_sat=1001)


@package(
    "transaction failed",
    fees(0.0),
    error(
        "insufficient fee, rejecting replacement {child.txid}; "
        "new feerate 0.00006535 BTC/kvB <= old feerate 0.00006535 BTC/kvB"
    ),
)
async def replacement_at_the_same_rate(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    await purse.submit(parent, exit_child(parent, purse.coin()))
    return parent, exit_child(parent, purse.coin())


@package(
    "unspent-dust",
    NO_FEE,
    error(
        "missing-ephemeral-spends, tx {child.txid} (wtxid={child.wtxid}) "
        "did not spend parent's ephemeral dust"
    ),
)
async def child_leaves_the_dust_anchor(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, spend([coin_of(parent, 0), purse.coin()], [pay(190_000)], version=3)


@package("transaction failed", error("dust, tx with dust output must be 0-fee"), ORPHAN)
async def parent_with_dust_and_a_fee(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin(), fee_sat=500)
    return parent, exit_child(parent, purse.coin())


@package("transaction failed", error("dust"), ORPHAN)
async def parent_with_two_dust_outputs(purse: Purse) -> tuple[Tx, ...]:
    parent = spend([purse.coin()], [pay(COIN_SAT), anchor(), anchor()], version=3)
    return parent, exit_child(parent, purse.coin())


@package(
    "truc-spent-by-nontruc, non-version=3 tx {child.txid} (wtxid={child.wtxid}) cannot spend "
    "from version=3 tx {parent.txid} (wtxid={parent.wtxid})",
    NO_FEE,
    ORPHAN,
)
async def child_of_version_2(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin(), version=2)


@package(
    "truc-child-toobig, version=3 child tx {child.txid} (wtxid={child.wtxid}) "
    "is too big: 1015 > 1000 virtual bytes",
    NO_FEE,
    ORPHAN,
)
async def child_with_16_funding_inputs(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, spend([coin_of(parent, 1), *purse.coins(16)], [pay(1_500_000)], version=3)


@package("success", fees(0.0), fees(0.001))
async def child_with_15_funding_inputs(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, spend([coin_of(parent, 1), *purse.coins(15)], [pay(1_400_000)], version=3)


@package("transaction failed", NO_FEE, error("bad-witness-anchor-not-empty"))
async def anchor_with_a_witness_in_a_package(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin(), anchor_witness=(b"x",))


@package("transaction failed", ORPHAN)
async def orphan_child_alone(purse: Purse) -> tuple[Tx, ...]:
    return (exit_child(exit_parent(purse.coin()), purse.coin()),)


@package("transaction failed", NO_FEE)
async def parent_that_pays_nothing_alone(purse: Purse) -> tuple[Tx, ...]:
    return (exit_parent(purse.coin()),)


@package("transaction failed", NO_FEE, error("min relay fee not met, 27 < 28"))
async def package_one_sat_below_the_minimum(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin(), fee_sat=27)


@package("success", fees(0.0), fees(2.8e-07))
async def package_at_the_minimum(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin(), fee_sat=28)


@package("package-not-child-with-unconfirmed-parents")
async def both_mined(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    await purse.node.mine()
    return parent, child


@package("transaction failed", error("txn-already-known"), ORPHAN)
async def rival_of_a_mined_child(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    await purse.submit(parent, exit_child(parent, purse.coin()))
    await purse.node.mine()
    return parent, exit_child(parent, purse.coin())


@package("transaction failed", error("txn-already-known"))
async def mined_child_as_a_package_of_one(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    await purse.node.mine()
    return (child,)


@package("transaction failed", error("txn-already-known"), fees(1e-05, 6.535e-05, includes="child"))
async def parent_mined_with_its_anchor_free(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin(), anchor_sat=1000, fee_sat=500)
    await purse.broadcast(parent)
    await purse.node.mine()
    return parent, exit_child(parent, purse.coin())


@package(
    "success",
    {"vsize": 124, **fees(0.0, 1.238e-05, includes="parent child")},
    {"vsize": 94, **fees(2.7e-06, 1.238e-05, includes="parent child")},
)
async def child_that_only_spends_an_anchor_of_600_sat(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin(), anchor_sat=600)
    return parent, spend([coin_of(parent, 1)], [pay(330)], version=3)


@package("transaction failed", NO_FEE, ORPHAN)
async def parent_of_version_2_that_pays_nothing(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin(), anchor_sat=1000, version=2)
    return parent, exit_child(parent, purse.coin(), version=2)


@package(
    "transaction failed",
    NO_FEE,
    error(
        "mempool-script-verify-flag-failed (Invalid Schnorr signature), input 1 of {child.txid} "
        "(wtxid {child.wtxid}), spending {child.inputs[1].prevout}"
    ),
)
async def child_with_a_wrong_signature(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    coins = [coin_of(parent, 1), purse.coin()]
    return parent, spend(coins, [pay(90_000)], version=3, break_signature=True)


@package(
    "transaction failed",
    error(
        "mempool-script-verify-flag-failed (Invalid Schnorr signature), input 0 of {parent.txid} "
        "(wtxid {parent.wtxid}), spending {parent.inputs[0].prevout}"
    ),
    ORPHAN,
)
async def parent_with_a_wrong_signature(purse: Purse) -> tuple[Tx, ...]:
    parent = spend([purse.coin()], [pay(COIN_SAT), anchor()], version=3, break_signature=True)
    return parent, exit_child(parent, purse.coin())


@package(
    "transaction failed",
    NO_FEE,
    error("bad-txns-in-belowout, value in (0.001) < value out (0.00100001)"),
)
async def child_with_more_out_than_in(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    return parent, exit_child(parent, purse.coin(), fee_sat=-1)


@package("transaction failed", error("max feerate exceeded"))
async def absurd_fee_in_a_package_of_one(purse: Purse) -> tuple[Tx, ...]:
    return (spend([await purse.rich_coin(SAT_PER_BTC)], [pay(1000)]),)


@package("transaction failed", NO_FEE, error("max feerate exceeded"))
async def absurd_fee_of_a_child(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    funding = await purse.rich_coin(SAT_PER_BTC)
    return parent, spend([coin_of(parent, 1), funding], [pay(1000)], version=3)


@package("success", {"other-wtxid": "{first.wtxid}"})
async def another_witness_in_a_package(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
    coin = purse.coin()
    first = spend([coin], [pay(99_000)])
    await purse.broadcast(first)
    return (spend([coin], [pay(99_000)], aux=b"\x01" * 32),), {"first": first}


@package(
    "package RBF failed: insufficient anti-DoS fees, rejecting replacement {child.txid}, "
    "less fees than conflicting txs; 0.000009 < 0.00001",
    NO_FEE,
    ORPHAN,
)
async def rival_package_that_pays_less(purse: Purse) -> tuple[Tx, ...]:
    coin = purse.coin()
    parent = exit_parent(coin)
    await purse.submit(parent, exit_child(parent, purse.coin()))
    rival = spend([coin], [pay(COIN_SAT - 1), anchor(1)], version=3)
    return rival, exit_child(rival, purse.coin(), fee_sat=900)


@package("success", fees(0.0), fees(5e-05), replaced=("{first.txid}", "{first_child.txid}"))
async def rival_package_that_pays_more(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
    coin = purse.coin()
    first = exit_parent(coin)
    first_child = exit_child(first, purse.coin())
    await purse.submit(first, first_child)
    rival = spend([coin], [pay(COIN_SAT - 1), anchor(1)], version=3)
    names = {"first": first, "first_child": first_child}
    return (rival, exit_child(rival, purse.coin(), fee_sat=5000)), names


@package("package-not-child-with-unconfirmed-parents")
async def child_with_an_unconfirmed_parent_outside(purse: Purse) -> tuple[Tx, ...]:
    parent = exit_parent(purse.coin())
    outside = spend([purse.coin()], [pay(90_000)], version=3)
    await purse.broadcast(outside)
    return parent, spend([coin_of(parent, 1), coin_of(outside, 0)], [pay(80_000)], version=3)


@package("conflict-in-package")
async def child_that_spends_its_parents_input(purse: Purse) -> tuple[Tx, ...]:
    coin = purse.coin()
    parent = exit_parent(coin)
    return parent, spend([coin_of(parent, 1), coin], [pay(80_000)], version=3)


@package("success", fees(0.0), fees(0.0001), replaced=("{first.txid}",))
async def child_that_spends_both_outputs(purse: Purse) -> tuple[tuple[Tx, ...], Names]:
    parent = exit_parent(purse.coin())
    first = exit_child(parent, purse.coin())
    await purse.submit(parent, first)
    return (parent, spend([coin_of(parent, 1), coin_of(parent, 0)], [pay(90_000)], version=3)), {
        "first": first
    }


@dataclass(frozen=True, slots=True)
class NoPackageCase:
    """What is no package at all. play: returns the raw transactions in hex."""

    name: str
    play: Callable[[Purse], Awaitable[list[str]]]
    code: int
    text: str


NO_PACKAGE_CASES: list[NoPackageCase] = []

_NoPackagePlay = Callable[[Purse], Awaitable[list[str]]]


def no_package(code: int, text: str) -> Callable[[_NoPackagePlay], _NoPackagePlay]:
    def register(play: _NoPackagePlay) -> _NoPackagePlay:
        NO_PACKAGE_CASES.append(NoPackageCase(getattr(play, "__name__", "case"), play, code, text))
        return play

    return register


TOPOLOGY = "package topology disallowed. not child-with-parents or parents depend on each other."


def _hex(*txs: Tx) -> list[str]:
    return [tx.serialize().hex() for tx in txs]


@no_package(-25, TOPOLOGY)
async def child_before_parent(purse: Purse) -> list[str]:
    parent = exit_parent(purse.coin())
    return _hex(exit_child(parent, purse.coin()), parent)


@no_package(-25, TOPOLOGY)
async def duplicates(purse: Purse) -> list[str]:
    parent = exit_parent(purse.coin())
    return _hex(parent, parent)


@no_package(-25, TOPOLOGY)
async def unrelated(purse: Purse) -> list[str]:
    return _hex(exit_parent(purse.coin()), exit_parent(purse.coin()))


@no_package(-25, TOPOLOGY)
async def parent_of_a_parent(purse: Purse) -> list[str]:
    first = spend([purse.coin()], [pay(40_000), pay(40_000)])
    second = spend([coin_of(first, 0)], [pay(39_000)])
    return _hex(first, second, spend([coin_of(first, 1), coin_of(second, 0)], [pay(70_000)]))


@no_package(-8, "Array must contain between 1 and 25 transactions.")
async def empty(_purse: Purse) -> list[str]:
    return []


@no_package(-8, "Array must contain between 1 and 25 transactions.")
async def twenty_six(purse: Purse) -> list[str]:
    return _hex(exit_parent(purse.coin())) * 26


@no_package(-22, "TX decode failed: 00 Make sure the tx has at least one input.")
async def undecodable(_purse: Purse) -> list[str]:
    return ["00"]


@no_package(-25, "Unspendable output exceeds maximum configured by user (maxburnamount)")
async def burning(purse: Purse) -> list[str]:
    return _hex(spend([purse.coin()], [pay(1, b"\x6a\x01a"), pay(90_000)]))


# -- playing -------------------------------------------------------------------------------------------


def filled(expected: Any, names: Names) -> Any:
    """The expected answer with the names filled in."""
    match expected:
        case str():
            return expected.format(**names)
        case list() | tuple():
            return [filled(item, names) for item in expected]
        case dict():
            return {key: filled(value, names) for key, value in expected.items()}
        case _:
            return expected


def holds(answer: Any, expected: Any) -> bool:
    """Whether an answer holds what is expected; objects may have more fields."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(
            key in answer and holds(answer[key], value) for key, value in expected.items()
        )
    return bool(answer == expected)
