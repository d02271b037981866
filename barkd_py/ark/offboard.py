"""Offboards: leaving Ark by swapping VTXOs for an output of a transaction that the server makes.

The server proposes the transaction; the wallet checks it and signs a forfeit of each VTXO. Each forfeit
spends a connector of that very transaction, so it is worth nothing unless the transaction confirms.

    offboard transaction   0: the amount, to the destination
                           1: 330 sat per input, the connector output
                           2: the server's change, if any
    fan-out (2+ inputs)    spends output 1; one connector of 330 sat per input
    forfeit i              spends VTXO i and connector i; pays both to the server

With one input, output 1 is the connector itself. The server's connector script is taken as it comes.

Source: sheet 03 §3.4-§3.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from barkd_py.ark.connectors import CONNECTOR_SAT, connector_taproot, fan_out_tx
from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask
from barkd_py.ark.policy import ServerOwnedPolicy
from barkd_py.ark.vtxo import EXIT_TX_VERSION, Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.script import dust_limit_sat
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import InvalidInput, ProtocolViolation

OFFBOARD_VOUT = 0
CONNECTOR_VOUT = 1


class OffboardRequestInvalid(InvalidInput):
    """A destination or an amount that no offboard can pay."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"invalid offboard request: {problem}")


class OffboardTxInvalid(ProtocolViolation):
    """The server's transaction does not do what was asked for. Nothing was forfeited."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"invalid offboard transaction: {problem}")


class OffboardForfeitsInvalid(ProtocolViolation):
    """The parts of an offboard do not fit each other."""


def verify_offboard_request(destination: TxOut) -> None:
    """Check that the destination relays. Raises OffboardRequestInvalid."""
    limit_sat = dust_limit_sat(destination.script_pubkey)
    if limit_sat is None:
        raise OffboardRequestInvalid("output uses a non-standard script type")
    if destination.value_sat < limit_sat:
        raise OffboardRequestInvalid("output value is below the dust limit for its script type")


def verify_offboard_tx(tx: Tx, destination: TxOut, nb_inputs: int) -> None:
    """Check the server's transaction against the request. Raises OffboardTxInvalid."""
    if len(tx.outputs) <= OFFBOARD_VOUT:
        raise OffboardTxInvalid("missing offboard output")
    output = tx.outputs[OFFBOARD_VOUT]
    if output.script_pubkey != destination.script_pubkey:
        raise OffboardTxInvalid(
            "offboard output scriptPubkey doesn't match: "
            f"got={output.script_pubkey.hex()}, expected={destination.script_pubkey.hex()}"
        )
    if output.value_sat != destination.value_sat:
        raise OffboardTxInvalid(
            "offboard output amount doesn't match: "
            f"got={format_btc(output.value_sat)}, expected={format_btc(destination.value_sat)}"
        )
    if len(tx.outputs) <= CONNECTOR_VOUT:
        raise OffboardTxInvalid("missing connector output")
    connector_sat, needed_sat = tx.outputs[CONNECTOR_VOUT].value_sat, CONNECTOR_SAT * nb_inputs
    if connector_sat != needed_sat:
        raise OffboardTxInvalid(
            f"insufficient connector amount: got={format_btc(connector_sat)}, need={format_btc(needed_sat)}"
        )


@dataclass(frozen=True)
class OffboardForfeits:
    """The forfeits of one offboard.

    vtxos: in the order of the request, which is also the order of nonces, signatures and connectors. tx: the
    server's transaction, already verified. Raises OffboardForfeitsInvalid.
    """

    vtxos: tuple[Vtxo, ...]
    tx: Tx

    def __post_init__(self) -> None:
        if not self.vtxos:
            raise OffboardForfeitsInvalid("offboard has no input VTXOs")
        if len(self.tx.outputs) <= CONNECTOR_VOUT:
            raise OffboardForfeitsInvalid("offboard tx has no connector output")

    @property
    def connector_output(self) -> TxOut:
        """What each forfeit spends beside its VTXO."""
        return TxOut(CONNECTOR_SAT, self.tx.outputs[CONNECTOR_VOUT].script_pubkey)

    @cached_property
    def fan_out(self) -> Tx | None:
        """The transaction that makes the connectors, unsigned; None if there is only one."""
        if len(self.vtxos) == 1:
            return None
        script = self.connector_output.script_pubkey
        return fan_out_tx(self.tx.outpoint(CONNECTOR_VOUT), script, len(self.vtxos))

    @property
    def connectors(self) -> tuple[OutPoint, ...]:
        if self.fan_out is None:
            return (self.tx.outpoint(CONNECTOR_VOUT),)
        return tuple(self.fan_out.outpoint(index) for index in range(len(self.vtxos)))

    @cached_property
    def txs(self) -> tuple[Tx, ...]:
        """The forfeit transactions, unsigned."""
        return tuple(
            _forfeit_tx(vtxo, connector) for vtxo, connector in zip(self.vtxos, self.connectors, strict=True)
        )

    def prevouts(self, index: int) -> tuple[TxOut, TxOut]:
        """What forfeit `index` spends: the VTXO and its connector."""
        return (self.vtxos[index].output, self.connector_output)

    @cached_property
    def tasks(self) -> tuple[CosignTask, ...]:
        """What user and server sign: the first input of each forfeit."""
        return tuple(
            CosignTask(
                vtxo.user_pubkey,
                vtxo.server_pubkey,
                taproot_key_spend_sighash(tx, 0, self.prevouts(index)),
                vtxo.output_taproot.tweak,
            )
            for index, (vtxo, tx) in enumerate(zip(self.vtxos, self.txs, strict=True))
        )

    def sign(
        self, user_secrets: Sequence[SecretKey], server_pub_nonces: Sequence[bytes]
    ) -> tuple[Cosignature, ...]:
        """The user's nonces and partial signatures. Different every time.

        Raises OffboardForfeitsInvalid for wrong counts or keys, BadCosignature for a malformed nonce.
        """
        self._check_count("keys", user_secrets)
        self._check_count("forfeit cosign nonces", server_pub_nonces)
        for task, secret in zip(self.tasks, user_secrets, strict=True):
            if secret.public_key != task.user_pubkey:
                raise OffboardForfeitsInvalid("wrong key for an input VTXO")
        return tuple(
            task.cosign(secret, server_pub_nonce)
            for task, secret, server_pub_nonce in zip(
                self.tasks, user_secrets, server_pub_nonces, strict=True
            )
        )

    def verify(self, server_pub_nonces: Sequence[bytes], answers: Sequence[Cosignature]) -> None:
        """Check the user's parts. Raises OffboardForfeitsInvalid or BadCosignature."""
        self._check_count("forfeit cosign nonces", server_pub_nonces)
        self._check_count("partial signatures", answers)
        for task, nonce, answer in zip(self.tasks, server_pub_nonces, answers, strict=True):
            if not task.is_cosigned(nonce, answer, by=task.user_pubkey):
                raise BadCosignature("invalid partial signature of a forfeit")

    def finish(
        self,
        answers: Sequence[Cosignature],
        *,
        server_secret: SecretKey,
        sec_nonces: Sequence[SecNonce],
        server_pub_nonces: Sequence[bytes],
        connector_secret: SecretKey,
    ) -> tuple[Tx, ...]:
        """The signed forfeits, which the server keeps.

        connector_secret: of the key whose `connector_taproot` the connectors are. All parts are verified
        before the first signature is made; the nonces are spent whatever the outcome. Raises
        OffboardForfeitsInvalid or BadCosignature.
        """
        self._check_count("secret nonces", sec_nonces)
        try:
            self.verify(server_pub_nonces, answers)
            signatures = [
                task.finish(server_secret, sec_nonce, pub_nonce, answer)
                for task, sec_nonce, pub_nonce, answer in zip(
                    self.tasks, sec_nonces, server_pub_nonces, answers, strict=True
                )
            ]
        finally:
            for sec_nonce in sec_nonces:
                sec_nonce.wipe()
        return tuple(
            self._signed(index, signature, connector_secret) for index, signature in enumerate(signatures)
        )

    def _signed(self, index: int, vtxo_signature: bytes, connector_secret: SecretKey) -> Tx:
        tx = self.txs[index]
        sighash = taproot_key_spend_sighash(tx, 1, self.prevouts(index))
        tweak = connector_taproot(connector_secret.public_key).tweak
        connector_signature = connector_secret.x_only_tweak_add(tweak).sign_schnorr(sighash)
        inputs = tuple(
            TxIn(tx_in.prevout, sequence=tx_in.sequence, witness=(signature,))
            for tx_in, signature in zip(tx.inputs, (vtxo_signature, connector_signature), strict=True)
        )
        return Tx(tx.version, inputs, tx.outputs, tx.locktime)

    def _check_count(self, what: str, items: Sequence[object]) -> None:
        if len(items) != len(self.vtxos):
            raise OffboardForfeitsInvalid(
                f"wrong number of {what}: expected {len(self.vtxos)}, received {len(items)}"
            )


def _forfeit_tx(vtxo: Vtxo, connector: OutPoint) -> Tx:
    taproot = ServerOwnedPolicy().taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)
    outputs = (TxOut(vtxo.amount_sat + CONNECTOR_SAT, taproot.script_pubkey), fee_anchor())
    return Tx(EXIT_TX_VERSION, (TxIn(vtxo.point), TxIn(connector)), outputs)
