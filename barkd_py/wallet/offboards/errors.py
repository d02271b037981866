"""What offboards refuse, and what can go wrong with them."""

from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError, ChainError, InsufficientFunds, ProtocolViolation, StateConflict


class TooManyOffboardInputs(BarkdError):
    def __init__(self, count: int, most: int) -> None:
        super().__init__(f"max inputs for offboard is {most}, {count} were provided")


class DuplicateOffboardInput(BarkdError):
    def __init__(self) -> None:
        super().__init__("offboard inputs must not contain duplicates")


class OffboardLeavesDust(InsufficientFunds):
    """The cause says how the fee and the amount are."""

    def __init__(self) -> None:
        super().__init__("offboard fee leaves dust")


class SendBelowDust(BarkdError):
    def __init__(self, address: str, minimum_sat: int) -> None:
        super().__init__(f"the minimum you can send to {address} is {format_btc(minimum_sat)}")


class CannotLock(StateConflict):
    """The cause says which VTXO is not free."""

    def __init__(self) -> None:
        super().__init__("Unable to lock VTXOs")


class InvalidOffboardTx(ProtocolViolation):
    """The server proposed something else than was asked for; the cause says what. Nothing was forfeited."""

    def __init__(self) -> None:
        super().__init__("received invalid offboard tx from server")


class UnsignedOffboardTx(ProtocolViolation):
    """The server took the forfeits, and did not give what they were for. It is asked again."""


class OffboardPending(BarkdError):
    """It is not where its transaction is known, but goes on in the background."""

    def __init__(self, action_id: str, state: str) -> None:
        super().__init__(
            f"offboard {action_id} could not complete yet (parked in {state}); "
            "it remains pending and will be retried on wallet sync"
        )


class OffboardVanished(BarkdError):
    def __init__(self, action_id: str) -> None:
        super().__init__(f"offboard {action_id} finished without producing a txid")


class OffboardTxLost(ChainError):
    """Nobody has the transaction any more. The inputs stay locked: the server may still let it out."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"offboard tx {txid} is neither in a block nor in the mempool for a long time")
        self.txid = txid


class OffboardInputsLeft(ChainError):
    """It never came, and what it was to take has left Ark by exits of ours, and is claimed."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"offboard tx {txid} never came, and its inputs have exited")
        self.txid = txid


class OffboardDoubleSpent(ChainError):
    """Another transaction spends what the offboard transaction spends: the forfeits are worth nothing."""

    def __init__(self, txid: Txid, by: Txid) -> None:
        super().__init__(f"offboard tx {txid} was double-spent by {by}")
        self.txid = txid
        self.by = by
