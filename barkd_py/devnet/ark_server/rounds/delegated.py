"""Delegated participations: submitted once, taken into a round by the server, and asked for later.

Source: sheet 10 §6.7 (SubmitRoundParticipation, RoundParticipationStatus).
"""

import enum
from dataclasses import dataclass
from functools import partial
from secrets import token_bytes

from sqlalchemy import Connection

from barkd_py.ark.attestations import delegated_participation_message, is_attested
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Missing
from barkd_py.devnet.ark_server.rounds.attempt import AttestedInput
from barkd_py.devnet.ark_server.rounds.checks import check_all_spendable, check_amounts, check_fee
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store import participation_rows, round_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.participation_rows import Participation, Swap, WantedOutput
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow


class Stage(enum.Enum):
    """How far a participation is, by the protocol's number."""

    PENDING = 0
    ISSUED = 1
    RELEASED = 2


@dataclass(frozen=True, slots=True)
class DelegatedRequest:
    """A swap for the server to hold alone."""

    inputs: tuple[AttestedInput, ...]
    outputs: tuple[WantedOutput, ...]
    mailbox_id: PublicKey | None
    scheduled_height: int | None

    @property
    def input_ids(self) -> tuple[VtxoId, ...]:
        return tuple(each.vtxo_id for each in self.inputs)


@dataclass(frozen=True, slots=True)
class Status:
    """What is told of a participation. vtxos: in request order, locked, with unsigned leaves.

    funding_tx: perhaps not signed yet. preimage: once all inputs are forfeited.
    """

    stage: Stage
    input_ids: tuple[VtxoId, ...]
    funding_tx: Tx | None = None
    vtxos: tuple[Vtxo, ...] = ()
    preimage: bytes | None = None


class DelegatedParticipations:
    """Taking and telling."""

    def __init__(self, settings: ServerSettings, store: Store, chain: ServerChain) -> None:
        self._settings = settings
        self._store = store
        self._chain = chain

    async def submit(self, request: DelegatedRequest) -> bytes:
        """Store a swap for the next round that may take it; its unlock hash. Raises Failure.

        Every call makes another hash, and the last one counts.
        """
        rows, vtxos = await self._store.transact(partial(_read, vtxo_ids=request.input_ids))
        _check_attestations(request, vtxos)
        _check_schedule(request, vtxos)
        tip = await self._chain.tip()
        check_amounts(vtxos, request.outputs)
        at_height = tip.height if request.scheduled_height is None else request.scheduled_height
        try:
            check_fee(self._settings.fees, vtxos, request.outputs, at_height)
        except Failure as error:
            raise BadArgument("refresh fee check failed") from error
        check_all_spendable(rows, tip_height=tip.height, text="input vtxo(s) unusable")
        swap = Swap(
            inputs=request.input_ids,
            outputs=request.outputs,
            preimage=token_bytes(32),
            mailbox_id=request.mailbox_id,
            scheduled_height=request.scheduled_height,
        )
        await self._store.transact(partial(_insert, swap=swap, tip_height=tip.height))
        return swap.unlock_hash

    async def status(self, unlock_hash: bytes) -> Status:
        """How far a participation is; of one in person too, once its round is signed. Raises Missing."""
        return await self._store.transact(partial(_status, unlock_hash=unlock_hash))


def _read(connection: Connection, vtxo_ids: tuple[VtxoId, ...]) -> tuple[list[VtxoRow], list[Vtxo]]:
    rows = vtxo_rows.get_all(connection, vtxo_ids)
    return rows, [row.user_vtxo() for row in rows]


def _check_attestations(request: DelegatedRequest, vtxos: list[Vtxo]) -> None:
    for each, vtxo in zip(request.inputs, vtxos, strict=True):
        message = delegated_participation_message(vtxo.id, request.outputs)
        if not is_attested(message, vtxo.user_pubkey, each.attestation):
            cause = Failure("signature failed verification")
            raise BadArgument(f"attestation for vtxo {vtxo.id} failed") from cause


def _check_schedule(request: DelegatedRequest, vtxos: list[Vtxo]) -> None:
    height = request.scheduled_height
    if height is None:
        return
    for vtxo in vtxos:
        if vtxo.expiry_height <= height:
            raise BadArgument(
                f"input vtxo {vtxo.id} expires at height {vtxo.expiry_height}, "
                f"before the scheduled refresh height {height}"
            )


def _insert(connection: Connection, swap: Swap, tip_height: int) -> None:
    for row in vtxo_rows.get_all(connection, swap.inputs):
        vtxo_rows.check_spendable(row, tip_height=tip_height)
    participation_rows.insert_pending(connection, swap)


def _status(connection: Connection, unlock_hash: bytes) -> Status:
    found = participation_rows.find(connection, unlock_hash)
    if found is None:
        raise Missing("round participation not found", [unlock_hash.hex()])
    inputs = found.swap.inputs
    if found.round is None:
        return Status(Stage.PENDING, inputs)
    funding_tx, vtxos = _issued(connection, found)
    if not found.is_forfeited:
        return Status(Stage.ISSUED, inputs, funding_tx, vtxos)
    return Status(Stage.RELEASED, inputs, funding_tx, vtxos, found.swap.preimage)


def _issued(connection: Connection, found: Participation) -> tuple[Tx, tuple[Vtxo, ...]]:
    """The funding transaction of a participation's round, and its outputs there."""
    assert found.round is not None
    stored = round_rows.find(connection, found.round)
    assert stored is not None
    tree = stored.tree.tree()
    return stored.funding_tx, tuple(tree.vtxo(leaf, stored.tree.signatures) for leaf in found.leaves)
