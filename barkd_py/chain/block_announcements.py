"""bitcoind's ``hashblock`` messages over ZMQ. A message wakes; what the tip is, is asked for.

The library behind it (extra ``zmq``) reconnects by itself, so a node may come and go. Messages can be lost;
whoever waits must also look at intervals.

Source: sheet 06 §6.4; bitcoin's doc/zmq.md.
"""

import asyncio
import logging

from barkd_py.errors import ChainError

log = logging.getLogger(__name__)

_TOPIC = b"hashblock"


class ZmqUnusable(ChainError):
    """Announcements cannot be received: pyzmq is not installed, or the address is malformed."""


async def listen_for_blocks(address: str, wake: asyncio.Event) -> None:
    """Set the event at each announcement, until cancelled. Raises ZmqUnusable at once or never.

    address: such as ``tcp://127.0.0.1:28332``.
    """
    try:
        import zmq
        import zmq.asyncio
    except ImportError as error:
        raise ZmqUnusable("bitcoind_zmq_address needs pyzmq: the extra 'zmq' of barkd-py") from error
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, _TOPIC)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise ZmqUnusable(f"cannot connect to {address}") from error
        log.debug("listening for blocks at %s", address)
        while True:
            await socket.recv_multipart()
            wake.set()
