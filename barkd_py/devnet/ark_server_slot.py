"""Where devnet's Ark server runs: it can be stopped, and started again at the same address with its books."""

from collections.abc import Awaitable, Callable

from barkd_py.devnet.ark_server.server import ArkServer


class ArkServerSlot:
    """Made by `filled`. server: the one that runs, or that ran last."""

    def __init__(self, server: ArkServer, start: Callable[[], Awaitable[ArkServer]]) -> None:
        self.server = server
        self._start = start

    @classmethod
    async def filled(cls, start: Callable[[], Awaitable[ArkServer]]) -> "ArkServerSlot":
        """start: starts a server on the same data, at the same address, each time it is called."""
        return cls(await start(), start)

    async def stop(self) -> None:
        """Safe to repeat."""
        await self.server.stop()

    async def restart(self) -> None:
        """Stop it if it runs, and start it."""
        await self.stop()
        self.server = await self._start()
