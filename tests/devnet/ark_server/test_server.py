"""The listener of the Ark server."""

import asyncio
import struct

from barkd_py.devnet.ark_server.server import ArkServer

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PING, _GOAWAY, _SETTINGS, _ACK = 6, 7, 4, 1
_PINGS = 30


def _frame(kind: int, payload: bytes = b"") -> bytes:
    """Of HTTP/2, for the connection as a whole. Source: RFC 9113 §4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, 0, 0) + payload


async def test_clients_that_ping_are_borne(server: ArkServer) -> None:
    """Wallets ping every 20 seconds, also without a call; gRPC hangs up on that by default."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS))
        async with asyncio.timeout(60):
            for number in range(_PINGS):  # in turn, so that each answer is that of a live connection
                ping = struct.pack(">Q", number)
                writer.write(_frame(_PING, ping))
                await _answered(reader, ping)
    finally:
        writer.close()


async def _answered(reader: asyncio.StreamReader, ping: bytes) -> None:
    answer = b""
    while answer != ping:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        assert kind != _GOAWAY, payload
        if kind == _PING and flags & _ACK:
            answer = payload
