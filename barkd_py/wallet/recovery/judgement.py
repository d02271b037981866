"""What follows from everything that is known of one VTXO: pure, and all of the policy.

Two rules stand above the table of states. What *this* wallet has seen for itself outweighs what the server
says: a VTXO that was spendable here, and that we never spent, is not given up for the server's word. It is
held back, so that payments do not fail on it, its chain is kept, so that it can be exited, and the server is
asked again. And nothing is believed to be money that is not proven against its on-chain anchor.

    here \\ server     spendable           spent            unclaimed   unregistered, HTLC   no answer
    not stored        proven: store it    store as spent   its round   leave it             store, held back
    spendable         leave it            hold back        leave it    leave it             leave it
    held back         proven: release     keep, or spent*  keep        keep                 keep
    spent, on word    proven: store it    leave it         leave it    leave it             leave it
    spent, exited, in use by something: leave it

    * spent if it was never spendable here, and no exit of it is under way.

An HTLC that the server calls spendable is held back as well, and asked back: a Lightning payment was under
way. One of a payment to us is nothing without its preimage, which follows from no words.

Source: sheet 02 §6.6, "Client must verify" 4, 6, 11, trap 8; sheet 10 §14 (server lies).
"""

import enum
from dataclasses import dataclass, replace
from typing import assert_never

from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.server_rpc.api import VtxoSpendState
from barkd_py.wallet.store.recovery import RecoveryOutcome
from barkd_py.wallet.vtxo_states import Exited, Locked, Spendable, Spent, VtxoState

_UNDER_WAY = (
    "a Lightning payment was under way; it is asked back from the server, and exits if the server keeps it"
)
_UNSIGNED = (
    "the server has no signatures for it: it was never signed by us, or the signatures were in the lost "
    "database only"
)
_LOST_PREIMAGE = (
    "a Lightning payment to us that was not claimed: its preimage was in the lost database only; "
    "the sender gets the money back"
)


@dataclass(frozen=True, slots=True)
class Proven:
    """Its chain was validated against the on-chain anchor, which is still there for it, or it has expired.

    is_on_chain: the chain as a whole is on the chain. is_swept: it has expired, and somebody else has taken
    what it hangs off; the server may refresh it.
    """

    is_on_chain: bool = False
    is_swept: bool = False


@dataclass(frozen=True, slots=True)
class Disproven:
    reason: str


@dataclass(frozen=True, slots=True)
class Unproven:
    """The chain source did not answer, or the anchor is not known, not confirmed, or somebody else's."""

    reason: str


Proof = Proven | Disproven | Unproven


@dataclass(frozen=True, slots=True)
class Facts:
    """vtxo: None if nobody has its body. is_unknown: the server says that it does not know the id.

    is_unreadable: it is stored, but its body cannot be read any more; the one here is somebody else's.
    is_ours: its key follows from the seed. is_of_our_server: it is cosigned by the pinned server.
    state: here; None if it is not stored. was_spendable: in this wallet, at some time.
    is_exiting: an exit of it is under way, so the chain will tell whose it is.
    status: the server's word; None without a usable one. proof: only as far as it matters.
    """

    vtxo: Vtxo | None
    is_unknown: bool = False
    is_unreadable: bool = False
    is_ours: bool = False
    is_of_our_server: bool = False
    state: VtxoState | None = None
    was_spendable: bool = False
    is_exiting: bool = False
    status: VtxoSpendState | None = None
    proof: Proof | None = None

    @property
    def is_kept_mail(self) -> bool:
        """Whether it is a payment that the mailbox keeps until it is money: held, and never spendable."""
        return self.state == Locked(None) and not self.was_spendable


class Deed(enum.Enum):
    """What is to be done to the stored VTXO."""

    NOTHING = enum.auto()
    STORE_SPENDABLE = enum.auto()  # whatever is stored of it, which is nothing but the server's word
    STORE_SPENT = enum.auto()
    STORE_HELD = enum.auto()
    RELEASE = enum.auto()
    HOLD = enum.auto()
    MARK_SPENT = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """ask_again: the answer may change. exit: it is on the chain. finish_round: it waits for its round.

    take_back: it is an HTLC of a payment that nobody remembers.
    """

    outcome: RecoveryOutcome
    reason: str | None = None
    deed: Deed = Deed.NOTHING
    ask_again: bool = False
    exit: bool = False
    finish_round: bool = False
    take_back: bool = False


def needs_proof(facts: Facts) -> bool:
    """Whether the verdict depends on a proof. Asked without one, before the expensive question."""
    if facts.vtxo is None or not facts.is_ours or not facts.is_of_our_server:
        return False
    if facts.is_unreadable:
        return True
    if facts.status is VtxoSpendState.SPENDABLE:
        return facts.state is None or facts.state == Locked(None) or _is_spent_on_word(facts)
    return facts.status is None and facts.state is None


def judge(facts: Facts) -> Verdict:
    if facts.vtxo is None:
        if facts.is_unknown:
            return Verdict(RecoveryOutcome.NOT_FOUND, "the server does not know it")
        return _undecided("the server did not hand it out")
    if not facts.is_of_our_server:
        return Verdict(RecoveryOutcome.FOREIGN, "it belongs to another server")
    if not facts.is_ours:
        return Verdict(RecoveryOutcome.FOREIGN, "its key is not among ours, as far as the gap limit goes")
    match facts.state:
        case Exited():
            return _left("it is exiting, or has exited")
        case Locked(holder) if holder is not None:
            return _left("it is in use")
        case Spendable():
            return _spendable_here(facts)
        case Locked():
            return _held_here(facts)
        case Spent():
            return _absent(facts) if _is_spent_on_word(facts) else _left("it was spent")
        case None:
            return _absent(facts)
        case _:
            assert_never(facts.state)


def _spendable_here(facts: Facts) -> Verdict:
    if facts.status is VtxoSpendState.SPENT:
        return _held("the server calls it spent, though this wallet has not spent it", Deed.HOLD)
    return _left("it was here already")


def _held_here(facts: Facts) -> Verdict:
    match facts.status:
        case VtxoSpendState.SPENDABLE:
            return _spendable(facts, Deed.RELEASE)
        case VtxoSpendState.SPENT if not facts.was_spendable and not facts.is_exiting:
            return _left("it was spent", Deed.MARK_SPENT)
        case VtxoSpendState.SPENT:
            return _held("the server calls it spent, though this wallet has not spent it")
        case _:
            return _held("the server does not say whether it can be spent")


def _absent(facts: Facts) -> Verdict:
    """It is not stored, or only as spent because the server said so."""
    match facts.status:
        case VtxoSpendState.SPENDABLE:
            return _spendable(facts, Deed.STORE_SPENDABLE)
        case _ if facts.state is not None:
            return _left("it was spent")
        case VtxoSpendState.SPENT:
            return _left("it was spent", Deed.STORE_SPENT)
        case VtxoSpendState.UNCLAIMED if facts.vtxo is not None and facts.vtxo.unlock_hash is not None:
            return Verdict(RecoveryOutcome.SKIPPED, "its round is not finished", finish_round=True)
        case VtxoSpendState.UNCLAIMED:
            return _left("its round is not finished")
        case VtxoSpendState.UNREGISTERED:
            return Verdict(RecoveryOutcome.SKIPPED, _UNSIGNED, ask_again=True)
        case VtxoSpendState.HTLC_RECV_UNCLAIMED:
            return _left(_LOST_PREIMAGE)
        case None:
            return _without_answer(facts)
        case _:
            assert_never(facts.status)


def _spendable(facts: Facts, deed: Deed) -> Verdict:
    """The server calls it spendable."""
    match facts.proof:
        case Proven(is_on_chain=True):
            return Verdict(RecoveryOutcome.EXITED, "it is on the chain", deed, exit=True)
        case Proven() if facts.vtxo is not None and not isinstance(facts.vtxo.policy, PubkeyPolicy):
            return _htlc(facts.vtxo, Deed.NOTHING if deed is Deed.RELEASE else Deed.STORE_HELD)
        case Proven():
            return Verdict(RecoveryOutcome.RECOVERED, deed=deed)
        case Disproven(reason) | Unproven(reason):
            return _undecided(reason)
        case None:
            raise AssertionError("needs_proof says so")
        case _:
            assert_never(facts.proof)


def _htlc(vtxo: Vtxo, deed: Deed) -> Verdict:
    """It is proven, and is no money by itself."""
    if isinstance(vtxo.policy, ServerHtlcSendPolicy):
        return replace(_held(_UNDER_WAY, deed), take_back=True)
    return _held(_LOST_PREIMAGE, deed)


def _without_answer(facts: Facts) -> Verdict:
    """Its chain is kept if it is proven: a server that stays silent does not keep us from exiting."""
    reason = "the server does not say whether it can be spent"
    match facts.proof:
        case Proven(is_on_chain=True):
            return Verdict(RecoveryOutcome.EXITED, "it is on the chain", Deed.STORE_SPENDABLE, exit=True)
        case Proven():
            return Verdict(RecoveryOutcome.FAILED, reason, Deed.STORE_HELD, ask_again=True)
        case _:
            return _undecided(reason)


def _is_spent_on_word(facts: Facts) -> bool:
    return facts.state == Spent() and not facts.was_spendable


def _left(reason: str, deed: Deed = Deed.NOTHING) -> Verdict:
    return Verdict(RecoveryOutcome.SKIPPED, reason, deed)


def _held(reason: str, deed: Deed = Deed.NOTHING) -> Verdict:
    return Verdict(RecoveryOutcome.LOCKED, reason, deed, ask_again=True)


def _undecided(reason: str) -> Verdict:
    return Verdict(RecoveryOutcome.FAILED, reason, ask_again=True)
