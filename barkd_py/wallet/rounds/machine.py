"""Which state follows which. Pure: a participation and an observation in, a participation and an effect out.

Observations are what the server announces to everybody (`RoundEvent`), what came of the last effect, or that
it is time to look again (`SyncDue`). An effect is one thing to do *after* the new state has been stored; so a
crash is always between a state and its effect, and `SyncDue` leads back to it.

    Waiting ──attempt 0──▶ Joining ──accepted──▶ Registered ──tree signed──▶ Signed ──finished──▶ Issued
       ▲                      │                      │                       │    │
       └── one failure more ◀─┴──────────────────────┴────── it never was ───┘    └ it was: Delegated
           (MAX_FAILURES: Failed)

    Submitting ──accepted──▶ Delegated ──leaves──▶ Issued ──leaves signed──▶ forfeits sent ──▶ Completed
       ▲                         │
       └── not known any more ◀──┘

Until `Signed` nothing that the server could finish a round with has left us, so every trouble leads back to
`Waiting`. From `Signed` on the round may have been held without our seeing it: only the server's own word
that there is no such participation, once the round is over, leads back. What was held is completed, however
long it takes, unless the inputs come back to us on the chain (`round_rescue`).

Upstream gives up where this goes back to `Waiting`, and in the place of `Signed` too, although the server may
hold the inputs then. Source: sheet 04 §14-§19, §21.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.server_rpc.api import (
    RoundAttempt,
    RoundEvent,
    RoundFailed,
    RoundFinished,
    RoundParticipation,
    VtxoProposal,
)
from barkd_py.wallet.rounds.states import (
    Canceled,
    Completed,
    Delegated,
    Failed,
    Final,
    Issued,
    Joining,
    Ongoing,
    Output,
    Registered,
    Round,
    RoundState,
    Signed,
    Submitting,
    Waiting,
)

MAX_FAILURES = 5
"""How many attempts may come to nothing before a participation is given up."""

# --- observations


@dataclass(frozen=True, slots=True)
class SyncDue:
    """Time to look what became of it."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The process that joined the attempt is gone, and its secret nonces with it."""


@dataclass(frozen=True, slots=True)
class ServerRestarted:
    """The server has held no round since it was started: no attempt of before is alive."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server takes part for us, or has us in its attempt."""

    unlock_hash: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did nothing. blamed: inputs that it cannot use."""

    reason: str
    blamed: frozenset[VtxoId] = frozenset()


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Whether the server did it is not known, or it could not be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class TreeSigned:
    """The proposal is as it should be, and signed; the signatures have not left us."""

    spec: bytes
    funding_tx: Tx
    cosign_pubkeys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class TreeRefused:
    """The proposal is not what was agreed, or cannot be signed. Nothing was signed."""

    reason: str


@dataclass(frozen=True, slots=True)
class TreeFinished:
    """The tree is signed by everybody. vtxos: ours, locked, in the order of our outputs."""

    funding_tx: Tx
    vtxos: tuple[Vtxo, ...]


@dataclass(frozen=True, slots=True)
class FinishRefused:
    """What the server calls the finished round is not the one that we signed."""

    reason: str


@dataclass(frozen=True, slots=True)
class StatusPending:
    """The server says: no round yet."""


@dataclass(frozen=True, slots=True)
class StatusIssued:
    """The server says: the round was held."""

    participation: RoundParticipation
    funding_txid: Txid


@dataclass(frozen=True, slots=True)
class StatusUnknown:
    """The server says: no such participation. can_repeat: the inputs are free for another try."""

    reason: str
    can_repeat: bool
    then: RoundEvent | None = None


@dataclass(frozen=True, slots=True)
class DoubleSpent:
    """The round's funding transaction can never be: the new VTXOs will not exist."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeavesDelivered:
    """The server's leaves are what was asked for, and the funding transaction is deep enough."""

    funding_tx: Tx
    vtxos: tuple[Vtxo, ...]


@dataclass(frozen=True, slots=True)
class ForfeitsReady:
    """Every leaf is signed and proven. forfeits: encoded bundles, not sent yet."""

    vtxos: tuple[Vtxo, ...]
    forfeits: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The preimage is there; the VTXOs are complete and valid."""

    vtxos: tuple[Vtxo, ...]


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Every input is ours on the chain, for good: the server gets nothing for the new VTXOs, and we none."""

    reason: str


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Some inputs are gone; this is the participation without them."""

    inputs: tuple[VtxoId, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class NothingLeft:
    """The inputs are gone, or not worth a refresh any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants it called off."""


Observation = (
    RoundAttempt
    | VtxoProposal
    | RoundFinished
    | RoundFailed
    | SyncDue
    | Interrupted
    | ServerRestarted
    | Accepted
    | Refused
    | Unanswered
    | TreeSigned
    | TreeRefused
    | TreeFinished
    | FinishRefused
    | StatusPending
    | StatusIssued
    | StatusUnknown
    | DoubleSpent
    | LeavesDelivered
    | ForfeitsReady
    | Unlocked
    | TakenBack
    | Shrunk
    | NothingLeft
    | CancelRequested
)

# --- effects


@dataclass(frozen=True, slots=True)
class Register:
    """Make cosign keys and nonces, prove the inputs against the challenge, and submit."""

    challenge: bytes


@dataclass(frozen=True, slots=True)
class SignTree:
    """Check the proposal, and sign it with the nonces of this attempt."""

    proposal: VtxoProposal


@dataclass(frozen=True, slots=True)
class DeliverSignatures:
    """Send what `SignTree` has signed."""


@dataclass(frozen=True, slots=True)
class CheckFinished:
    """Check the signed tree, and take our leaves."""

    finished: RoundFinished


@dataclass(frozen=True, slots=True)
class Publish:
    """Broadcast the funding transaction: the server may have failed to."""

    tx: Tx


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Ask what became of the participation. then: the event that gave rise to it, to be looked at again."""

    unlock_hash: bytes
    then: RoundEvent | None = None


@dataclass(frozen=True, slots=True)
class Submit:
    """Ask the server to take part for us."""


@dataclass(frozen=True, slots=True)
class Collect:
    """If the funding transaction is deep enough, check the leaves that the server has made."""

    participation: RoundParticipation


@dataclass(frozen=True, slots=True)
class Swap:
    """If the funding transaction is deep enough, sign leaves and forfeits."""


@dataclass(frozen=True, slots=True)
class Forfeit:
    """Send the forfeits for the preimage."""

    forfeits: tuple[bytes, ...]


Effect = (
    Register
    | SignTree
    | DeliverSignatures
    | CheckFinished
    | Publish
    | AskStatus
    | Submit
    | Collect
    | Swap
    | Forfeit
)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: the participation, to be stored, and then perhaps something to do."""

    round: Round
    effect: Effect | None = None


# --- the rule


def step(round_: Round, seen: Observation) -> Step:
    """The next step; the same participation without an effect where the observation means nothing."""
    if isinstance(round_.state, Final):
        return Step(round_)
    match round_.state:
        case Waiting():
            return _waiting(round_, seen)
        case Joining():
            return _joining(round_, round_.state, seen)
        case Registered():
            return _registered(round_, round_.state, seen)
        case Signed():
            return _signed(round_, round_.state, seen)
        case Submitting():
            return _submitting(round_, seen)
        case Delegated():
            return _delegated(round_, round_.state, seen)
        case Issued():
            return _issued(round_, round_.state, seen)
        case _:
            assert_never(round_.state)


def _waiting(round_: Round, seen: Observation) -> Step:
    match seen:
        case RoundAttempt(attempt_seq=0):
            return _join(round_, seen)
        case Shrunk():
            return Step(_shrink(round_, seen))
        case NothingLeft(reason):
            return _to(round_, Canceled(reason))
        case CancelRequested():
            return _cancel(round_)
        case _:
            return Step(round_)


def _joining(round_: Round, state: Joining, seen: Observation) -> Step:
    match seen:
        case Accepted(unlock_hash):
            return _to(round_, Registered(state.round_seq, state.attempt_seq, unlock_hash))
        case Refused(reason, blamed) if blamed:
            return _to(round_, Failed(_refused(reason)))
        case Refused(reason):
            return _fail(round_, _refused(reason))
        case Unanswered(reason):
            return _fail(round_, f"the Ark server did not register us: {reason}")
        case Interrupted():
            return _fail(round_, "interrupted while joining a round")
        case CancelRequested():
            return _cancel(round_)
        case _:
            return Step(round_)


def _registered(round_: Round, state: Registered, seen: Observation) -> Step:
    match seen:
        case VtxoProposal() if _is_same_attempt(state, seen):
            return Step(round_, SignTree(seen))
        case TreeSigned(spec, funding_tx, cosign_pubkeys):
            signed = Signed(
                state.round_seq, state.attempt_seq, state.unlock_hash, spec, funding_tx, cosign_pubkeys
            )
            return _to(round_, signed, DeliverSignatures())
        case TreeRefused(reason):
            return _fail(round_, reason)
        case RoundFinished() if _is_same_attempt(state, seen):
            return _fail(round_, f"round {state.round_seq} finished without us")
        case Interrupted():
            return _fail(
                round_,
                "secret cosign nonces unavailable (likely after a restart); "
                "abandoning round attempt to avoid nonce reuse",
            )
        case CancelRequested():
            return _cancel(round_)
        case _:
            return _followed(round_, state, seen, _fail)


def _signed(round_: Round, state: Signed, seen: Observation) -> Step:
    def ask(current: Round, reason: str) -> Step:
        event = seen if isinstance(seen, RoundEvent) else None
        return Step(replace(current, last_error=reason), AskStatus(state.unlock_hash, event))

    match seen:
        case RoundFinished() if _is_same_attempt(state, seen):
            return Step(round_, CheckFinished(seen))
        case TreeFinished(funding_tx, vtxos):
            issued = Issued(state.unlock_hash, funding_tx, vtxos, is_delegated=False)
            return _to(replace(round_, last_error=None), issued, Publish(funding_tx))
        case FinishRefused(reason):
            return ask(round_, reason)
        case StatusIssued(participation, funding_txid):
            return _to(round_, Delegated(state.unlock_hash, funding_txid), Collect(participation))
        case StatusPending():
            return _to(round_, Delegated(state.unlock_hash))
        case StatusUnknown(_, _, then):
            failed = _fail(round_, round_.last_error or f"round {state.round_seq} did not finish")
            return failed if then is None else _and_then(failed, then)
        case _:
            return _followed(round_, state, seen, ask)


def _followed(
    round_: Round, state: Registered | Signed, seen: Observation, over: Callable[[Round, str], Step]
) -> Step:
    """What the events after ours mean, as far as they mean the same with and without our signatures.

    over: what to do if the round is over. A new attempt of the same round is joined at once: the server held
    it only because the last one did not come about, and whatever it did with that, we forfeit nothing for it.
    """
    match seen:
        case RoundAttempt() if seen.round_seq == state.round_seq and seen.attempt_seq > state.attempt_seq:
            return _join(round_, seen)
        case RoundFailed() if seen.round_seq == state.round_seq:
            return over(round_, f"round {state.round_seq} failed by server")
        case ServerRestarted():
            return over(round_, f"the Ark server was restarted during round {state.round_seq}")
        case RoundAttempt() | VtxoProposal() | RoundFinished() | RoundFailed():
            if seen.round_seq <= state.round_seq:
                return Step(round_)
            step_ = over(round_, f"round {seen.round_seq} started while we were on {state.round_seq}")
            return step_ if step_.effect is not None else _and_then(step_, seen)
        case _:
            return Step(round_)


def _submitting(round_: Round, seen: Observation) -> Step:
    match seen:
        case SyncDue():
            return Step(round_, Submit())
        case Accepted(unlock_hash):
            return _to(round_, Delegated(unlock_hash))
        case Refused(reason):
            return _to(round_, Failed(_refused(reason)))
        case Unanswered(reason):
            return Step(replace(round_, last_error=reason))
        case Shrunk():
            return Step(_shrink(round_, seen), Submit())
        case NothingLeft(reason):
            return _to(round_, Canceled(reason))
        case _:
            return Step(round_)


def _delegated(round_: Round, state: Delegated, seen: Observation) -> Step:
    match seen:
        case SyncDue():
            return Step(round_, AskStatus(state.unlock_hash))
        case StatusIssued(participation, funding_txid):
            issued = Delegated(state.unlock_hash, funding_txid)
            return _to(round_, issued, Collect(participation))
        case StatusUnknown(reason, can_repeat):
            if state.funding_txid is not None:
                return Step(replace(round_, last_error=reason))
            if not can_repeat or round_.failures + 1 >= MAX_FAILURES:
                return _to(round_, Failed(reason))
            again = replace(round_, failures=round_.failures + 1, last_error=reason)
            return _to(again, Submitting(), Submit())
        case Shrunk() if state.funding_txid is None:
            return _to(_shrink(round_, seen), Submitting(), Submit())
        case DoubleSpent(reason):
            return _to(round_, Failed(reason))
        case TakenBack(reason) if state.funding_txid is not None:
            return _to(round_, Failed(reason))
        case LeavesDelivered(funding_tx, vtxos):
            leaves = Issued(state.unlock_hash, funding_tx, vtxos, is_delegated=True)
            return _to(replace(round_, last_error=None), leaves, Swap())
        case _:
            return Step(round_)


def _issued(round_: Round, state: Issued, seen: Observation) -> Step:
    match seen:
        case SyncDue():
            return Step(round_, Swap())
        case ForfeitsReady(vtxos, forfeits):
            return _to(round_, replace(state, vtxos=vtxos, forfeits_sent=True), Forfeit(forfeits))
        case DoubleSpent(reason) if not state.forfeits_sent:
            return _to(round_, Failed(reason))
        case TakenBack(reason):
            return _to(round_, Failed(reason))
        case Unlocked(vtxos):
            completed = Completed(state.unlock_hash, state.funding_tx, vtxos, state.is_delegated)
            return _to(round_, completed)
        case _:
            return Step(round_)


# --- building steps


def _to(round_: Round, state: RoundState, effect: Effect | None = None) -> Step:
    return Step(replace(round_, state=state), effect)


def _join(round_: Round, attempt: RoundAttempt) -> Step:
    joining = Joining(attempt.round_seq, attempt.attempt_seq, attempt.challenge)
    return _to(round_, joining, Register(attempt.challenge))


def _shrink(round_: Round, smaller: Shrunk) -> Round:
    return replace(round_, inputs=smaller.inputs, outputs=smaller.outputs)


def _cancel(round_: Round) -> Step:
    return _to(round_, Canceled("canceled by the user"))


def _fail(round_: Round, reason: str) -> Step:
    """This attempt came to nothing: wait for another round, or give up."""
    failures = round_.failures + 1
    if failures >= MAX_FAILURES:
        return _to(replace(round_, failures=failures), Failed(reason))
    return Step(replace(round_, state=Waiting(), failures=failures, last_error=reason))


def _and_then(taken: Step, event: RoundEvent) -> Step:
    """Look at the event again from where the step has led."""
    return step(taken.round, event)


def _refused(reason: str) -> str:
    return f"Ark server refused our payment submission: {reason}"


def _is_same_attempt(state: Ongoing, event: VtxoProposal | RoundFinished) -> bool:
    return (event.round_seq, event.attempt_seq) == (state.round_seq, state.attempt_seq)
