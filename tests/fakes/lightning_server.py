"""An Ark server that takes payments for invoices, and a chain that stands still, both in memory.

The server is honest, and strict about what it is asked: each rule of protocol sheet 05 §5.3 to §5.6 that it
would refuse a client for is an assertion or a refusal here. Its coins are real: a lie about them is made by
changing what it answers.
"""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    ArkoorPart,
    finish_part,
    generate_part_nonces,
    server_cosign_part,
)
from barkd_py.ark.attestations import is_attested, lightning_receive_message
from barkd_py.ark.board import BoardTemplate, finish_board, generate_board_nonce, server_cosign_board
from barkd_py.ark.fees import LightningReceiveFees, lightning_receive_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import Policy, PubkeyPolicy, ServerHtlcReceivePolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn
from barkd_py.bitcoin.units import DUST_SAT, BlockRef, FeeRate, Network
from barkd_py.chain.source import Confirmed, NotFound, Spend, TxStatus
from barkd_py.errors import ChainUnavailable, ServerRejected, ServerUnavailable
from barkd_py.server_rpc.api import (
    ArkoorCosignature,
    ArkoorCosignPart,
    LightningReceiveGrant,
    LightningReceiveState,
    LightningReceiveStatus,
    RoundInput,
)
from tests.fakes.wallet import ARK_INFO, SERVER_SECRET

NODE_SECRET = SecretKey(b"\x31" * 32)
POOL_EXPIRY_HEIGHT = 1_000
INFO = replace(
    ARK_INFO,
    fees=replace(ARK_INFO.fees, lightning_receive=LightningReceiveFees(base_fee_sat=100, ppm=2_000)),
)


class StillChain:
    """Blocks come when a test says so.

    unconfirmed: transactions that are not in one. spends: what takes the outputs that are taken.
    """

    def __init__(self, height: int = 200) -> None:
        self.height = height
        self.txs: dict[Txid, Tx] = {}
        self.unconfirmed: set[Txid] = set()
        self.spends: dict[OutPoint, Txid] = {}
        self.is_away = False

    async def tip(self) -> BlockRef:
        if self.is_away:
            raise ChainUnavailable("the chain source is away")
        return BlockRef(self.height, self._hash(self.height))

    fetch_tip = tip

    async def block_hash(self, height: int) -> BlockHash | None:
        tip = await self.tip()
        return self._hash(height) if height <= tip.height else None

    @staticmethod
    def _hash(height: int) -> BlockHash:
        return BlockHash(height.to_bytes(32, "big"))

    async def get_tx(self, txid: Txid) -> Tx | None:
        await self.tip()
        return self.txs.get(txid)

    async def tx_status(self, txid: Txid) -> TxStatus:
        tip = await self.tip()
        return Confirmed(tip) if txid in self.txs and txid not in self.unconfirmed else NotFound()

    async def spender(self, outpoint: OutPoint, *, since_height: int) -> Spend | None:
        tip = await self.tip()
        txid = self.spends.get(outpoint)
        return None if txid is None else Spend(txid, Confirmed(tip))

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        await self.tip()
        return outpoint in self.spends

    async def update_fee_rates(self) -> FeeRate:
        return FeeRate(250)


@dataclass
class Subscription:
    """One invoice. inbound_expiry_height: of the sender's HTLC."""

    invoice: str
    amount_sat: int
    cltv_delta: int
    mailbox_id: PublicKey | None
    state: LightningReceiveState = LightningReceiveState.CREATED
    received_sat: int = 0
    inbound_expiry_height: int = 0
    htlcs: tuple[Vtxo, ...] = ()
    destinations: tuple[Policy, ...] = ()
    preimage: bytes | None = None


@dataclass
class ReceiveServer:
    """See the module.

    pieces: how many HTLC VTXOs a grant consists of. wants_proof: no claim without token or VTXO. tokens:
    that were not used yet. before_claim: called when a claim arrives.
    """

    chain: StillChain
    info_: ArkInfo = INFO
    now: Callable[[], float] = lambda: 1_800_000_000.0
    pieces: int = 1
    wants_proof: bool = False
    tokens: set[str] = field(default_factory=set)
    before_claim: Callable[[bytes], Awaitable[None]] | None = None
    subscriptions: dict[bytes, Subscription] = field(default_factory=dict)
    owners: dict[VtxoId, PublicKey] = field(default_factory=dict)
    proofs: list[RoundInput | str | None] = field(default_factory=list)
    registered: set[VtxoId] = field(default_factory=set)
    delivered: list[tuple[bytes, tuple[VtxoId, ...]]] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    """Calls that are not answered."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    # --- what tests do

    def pay(self, payment_hash: bytes, *, received_sat: int | None = None) -> None:
        """A sender's HTLC has arrived, as short as the invoice allows."""
        subscription = self.subscriptions[payment_hash]
        assert subscription.state is LightningReceiveState.CREATED
        subscription.state = LightningReceiveState.ACCEPTED
        subscription.received_sat = subscription.amount_sat if received_sat is None else received_sat
        subscription.inbound_expiry_height = (
            self.chain.height + subscription.cltv_delta + self.info_.htlc_expiry_delta
        )

    def coin(self, user: SecretKey, amount_sat: int, expiry_height: int = POOL_EXPIRY_HEIGHT) -> Vtxo:
        """A board of this user, confirmed."""
        template = BoardTemplate(
            user_pubkey=user.public_key,
            server_pubkey=SERVER_SECRET.public_key,
            amount_sat=amount_sat,
            fee_sat=0,
            expiry_height=expiry_height,
            exit_delta=self.info_.vtxo_exit_delta,
            utxo=OutPoint(Txid(bytes(32)), 0),
        )
        number = next(self._numbers)
        prevout = OutPoint(Txid(sha256(b"coin %d" % number)), 0)
        funding = Tx(2, (TxIn(prevout),), (template.funding_output,))
        self.chain.txs[funding.txid] = funding
        template = replace(template, utxo=OutPoint(funding.txid, 0))
        sec_nonce, pub_nonce = generate_board_nonce(template, user)
        answer = server_cosign_board(template, SERVER_SECRET, pub_nonce)
        vtxo = finish_board(template, user, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)
        self.owners[vtxo.id] = user.public_key
        return vtxo

    def htlcs(
        self, policy: Policy, amounts_sat: Sequence[int], *, expiry_height: int = POOL_EXPIRY_HEIGHT
    ) -> tuple[Vtxo, ...]:
        """One VTXO of this policy out of each of as many coins of the server's own."""
        made = []
        for amount_sat in amounts_sat:
            key = SecretKey.generate()
            change_sat = 1_000 if amount_sat >= DUST_SAT else 1  # dust only beside dust
            coin = self.coin(key, amount_sat + change_sat, expiry_height)
            outputs = (
                ArkoorDestination(amount_sat, policy),
                ArkoorDestination(change_sat, PubkeyPolicy(SecretKey.generate().public_key)),
            )
            part = ArkoorPart(coin, outputs, use_checkpoint=False)
            nonces = generate_part_nonces(part, key)
            answer = server_cosign_part(part, SERVER_SECRET, [pub_nonce for _, pub_nonce in nonces])
            made.append(finish_part(part, key, nonces, *answer)[0])
        return tuple(made)

    @property
    def preimages(self) -> list[bytes]:
        """What the server has been told so far."""
        return [each.preimage for each in self.subscriptions.values() if each.preimage is not None]

    # --- ArkServerApi, as far as a receive needs it

    @property
    def cached_info(self) -> ArkInfo | None:
        return self.info_

    async def info(self) -> ArkInfo:
        self._reach("info")
        return self.info_

    def _reach(self, call: str) -> None:
        if call in self.away:
            raise ServerUnavailable(f"{call}: UNAVAILABLE: no answer")

    def _find(self, payment_hash: bytes, text: str) -> Subscription:
        if payment_hash not in self.subscriptions:
            raise ServerRejected(text, not_found=True)
        return self.subscriptions[payment_hash]

    async def start_lightning_receive(
        self,
        *,
        payment_hash: bytes,
        amount_sat: int,
        min_cltv_delta: int,
        mailbox_id: PublicKey | None,
        description: str | None,
    ) -> str:
        self._reach("start_lightning_receive")
        assert min_cltv_delta <= self.info_.max_user_invoice_cltv_delta
        assert lightning_receive_fee(self.info_.fees, amount_sat) < amount_sat
        assert payment_hash not in self.subscriptions, "a preimage is used once"
        invoice = create_invoice(
            NODE_SECRET,
            network=Network.REGTEST,
            amount_msat=amount_sat * 1000,
            payment_hash=payment_hash,
            payment_secret=b"\x32" * 32,
            timestamp=int(self.now()),
            description=description,
            min_final_cltv_delta=min_cltv_delta + self.info_.htlc_expiry_delta,
        )
        self.subscriptions[payment_hash] = Subscription(invoice.text, amount_sat, min_cltv_delta, mailbox_id)
        return invoice.text

    async def check_lightning_receive(self, payment_hash: bytes) -> LightningReceiveStatus:
        self._reach("check_lightning_receive")
        return self._status(self._find(payment_hash, "not found: invoice not found"))

    def _status(self, subscription: Subscription) -> LightningReceiveStatus:
        return LightningReceiveStatus(
            subscription.invoice,
            subscription.received_sat,
            subscription.state,
            tuple(htlc.id for htlc in subscription.htlcs),
        )

    async def prepare_lightning_receive_claim(
        self,
        *,
        payment_hash: bytes,
        user_pubkey: PublicKey,
        htlc_recv_expiry_height: int,
        anti_dos: RoundInput | str | None,
    ) -> LightningReceiveGrant:
        self._reach("prepare_lightning_receive_claim")
        subscription = self._find(payment_hash, "not found: no pending payment with this payment hash")
        match subscription.state:
            case LightningReceiveState.HTLCS_READY:
                return LightningReceiveGrant(self._status(subscription), subscription.htlcs)
            case LightningReceiveState.ACCEPTED:
                pass
            case _:
                raise ServerRejected(f"bad user input: payment {subscription.state.value}")
        self._check_proof(payment_hash, anti_dos)
        delta = self.info_.htlc_expiry_delta
        if htlc_recv_expiry_height + delta > subscription.inbound_expiry_height:
            raise ServerRejected("bad user input: Requested HTLC recv expiry too close")
        amount_sat = subscription.received_sat
        net_sat = amount_sat - lightning_receive_fee(self.info_.fees, amount_sat)
        share_sat, rest_sat = divmod(net_sat, self.pieces)
        amounts_sat = [share_sat] * (self.pieces - 1) + [share_sat + rest_sat]
        policy = ServerHtlcReceivePolicy(user_pubkey, payment_hash, htlc_recv_expiry_height, delta)
        # In an order of its own, as the real one's.
        subscription.htlcs = self.htlcs(policy, amounts_sat)
        subscription.state = LightningReceiveState.HTLCS_READY
        return LightningReceiveGrant(self._status(subscription), subscription.htlcs)

    def _check_proof(self, payment_hash: bytes, proof: RoundInput | str | None) -> None:
        self.proofs.append(proof)
        match proof:
            case None:
                if self.wants_proof:
                    raise ServerRejected("bad user input: either a receive token or a challenge proof")
            case str():
                if proof not in self.tokens:
                    raise ServerRejected("bad user input: token has already been used or is invalid")
                self.tokens.remove(proof)
            case RoundInput():
                if proof.vtxo_id not in self.owners:
                    raise ServerRejected("bad user input: anti-dos proof vtxo must be spendable")
                message = lightning_receive_message(payment_hash, proof.vtxo_id)
                assert is_attested(message, self.owners[proof.vtxo_id], proof.attestation)

    async def claim_lightning_receive(
        self, *, payment_hash: bytes, preimage: bytes, parts: Sequence[ArkoorCosignPart]
    ) -> tuple[ArkoorCosignature, ...]:
        if self.before_claim is not None:
            await self.before_claim(payment_hash)
        self._reach("claim_lightning_receive")
        assert sha256(preimage) == payment_hash
        subscription = self._find(payment_hash, "not found")
        if subscription.state not in (LightningReceiveState.HTLCS_READY, LightningReceiveState.SETTLED):
            raise ServerRejected(
                f"bad user input: payment status in incorrect state: {subscription.state.value}"
            )
        granted = sorted(htlc.id for htlc in subscription.htlcs)
        assert [each.part.input.id for each in parts] == granted, "in ascending order"
        for each in parts:
            assert each.part.use_checkpoint
            assert len(each.part.all_outputs) == 1
            assert each.part.verify_attestation(each.attestation)
        destinations = tuple(each.part.outputs[0].policy for each in parts)
        if subscription.destinations not in ((), destinations):
            raise ServerUnavailable("INTERNAL: tx body error: vtxo is already spent")
        subscription.destinations = destinations
        subscription.preimage = preimage
        subscription.state = LightningReceiveState.SETTLED
        return tuple(
            ArkoorCosignature(*server_cosign_part(each.part, SERVER_SECRET, each.user_pub_nonces))
            for each in parts
        )

    async def cancel_lightning_receive(self, payment_hash: bytes) -> None:
        self._reach("cancel_lightning_receive")
        subscription = self._find(payment_hash, "not found: no pending payment with this payment hash")
        if subscription.state in (LightningReceiveState.HTLCS_READY, LightningReceiveState.SETTLED):
            raise ServerRejected("bad user input: cannot cancel")
        subscription.state = LightningReceiveState.CANCELED

    async def register_vtxo_transactions(self, vtxos: Sequence[Vtxo]) -> None:
        self._reach("register_vtxo_transactions")
        for vtxo in vtxos:
            validate(vtxo, self.chain.txs[vtxo.anchor_point.txid])
            self.registered.add(vtxo.id)
            self.owners[vtxo.id] = vtxo.user_pubkey

    async def post_arkoor_message(self, blinded_id: bytes, vtxos: Sequence[Vtxo]) -> None:
        self._reach("post_arkoor_message")
        self.delivered.append((blinded_id, tuple(vtxo.id for vtxo in vtxos)))

    async def post_recovery_vtxo_ids(
        self, mailbox_id: PublicKey, authorization: bytes, vtxo_ids: Sequence[VtxoId]
    ) -> None:
        self._reach("post_recovery_vtxo_ids")
