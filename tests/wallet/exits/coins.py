"""VTXOs whose transactions are on a devnet chain or can be put there: both sides of each construction."""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    ArkoorPart,
    finish_part,
    generate_part_nonces,
    server_cosign_part,
)
from barkd_py.ark.board import (
    BoardTemplate,
    board_funding_taproot,
    finish_board,
    generate_board_nonce,
    server_cosign_board,
)
from barkd_py.ark.policy import Policy, PubkeyPolicy
from barkd_py.ark.rounds import finish_leaf, leaf_task
from barkd_py.ark.tree import LeafSpec, TreeSpec, VtxoTree
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.store.keys import VtxoKey

SERVER = SecretKey(sha256(b"the Ark server of the exit tests"))
PREIMAGE = bytes(range(32))

EXIT_DELTA = 12
EXPIRY_HEIGHT = 2_000


@dataclass
class Mint:
    """Makes VTXOs of one wallet."""

    node: Node
    keychain: Keychain
    exit_delta: int = EXIT_DELTA
    expiry_height: int = EXPIRY_HEIGHT

    async def board(self, amount_sat: int, *, fee_sat: int = 0) -> Vtxo:
        """Its funding is confirmed. amount_sat: with the fee, which is parked in the anchor."""
        key = await self.keychain.reserve()
        taproot = board_funding_taproot(key.public_key, SERVER.public_key, self.expiry_height)
        funding = await self._pay(TxOut(amount_sat, taproot.script_pubkey))
        template = BoardTemplate(
            user_pubkey=key.public_key,
            server_pubkey=SERVER.public_key,
            amount_sat=amount_sat,
            fee_sat=fee_sat,
            expiry_height=self.expiry_height,
            exit_delta=self.exit_delta,
            utxo=OutPoint(funding.txid, 0),
        )
        secret = self.keychain.secret(key)
        sec_nonce, pub_nonce = generate_board_nonce(template, secret)
        answer = server_cosign_board(template, SERVER, pub_nonce)
        vtxo = finish_board(template, secret, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)
        validate(vtxo, funding)
        return vtxo

    async def pay(self, spent: Vtxo, amounts_sat: Sequence[int]) -> tuple[Vtxo, ...]:
        """An out-of-round payment from the wallet to itself."""
        keys = [await self.keychain.reserve() for _ in amounts_sat]
        return await self.pay_to(
            spent,
            [
                (amount_sat, PubkeyPolicy(key.public_key))
                for amount_sat, key in zip(amounts_sat, keys, strict=True)
            ],
        )

    async def pay_to(self, spent: Vtxo, outputs: Sequence[tuple[int, Policy]]) -> tuple[Vtxo, ...]:
        destinations = tuple(ArkoorDestination(amount_sat, policy) for amount_sat, policy in outputs)
        part = ArkoorPart(spent, destinations, ())
        secret = await self.keychain.secret_for(spent.user_pubkey)
        nonces = generate_part_nonces(part, secret)
        answer = server_cosign_part(part, SERVER, [pub_nonce for _, pub_nonce in nonces])
        return finish_part(part, secret, nonces, *answer)

    async def deep(self, amount_sat: int, payments: int) -> Vtxo:
        """A board and then payments to oneself, each of which adds two transactions."""
        vtxo = await self.board(amount_sat)
        for _ in range(payments):
            (vtxo,) = await self.pay(vtxo, [amount_sat])
        return vtxo

    async def round(self, amounts_sat: Sequence[int]) -> tuple[Vtxo, ...]:
        """The leaves of one tree, unlocked."""
        keys = [await self.keychain.reserve() for _ in amounts_sat]
        spec = TreeSpec(
            expiry_height=self.expiry_height,
            server_pubkey=SERVER.public_key,
            exit_delta=self.exit_delta,
            global_cosign_pubkeys=(SERVER.public_key,),
            leaves=tuple(
                LeafSpec(PubkeyPolicy(key.public_key), amount_sat, None, sha256(PREIMAGE))
                for key, amount_sat in zip(keys, amounts_sat, strict=True)
            ),
        )
        funding = await self._pay(spec.funding_output)
        tree = VtxoTree(spec, OutPoint(funding.txid, 0))
        signatures = _sign(tree)
        leaves = [self._open(tree.vtxo(index, signatures), key) for index, key in enumerate(keys)]
        for leaf in leaves:
            validate(leaf, funding)
        return tuple(leaves)

    def _open(self, leaf: Vtxo, key: VtxoKey) -> Vtxo:
        task = leaf_task(leaf)
        secret = self.keychain.secret(key)
        sec_nonce, pub_nonce = task.generate_nonce(secret)
        answer = task.cosign(SERVER, pub_nonce)
        return finish_leaf(leaf, secret, sec_nonce, pub_nonce, answer).with_preimage(PREIMAGE)

    async def _pay(self, output: TxOut) -> Tx:
        funding = await faucet.pay(self.node, [output])
        await self.node.mine()
        return funding


def _sign(tree: VtxoTree) -> tuple[bytes, ...]:
    """The server is the only signer of the nodes."""
    pairs = [generate_nonce(SERVER) for _ in tree.internal_nodes]
    agg_nonces = tree.aggregate_nonces({}, [[pub_nonce for _, pub_nonce in pairs]])
    partials = tree.cosign_all(SERVER, [sec_nonce for sec_nonce, _ in pairs], agg_nonces)
    return tree.combine_partials(agg_nonces, {}, [partials])


def user_key(vtxo: Vtxo) -> PublicKey:
    return vtxo.user_pubkey
