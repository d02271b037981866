"""The mempool of the built-in node: what may wait for the next block, alone or as a package.

`Mempool` answers ``sendrawtransaction`` and ``submitpackage`` as a node does. The rules themselves are in
`policy`; here is their order, what replaces what, and what a block does to the pool.

A package is a child with its parents. Each transaction is tried alone first; those that fail only because
they pay too little, or because an output is missing that a parent makes, are then judged together by the fee
rate of all. So a transaction that pays nothing enters only together with the child that pays for it.

Source: sheet 11 §2.2, §3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from barkd_py.bitcoin.tx import Tx, TxDecodeError, Txid, TxOut
from barkd_py.bitcoin.units import SAT_PER_BTC
from barkd_py.devnet.chain import policy
from barkd_py.devnet.chain.block import MAX_BLOCK_WEIGHT_WU, Block
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.node import (
    RPC_ALREADY_IN_UTXO_SET,
    RPC_DESERIALIZATION_ERROR,
    RPC_INVALID_PARAMETER,
    RPC_TRANSACTION_ERROR,
    RPC_TRANSACTION_REJECTED,
    NodeRefusal,
)
from barkd_py.devnet.chain.policy import Outlook, PolicyRefusal, Replacement
from barkd_py.devnet.chain.pool import PoolEntry, TxPool

_MAX_PACKAGE = 25

#: Room that a block keeps for its header and coinbase.
_RESERVED_WEIGHT_WU = 4_000


class ScriptChecker(Protocol):
    """Runs the scripts of a transaction."""

    def __call__(self, entry: PoolEntry, ancestors: Sequence[PoolEntry]) -> str | None:
        """Why an input does not satisfy its script, as nodes say it; None if all do.

        ancestors: the unconfirmed ones, parents before children.
        """


@dataclass(frozen=True, slots=True)
class _Judged:
    """A transaction that passed everything but scripts; conflicts: what it would replace, without heirs."""

    entry: PoolEntry
    conflicts: frozenset[Txid]
    sibling: Txid | None


# What became of one transaction of a package.


@dataclass(frozen=True, slots=True)
class _Entered:
    """It entered the pool. judged_with: what was judged together by its fee rate, itself among it."""

    entry: PoolEntry
    judged_with: tuple[PoolEntry, ...]


@dataclass(frozen=True, slots=True)
class _WasThere:
    entry: PoolEntry


@dataclass(frozen=True, slots=True)
class _OtherWitness:
    wtxid: Txid


@dataclass(frozen=True, slots=True)
class _Refused:
    refusal: PolicyRefusal


_Result = _Entered | _WasThere | _OtherWitness | _Refused


class Mempool:
    """The pool and the rules at its door."""

    def __init__(self, chain: ChainIndex, check_scripts: ScriptChecker) -> None:
        self._chain = chain
        self._check_scripts = check_scripts
        self.pool = TxPool()

    # -- one transaction -------------------------------------------------------------------------------

    def submit(self, raw_hex: str) -> Txid:
        """``sendrawtransaction``. Raises NodeRefusal; the pool is as it was then."""
        tx = _decode(raw_hex)
        judged = self._judge_submitted(tx)
        if judged is not None:
            self._enter([judged])
        return tx.txid

    def check(self, raw_hex: str) -> None:
        """Judge a transaction as `submit` does, and leave the pool as it is. Raises NodeRefusal."""
        self._judge_submitted(_decode(raw_hex))

    def _judge_submitted(self, tx: Tx) -> _Judged | None:
        """None for a transaction that is in the pool. Raises NodeRefusal."""
        _refuse_burning(tx)
        if self._is_confirmed(tx):
            raise NodeRefusal(RPC_ALREADY_IN_UTXO_SET, "Transaction outputs already in utxo set")
        if tx.txid in self.pool:
            return None
        try:
            judged = self._judge_alone(tx)
        except PolicyRefusal as refusal:
            is_missing = refusal.outlook is Outlook.MISSING_INPUTS
            code = RPC_TRANSACTION_ERROR if is_missing else RPC_TRANSACTION_REJECTED
            raise NodeRefusal(code, str(refusal)) from refusal
        if policy.exceeds_max_fee(judged.entry):
            raise NodeRefusal(
                RPC_TRANSACTION_ERROR,
                "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
            )
        return judged

    def _is_confirmed(self, tx: Tx) -> bool:
        """Whether the chain holds the transaction and somebody could still spend it."""
        return any(self._chain.coin(tx.outpoint(vout)) is not None for vout in range(len(tx.outputs)))

    def _judge_alone(self, tx: Tx) -> _Judged:
        judged = self._judge(tx, {}, in_package=False)
        if replacement := self._replacement([judged]):
            policy.check_replacement(judged.entry, self.pool, replacement)
        policy.check_spends_dust(judged.entry, self._parents(judged.entry, {}))
        self._run_scripts(judged.entry, {})
        return judged

    def _judge(self, tx: Tx, package: Mapping[Txid, PoolEntry], *, in_package: bool) -> _Judged:
        """All rules that concern one transaction, in the node's order, but replacement, dust and scripts.

        package: the parents that would enter together with it. Raises PolicyRefusal.
        """
        policy.check_structure(tx)
        policy.check_standard(tx)
        policy.check_final(tx, self._chain)
        entry = PoolEntry.of(tx, self._spent(tx, package))
        policy.check_relative_timelocks(tx, self._chain)
        policy.check_coinbase_maturity(tx, self._chain)
        policy.check_amounts(entry)
        policy.check_input_standard(entry)
        policy.check_dust_is_free(entry)
        policy.check_relay_fee(entry, in_package=in_package)
        conflicts = self._conflicts(tx)
        policy.check_chain_length(entry, self.pool)
        policy.check_truc(entry, self.pool)
        sibling = policy.truc_sibling(entry, self.pool, conflicts, in_package=in_package)
        policy.check_spends_nothing_replaced(entry, self.pool, conflicts)
        return _Judged(entry, conflicts, sibling)

    def _spent(self, tx: Tx, package: Mapping[Txid, PoolEntry]) -> tuple[TxOut, ...]:
        """The outputs that a transaction spends; what another unconfirmed transaction spends counts too."""
        spent: list[TxOut] = []
        for tx_in in tx.inputs:
            output = self.pool.output(tx_in.prevout)
            parent = package.get(tx_in.prevout.txid)
            coin = self._chain.coin(tx_in.prevout)
            if output is None and parent is not None and tx_in.prevout.vout < len(parent.tx.outputs):
                output = parent.tx.outputs[tx_in.prevout.vout]
            if output is None and coin is not None:
                output = coin.output
            if output is None:
                if self._is_confirmed(tx):
                    raise PolicyRefusal("txn-already-known")
                raise PolicyRefusal("bad-txns-inputs-missingorspent", outlook=Outlook.MISSING_INPUTS)
            spent.append(output)
        return tuple(spent)

    def _conflicts(self, tx: Tx) -> frozenset[Txid]:
        spends = (self.pool.spend(tx_in.prevout) for tx_in in tx.inputs)
        return frozenset(spend.txid for spend in spends if spend is not None)

    def _replacement(self, judged: Sequence[_Judged]) -> Replacement | None:
        """What would have to leave for these; None if nothing."""
        direct = {txid for one in judged for txid in one.conflicts}
        sibling = {one.sibling for one in judged if one.sibling is not None}
        if not direct | sibling:
            return None
        evicted: dict[Txid, PoolEntry] = {}
        for entry in self._entries(direct | sibling):
            for heir in (entry, *self._entries(self.pool.descendants(entry.tx))):
                evicted[heir.txid] = heir
        return Replacement(
            tuple(self._entries(direct | sibling)), tuple(evicted.values()), is_sibling=bool(sibling)
        )

    def _entries(self, txids: Iterable[Txid]) -> list[PoolEntry]:
        entries = (self.pool.get(txid) for txid in txids)
        return [entry for entry in entries if entry is not None]

    def _parents(self, entry: PoolEntry, package: Mapping[Txid, PoolEntry]) -> list[PoolEntry]:
        in_package = {
            tx_in.prevout.txid: package[tx_in.prevout.txid]
            for tx_in in entry.tx.inputs
            if tx_in.prevout.txid in package
        }
        return [*self._entries(self.pool.parents(entry.tx)), *in_package.values()]

    def _run_scripts(self, entry: PoolEntry, package: Mapping[Txid, PoolEntry]) -> None:
        parents = self._parents(entry, package)
        wanted = {parent.txid for parent in parents}
        for parent in parents:
            wanted |= self.pool.ancestors(parent.tx)
        in_pool = [ancestor for ancestor in self.pool.topological() if ancestor.txid in wanted]
        in_package = [parent for parent in parents if parent.txid not in self.pool]
        failure = self._check_scripts(entry, [*in_pool, *in_package])
        if failure is not None:
            raise PolicyRefusal(f"mempool-script-verify-flag-failed {failure}")

    def _enter(self, judged: Sequence[_Judged]) -> tuple[Txid, ...]:
        """Put transactions in, and out what they replace; the ids of what left."""
        replacement = self._replacement(judged)
        evicted = () if replacement is None else replacement.evicted
        for entry in evicted:
            self.pool.remove(entry.txid)
        for one in judged:
            self.pool.add(one.entry)
        return tuple(entry.txid for entry in evicted)

    # -- packages --------------------------------------------------------------------------------------

    def submit_package(self, raw_hexes: Sequence[str]) -> dict[str, Any]:
        """``submitpackage``: what it answers. Raises NodeRefusal for what is no package at all."""
        if not 1 <= len(raw_hexes) <= _MAX_PACKAGE:
            raise NodeRefusal(
                RPC_INVALID_PARAMETER, f"Array must contain between 1 and {_MAX_PACKAGE} transactions."
            )
        txs = [_decode_for_package(raw_hex) for raw_hex in raw_hexes]
        for tx in txs:
            _refuse_burning(tx)
        if len(txs) > 1 and not _is_child_with_parents(txs):
            raise NodeRefusal(
                RPC_TRANSACTION_ERROR,
                "package topology disallowed. not child-with-parents or parents depend on each other.",
            )
        if problem := self._package_problem(txs):
            return _package_answer(problem, {}, ())
        return self._accept_package(txs)

    def _package_problem(self, txs: Sequence[Tx]) -> str | None:
        if len(txs) == 1:
            return None
        spent = [tx_in.prevout for tx in txs for tx_in in tx.inputs]
        if len(set(spent)) < len(spent):
            return "conflict-in-package"
        parents = {tx.txid for tx in txs[:-1]}
        for tx_in in txs[-1].inputs:
            if tx_in.prevout.txid not in parents and self._chain.coin(tx_in.prevout) is None:
                return "package-not-child-with-unconfirmed-parents"
        return None

    def _accept_package(self, txs: Sequence[Tx]) -> dict[str, Any]:
        results: dict[Txid, _Result] = {}
        replaced: list[Txid] = []
        together: list[Tx] = []
        message = "success"
        for tx in txs:
            result = self._accept_one(tx, replaced)
            results[tx.txid] = result
            if isinstance(result, _Refused):
                if len(txs) == 1 or result.refusal.outlook is Outlook.FINAL:
                    message = "transaction failed"
                else:
                    together.append(tx)
        if together and message == "success":
            message, joint = self._accept_together(together, replaced)
            results.update(joint)
        by_wtxid = {tx.wtxid: results[tx.txid] for tx in txs} if results else {}
        txids = {tx.wtxid: tx.txid for tx in txs}
        return _package_answer(
            message, {wtxid: (txids[wtxid], result) for wtxid, result in by_wtxid.items()}, replaced
        )

    def _accept_one(self, tx: Tx, replaced: list[Txid]) -> _Result:
        """Try one transaction by itself."""
        known = self.pool.get(tx.txid)
        if known is not None:
            return _WasThere(known) if known.wtxid == tx.wtxid else _OtherWitness(known.wtxid)
        try:
            judged = self._judge_alone(tx)
            _refuse_max_fee(judged.entry)
        except PolicyRefusal as refusal:
            return _Refused(refusal)
        replaced.extend(self._enter([judged]))
        return _Entered(judged.entry, (judged.entry,))

    def _accept_together(self, txs: Sequence[Tx], replaced: list[Txid]) -> tuple[str, dict[Txid, _Result]]:
        """Judge transactions by their common fee rate: the package message and the results that it adds."""
        if len(txs) == 1:
            return self._accept_last_one(txs[0], replaced)
        package: dict[Txid, PoolEntry] = {}
        judged: list[_Judged] = []
        for tx in txs:
            try:
                one = self._judge(tx, package, in_package=True)
                _refuse_max_fee(one.entry)
            except PolicyRefusal as refusal:
                return "transaction failed", {tx.txid: _Refused(refusal)}
            package[tx.txid] = one.entry
            judged.append(one)
        entries = tuple(one.entry for one in judged)
        try:
            self._check_package_truc(entries)
        except PolicyRefusal as refusal:
            return str(refusal), {}
        try:
            fee_sat, vsize = sum(entry.fee_sat for entry in entries), sum(entry.vsize for entry in entries)
            policy.check_fee_rate(fee_sat, vsize, Outlook.FEE)
        except PolicyRefusal as refusal:
            return "transaction failed", {txs[-1].txid: _Refused(refusal)}
        try:
            self._check_package_replacement(judged)
        except PolicyRefusal as refusal:
            return str(refusal), {}
        for message, check in (
            ("unspent-dust", self._check_dust_spends),
            ("transaction failed", self._run_scripts),
        ):
            for entry in entries:
                try:
                    check(entry, package)
                except PolicyRefusal as refusal:
                    return message, {entry.txid: _Refused(refusal)}
        replaced.extend(self._enter(judged))
        return "success", {entry.txid: _Entered(entry, entries) for entry in entries}

    def _accept_last_one(self, tx: Tx, replaced: list[Txid]) -> tuple[str, dict[Txid, _Result]]:
        """The parents entered alone, so the child has a second try alone."""
        result = self._accept_one(tx, replaced)
        return ("transaction failed" if isinstance(result, _Refused) else "success"), {tx.txid: result}

    def _check_package_truc(self, entries: Sequence[PoolEntry]) -> None:
        package = {entry.txid: entry for entry in entries}
        for entry in entries:
            parents = {tx_in.prevout.txid for tx_in in entry.tx.inputs} & package.keys()
            policy.check_truc(entry, self.pool, [package[txid] for txid in parents])

    def _check_package_replacement(self, judged: Sequence[_Judged]) -> None:
        replacement = self._replacement(judged)
        if replacement is None:
            return
        if len(judged) != 2:
            raise PolicyRefusal("package RBF failed: package must be 1-parent-1-child")
        if any(self.pool.parents(one.entry.tx) for one in judged):
            raise PolicyRefusal("package RBF failed: new transaction cannot have mempool ancestors")
        policy.check_package_replacement(judged[0].entry, judged[1].entry, replacement)

    def _check_dust_spends(self, entry: PoolEntry, package: Mapping[Txid, PoolEntry]) -> None:
        policy.check_spends_dust(entry, self._parents(entry, package))

    # -- blocks ----------------------------------------------------------------------------------------

    def for_next_block(self) -> tuple[PoolEntry, ...]:
        """What a miner takes, parents before children.

        A transaction that pays too little is taken only with a child that makes up for it.
        """
        ordered = self.pool.topological()
        paying: set[Txid] = set()
        for entry in reversed(ordered):
            needed_sat = policy.fee_for(entry.vsize, policy.MIN_RELAY_SAT_PER_KVB)
            if entry.fee_sat >= needed_sat or self.pool.children(entry.tx) & paying:
                paying.add(entry.txid)
        taken: dict[Txid, PoolEntry] = {}
        weight_wu = _RESERVED_WEIGHT_WU
        for entry in ordered:
            has_room = weight_wu + entry.weight_wu <= MAX_BLOCK_WEIGHT_WU
            if has_room and entry.txid in paying and self.pool.parents(entry.tx) <= taken.keys():
                taken[entry.txid] = entry
                weight_wu += entry.weight_wu
        return tuple(taken.values())

    def block_connected(self, block: Block) -> None:
        """Drop what the block holds, and what conflicts with it together with its descendants."""
        for tx in block.transactions:
            if tx.txid in self.pool:
                self.pool.remove(tx.txid)
        for tx in block.transactions[1:]:
            for txid in self._conflicts(tx):
                self._remove_with_descendants(txid)

    def evict(self, txid: Txid) -> None:
        """Forget a transaction and everything that spends from it. Raises KeyError if it is not there."""
        if txid not in self.pool:
            raise KeyError(txid)
        self._remove_with_descendants(txid)

    def _remove_with_descendants(self, txid: Txid) -> None:
        entry = self.pool.get(txid)
        if entry is None:
            return
        for heir in self.pool.descendants(entry.tx):
            self.pool.remove(heir)
        self.pool.remove(txid)

    def restore(self, txs: Iterable[Tx]) -> None:
        """After the chain changed otherwise: keep of these and of the pool what can still be mined.

        txs: from blocks that are no longer in the chain, oldest first, or from before a restart. No rule of
        relay applies to them, else transactions that pay nothing would be lost.
        """
        candidates = [*txs, *(entry.tx for entry in self.pool.topological())]
        self.pool = TxPool()
        for tx in candidates:
            try:
                self._readmit(tx)
            except PolicyRefusal:
                continue

    def _readmit(self, tx: Tx) -> None:
        if tx.txid in self.pool or self._chain.tx(tx.txid) is not None or self._conflicts(tx):
            return
        policy.check_structure(tx)
        policy.check_final(tx, self._chain)
        entry = PoolEntry.of(tx, self._spent(tx, {}))
        policy.check_relative_timelocks(tx, self._chain)
        policy.check_coinbase_maturity(tx, self._chain)
        policy.check_amounts(entry)
        self._run_scripts(entry, {})
        self.pool.add(entry)


def _decode(raw_hex: str) -> Tx:
    try:
        return Tx.from_hex(raw_hex)
    except TxDecodeError as error:
        raise NodeRefusal(
            RPC_DESERIALIZATION_ERROR, "TX decode failed. Make sure the tx has at least one input."
        ) from error


def _decode_for_package(raw_hex: str) -> Tx:
    try:
        return Tx.from_hex(raw_hex)
    except TxDecodeError as error:
        raise NodeRefusal(
            RPC_DESERIALIZATION_ERROR,
            f"TX decode failed: {raw_hex} Make sure the tx has at least one input.",
        ) from error


def _refuse_burning(tx: Tx) -> None:
    if policy.burns(tx):
        raise NodeRefusal(
            RPC_TRANSACTION_ERROR,
            "Unspendable output exceeds maximum configured by user (maxburnamount)",
        )


def _refuse_max_fee(entry: PoolEntry) -> None:
    if policy.exceeds_max_fee(entry):
        raise PolicyRefusal("max feerate exceeded")


def _is_child_with_parents(txs: Sequence[Tx]) -> bool:
    """Whether the last one spends from each of the others, and these do not spend from each other."""
    *parents, child = txs
    parent_txids = {tx.txid for tx in parents}
    child_spends = {tx_in.prevout.txid for tx_in in child.inputs}
    are_related = any(tx_in.prevout.txid in parent_txids for tx in parents for tx_in in tx.inputs)
    return parent_txids <= child_spends and not are_related


def _package_answer(
    message: str, results: Mapping[Txid, tuple[Txid, _Result]], replaced: Iterable[Txid]
) -> dict[str, Any]:
    """The JSON of ``submitpackage``. results: by wtxid, with the txid."""
    return {
        "package_msg": message,
        "tx-results": {
            str(wtxid): {"txid": str(txid), **_result_json(result)}
            for wtxid, (txid, result) in results.items()
        },
        "replaced-transactions": [str(txid) for txid in replaced],
    }


def _result_json(result: _Result) -> dict[str, Any]:
    match result:
        case _Refused(refusal):
            return {"error": str(refusal)}
        case _OtherWitness(wtxid):
            return {"other-wtxid": str(wtxid)}
        case _WasThere(entry):
            return {"vsize": entry.vsize, "fees": {"base": _btc_number(entry.fee_sat)}}
        case _Entered(entry, judged_with):
            fee_sat = sum(other.fee_sat for other in judged_with)
            vsize = sum(other.vsize for other in judged_with)
            fees = {
                "base": _btc_number(entry.fee_sat),
                "effective-feerate": _btc_number(policy.fee_rate(fee_sat, vsize)),
                "effective-includes": [str(other.wtxid) for other in judged_with],
            }
            return {"vsize": entry.vsize, "fees": fees}


def _btc_number(value_sat: int) -> float:
    """Bitcoin as a JSON number; the only float here, because the node's JSON has one."""
    return value_sat / SAT_PER_BTC
