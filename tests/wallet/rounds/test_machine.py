"""The rule of participations: one row per state and observation that means something; the rest is silence."""

from dataclasses import replace

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.server_rpc.api import (
    RoundAttempt,
    RoundFailed,
    RoundFinished,
    RoundParticipation,
    RoundParticipationState,
    VtxoProposal,
)
from barkd_py.wallet.rounds import machine as m
from barkd_py.wallet.rounds import states as s
from tests.wallet.samples import make_id, make_vtxo

KEY = SecretKey(bytes([7]) * 32).public_key
HASH = b"\x11" * 32
OTHER_HASH = b"\x22" * 32
CHALLENGE = b"\x33" * 32
TX = Tx(2, (TxIn(OutPoint(Txid(b"\x01" * 32), 0)),), (TxOut(10_000, b"\x51"),))
VTXOS = (make_vtxo(1),)
INPUTS: tuple[VtxoId, ...] = (make_id(2), make_id(3))
ISSUED = RoundParticipation(RoundParticipationState.ISSUED, INPUTS, TX, VTXOS, None)

ROUND = s.Round(INPUTS, (s.Output(9_000, KEY),), s.Waiting())
WAITING = s.Waiting()
JOINING = s.Joining(5, 0, CHALLENGE)
REGISTERED = s.Registered(5, 0, HASH)
SIGNED = s.Signed(5, 0, HASH, b"spec", TX, (KEY,))
SUBMITTING = s.Submitting()
DELEGATED = s.Delegated(HASH)
HELD = s.Delegated(HASH, TX.txid)
LOCKED = s.Issued(HASH, TX, VTXOS, is_delegated=False)
FORFEITED = replace(LOCKED, forfeits_sent=True)
COMPLETED = s.Completed(HASH, TX, VTXOS, is_delegated=False)

ATTEMPT = RoundAttempt(5, 0, CHALLENGE)
NEXT_ATTEMPT = RoundAttempt(5, 1, CHALLENGE)
NEXT_ROUND = RoundAttempt(6, 0, CHALLENGE)
PROPOSAL = VtxoProposal(5, 0, b"spec", TX, ())
FINISHED = RoundFinished(5, 0, TX, ())
FAILED = RoundFailed(5)
LATER = (NEXT_ROUND, replace(PROPOSAL, round_seq=6), replace(FINISHED, round_seq=6), RoundFailed(6))
UNKNOWN = m.StatusUnknown("not found", can_repeat=True)

ALIVE: tuple[s.RoundState, ...] = (
    WAITING,
    JOINING,
    REGISTERED,
    SIGNED,
    SUBMITTING,
    DELEGATED,
    HELD,
    LOCKED,
    FORFEITED,
)
FINAL: tuple[s.RoundState, ...] = (COMPLETED, s.Failed("why"), s.Canceled("why"))

OBSERVATIONS: tuple[m.Observation, ...] = (
    ATTEMPT,
    NEXT_ATTEMPT,
    NEXT_ROUND,
    PROPOSAL,
    FINISHED,
    FAILED,
    m.SyncDue(),
    m.Interrupted(),
    m.ServerRestarted(),
    m.Accepted(HASH),
    m.Refused("no"),
    m.Refused("no", frozenset(INPUTS[:1])),
    m.Unanswered("silence"),
    m.TreeSigned(b"spec", TX, (KEY,)),
    m.TreeRefused("bad tree"),
    m.TreeFinished(TX, VTXOS),
    m.FinishRefused("bad finish"),
    m.StatusPending(),
    m.StatusIssued(ISSUED, TX.txid),
    UNKNOWN,
    m.DoubleSpent("double-spent"),
    m.LeavesDelivered(TX, VTXOS),
    m.ForfeitsReady(VTXOS, (b"bundle",)),
    m.Unlocked(VTXOS),
    m.TakenBack("taken back"),
    m.Shrunk(INPUTS[:1], (s.Output(4_000, KEY),)),
    m.NothingLeft("gone"),
    m.CancelRequested(),
)

# What follows: the state, and the effect. Pairs that are not here change nothing.
TABLE: dict[tuple[s.RoundState, m.Observation], tuple[s.RoundState, m.Effect | None]] = {
    (WAITING, ATTEMPT): (JOINING, m.Register(CHALLENGE)),
    (WAITING, NEXT_ROUND): (s.Joining(6, 0, CHALLENGE), m.Register(CHALLENGE)),
    (JOINING, m.Accepted(HASH)): (REGISTERED, None),
    (JOINING, m.Refused("no")): (WAITING, None),
    (JOINING, m.Refused("no", frozenset(INPUTS[:1]))): (
        s.Failed("Ark server refused our payment submission: no"),
        None,
    ),
    (JOINING, m.Unanswered("silence")): (WAITING, None),
    (JOINING, m.Interrupted()): (WAITING, None),
    (REGISTERED, PROPOSAL): (REGISTERED, m.SignTree(PROPOSAL)),
    (REGISTERED, m.TreeSigned(b"spec", TX, (KEY,))): (SIGNED, m.DeliverSignatures()),
    (REGISTERED, m.TreeRefused("bad tree")): (WAITING, None),
    (REGISTERED, NEXT_ATTEMPT): (s.Joining(5, 1, CHALLENGE), m.Register(CHALLENGE)),
    (REGISTERED, NEXT_ROUND): (s.Joining(6, 0, CHALLENGE), m.Register(CHALLENGE)),
    (REGISTERED, FINISHED): (WAITING, None),
    (REGISTERED, FAILED): (WAITING, None),
    (REGISTERED, m.Interrupted()): (WAITING, None),
    (REGISTERED, m.ServerRestarted()): (WAITING, None),
    (SIGNED, FINISHED): (SIGNED, m.CheckFinished(FINISHED)),
    (SIGNED, m.TreeFinished(TX, VTXOS)): (LOCKED, m.Publish(TX)),
    (SIGNED, m.FinishRefused("bad finish")): (SIGNED, m.AskStatus(HASH)),
    (SIGNED, NEXT_ATTEMPT): (s.Joining(5, 1, CHALLENGE), m.Register(CHALLENGE)),
    (SIGNED, NEXT_ROUND): (SIGNED, m.AskStatus(HASH, NEXT_ROUND)),
    (SIGNED, FAILED): (SIGNED, m.AskStatus(HASH, FAILED)),
    (SIGNED, m.ServerRestarted()): (SIGNED, m.AskStatus(HASH)),
    (SIGNED, m.StatusIssued(ISSUED, TX.txid)): (HELD, m.Collect(ISSUED)),
    (SIGNED, m.StatusPending()): (DELEGATED, None),
    (SIGNED, UNKNOWN): (WAITING, None),
    (SUBMITTING, m.SyncDue()): (SUBMITTING, m.Submit()),
    (SUBMITTING, m.Accepted(HASH)): (DELEGATED, None),
    (SUBMITTING, m.Refused("no")): (s.Failed("Ark server refused our payment submission: no"), None),
    (SUBMITTING, m.Refused("no", frozenset(INPUTS[:1]))): (
        s.Failed("Ark server refused our payment submission: no"),
        None,
    ),
    (SUBMITTING, m.Shrunk(INPUTS[:1], (s.Output(4_000, KEY),))): (SUBMITTING, m.Submit()),
    (DELEGATED, m.SyncDue()): (DELEGATED, m.AskStatus(HASH)),
    (DELEGATED, m.StatusIssued(ISSUED, TX.txid)): (HELD, m.Collect(ISSUED)),
    (DELEGATED, UNKNOWN): (SUBMITTING, m.Submit()),
    (DELEGATED, m.LeavesDelivered(TX, VTXOS)): (replace(LOCKED, is_delegated=True), m.Swap()),
    (DELEGATED, m.Shrunk(INPUTS[:1], (s.Output(4_000, KEY),))): (SUBMITTING, m.Submit()),
    (HELD, m.SyncDue()): (HELD, m.AskStatus(HASH)),
    (HELD, m.StatusIssued(ISSUED, TX.txid)): (HELD, m.Collect(ISSUED)),
    (HELD, m.LeavesDelivered(TX, VTXOS)): (replace(LOCKED, is_delegated=True), m.Swap()),
    (DELEGATED, m.DoubleSpent("double-spent")): (s.Failed("double-spent"), None),
    (HELD, m.DoubleSpent("double-spent")): (s.Failed("double-spent"), None),
    (LOCKED, m.DoubleSpent("double-spent")): (s.Failed("double-spent"), None),
    (LOCKED, m.SyncDue()): (LOCKED, m.Swap()),
    (LOCKED, m.ForfeitsReady(VTXOS, (b"bundle",))): (FORFEITED, m.Forfeit((b"bundle",))),
    (LOCKED, m.Unlocked(VTXOS)): (COMPLETED, None),
    (FORFEITED, m.SyncDue()): (FORFEITED, m.Swap()),
    (FORFEITED, m.ForfeitsReady(VTXOS, (b"bundle",))): (FORFEITED, m.Forfeit((b"bundle",))),
    (FORFEITED, m.Unlocked(VTXOS)): (COMPLETED, None),
    (HELD, m.TakenBack("taken back")): (s.Failed("taken back"), None),
    (LOCKED, m.TakenBack("taken back")): (s.Failed("taken back"), None),
    (FORFEITED, m.TakenBack("taken back")): (s.Failed("taken back"), None),
    **{(state, m.CancelRequested()): (s.Canceled("canceled by the user"), None)
       for state in (WAITING, JOINING, REGISTERED)},
    **{(state, m.NothingLeft("gone")): (s.Canceled("gone"), None) for state in (WAITING, SUBMITTING)},
}  # fmt: skip


def after(state: s.RoundState, seen: m.Observation, **fields: object) -> m.Step:
    return m.step(replace(ROUND, state=state, **fields), seen)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ALIVE, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("seen", OBSERVATIONS, ids=lambda seen: type(seen).__name__)
def test_every_state_meets_every_observation(state: s.RoundState, seen: m.Observation) -> None:
    expected = TABLE.get((state, seen), (state, None))
    step = after(state, seen)
    assert (step.round.state, step.effect) == expected


def test_the_table_names_no_pair_that_is_not_tried() -> None:
    assert {state for state, _ in TABLE} <= set(ALIVE)
    assert {seen for _, seen in TABLE} <= set(OBSERVATIONS)


def test_every_state_is_reachable() -> None:
    reached = {type(state) for state, _ in TABLE.values()}
    assert reached | {s.Submitting} >= {type(state) for state in (*ALIVE, *FINAL)}


@pytest.mark.parametrize("state", FINAL, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("seen", OBSERVATIONS, ids=lambda seen: type(seen).__name__)
def test_finished_states_stay_put(state: s.RoundState, seen: m.Observation) -> None:
    assert after(state, seen) == m.Step(replace(ROUND, state=state))


# --- money


@pytest.mark.parametrize("state", [LOCKED, FORFEITED, HELD], ids=["locked", "forfeited", "held"])
@pytest.mark.parametrize("seen", OBSERVATIONS, ids=lambda seen: type(seen).__name__)
def test_what_was_held_is_never_given_up(state: s.RoundState, seen: m.Observation) -> None:
    """Unless it is certain that the round will never be, and nothing was forfeited for it; or that all that
    was given is ours again.
    """
    if isinstance(seen, m.TakenBack) or (isinstance(seen, m.DoubleSpent) and state != FORFEITED):
        return
    reached = after(state, seen).round.state
    assert not isinstance(reached, s.Failed | s.Canceled | s.Waiting | s.Submitting)
    assert s.holds_inputs(reached) or isinstance(reached, s.Completed)


@pytest.mark.parametrize("seen", OBSERVATIONS, ids=lambda seen: type(seen).__name__)
def test_a_signed_tree_is_left_only_by_the_word_of_the_server(seen: m.Observation) -> None:
    """Or for another attempt of the same round, for which the inputs stay locked."""
    reached = after(SIGNED, seen).round.state
    if not s.holds_inputs(reached):
        assert isinstance(seen, m.StatusUnknown | m.StatusPending)


def test_nothing_is_sent_before_it_is_stored_as_sent() -> None:
    for (_, seen), (state, effect) in TABLE.items():
        match effect:
            case m.Forfeit():
                assert isinstance(state, s.Issued)
                assert state.forfeits_sent
            case m.DeliverSignatures():
                assert isinstance(state, s.Signed), seen
            case m.Register():
                assert isinstance(state, s.Joining), seen


# --- events of other rounds


@pytest.mark.parametrize("event", LATER, ids=lambda event: type(event).__name__)
def test_a_later_round_ends_an_attempt_without_signatures(event: m.Observation) -> None:
    step = after(REGISTERED, event)
    assert step.round.failures == 1
    assert step.round.last_error == "round 6 started while we were on 5"
    assert isinstance(step.round.state, s.Joining if event == NEXT_ROUND else s.Waiting)


@pytest.mark.parametrize("event", LATER, ids=lambda event: type(event).__name__)
def test_a_later_round_makes_us_ask_about_a_signed_one(event: m.Observation) -> None:
    step = after(SIGNED, event)
    assert step.round.state == SIGNED
    assert isinstance(step.effect, m.AskStatus)
    assert step.effect.then == event


@pytest.mark.parametrize("state", [REGISTERED, SIGNED], ids=["registered", "signed"])
@pytest.mark.parametrize(
    "event",
    [
        RoundAttempt(5, 0, CHALLENGE),
        RoundAttempt(4, 1, CHALLENGE),
        replace(PROPOSAL, attempt_seq=1),
        replace(PROPOSAL, round_seq=4),
        replace(FINISHED, attempt_seq=1),
        replace(FINISHED, round_seq=4),
        RoundFailed(4),
    ],
    ids=repr,
)
def test_replayed_and_foreign_events_mean_nothing(state: s.RoundState, event: m.Observation) -> None:
    assert after(state, event) == m.Step(replace(ROUND, state=state))


def test_the_next_round_is_joined_once_the_server_has_denied_the_last() -> None:
    unknown = m.StatusUnknown("not found", can_repeat=True, then=NEXT_ROUND)
    step = after(SIGNED, unknown, last_error="round 5 failed by server")
    assert step.round.state == s.Joining(6, 0, CHALLENGE)
    assert step.effect == m.Register(CHALLENGE)
    assert (step.round.failures, step.round.last_error) == (1, "round 5 failed by server")


# --- limits


def test_an_attempt_that_fails_is_repeated_up_to_a_limit_with_the_reason() -> None:
    round_ = ROUND
    for failures in range(1, m.MAX_FAILURES):
        round_ = m.step(round_, ATTEMPT).round
        round_ = m.step(round_, m.Unanswered("silence")).round
        assert (round_.state, round_.failures) == (WAITING, failures)
        assert round_.last_error == "the Ark server did not register us: silence"
    round_ = m.step(round_, ATTEMPT).round
    round_ = m.step(round_, m.Unanswered("silence")).round
    assert round_.state == s.Failed("the Ark server did not register us: silence")


def test_a_delegated_participation_that_is_forgotten_is_repeated_up_to_a_limit() -> None:
    round_ = replace(ROUND, state=DELEGATED)
    for _ in range(1, m.MAX_FAILURES):
        round_ = m.step(round_, UNKNOWN).round
        assert round_.state == SUBMITTING
        round_ = m.step(round_, m.Accepted(OTHER_HASH)).round
        assert round_.state == s.Delegated(OTHER_HASH)
    assert m.step(round_, UNKNOWN).round.state == s.Failed("not found")


def test_a_forgotten_participation_whose_inputs_are_used_fails() -> None:
    step = after(DELEGATED, m.StatusUnknown("not found", can_repeat=False))
    assert step.round.state == s.Failed("not found")


def test_a_round_that_was_held_is_not_submitted_again_whatever_the_server_says() -> None:
    step = after(HELD, UNKNOWN)
    assert (step.round.state, step.effect) == (HELD, None)
    assert step.round.last_error == "not found"


# --- storing


@pytest.mark.parametrize("state", ALIVE, ids=lambda state: type(state).__name__)
def test_states_are_stored_and_read(state: s.RoundState) -> None:
    round_ = replace(ROUND, state=state, failures=2, last_error="why", scheduled_height=77)
    assert s.decode_round(s.encode_round(round_)) == round_


def test_what_is_stored_of_an_attempt_holds_no_secret() -> None:
    secret = SecretKey(bytes([7]) * 32)
    for state in (JOINING, REGISTERED, SIGNED):
        assert secret.secret_bytes.hex() not in s.encode_round(replace(ROUND, state=state))
