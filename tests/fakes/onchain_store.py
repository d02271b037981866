"""An on-chain store in memory; it can be told to fail."""

from barkd_py.errors import StoreError
from barkd_py.onchain.store import OnchainChange, OnchainState


class MemoryOnchainStore:
    """Implements `OnchainStore`.

    fail_next: the next append raises StoreError and writes nothing.
    """

    def __init__(self, state: OnchainState | None = None) -> None:
        self.state = state
        self.changes: list[OnchainChange] = []
        self.fail_next = False

    async def load(self) -> OnchainState | None:
        return self.state

    async def append(self, change: OnchainChange) -> None:
        if self.fail_next:
            self.fail_next = False
            raise StoreError("the disk is full")
        if self.state is None:
            if change.wallet is None:
                raise StoreError("the first change of a wallet names it")
            self.state = OnchainState(wallet=change.wallet)
        self.state = self.state.apply(change)
        self.changes.append(change)
