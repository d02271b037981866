"""The connection against a real gRPC server on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from barkd_py.ark.fees import FeeScheduleInvalid
from barkd_py.ark.info import ArkInfo, UnsafeServer
from barkd_py.errors import BarkdError, ProtocolViolation, ServerRejected, ServerUnavailable, chain_text
from barkd_py.server_rpc.connection import (
    MAX_RECEIVE_BYTES,
    Connection,
    ConnectionSettings,
    ServerAddress,
    negotiate,
)
from barkd_py.server_rpc.errors import (
    ConnectFailed,
    InvalidFeeSchedule,
    InvalidServerAddress,
    MethodUnimplemented,
    NetworkMismatch,
    ServerStreamEnded,
    UnusableArkInfo,
    VersionMismatch,
)
from barkd_py.server_rpc.methods import NEXT_ROUND_TIME, SUBSCRIBE_ROUNDS
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.server_rpc.strict_server import (
    OTHER_KEY,
    SERVER_KEY,
    Refusal,
    StrictServer,
    always,
    ark_info,
    fees,
)

EMPTY = core_pb2.Empty()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings(port: int, **changes: Any) -> ConnectionSettings:
    return ConnectionSettings(address=f"http://127.0.0.1:{port}", network="regtest", **changes)


@asynccontextmanager
async def connected_to(server: StrictServer, **changes: Any) -> AsyncIterator[Connection]:
    async with server.listening() as port:
        connection = Connection(settings(port, **changes))
        try:
            yield connection
        finally:
            await connection.close()


# --- address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:3535", ServerAddress("127.0.0.1", 3535, tls=False)),
        ("  https://ark.example/ ", ServerAddress("ark.example", 443, tls=True)),
        ("http://ark.example", ServerAddress("ark.example", 80, tls=False)),
        ("ark.example:3535", ServerAddress("ark.example", 3535, tls=True)),
        ("https://[::1]:9", ServerAddress("::1", 9, tls=True)),
    ],
)
def test_server_addresses(text: str, expected: ServerAddress) -> None:
    assert ServerAddress.parse(text) == expected


def test_an_ipv6_host_is_bracketed_for_grpc() -> None:
    assert ServerAddress.parse("http://[::1]:9").target == "[::1]:9"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ftp://x", "Ark server scheme must be either http or https. Found: ftp"),
        ("https://", "Ark server URI is missing an authority part"),
        ("http://x:99999", "failed to parse Ark server as a URI"),
        ("http://[::1", "failed to parse Ark server as a URI"),
    ],
)
def test_unusable_server_addresses(text: str, error: str) -> None:
    with pytest.raises(InvalidServerAddress, match=error.replace("(", r"\(")):
        ServerAddress.parse(text)


# --- handshake


@pytest.mark.parametrize(("server_range", "version"), [((4, 4), 4), ((4, 5), 5), ((1, 99), 5), ((5, 6), 5)])
def test_the_newest_common_version_is_spoken(server_range: tuple[int, int], version: int) -> None:
    assert negotiate(*server_range) == version


@pytest.mark.parametrize(
    ("server_range", "error"),
    [
        ((1, 3), "version mismatch. Client min is: 4, server max is: 3"),
        ((6, 9), "version mismatch. Client max is: 5, server min is: 6"),
    ],
)
async def test_no_common_version(server_range: tuple[int, int], error: str) -> None:
    low, high = server_range
    server = StrictServer(handshake=pb.HandshakeResponse(min_protocol_version=low, max_protocol_version=high))
    async with connected_to(server) as connection:
        with pytest.raises(VersionMismatch) as failure:
            await connection.info()
        assert str(failure.value) == error
        assert connection.cached_info is None
        assert not server.seen("GetArkInfo")


async def test_headers_of_the_handshake_and_of_later_calls() -> None:
    server = StrictServer(answers={"NextRoundTime": always(pb.NextRoundTimeResponse(timestamp=7))})
    async with connected_to(server, access_token="secret") as connection:
        response = await connection.call(NEXT_ROUND_TIME, EMPTY)
    assert response.timestamp == 7
    assert [call.method for call in server.calls] == ["Handshake", "GetArkInfo", "NextRoundTime"]
    handshake, info, later = (call.metadata for call in server.calls)
    assert "pver" not in handshake
    assert info["pver"] == later["pver"] == "5"
    for metadata in (handshake, info, later):
        assert metadata["x-user-agent"] == "barkd/0.8.0"
        assert metadata["ark-access-token"] == "secret"
        assert "grpc-encoding" not in metadata
    assert server.calls[0].request.bark_version == "0.8.0"


async def test_every_unary_call_has_a_deadline() -> None:
    server = StrictServer(answers={"NextRoundTime": always(pb.NextRoundTimeResponse())})
    async with connected_to(server) as connection:
        await connection.call(NEXT_ROUND_TIME, EMPTY)
    remaining = server.seen("NextRoundTime")[0].time_remaining
    assert remaining is not None
    assert 500 < remaining < 601


async def test_a_public_service_announcement_is_logged_as_untrusted_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = StrictServer()
    server.handshake.psa = "hello\x1b[31m\nERROR fake log line"
    async with connected_to(server) as connection:
        await connection.info()
    assert 'Message from Ark server: "hello [31m ERROR fake log line"' in caplog.messages


def test_the_access_token_is_not_in_the_repr() -> None:
    assert "secret" not in repr(settings(1, access_token="secret"))


# --- ArkInfo


async def test_info_comes_with_every_field() -> None:
    server = StrictServer(info=ark_info(max_vtxo_amount=5, tos_link="https://x", vtxo_lifetime=0))
    async with connected_to(server) as connection:
        info = await connection.info()
        assert connection.cached_info is info
    assert info.server_pubkey.data == SERVER_KEY
    assert info.vtxo_lifetime == 4320  # field 21 is 0: the older field counts
    assert (info.max_vtxo_amount_sat, info.tos_link) == (5, "https://x")
    assert info.fees.board.min_fee_sat == 330


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"network": "dogecoin"}, "invalid network"),
        ({"server_pubkey": SERVER_KEY[:32]}, "invalid server pubkey"),
        ({"mailbox_pubkey": b"\x02" + b"\xff" * 32}, "invalid mailbox pubkey"),
        ({"vtxo_exit_delta": 16384}, "invalid vtxo_exit_delta"),
        ({"htlc_send_expiry_delta": 16384}, "invalid htlc_send_expiry_delta"),
        ({"htlc_expiry_delta": 2**32 - 1}, "invalid htlc_expiry_delta"),
        ({"required_board_confirmations": 16384}, "invalid required_board_confirmations"),
        ({"max_user_invoice_cltv_delta": 16384}, "invalid max_user_invoice_cltv_delta"),
        ({"vtxo_lifetime": 16384}, "invalid vtxo_lifetime"),
        ({"max_vtxo_exit_depth": 65536}, "invalid max_vtxo_exit_depth"),
        ({"fees": None}, "missing fees"),
        ({"fees": pb.FeeSchedule()}, "missing board fees"),
    ],
)
async def test_malformed_info_is_refused(changes: dict[str, Any], error: str) -> None:
    async with connected_to(StrictServer(info=ark_info(**changes))) as connection:
        with pytest.raises(UnusableArkInfo) as failure:
            await connection.info()
    assert chain_text(failure.value) == f"invalid ark info from ark server: rpc conversion error: {error}"


@pytest.mark.parametrize("part", ["offboard", "refresh", "lightning_receive", "lightning_send"])
async def test_every_part_of_the_fee_schedule_must_be_there(part: str) -> None:
    schedule = fees()
    schedule.ClearField(part)
    async with connected_to(StrictServer(info=ark_info(fees=schedule))) as connection:
        with pytest.raises(UnusableArkInfo) as failure:
            await connection.info()
    assert chain_text(failure.value).endswith(f"missing {part.replace('_', ' ')} fees")


async def test_another_network_is_refused() -> None:
    async with connected_to(StrictServer(info=ark_info(network="signet"))) as connection:
        with pytest.raises(NetworkMismatch, match="Expected: regtest, Got: signet"):
            await connection.info()
        assert connection.cached_info is None


@pytest.mark.parametrize("changes", [{"vtxo_exit_delta": 0}, {"nb_round_nonces": 0}])
async def test_unsafe_terms_are_refused(changes: dict[str, int]) -> None:
    async with connected_to(StrictServer(info=ark_info(**changes))) as connection:
        with pytest.raises(UnsafeServer, match="refusing to connect"):
            await connection.info()


@pytest.mark.parametrize("changes", [{"vtxo_exit_delta": 0}, {"network": "signet"}])
async def test_terms_that_become_unsafe_are_refused(changes: dict[str, Any]) -> None:
    """What is read again is judged again, and nothing is asked by such terms."""
    server, clock = StrictServer(), Clock()
    async with server.listening() as port:
        connection = Connection(settings(port), monotonic=clock)
        first = await connection.info()
        server.info = ark_info(**changes)
        clock.now += 601
        for _ in range(2):
            with pytest.raises((UnsafeServer, NetworkMismatch)):
                await connection.call(NEXT_ROUND_TIME, EMPTY)
        assert connection.cached_info is first
        assert not server.seen("NextRoundTime")
        await connection.close()


async def test_an_unsorted_fee_table_is_refused() -> None:
    schedule = fees()
    schedule.refresh.ppm_expiry_table.add(expiry_blocks_threshold=9, ppm=1)
    schedule.refresh.ppm_expiry_table.add(expiry_blocks_threshold=8, ppm=1)
    async with connected_to(StrictServer(info=ark_info(fees=schedule))) as connection:
        with pytest.raises(InvalidFeeSchedule) as failure:
            await connection.info()
    assert isinstance(failure.value.__cause__, FeeScheduleInvalid)


async def test_info_is_read_again_when_it_is_ten_minutes_old() -> None:
    server, clock = StrictServer(), Clock()
    async with server.listening() as port:
        connection = Connection(settings(port), monotonic=clock)
        await connection.info()
        clock.now += 599
        await connection.info()
        assert len(server.seen("GetArkInfo")) == 1
        server.info = ark_info(min_board_amount=1)
        clock.now += 2
        assert (await connection.info()).min_board_amount_sat == 1
        assert (await connection.refresh()).min_board_amount_sat == 1
        assert len(server.seen("GetArkInfo")) == 3
        await connection.close()


class KeyChanged(BarkdError):
    pass


async def test_a_changed_key_stops_every_call_and_is_never_adopted() -> None:
    pinned = SERVER_KEY

    async def verify(info: ArkInfo) -> None:
        if info.server_pubkey.data != pinned:
            raise KeyChanged

    server, clock = StrictServer(), Clock()
    async with server.listening() as port:
        connection = Connection(settings(port), verify, monotonic=clock)
        first = await connection.info()
        server.info = ark_info(server_pubkey=OTHER_KEY)
        clock.now += 601
        for _ in range(2):
            with pytest.raises(KeyChanged):
                await connection.call(NEXT_ROUND_TIME, EMPTY)
        assert connection.cached_info is first
        assert not server.seen("NextRoundTime")
        await connection.close()


# --- one connection


async def test_concurrent_callers_share_one_attempt() -> None:
    release = asyncio.Event()

    async def slow_handshake(_: Any) -> pb.HandshakeResponse:
        await release.wait()
        return pb.HandshakeResponse(min_protocol_version=4, max_protocol_version=5)

    server = StrictServer(answers={"Handshake": slow_handshake})
    async with connected_to(server) as connection:
        callers = [asyncio.create_task(connection.info()) for _ in range(5)]
        await _until(lambda: bool(server.calls))
        callers[0].cancel()  # one caller that gives up does not take the others with it
        release.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, ArkInfo) for result in results[1:])
    assert len(server.seen("Handshake")) == 1


async def test_a_server_that_is_down_is_reported_at_once_and_found_when_it_is_back() -> None:
    server = StrictServer(answers={"NextRoundTime": always(pb.NextRoundTimeResponse(timestamp=1))})
    async with server.listening() as port:
        pass
    connection = Connection(settings(port))
    with pytest.raises(ConnectFailed) as failure:
        await connection.call(NEXT_ROUND_TIME, EMPTY)
    unreachable = "Failed to connect to Ark server: handshake request failed"
    assert chain_text(failure.value).startswith(
        f"You should be connected to Ark server to perform this action: {unreachable}"
    )
    assert isinstance(failure.value, ServerUnavailable)
    with pytest.raises(ConnectFailed) as failure:
        await connection.refresh()
    assert chain_text(failure.value).startswith(unreachable)
    async with server.listening(port):
        assert (await connection.call(NEXT_ROUND_TIME, EMPTY)).timestamp == 1
        await connection.close()


async def test_after_a_restart_the_server_is_checked_again_before_it_is_used() -> None:
    server = StrictServer(answers={"NextRoundTime": always(pb.NextRoundTimeResponse())})
    async with server.listening() as port:
        connection = Connection(settings(port))
        await connection.call(NEXT_ROUND_TIME, EMPTY)
    with pytest.raises(ServerUnavailable):
        await connection.call(NEXT_ROUND_TIME, EMPTY)
    restarted = StrictServer(
        answers=server.answers,
        handshake=pb.HandshakeResponse(min_protocol_version=4, max_protocol_version=4),
        info=ark_info(min_board_amount=1),
    )
    async with restarted.listening(port):
        await connection.call(NEXT_ROUND_TIME, EMPTY)
        assert [call.method for call in restarted.calls] == ["Handshake", "GetArkInfo", "NextRoundTime"]
        assert restarted.calls[-1].metadata["pver"] == "4"
        assert (await connection.info()).min_board_amount_sat == 1
        await connection.close()


async def test_a_refusal_by_one_call_does_not_break_another_that_is_running() -> None:
    release = asyncio.Event()
    first = True

    async def slow_then_unavailable(_: Any) -> pb.NextRoundTimeResponse:
        nonlocal first
        if first:
            first = False
            await release.wait()
            return pb.NextRoundTimeResponse(timestamp=3)
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "overloaded")

    server = StrictServer(answers={"NextRoundTime": slow_then_unavailable})
    async with connected_to(server) as connection:
        slow = asyncio.create_task(connection.call(NEXT_ROUND_TIME, EMPTY))
        await _until(lambda: bool(server.seen("NextRoundTime")))
        with pytest.raises(ServerUnavailable):
            await connection.call(NEXT_ROUND_TIME, EMPTY)
        release.set()
        assert (await slow).timestamp == 3


async def test_a_closed_connection_stays_closed() -> None:
    async with connected_to(StrictServer()) as connection:
        await connection.info()
        await connection.close()
        with pytest.raises(ConnectFailed):
            await connection.info()


# --- classification


@pytest.mark.parametrize("code", list(grpc.StatusCode))
async def test_only_two_statuses_prove_that_nothing_happened(code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.OK:
        return
    server = StrictServer(answers={"NextRoundTime": always(Refusal(code, "because"))})
    async with connected_to(server) as connection:
        with pytest.raises((ServerRejected, ServerUnavailable)) as failure:
            await connection.call(NEXT_ROUND_TIME, EMPTY)
    error = failure.value
    rejected = code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert isinstance(error, ServerRejected) == rejected
    assert isinstance(error, MethodUnimplemented) == (code is grpc.StatusCode.UNIMPLEMENTED)
    assert "because" in str(error)
    if isinstance(error, ServerRejected):
        assert error.not_found == (code is grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("trailers", "identifiers"),
    [
        ((), ()),
        ((("identifiers", ""),), ()),
        ((("identifiers", "a:0,,b:1"),), ("a:0", "b:1")),
        ((("other", "a:0"),), ()),
    ],
)
async def test_identifiers_of_a_rejection(
    trailers: tuple[tuple[str, str], ...], identifiers: tuple[str, ...]
) -> None:
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "unusable inputs", trailers)
    server = StrictServer(answers={"NextRoundTime": always(refusal)})
    async with connected_to(server) as connection:
        with pytest.raises(ServerRejected) as failure:
            await connection.call(NEXT_ROUND_TIME, EMPTY)
    assert failure.value.identifiers == identifiers


async def test_an_expired_deadline_leaves_the_outcome_unknown() -> None:
    never = asyncio.Event()

    async def hang(_: Any) -> None:
        await never.wait()

    server = StrictServer(answers={"NextRoundTime": hang})
    async with connected_to(server, call_timeout_seconds=1.0) as connection:
        with pytest.raises(ServerUnavailable, match="Deadline expired before operation could complete"):
            await connection.call(NEXT_ROUND_TIME, EMPTY)
        never.set()


async def test_an_answer_larger_than_the_library_allows_by_default_arrives() -> None:
    server = StrictServer()
    server.answers["NextRoundTime"] = always(pb.NextRoundTimeResponse(timestamp=1))
    server.handshake.psa = "x" * 5_000_000
    async with connected_to(server) as connection:
        await connection.call(NEXT_ROUND_TIME, EMPTY)


async def test_an_answer_beyond_the_largest_size_is_refused() -> None:
    """And costs no more memory than that: the connection ends, the next call is answered."""
    server = StrictServer()
    server.answers["NextRoundTime"] = always(Huge())
    async with connected_to(server) as connection:
        with pytest.raises(ServerUnavailable, match="larger than max"):
            await connection.call(NEXT_ROUND_TIME, EMPTY)
        server.answers["NextRoundTime"] = always(pb.NextRoundTimeResponse(timestamp=1))
        assert (await connection.call(NEXT_ROUND_TIME, EMPTY)).timestamp == 1


class Huge:
    """Goes out as one byte more than anybody takes: a field that nobody knows."""

    def SerializeToString(self) -> bytes:
        length = MAX_RECEIVE_BYTES - 5  # with its key and its length, one byte too many
        return (
            b"\x7a"
            + bytes(
                (
                    length & 0x7F | 0x80,
                    length >> 7 & 0x7F | 0x80,
                    length >> 14 & 0x7F | 0x80,
                    length >> 21 & 0x7F | 0x80,
                    length >> 28,
                )
            )
            + bytes(length)
        )


class Garbage:
    """Goes out as bytes that are no message."""

    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff"


async def test_an_answer_that_is_no_message_breaks_the_protocol() -> None:
    server = StrictServer(answers={"NextRoundTime": always(Garbage())})
    async with connected_to(server) as connection:
        with pytest.raises(ProtocolViolation, match="malformed answer to NextRoundTime"):
            await connection.call(NEXT_ROUND_TIME, EMPTY)


async def test_info_that_is_no_message_breaks_the_protocol() -> None:
    server = StrictServer(answers={"GetArkInfo": always(Garbage())})
    async with connected_to(server) as connection:
        with pytest.raises(ProtocolViolation, match="malformed answer to GetArkInfo"):
            await connection.info()


# --- streams


async def test_a_stream_of_what_is_no_message_breaks_the_protocol() -> None:
    async def garbage(_: Any) -> AsyncIterator[Any]:
        yield Garbage()

    server = StrictServer(streams={"SubscribeRounds": garbage})
    async with connected_to(server) as connection:
        with pytest.raises(ProtocolViolation, match="malformed answer to SubscribeRounds"):
            await anext(connection.stream(SUBSCRIBE_ROUNDS, EMPTY))


@pytest.mark.parametrize(
    ("code", "details", "quiet"),
    [
        (grpc.StatusCode.UNAVAILABLE, "going away", True),
        (grpc.StatusCode.CANCELLED, "", True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", True),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", True),
        (grpc.StatusCode.INTERNAL, "h2 protocol error: stream closed", True),
        (grpc.StatusCode.INTERNAL, "database is on fire", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "mailbox authorization expired", False),
    ],
)
async def test_an_interrupted_stream_is_told_from_a_refused_one(
    code: grpc.StatusCode, details: str, quiet: bool
) -> None:
    async def events(_: Any) -> AsyncIterator[pb.RoundEvent]:
        yield pb.RoundEvent(failed=pb.RoundFailed(round_seq=1))
        raise Refusal(code, details)

    server = StrictServer(streams={"SubscribeRounds": events})
    async with connected_to(server) as connection:
        stream = connection.stream(SUBSCRIBE_ROUNDS, EMPTY)
        assert (await anext(stream)).failed.round_seq == 1
        with pytest.raises((ServerStreamEnded, ServerUnavailable, ServerRejected)) as failure:
            await anext(stream)
    assert isinstance(failure.value, ServerStreamEnded) == quiet
    assert server.seen("SubscribeRounds")[0].time_remaining is None


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)
