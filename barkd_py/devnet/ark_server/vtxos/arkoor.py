"""Out-of-round payments: checking a request, booking the spend, and only then signing.

A request that is repeated spends the same inputs by the same checkpoint transactions, so the books stay as
they are and it is signed anew, with other nonces. A different request for the same inputs is refused; one
that differs in the destinations only has the same checkpoints, and is refused because their outputs are
spent.

Source: sheet 10 §6.4; sheet 03 §2.6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from barkd_py.ark.arkoor import (
    TWICE_DUST_SAT,
    ArkoorDestination,
    ArkoorPart,
    InvalidArkoor,
    server_cosign_part,
)
from barkd_py.ark.attestations import arkoor_cosign_message, is_attested
from barkd_py.ark.policy import ServerHtlcReceivePolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.units import DUST_SAT
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow
from barkd_py.devnet.ark_server.vtxos.flux import AlreadyLocked, FluxLocks


@dataclass(frozen=True, slots=True)
class PartRequest:
    """One input, and what a client wants to become of it."""

    input_id: VtxoId
    outputs: tuple[ArkoorDestination, ...]
    isolated: tuple[ArkoorDestination, ...]
    use_checkpoint: bool
    user_pub_nonces: tuple[bytes, ...]
    attestation: bytes


@dataclass(frozen=True, slots=True)
class CosignRules:
    """What a kind of request must obey. max_exit_depth: None where an old chain must stay spendable."""

    use_checkpoint: bool
    max_outputs: int
    max_exit_depth: int | None
    forbid_needless_dust: bool


@dataclass(frozen=True, slots=True)
class CosignedPart:
    """The server's nonces and partial signatures, in transaction order."""

    pub_nonces: tuple[bytes, ...]
    partial_sigs: tuple[bytes, ...]


class Arkoor:
    """The server's side of out-of-round payments."""

    def __init__(
        self,
        settings: ServerSettings,
        keys: ServerKeys,
        store: Store,
        chain: ServerChain,
        locks: FluxLocks,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._chain = chain
        self._locks = locks

    @property
    def rules(self) -> CosignRules:
        """The rules of ordinary payments."""
        return CosignRules(
            use_checkpoint=True,
            max_outputs=self._settings.max_arkoor_fanout,
            max_exit_depth=self._settings.max_vtxo_exit_depth,
            forbid_needless_dust=True,
        )

    async def cosign(self, requests: Sequence[PartRequest]) -> list[CosignedPart]:
        """Answer a payment; one answer per part, in their order."""
        ids = [request.input_id for request in requests]
        rows = await self._store.transact(lambda connection: user_rows(connection, ids))
        for _, vtxo in rows:
            if isinstance(vtxo.policy, ServerHtlcSendPolicy):
                raise BadArgument("server htlc send vtxo not supported")
            if isinstance(vtxo.policy, ServerHtlcReceivePolicy):
                raise BadArgument("server htlc recv vtxo not supported")
        parts = checked_parts(self.rules, requests, [vtxo for _, vtxo in rows])
        tip = await self._chain.tip()
        for (row, _), part in zip(rows, parts, strict=True):
            vtxo_rows.check_spendable(row, tip_height=tip.height, by=part.spending_tx.txid)
        return await self.book_and_sign(requests, parts)

    async def book_and_sign(
        self,
        requests: Sequence[PartRequest],
        parts: Sequence[ArkoorPart],
        guard: Callable[[Connection], None] = lambda connection: None,
        lock: bool = True,
    ) -> list[CosignedPart]:
        """Commit the spend, then sign. Nothing is signed if it cannot be booked.

        guard: what else must hold, checked or booked in the same transaction. lock: whether an input in use
        elsewhere is refused.
        """

        def write(connection: Connection) -> None:
            guard(connection)
            book(connection, parts)

        try:
            with self._locks.holding(part.input.id for part in parts if lock):
                await self._store.transact(write)
        except AlreadyLocked as error:
            raise BadArgument(f"some VTXO is already locked by another process: {error.vtxo_id}") from None
        return [
            CosignedPart(*server_cosign_part(part, self._keys.server, request.user_pub_nonces))
            for part, request in zip(parts, requests, strict=True)
        ]


def user_rows(connection: Connection, ids: Sequence[VtxoId]) -> list[tuple[VtxoRow, Vtxo]]:
    """The rows of users' VTXOs, in the order of the ids. Raises Missing or Failure."""
    return [(row, row.user_vtxo()) for row in vtxo_rows.get_all(connection, ids)]


def checked_parts(
    rules: CosignRules, requests: Sequence[PartRequest], inputs: Sequence[Vtxo]
) -> list[ArkoorPart]:
    """The parts of a request that obeys the rules. Raises BadArgument."""
    try:
        return _checked_parts(rules, requests, inputs)
    except Failure as error:
        raise BadArgument("invalid cosign request") from error


def _checked_parts(
    rules: CosignRules, requests: Sequence[PartRequest], inputs: Sequence[Vtxo]
) -> list[ArkoorPart]:
    if not requests:
        raise Failure("empty request")
    if len({request.use_checkpoint for request in requests}) > 1:
        raise Failure("not all requests have the same use_checkpoints value")
    if rules.use_checkpoint != requests[0].use_checkpoint:
        raise Failure(f"should {'' if rules.use_checkpoint else 'not '}use arkoor checkpoints")
    parts = [
        _part(index, request, vtxo)
        for index, (request, vtxo) in enumerate(zip(requests, inputs, strict=True))
    ]
    for index, part in enumerate(parts):
        _check_limits(rules, index, part)
    return parts


def _part(index: int, request: PartRequest, vtxo: Vtxo) -> ArkoorPart:
    where = f"invalid cosign request at index #{index}"
    message = arkoor_cosign_message(vtxo.id, request.outputs + request.isolated)
    if not is_attested(message, vtxo.user_pubkey, request.attestation):
        raise BadArgument(f"{where}: Invalid attestation")
    try:
        part = ArkoorPart(vtxo, request.outputs, request.isolated, request.use_checkpoint)
    except InvalidArkoor as error:
        raise BadArgument(f"{where}: An error occurred while building arkoor: {error}") from None
    if len(request.user_pub_nonces) != part.signature_count:
        raise BadArgument(
            f"{where}: Wrong number of user nonces provided. "
            f"Expected {part.signature_count}, got {len(request.user_pub_nonces)}"
        )
    return part


def _check_limits(rules: CosignRules, index: int, part: ArkoorPart) -> None:
    depth = part.input.exit_depth
    if rules.max_exit_depth is not None and depth >= rules.max_exit_depth:
        raise Failure(
            f"input VTXO {part.input.id} (#{index}) exit depth {depth} meets or exceeds the maximum of "
            f"{rules.max_exit_depth}; refresh the VTXO in a round before making further OOR payments"
        )
    count = len(part.all_outputs)
    if count > rules.max_outputs:
        raise Failure(
            f"too many outputs for input {part.input.id} (#{index}) ({count} > {rules.max_outputs})"
        )
    if rules.forbid_needless_dust:
        for outputs, what in ((part.outputs, "outputs"), (part.isolated, "isolated outputs")):
            if _mixes_dust(outputs):
                raise Failure(f"invalid mix of dust and non-dust {what} for input {part.input.id} (#{index})")


def _mixes_dust(outputs: Sequence[ArkoorDestination]) -> bool:
    amounts_sat = [output.amount_sat for output in outputs]
    return bool(amounts_sat) and min(amounts_sat) < DUST_SAT and max(amounts_sat) >= TWICE_DUST_SAT


def book(connection: Connection, parts: Sequence[ArkoorPart]) -> None:
    """Write a payment: its transactions, the outputs in between as spent, the new VTXOs, the spent inputs."""
    book_transactions(connection, parts)
    for part in parts:
        vtxo_rows.insert_new(connection, part.unsigned_vtxos, SpendState.UNREGISTERED)


def book_transactions(connection: Connection, parts: Sequence[ArkoorPart]) -> None:
    """As `book`, but for the new VTXOs."""
    for part in parts:
        split, *later = (step.tx for step in part.transactions)
        vtxo_rows.put_virtual_txs(connection, [split.txid, *(tx.txid for tx in later)])
        spenders = {tx.inputs[0].prevout: tx.txid for tx in later}
        for output in part.internal_vtxos():
            vtxo_rows.insert_spent(connection, output, spenders[output.point])
    vtxo_rows.spend(connection, [(part.input.id, part.spending_tx.txid) for part in parts])
