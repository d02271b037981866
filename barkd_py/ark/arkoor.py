"""Out-of-round payments: spending VTXOs into new ones with the server as cosigner.

A payment is a *package* of one *part* per input VTXO. A part turns its input into new VTXOs in two steps: a
checkpoint transaction splits the amount, and one arkoor transaction per output pays it out under the payee's
policy. The checkpoint outputs carry the payer's key and expire to the server, so a server that sees an old
exit on chain needs to publish only the checkpoint, whatever the payees did since.

    input VTXO ── checkpoint ─┬─ arkoor 0 ──────── VTXO 0
                              ├─ arkoor 1 ──────── VTXO 1
                              └─ isolation fan-out ─┬─ VTXO 2      dust: amounts that no transaction
                                                    └─ VTXO 3      relays, behind one output that does

Dust is *isolated*: outputs below 330 sat sit together behind one output of at least 330, so that the other
VTXOs stay usable on chain (`isolate_dust`). That may split somebody's amount into two VTXOs.

Both sides compute all transactions themselves; only nonces and partial signatures travel. The client checks
every partial signature of the server before it makes one of its own. A retry makes new nonces and yields the
same transactions.

Without checkpoint ("direct") a single arkoor transaction has all outputs. No server asks for that today.

Source: protocol sheet 03 §2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from barkd_py.ark.attestations import arkoor_cosign_message, attest, is_attested
from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask, VerifiedCosignature
from barkd_py.ark.genesis import ArkoorTransition, GenesisItem
from barkd_py.ark.policy import CheckpointPolicy, Policy
from barkd_py.ark.vtxo import EXIT_TX_VERSION, MAX_U64, ServerVtxo, Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import DUST_SAT, format_btc
from barkd_py.errors import BarkdError

# An output of at least this much can be halved without making dust.
TWICE_DUST_SAT = 2 * DUST_SAT

# The position of an output in a genesis item has 8 bits.
MAX_OUTPUTS = 255

# What servers accept per part by default, isolated outputs included. They do not advertise it.
MAX_FANOUT = 4

DEFAULT_CHANGE_SPLIT_FACTOR = 2


class ArkoorRule(Enum):
    """The rules that the amounts of a part must satisfy; the value is the text of a violation."""

    OVERFLOW = "Total amount overflowed while allocating outputs to inputs"
    UNBALANCED = "Input amount does not match output amount"
    NO_OUTPUTS = "At least one output is required"
    ZERO_VALUE = "An output has zero value"
    TOO_MANY_OUTPUTS = "Too many outputs provided"
    DUST = "An output is below the dust threshold"
    ISOLATION_NOT_NEEDED = "Dust isolation is used but not needed"


class InvalidArkoor(BarkdError):
    """The amounts do not make a payment, and never will: do not retry."""

    def __init__(self, rule: ArkoorRule, message: str | None = None) -> None:
        super().__init__(message or rule.value)
        self.rule = rule


class UnbalancedArkoor(InvalidArkoor):
    """What goes in does not come out."""

    def __init__(self, *, input_sat: int, output_sat: int) -> None:
        super().__init__(
            ArkoorRule.UNBALANCED,
            f"Input amount of {format_btc(input_sat)} does not match output amount of"
            f" {format_btc(output_sat)}",
        )
        self.input_sat = input_sat
        self.output_sat = output_sat


class ChangeToDestination(BarkdError):
    """Change and payment would have the same policy, and could not be told apart."""

    def __init__(self) -> None:
        super().__init__("Cannot create arkoor to same address as change")


class WrongSigningKey(BarkdError):
    """The key is not the one that the input VTXO is locked to."""

    def __init__(self, *, expected: PublicKey, got: PublicKey) -> None:
        super().__init__(f"Incorrect signing key provided. Expected {expected}, got {got}")


class WrongCosignCount(BadCosignature):
    """The other side's answer has another number of things than there are transactions, or parts."""

    def __init__(self, what: str, *, expected: int, got: int) -> None:
        super().__init__(f"Wrong number of {what}. Expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class InvalidPartialSignature(BadCosignature):
    """A partial signature of the server does not verify. We signed nothing. index: of the transaction."""

    def __init__(self, index: int) -> None:
        super().__init__(f"Invalid partial signature at index {index}")
        self.index = index


@dataclass(frozen=True, slots=True)
class ArkoorDestination:
    """An amount, and the policy of the VTXO that gets it."""

    amount_sat: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class ArkoorTx:
    """A transaction to cosign. spent: the one output it spends. tweak: 32 bytes, tap tweak of that output."""

    tx: Tx
    spent: TxOut
    sighash: bytes
    tweak: bytes

    def signed(self, signature: bytes) -> Tx:
        return replace(self.tx, inputs=(replace(self.tx.inputs[0], witness=(signature,)),))


# Not slotted: it remembers its transactions.
@dataclass(frozen=True)
class ArkoorPart:
    """One input VTXO and what becomes of it; the same value on both sides.

    isolated: outputs behind the isolation fan-out. The amounts are checked on construction, which raises
    InvalidArkoor. The new VTXOs inherit server key, exit delta, expiry and anchor from the input.
    """

    input: Vtxo
    outputs: tuple[ArkoorDestination, ...]
    isolated: tuple[ArkoorDestination, ...] = ()
    use_checkpoint: bool = True

    def __post_init__(self) -> None:
        _check_amounts(
            self.input.amount_sat,
            [output.amount_sat for output in self.outputs],
            [output.amount_sat for output in self.isolated],
        )

    @property
    def all_outputs(self) -> tuple[ArkoorDestination, ...]:
        """Normal outputs, then isolated ones: the order of the new VTXOs and of the attestation."""
        return self.outputs + self.isolated

    # -- transactions

    @property
    def checkpoint_policy(self) -> CheckpointPolicy:
        """The policy of all outputs in between: the payer's key, whoever is paid."""
        return CheckpointPolicy(self.input.user_pubkey)

    @cached_property
    def _checkpoint_taproot(self) -> TaprootOutput:
        vtxo = self.input
        return self.checkpoint_policy.taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)

    def _checkpoint_out(self, amount_sat: int) -> TxOut:
        return TxOut(amount_sat, self._checkpoint_taproot.script_pubkey)

    def _policy_out(self, output: ArkoorDestination) -> TxOut:
        vtxo = self.input
        taproot = output.policy.taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)
        return TxOut(output.amount_sat, taproot.script_pubkey)

    @cached_property
    def _split_outs(self) -> tuple[TxOut, ...]:
        """The outputs, without fee anchor, of the transaction that spends the input."""
        if self.use_checkpoint:
            outs = [self._checkpoint_out(output.amount_sat) for output in self.outputs]
        else:
            outs = [self._policy_out(output) for output in self.outputs]
        if self.isolated:
            outs.append(self._checkpoint_out(sum(output.amount_sat for output in self.isolated)))
        return tuple(outs)

    @cached_property
    def _fanout_outs(self) -> tuple[TxOut, ...]:
        return tuple(self._policy_out(output) for output in self.isolated)

    @cached_property
    def transactions(self) -> tuple[ArkoorTx, ...]:
        """What is to be signed, in the order of nonces and signatures.

        The checkpoint, one arkoor transaction per normal output, and the fan-out if there are isolated
        outputs; without checkpoint the arkoor transaction, and the fan-out.
        """
        split = _spend(self.input.point, self.input.output, self._split_outs, self.input.output_taproot.tweak)
        txs = [split]
        if self.use_checkpoint:
            txs += (
                self._spend_split(split, index, (self._policy_out(output),))
                for index, output in enumerate(self.outputs)
            )
        if self.isolated:
            txs.append(self._spend_split(split, len(self.outputs), self._fanout_outs))
        return tuple(txs)

    def _spend_split(self, split: ArkoorTx, vout: int, outs: tuple[TxOut, ...]) -> ArkoorTx:
        spent = self._split_outs[vout]
        return _spend(split.tx.outpoint(vout), spent, outs, self._checkpoint_taproot.tweak)

    @property
    def spending_tx(self) -> Tx:
        """The unsigned transaction that spends the input; its id makes a retry recognisable."""
        return self.transactions[0].tx

    @property
    def signature_count(self) -> int:
        return len(self.transactions)

    # -- VTXOs

    @property
    def unsigned_vtxos(self) -> tuple[Vtxo, ...]:
        """The new VTXOs, their last steps without signatures; their ids are final."""
        return self.build_vtxos([None] * self.signature_count)

    def build_vtxos(self, signatures: Sequence[bytes | None]) -> tuple[Vtxo, ...]:
        """The new VTXOs, normal ones first. signatures: one per transaction, **not verified**."""
        split, *later = zip(self.transactions, signatures, strict=True)
        vtxos = []
        for index, output in enumerate(self.outputs):
            steps = [self._split_item(index, split[1])]
            point = split[0].tx.outpoint(index)
            if self.use_checkpoint:
                arkoor, signature = later[index]
                steps.append(self._item(self._checkpoint_taproot.tweak, signature))
                point = arkoor.tx.outpoint(0)
            vtxos.append(self._vtxo(output, point, steps))
        for index, output in enumerate(self.isolated):
            fanout, signature = later[-1]
            steps = [
                self._split_item(len(self.outputs), split[1]),
                self._item(self._checkpoint_taproot.tweak, signature, index, self._fanout_outs),
            ]
            vtxos.append(self._vtxo(output, fanout.tx.outpoint(index), steps))
        return tuple(vtxos)

    def internal_vtxos(self, split_signature: bytes | None = None) -> tuple[ServerVtxo, ...]:
        """The outputs between the input and the new VTXOs, as the server books them.

        split_signature: of the first transaction, if it is known.
        """
        vtxo = self.input
        first = 0 if self.use_checkpoint else len(self.outputs)
        return tuple(
            ServerVtxo(
                amount_sat=out.value_sat,
                expiry_height=vtxo.expiry_height,
                server_pubkey=vtxo.server_pubkey,
                exit_delta=vtxo.exit_delta,
                anchor_point=vtxo.anchor_point,
                policy=self.checkpoint_policy,
                point=self.spending_tx.outpoint(index),
                genesis=(*vtxo.genesis, self._split_item(index, split_signature)),
            )
            for index, out in enumerate(self._split_outs)
            if index >= first
        )

    def _split_item(self, index: int, signature: bytes | None) -> GenesisItem:
        return self._item(self.input.output_taproot.tweak, signature, index, self._split_outs)

    def _item(
        self, tweak: bytes, signature: bytes | None, index: int = 0, outs: tuple[TxOut, ...] = ()
    ) -> GenesisItem:
        """outs: all outputs without fee anchor, of which number index continues; none if it is alone."""
        transition = ArkoorTransition((self.input.user_pubkey,), tweak, signature)
        return GenesisItem(transition, index, outs[:index] + outs[index + 1 :])

    def _vtxo(self, output: ArkoorDestination, point: OutPoint, steps: list[GenesisItem]) -> Vtxo:
        return Vtxo(
            amount_sat=output.amount_sat,
            expiry_height=self.input.expiry_height,
            server_pubkey=self.input.server_pubkey,
            exit_delta=self.input.exit_delta,
            anchor_point=self.input.anchor_point,
            policy=output.policy,
            point=point,
            genesis=(*self.input.genesis, *steps),
        )

    # -- attestation

    @property
    def attestation_message(self) -> bytes:
        """What the owner of the input signs to ask for this part."""
        return arkoor_cosign_message(self.input.id, self.all_outputs)

    def attest(self, user_secret: SecretKey) -> bytes:
        """64 bytes. Raises WrongSigningKey."""
        self.check_user_key(user_secret)
        return attest(self.attestation_message, user_secret)

    def verify_attestation(self, attestation: bytes) -> bool:
        return is_attested(self.attestation_message, self.input.user_pubkey, attestation)

    def check_user_key(self, user_secret: SecretKey) -> None:
        """Raises WrongSigningKey if the key is not the input's."""
        if user_secret.public_key != self.input.user_pubkey:
            raise WrongSigningKey(expected=self.input.user_pubkey, got=user_secret.public_key)

    # -- cosigning

    @property
    def cosign_tasks(self) -> tuple[CosignTask, ...]:
        """What user and server sign together, in transaction order."""
        user, server = self.input.user_pubkey, self.input.server_pubkey
        return tuple(CosignTask(user, server, step.sighash, step.tweak) for step in self.transactions)


def _spend(point: OutPoint, spent: TxOut, outs: tuple[TxOut, ...], tweak: bytes) -> ArkoorTx:
    tx = Tx(EXIT_TX_VERSION, (TxIn(point, sequence=0),), (*outs, fee_anchor()))
    return ArkoorTx(tx, spent, taproot_key_spend_sighash(tx, 0, (spent,)), tweak)


def _check_amounts(input_sat: int, outputs_sat: list[int], isolated_sat: list[int]) -> None:
    """The rules for one input, in upstream's order. Source: sheet 03 §2.2."""
    total_sat = sum(outputs_sat) + sum(isolated_sat)
    if total_sat > MAX_U64:
        raise InvalidArkoor(ArkoorRule.OVERFLOW)
    if total_sat != input_sat:
        raise UnbalancedArkoor(input_sat=input_sat, output_sat=total_sat)
    if not outputs_sat:
        raise InvalidArkoor(ArkoorRule.NO_OUTPUTS)
    if min(outputs_sat) <= 0 or (isolated_sat and min(isolated_sat) <= 0):
        raise InvalidArkoor(ArkoorRule.ZERO_VALUE)
    if len(outputs_sat) > MAX_OUTPUTS or len(isolated_sat) > MAX_OUTPUTS:
        raise InvalidArkoor(ArkoorRule.TOO_MANY_OUTPUTS)
    if isolated_sat:
        if sum(isolated_sat) < DUST_SAT:
            raise InvalidArkoor(ArkoorRule.DUST)
        if max(isolated_sat) >= TWICE_DUST_SAT or min(isolated_sat) >= DUST_SAT:
            raise InvalidArkoor(ArkoorRule.ISOLATION_NOT_NEEDED)
        if min(outputs_sat) < DUST_SAT:
            raise InvalidArkoor(ArkoorRule.DUST)
    elif min(outputs_sat) < DUST_SAT and max(outputs_sat) >= TWICE_DUST_SAT:
        raise InvalidArkoor(ArkoorRule.DUST)


# --- packages


def split_package(
    inputs: Sequence[Vtxo], destinations: Sequence[ArkoorDestination], *, use_checkpoint: bool = True
) -> tuple[ArkoorPart, ...]:
    """One part per input, in order; outputs are cut where they cross from one input to the next.

    Raises InvalidArkoor.
    """
    allocated = allocate([vtxo.amount_sat for vtxo in inputs], destinations)
    return tuple(
        ArkoorPart(vtxo, *isolate_dust(outputs), use_checkpoint=use_checkpoint)
        for vtxo, outputs in zip(inputs, allocated, strict=True)
    )


def allocate(
    input_amounts_sat: Sequence[int], destinations: Sequence[ArkoorDestination]
) -> tuple[tuple[ArkoorDestination, ...], ...]:
    """Which outputs, or pieces of them, each input pays; all in order. Raises InvalidArkoor.

    Source: sheet 03 §2.4.
    """
    input_sat = sum(input_amounts_sat)
    output_sat = sum(destination.amount_sat for destination in destinations)
    if input_sat > MAX_U64 or output_sat > MAX_U64:
        raise InvalidArkoor(ArkoorRule.OVERFLOW)
    if output_sat == 0:
        raise InvalidArkoor(ArkoorRule.NO_OUTPUTS)
    if input_sat != output_sat:
        raise UnbalancedArkoor(input_sat=input_sat, output_sat=output_sat)
    if any(destination.amount_sat <= 0 for destination in destinations):
        raise InvalidArkoor(ArkoorRule.ZERO_VALUE)

    waiting = list(reversed(destinations))
    parts = []
    for amount_sat in input_amounts_sat:
        taken = []
        while amount_sat:
            destination = waiting.pop()
            piece_sat = min(amount_sat, destination.amount_sat)
            taken.append(replace(destination, amount_sat=piece_sat))
            amount_sat -= piece_sat
            if piece_sat < destination.amount_sat:
                waiting.append(replace(destination, amount_sat=destination.amount_sat - piece_sat))
        parts.append(tuple(taken))
    return tuple(parts)


def isolate_dust(
    outputs: Sequence[ArkoorDestination],
) -> tuple[tuple[ArkoorDestination, ...], tuple[ArkoorDestination, ...]]:
    """Sort one input's outputs into normal and isolated ones, splitting one of them if that is needed.

    Where dust cannot be isolated the outputs stay together. Source: sheet 03 §2.3.
    """
    dust = tuple(output for output in outputs if output.amount_sat < DUST_SAT)
    rest = tuple(output for output in outputs if output.amount_sat >= DUST_SAT)
    if not dust or not rest:
        return tuple(outputs), ()
    missing_sat = DUST_SAT - sum(output.amount_sat for output in dust)
    if missing_sat <= 0:
        return rest, dust
    if sum(output.amount_sat for output in rest) < TWICE_DUST_SAT:
        return tuple(outputs), ()
    for index, output in enumerate(rest):
        left_sat = output.amount_sat - missing_sat
        if left_sat >= DUST_SAT:
            kept = replace(output, amount_sat=left_sat)
            piece = replace(output, amount_sat=missing_sat)
            return (*rest[:index], kept, *rest[index + 1 :]), (piece, *dust)
    return rest + dust, ()


def plan_outputs(
    input_amounts_sat: Sequence[int],
    destination: ArkoorDestination,
    change_policy: Policy,
    *,
    split_factor: int = DEFAULT_CHANGE_SPLIT_FACTOR,
) -> tuple[ArkoorDestination, ...]:
    """The payment and its change, in the order in which they go into a package.

    Change that is larger than the payment is split into split_factor pieces, so that the next payment leaves
    some of it untouched. There are fewer pieces where one would be dust, or where a part would get more
    outputs than servers accept (upstream does not look, and is refused). Raises InvalidArkoor, or
    ChangeToDestination.
    """
    if destination.amount_sat <= 0:
        raise InvalidArkoor(ArkoorRule.ZERO_VALUE)
    if destination.policy == change_policy:
        raise ChangeToDestination
    change_sat = sum(input_amounts_sat) - destination.amount_sat
    if change_sat < 0:
        raise UnbalancedArkoor(input_sat=sum(input_amounts_sat), output_sat=destination.amount_sat)
    if change_sat == 0:
        return (destination,)
    most = split_factor if change_sat > destination.amount_sat else 1
    for pieces in range(most, 0, -1):
        base_sat = change_sat // pieces
        amounts_sat = [base_sat] * (pieces - 1) + [change_sat - base_sat * (pieces - 1)]
        outputs = (destination, *(ArkoorDestination(amount, change_policy) for amount in amounts_sat))
        if pieces == 1 or (base_sat >= DUST_SAT and _fits_servers(input_amounts_sat, outputs)):
            return outputs
    raise AssertionError("a single piece is always taken")


def _fits_servers(input_amounts_sat: Sequence[int], outputs: tuple[ArkoorDestination, ...]) -> bool:
    parts = [isolate_dust(part) for part in allocate(input_amounts_sat, outputs)]
    return all(len(normal) + len(isolated) <= MAX_FANOUT for normal, isolated in parts)


# --- cosigning


def generate_part_nonces(part: ArkoorPart, user_secret: SecretKey) -> list[tuple[SecNonce, bytes]]:
    """Fresh nonces of the user, one pair per transaction. Never keep them for a second attempt."""
    return [task.generate_nonce(user_secret) for task in part.cosign_tasks]


def server_cosign_part(
    part: ArkoorPart, server_secret: SecretKey, user_pub_nonces: Sequence[bytes]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The server's public nonces and partial signatures, in transaction order.

    Before that the server checks the attestation, and that the input is the asker's to spend. Raises
    WrongCosignCount or WrongSigningKey, and BadCosignature for a malformed nonce.
    """
    _check_count("user nonces provided", part.signature_count, user_pub_nonces)
    if server_secret.public_key != part.input.server_pubkey:
        raise WrongSigningKey(expected=part.input.server_pubkey, got=server_secret.public_key)
    answers = [
        task.cosign(server_secret, user_pub_nonce)
        for task, user_pub_nonce in zip(part.cosign_tasks, user_pub_nonces, strict=True)
    ]
    return tuple(answer.pub_nonce for answer in answers), tuple(answer.partial_sig for answer in answers)


def verify_part(
    part: ArkoorPart,
    user_pub_nonces: Sequence[bytes],
    server_pub_nonces: Sequence[bytes],
    server_partials: Sequence[bytes],
) -> tuple[VerifiedCosignature, ...]:
    """The server's answer, every partial signature verified.

    Raises WrongCosignCount or InvalidPartialSignature.
    """
    count = part.signature_count
    _check_count("user nonces provided", count, user_pub_nonces)
    _check_count("server nonces provided", count, server_pub_nonces)
    _check_count("server partial sigs", count, server_partials)
    verified = []
    for index, task in enumerate(part.cosign_tasks):
        answer = Cosignature(server_pub_nonces[index], server_partials[index])
        try:
            verified.append(task.verify(user_pub_nonces[index], answer))
        except BadCosignature:
            raise InvalidPartialSignature(index) from None
    return tuple(verified)


def finish_part(
    part: ArkoorPart,
    user_secret: SecretKey,
    user_nonces: Sequence[tuple[SecNonce, bytes]],
    server_pub_nonces: Sequence[bytes],
    server_partials: Sequence[bytes],
) -> tuple[Vtxo, ...]:
    """The new VTXOs, fully signed, normal ones first.

    user_nonces: from `generate_part_nonces`, spent afterwards. Everything from the server is verified before
    the first signature of ours is made. Raises WrongCosignCount, InvalidPartialSignature or WrongSigningKey.
    """
    return finish_package([part], [user_secret], [user_nonces], [(server_pub_nonces, server_partials)])


def finish_package(
    parts: Sequence[ArkoorPart],
    user_secrets: Sequence[SecretKey],
    user_nonces: Sequence[Sequence[tuple[SecNonce, bytes]]],
    answers: Sequence[tuple[Sequence[bytes], Sequence[bytes]]],
) -> tuple[Vtxo, ...]:
    """The new VTXOs of all parts, in order.

    answers: per part the server's nonces and partial signatures; those of every part are verified, once,
    before anything is signed. Raises like `finish_part`.
    """
    _check_count("packages", len(parts), answers)
    verified = []
    for part, secret, nonces, (server_nonces, partials) in zip(
        parts, user_secrets, user_nonces, answers, strict=True
    ):
        part.check_user_key(secret)
        verified.append(verify_part(part, [pub_nonce for _, pub_nonce in nonces], server_nonces, partials))
    vtxos: list[Vtxo] = []
    for part, secret, nonces, cosignatures in zip(parts, user_secrets, user_nonces, verified, strict=True):
        vtxos += part.build_vtxos(
            [
                cosignature.complete(secret, sec_nonce)
                for cosignature, (sec_nonce, _) in zip(cosignatures, nonces, strict=True)
            ]
        )
    return tuple(vtxos)


def _check_count(what: str, expected: int, items: Sequence[object]) -> None:
    if len(items) != expected:
        raise WrongCosignCount(what, expected=expected, got=len(items))
