"""Boards: moving on-chain money into Ark.

A board is an on-chain output of user and server together (the funding output) and an exit transaction that
pays it out to the user's policy. The exit transaction is signed before the funding transaction is broadcast,
so the user can leave alone at any time.

    funding output [user + server, or server from the expiry height]  amount
      └─ exit transaction:  0: the VTXO [pubkey policy]  amount − fee
                            1: fee anchor                fee

The board fee is the value of the exit transaction's fee anchor.

Source: sheet 03 §1; sheet 01 §7.
"""

from dataclasses import dataclass
from functools import cached_property

from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask
from barkd_py.ark.genesis import CosignedTransition, GenesisItem, cosigned_taproot
from barkd_py.ark.policy import ExpiryPolicy, PubkeyPolicy
from barkd_py.ark.vtxo import MAX_U64, ServerVtxo, Vtxo, VtxoInvalid
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError


class BoardAmountInvalid(BarkdError):
    """An amount and a fee that leave nothing to board."""


class NotABoard(VtxoInvalid):
    """A VTXO that is not the board that it should be."""


def board_funding_taproot(
    user_pubkey: PublicKey, server_pubkey: PublicKey, expiry_height: int
) -> TaprootOutput:
    """The output that a board's funding transaction pays to."""
    return cosigned_taproot((user_pubkey, server_pubkey), server_pubkey, expiry_height)


@dataclass(frozen=True)
class BoardTemplate:
    """A board before it is signed. Raises BoardAmountInvalid.

    amount_sat: what the funding output holds; fee_sat: the server's part of it. utxo: the funding output.
    """

    user_pubkey: PublicKey
    server_pubkey: PublicKey
    amount_sat: int
    fee_sat: int
    expiry_height: int
    exit_delta: int
    utxo: OutPoint

    def __post_init__(self) -> None:
        verify_board_amount(self.amount_sat, self.fee_sat)

    @property
    def funding_taproot(self) -> TaprootOutput:
        return board_funding_taproot(self.user_pubkey, self.server_pubkey, self.expiry_height)

    @property
    def funding_output(self) -> TxOut:
        return TxOut(self.amount_sat, self.funding_taproot.script_pubkey)

    @cached_property
    def unsigned_vtxo(self) -> Vtxo:
        """The VTXO without its signature; the exit transaction and all ids follow from it."""
        transition = CosignedTransition((self.user_pubkey, self.server_pubkey), None)
        without_point = Vtxo(
            amount_sat=self.amount_sat - self.fee_sat,
            expiry_height=self.expiry_height,
            server_pubkey=self.server_pubkey,
            exit_delta=self.exit_delta,
            anchor_point=self.utxo,
            genesis=(GenesisItem(transition, fee_amount_sat=self.fee_sat),),
            policy=PubkeyPolicy(self.user_pubkey),
            point=self.utxo,
        )
        return without_point.with_computed_point()

    @property
    def exit_tx(self) -> Tx:
        """The exit transaction, unsigned."""
        (tx,) = self.unsigned_vtxo.exit_transactions()
        return tx

    @property
    def sighash(self) -> bytes:
        """What user and server sign, 32 bytes."""
        return self.task.sighash

    @property
    def tweak(self) -> bytes:
        """The tap tweak, 32 bytes, that they sign with."""
        return self.funding_taproot.tweak

    @cached_property
    def task(self) -> CosignTask:
        (step,) = self.unsigned_vtxo.exit_steps()
        sighash = step.item.transition.sighash(step.tx, step.spent, self.server_pubkey)
        return CosignTask(self.user_pubkey, self.server_pubkey, sighash, self.tweak)


def verify_board_amount(amount_sat: int, fee_sat: int) -> None:
    """Check that something is left of a board. Raises BoardAmountInvalid."""
    amounts = f"amount {format_btc(amount_sat)}, fee {format_btc(fee_sat)}"
    if amount_sat == 0:
        raise BoardAmountInvalid("amount is zero")
    if fee_sat > amount_sat:
        raise BoardAmountInvalid(f"fee larger than amount: {amounts}")
    if fee_sat == amount_sat:
        raise BoardAmountInvalid(f"amount after fee is <= 0: {amounts}")
    if amount_sat > MAX_U64 or fee_sat < 0:
        raise BoardAmountInvalid(f"amount out of range: {amounts}")


def generate_board_nonce(template: BoardTemplate, user_secret: SecretKey) -> tuple[SecNonce, bytes]:
    """The user's nonce pair."""
    return template.task.generate_nonce(user_secret)


def server_cosign_board(
    template: BoardTemplate, server_secret: SecretKey, user_pub_nonce: bytes
) -> Cosignature:
    """The server's nonce and partial signature. Raises BadCosignature for a malformed nonce."""
    return template.task.cosign(server_secret, user_pub_nonce)


def finish_board(
    template: BoardTemplate,
    user_secret: SecretKey,
    sec_nonce: SecNonce,
    user_pub_nonce: bytes,
    server_pub_nonce: bytes,
    server_partial: bytes,
) -> Vtxo:
    """The signed VTXO.

    Raises BadCosignature, after which the nonce is spent; ValueError if the secret is not the user's.
    """
    if user_secret.public_key != template.user_pubkey:
        raise ValueError("incorrect signing key")
    cosignature = Cosignature(server_pub_nonce, server_partial)
    try:
        signature = template.task.finish(user_secret, sec_nonce, user_pub_nonce, cosignature)
    except BadCosignature as error:
        raise BadCosignature("invalid board cosignature received from server") from error
    return template.unsigned_vtxo.with_signatures((signature,))


def template_of_board(vtxo: Vtxo, funding_tx: Tx, server_pubkey: PublicKey) -> BoardTemplate:
    """The template that a VTXO claims to come from, checked against it and its funding transaction.

    Signatures are not looked at. Raises NotABoard.
    """
    if len(vtxo.genesis) != 1:
        raise NotABoard(f"incorrect number of genesis items {len(vtxo.genesis)}, should be 1")
    if funding_tx.txid != vtxo.anchor_point.txid:
        raise NotABoard(f"funding txid mismatch: expected {vtxo.anchor_point.txid}, got {funding_tx.txid}")
    if vtxo.server_pubkey != server_pubkey:
        raise NotABoard(f"server pubkey mismatch: expected {server_pubkey}, got {vtxo.server_pubkey}")
    if vtxo.anchor_point.vout >= len(funding_tx.outputs):
        raise NotABoard("the funding transaction has no such output")
    funding_output = funding_tx.outputs[vtxo.anchor_point.vout]
    try:
        template = BoardTemplate(
            user_pubkey=vtxo.user_pubkey,
            server_pubkey=server_pubkey,
            amount_sat=funding_output.value_sat,
            fee_sat=vtxo.genesis[0].fee_amount_sat,
            expiry_height=vtxo.expiry_height,
            exit_delta=vtxo.exit_delta,
            utxo=vtxo.anchor_point,
        )
    except BoardAmountInvalid as error:
        raise NotABoard("the funding output is worth less than the fee") from error
    if template.funding_output != funding_output:
        raise NotABoard("the funding output is not this board's")
    if template.unsigned_vtxo.bare != vtxo.bare:
        raise NotABoard("the VTXO is not this board's")
    return template


def board_server_vtxos(vtxo: Vtxo) -> tuple[ServerVtxo, ServerVtxo]:
    """What the server keeps of a board: the funding output, which it may sweep, and the user's VTXO."""
    (item,) = vtxo.genesis
    transition = item.transition
    if not isinstance(transition, CosignedTransition):
        raise NotABoard("the only transition of a board is cosigned")
    internal_key = transition.taproot(vtxo.server_pubkey, vtxo.expiry_height).internal_key
    funding = ServerVtxo(
        amount_sat=vtxo.anchor_amount_sat,
        expiry_height=vtxo.expiry_height,
        server_pubkey=vtxo.server_pubkey,
        exit_delta=vtxo.exit_delta,
        anchor_point=vtxo.anchor_point,
        genesis=(),
        policy=ExpiryPolicy(internal_key),
        point=vtxo.anchor_point,
    )
    return funding, vtxo
