"""Claims: one transaction that spends the outputs of matured exits to one script.

The VTXO's own terms say how: the first clause that the wallet can sign, its delay as the input's sequence,
the tip as the locktime. `build_claim` is pure but for the randomness of signatures. What happens around it
(stored, then broadcast, then followed until it is in a block) is `claims` and `driver`.

Source: sheet 06 §5; sheet 01 §12.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from barkd_py.ark.claim import (
    ClaimInput,
    build_claim_tx,
    claim_weight_wu,
    find_clause,
    sign_claim_tx,
)
from barkd_py.ark.clause import HashSign
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.script import dust_limit_sat
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.onchain.cpfp import MIN_FEE_RATE, FeeRateTooLow
from barkd_py.wallet.exits.errors import (
    ClaimFeeExceedsOutput,
    ClaimMissingInputs,
    ClaimSigningError,
    InternalExitError,
    InvalidLocktime,
)
from barkd_py.wallet.exits.machine import ClaimTerms
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.store import Store, Transaction

MAX_LOCKTIME_HEIGHT = 500_000_000
"""From here on a locktime is a time, not a height."""
MAX_FEE_RATE = FeeRate.from_sat_per_vb(25_000)
"""Whoever asks for more has mixed up a unit."""
MAX_CLAIM_WEIGHT_WU = 400_000
"""Nodes relay nothing heavier."""

FindPreimage = Callable[[Transaction, bytes], Awaitable[bytes | None]]
"""Finds the preimage of a payment hash (32 bytes) in the store."""


async def settled_preimage(tx: Transaction, payment_hash: bytes) -> bytes | None:
    """The preimage of a Lightning payment that we received."""
    settled = await tx.lightning.find_settled(payment_hash)
    return None if settled is None else settled.preimage


class ClaimPaths:
    """Finds how VTXOs can be claimed.

    preimages: where the preimages of incoming Lightning payments may be; asked in order.
    """

    def __init__(self, store: Store, preimages: Sequence[FindPreimage] = (settled_preimage,)) -> None:
        self._store = store
        self.preimages = list(preimages)

    async def find(self, vtxos: Sequence[Vtxo]) -> list[ClaimInput | None]:
        """For each VTXO the first clause that the wallet can sign, or None."""
        clauses = [clause for vtxo in vtxos for clause in vtxo.clauses if not isinstance(clause, HashSign)]
        async with self._store.read() as tx:
            ours = await tx.keys.find_many([clause.pubkey for clause in clauses])
            hashes = {clause.hash for clause in clauses if clause.hash is not None}
            known = {hash32: await self._preimage(tx, hash32) for hash32 in hashes}
        return [
            find_clause(vtxo, is_ours=lambda pubkey: pubkey in ours, find_preimage=known.get)
            for vtxo in vtxos
        ]

    async def _preimage(self, tx: Transaction, hash32: bytes) -> bytes | None:
        for find in self.preimages:
            if (preimage := await find(tx, hash32)) is not None:
                return preimage
        return None


def terms_of(claim: ClaimInput) -> ClaimTerms:
    return ClaimTerms(claim.sequence, claim.min_locktime, claim.clause.script)


@dataclass(frozen=True, slots=True)
class Claim:
    tx: Tx
    fee_sat: int


def minimum_output_sat(script_pubkey: bytes) -> int:
    """What the one output must hold; upstream asks for 330 sat whatever the script."""
    return max(DUST_SAT, dust_limit_sat(script_pubkey) or 0)


def claim_fee_sat(claims: Sequence[ClaimInput], script_pubkey: bytes, fee_rate: FeeRate) -> int:
    if not claims:
        return 0
    return fee_rate.fee_wu(claim_weight_wu(claims, [TxOut(0, script_pubkey)]))


def plan_claim(
    claims: Sequence[ClaimInput], script_pubkey: bytes, fee_rate: FeeRate, *, tip_height: int
) -> tuple[Tx, int]:
    """The unsigned claim of everything, and its fee.

    Raises ClaimMissingInputs, ClaimFeeExceedsOutput, InvalidLocktime, FeeRateTooLow.
    """
    if not claims:
        raise ClaimMissingInputs
    if tip_height >= MAX_LOCKTIME_HEIGHT:
        raise InvalidLocktime(tip_height, "the tip is no block height")
    if fee_rate < MIN_FEE_RATE:
        raise FeeRateTooLow(fee_rate)
    total_sat = sum(claim.output.value_sat for claim in claims)
    fee_sat = claim_fee_sat(claims, script_pubkey, fee_rate)
    needed_sat = fee_sat + minimum_output_sat(script_pubkey)
    if needed_sat > total_sat:
        raise ClaimFeeExceedsOutput(needed_sat, total_sat)
    if fee_rate > MAX_FEE_RATE:
        raise InternalExitError(f"a fee rate of {fee_rate} is absurd")
    output = TxOut(total_sat - fee_sat, script_pubkey)
    return build_claim_tx(claims, [output], locktime=tip_height), fee_sat


def build_claim(
    claims: Sequence[ClaimInput],
    script_pubkey: bytes,
    fee_rate: FeeRate,
    *,
    tip_height: int,
    find_secret: Callable[[PublicKey], SecretKey | None],
) -> Claim:
    """The signed claim of everything. Raises as `plan_claim`, and ClaimSigningError."""
    try:
        unsigned, fee_sat = plan_claim(claims, script_pubkey, fee_rate, tip_height=tip_height)
        signed = sign_claim_tx(unsigned, claims, find_secret)
    except ValueError as error:
        raise ClaimSigningError(str(error)) from error
    if signed.weight_wu > MAX_CLAIM_WEIGHT_WU:
        raise ClaimSigningError(f"{len(claims)} inputs are more than one transaction can hold")
    assert fee_sat >= fee_rate.fee_wu(signed.weight_wu), "the weight was known before"
    return Claim(signed, fee_sat)


async def secrets_of(
    keychain: Keychain, claims: Sequence[ClaimInput]
) -> Callable[[PublicKey], SecretKey | None]:
    """The secret keys that these claims need. Raises UnknownKey."""
    pubkeys = list(dict.fromkeys(claim.clause.pubkey for claim in claims))
    secrets = dict(zip(pubkeys, await keychain.secrets_for(pubkeys), strict=True))
    return secrets.get
