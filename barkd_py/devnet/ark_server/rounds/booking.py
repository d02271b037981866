"""Writing a signed round into the books, in one transaction, before anybody hears of it.

Source: sheet 10 §3.2 (round finished), §8 (T1).
"""

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from barkd_py.ark.tree import Node, SignedTreeSpec, VtxoTree
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.rounds.attempt import Registration, Registrations
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import participation_rows, round_rows, vtxo_rows


@dataclass(frozen=True, slots=True)
class SignedRound:
    """A round that everybody has signed; its funding transaction is not."""

    registrations: Registrations
    tree: VtxoTree
    signatures: tuple[bytes, ...]
    funding_tx: Tx

    @property
    def notices(self) -> list[tuple[PublicKey, bytes]]:
        """Whom to tell: mailbox and unlock hash, once per delegated output."""
        return [
            (each.swap.mailbox_id, each.swap.unlock_hash)
            for each in self.registrations.delegated
            if each.swap.mailbox_id is not None
            for _ in each.swap.outputs
        ]


def book(connection: Connection, signed: SignedRound) -> None:
    """Store the round, its tree, and what became of everybody's swap."""
    spec = SignedTreeSpec(signed.tree.spec, signed.tree.utxo, signed.signatures)
    round_rows.put(connection, signed.registrations.round_seq, signed.funding_tx, spec)
    _put_tree(connection, signed)
    first_leaf = 0
    for each in signed.registrations.everybody:
        count = len(each.swap.outputs)
        _put_swap(connection, signed, each, range(first_leaf, first_leaf + count))
        first_leaf += count
    for each in signed.registrations.everybody:
        vtxo_rows.spend_in_round(connection, each.swap.inputs, signed.funding_tx.txid)


def _put_tree(connection: Connection, signed: SignedRound) -> None:
    tree = signed.tree
    leaf_nodes = tree.nodes[: tree.nb_leaves]
    vtxo_rows.put_virtual_txs(connection, [signed.funding_tx.txid], is_funding=True)
    signed_txs = [
        _signed(tree.tx(node), signature)
        for node, signature in zip(tree.internal_nodes, signed.signatures, strict=True)
    ]
    vtxo_rows.put_virtual_txs(connection, [tree.tx(node).txid for node in leaf_nodes], signed=signed_txs)
    for node in tree.nodes:
        _put_node(connection, signed, node)
    outputs = [tree.vtxo(node.index, signed.signatures) for node in leaf_nodes]
    vtxo_rows.insert_new(connection, outputs, SpendState.UNCLAIMED)


def _put_node(connection: Connection, signed: SignedRound, node: Node) -> None:
    """Store the output that a node spends. The root's is expected on chain."""
    output = signed.tree.internal_vtxo(node, signed.signatures)
    is_root = node.parent is None
    vtxo_rows.insert_spent(connection, output, signed.tree.tx(node).txid, is_frontier=is_root)


def _put_swap(connection: Connection, signed: SignedRound, registration: Registration, leaves: range) -> None:
    txid = signed.funding_tx.txid
    if registration.stored_id is None:
        participation_rows.insert_issued(connection, registration.swap, txid, leaves)
    elif not participation_rows.issue(connection, registration.stored_id, txid, leaves):
        raise Failure("a participation was deleted during its round")


def _signed(tx: Tx, signature: bytes) -> Tx:
    (tx_in,) = tx.inputs
    return replace(tx, inputs=(replace(tx_in, witness=(signature,)),))


def book_signature(connection: Connection, funding_tx: Tx) -> None:
    """Store the signed funding transaction."""
    round_rows.put_signature(connection, funding_tx)
    vtxo_rows.put_virtual_txs(connection, [], signed=[funding_tx], is_funding=True)
