"""Why a funding transaction of ours is not seen: lost, or dead for good. Source: sheet 03 §1.7."""

from dataclasses import dataclass

from barkd_py.bitcoin.tx import Tx
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, ChainSource, Confirmed, NotFound
from barkd_py.errors import ChainError, chain_text


@dataclass(frozen=True, slots=True)
class Pushed:
    """The node has the transaction."""


@dataclass(frozen=True, slots=True)
class Undecided:
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """It can never confirm: something else has spent an input for good."""

    reason: str


ProbeResult = Pushed | Undecided | Dead


async def probe(chain: ChainSource, tx: Tx) -> ProbeResult:
    """Find out why a transaction of ours is not seen, and offer it again.

    An error of the chain source never condemns the transaction.
    """
    for tx_in in tx.inputs:
        parent = tx_in.prevout.txid
        try:
            status = await chain.tx_status(parent)
            if isinstance(status, NotFound):
                return Undecided(f"funding input parent tx {parent} not yet visible on chain")
            if isinstance(status, Confirmed) and await chain.is_spent_confirmed(tx_in.prevout):
                return Dead(f"funding input {tx_in.prevout} was spent by another transaction")
        except ChainError as error:
            return Undecided(chain_text(error))
    try:
        await chain.broadcast_package([tx])
    except BroadcastError as error:
        match error.kind:
            case BroadcastErrorKind.KNOWN:
                return Pushed()
            case BroadcastErrorKind.MISSING_OR_SPENT:
                return Dead(chain_text(error))
            case _:
                return Undecided(f"funding tx re-broadcast rejected: {chain_text(error)}")
    except ChainError as error:
        return Undecided(chain_text(error))
    return Pushed()
