"""A wallet whose database several daemons share: one runs it, the others stand by.

Which of them, the database's lease decides (`wallet.store.lease`). A daemon that runs the wallet watches for
the moment when it no longer does, unloads it, and stands by; a daemon that stands by tries to open the wallet
again and again, until the other's end lets it. With SQLite nobody shares anything: the watch waits for ever.

             loaded ──another took it over──▶ standing by ──opened──▶ loaded

What keeps it from opening the wallet may be something else than another daemon: the database is away, or
holds the wallet no more, because it was deleted. It is the `obstacle`; it is logged when it changes, and as
often as it stays the same nothing is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.errors import KnownError, chain_text
from barkd_py.wallet.store.lease import DatabaseInUse, TakenOver

log = logging.getLogger(__name__)

STAND_BY_SECS = 1.0
"""How often a daemon that stands by tries to open the wallet."""


class Standby:
    """The one task that watches the loaded wallet, or waits for it.

    changing: held while the wallet is opened or unloaded. open_wallet: loads it, and calls `watch`; raises
    DatabaseInUse while another daemon has it.
    """

    def __init__(
        self,
        changing: asyncio.Lock,
        *,
        holds: Callable[[WalletApi], bool],
        open_wallet: Callable[[], Awaitable[object]],
        unload: Callable[[], Awaitable[None]],
        retry_secs: float = STAND_BY_SECS,
    ) -> None:
        self._changing = changing
        self._holds = holds
        self._open_wallet = open_wallet
        self._unload = unload
        self._retry_secs = retry_secs
        self._task: asyncio.Task[None] | None = None
        self.obstacle: KnownError | None = None

    @property
    def is_standing_by(self) -> bool:
        return self.obstacle is not None

    @property
    def is_elsewhere(self) -> bool:
        """Whether another daemon ran the wallet when this one last tried to open it."""
        return isinstance(self.obstacle, DatabaseInUse | TakenOver)

    def watch(self, wallet: WalletApi) -> None:
        """From now on: notice when the wallet, which was just loaded, is no longer ours."""
        self._start(self._keep(wallet))

    def begin(self, obstacle: KnownError) -> None:
        """Stand by from now on. obstacle: why the wallet cannot be open."""
        self._meet(obstacle)
        self._start(self._stand_by())

    async def end(self) -> None:
        """Neither watch nor wait any more. The task itself may call this, by unloading: it goes on."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self.obstacle = None

    def _start(self, work: Coroutine[object, object, None]) -> None:
        self._task = asyncio.create_task(work, name="shared database")

    async def _keep(self, wallet: WalletApi) -> None:
        """While the wallet is ours: notice when it no longer is."""
        await wallet.until_taken_over()
        log.error("Another daemon has taken the wallet over")
        async with self._changing:
            if not self._holds(wallet):
                return
            self._meet(TakenOver())  # at once: nobody shall believe that there is no wallet
            try:
                await self._unload()
            except BaseException:
                self.obstacle = None
                raise
        await self._stand_by()

    async def _stand_by(self) -> None:
        """Until the wallet is ours."""
        try:
            while True:
                await asyncio.sleep(self._retry_secs)
                async with self._changing:
                    try:
                        await self._open_wallet()
                    except KnownError as error:
                        self._meet(error)
                        continue
                    log.warning("Wallet taken over")
                    return
        finally:
            self.obstacle = None

    def _meet(self, obstacle: KnownError) -> None:
        was, self.obstacle = self.obstacle, obstacle
        if was is not None and chain_text(was) == chain_text(obstacle):
            return
        if self.is_elsewhere:
            log.warning("Another daemon runs this wallet. Standing by")
        else:
            log.error("Cannot take the wallet over: %s", chain_text(obstacle))
