"""Devnet's time: the machine's, moved by an offset that tests set.

New blocks of the built-in node and the Ark server's sessions and fee windows go by it. A real bitcoind keeps
the machine's time.
"""

import time


class DevnetClock:
    """A clock that can be moved. Calling it gives seconds of the epoch."""

    def __init__(self) -> None:
        self.offset_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_seconds
