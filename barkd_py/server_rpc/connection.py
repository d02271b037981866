"""The connection to the Ark server: one channel, a handshake, and the server's terms.

A `Session` is a channel on which the handshake succeeded. It is made by the first call that needs it; callers
that come meanwhile wait for the same attempt. A failed attempt leaves nothing behind, so the next caller
tries again. A call that ends in UNAVAILABLE retires the session: the next call dials, shakes hands and reads
ArkInfo anew, so a restarted or replaced server is always checked before it is used. (Upstream does this once
per process and so keeps old fees and keys until a restart.) ArkInfo is also read again when it is ten minutes
old.

Every ArkInfo passes the same checks before it is adopted: network, safety, fee tables, and the keys the
wallet is pinned to (`verify_identity`, the wallet's). If one fails, what was adopted before stays.

Calls are never repeated here; whoever called decides with the error's class.

Source: protocol sheet 08 §2.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import grpc

from barkd_py.ark.fees import FeeScheduleInvalid, validate_schedule
from barkd_py.ark.info import DEFAULT_VTXO_EXIT_MARGIN, ArkInfo, check_safety
from barkd_py.errors import ServerError, printable
from barkd_py.server_rpc import convert, socks
from barkd_py.server_rpc.errors import (
    ConnectFailed,
    ConversionError,
    InvalidFeeSchedule,
    InvalidServerAddress,
    NetworkMismatch,
    NotConnected,
    UnusableArkInfo,
    VersionMismatch,
    translate,
    translate_stream,
)
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2

log = logging.getLogger(__name__)

MIN_PROTOCOL_VERSION = 4
MAX_PROTOCOL_VERSION = 5
# The release of the reference wallet whose behaviour this one has; servers log it.
BARK_VERSION = "0.8.0"

CALL_TIMEOUT_SECONDS = 600.0
# A dead address must not hold up whoever asks first; upstream has no limit here.
CONNECT_TIMEOUT_SECONDS = 30.0
INFO_MAX_AGE_SECONDS = 600.0
MAX_RECEIVE_BYTES = 64 * 1024 * 1024

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    # A proxy is configured for this daemon, never taken from the environment of the process.
    ("grpc.enable_http_proxy", 0),
    # Wallets of one process may use one server under different settings.
    ("grpc.use_local_subchannel_pool", 1),
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


Req = TypeVar("Req", bound=_Message)
Resp = TypeVar("Resp")

VerifyIdentity = Callable[[ArkInfo], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method(Generic[Req, Resp]):
    """One RPC: its path, and how its two messages are written and read."""

    service: str
    name: str
    request: type[Req]
    response: Callable[[bytes], Resp]

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


ARK_SERVICE = "bark_server.ArkService"
HANDSHAKE = Method(ARK_SERVICE, "Handshake", pb.HandshakeRequest, pb.HandshakeResponse.FromString)
GET_ARK_INFO = Method(ARK_SERVICE, "GetArkInfo", core_pb2.Empty, pb.ArkInfo.FromString)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server listens. host: name or IP as written, without brackets."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str) -> "ServerAddress":
        """From the configured text; https where no scheme is given. Raises InvalidServerAddress."""
        text = text.strip()
        if "://" not in text:
            text = f"https://{text}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidServerAddress("failed to parse Ark server as a URI") from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise InvalidServerAddress(
                f"Ark server scheme must be either http or https. Found: {parts.scheme}"
            )
        if not host:
            raise InvalidServerAddress("Ark server URI is missing an authority part")
        return cls(host, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https")

    @property
    def target(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach the server, and what it must be.

    network: bitcoin's own name of the wallet's chain. user_agent: `name/version`. call_timeout_seconds: of
    one unary call; what lies behind an expiry is unknown.
    """

    address: str
    network: str
    user_agent: str = f"barkd/{BARK_VERSION}"
    access_token: str | None = field(default=None, repr=False)
    socks5_proxy: str | None = None
    vtxo_exit_margin: int = DEFAULT_VTXO_EXIT_MARGIN
    call_timeout_seconds: float = CALL_TIMEOUT_SECONDS
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS


@dataclass(slots=True)
class Session:
    """A channel in use. calls: how many are running on it; a retired session closes with its last one."""

    channel: grpc.aio.Channel
    tunnel: socks.Tunnel | None
    protocol_version: int = 0
    calls: int = 0
    retired: bool = False

    async def close(self) -> None:
        await self.channel.close()
        if self.tunnel is not None:
            await self.tunnel.close()


async def accept_any_identity(info: ArkInfo) -> None:
    """For callers without a wallet, such as the check of a server before a wallet exists."""


class Connection:
    """Keeps at most one session, and the newest ArkInfo that passed all checks."""

    def __init__(
        self,
        settings: ConnectionSettings,
        verify_identity: VerifyIdentity = accept_any_identity,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._verify_identity = verify_identity
        self._monotonic = monotonic
        self._session: Session | None = None
        self._info: ArkInfo | None = None
        self._info_read_at = 0.0
        self._attempt: asyncio.Task[Session] | None = None
        self._closed = False

    @property
    def cached_info(self) -> ArkInfo | None:
        return self._info

    async def info(self) -> ArkInfo:
        """ArkInfo of a live session. Raises NotConnected, ServerUnusable, UnsafeServer, NetworkMismatch."""
        await self.session()
        assert self._info is not None
        return self._info

    async def refresh(self) -> ArkInfo:
        """Shake hands and read ArkInfo again, whatever their age. Raises as `info`, but ConnectFailed."""
        if self._session is not None and self._attempt is None:
            self._info_read_at = -INFO_MAX_AGE_SECONDS + self._monotonic()
        await self._live_session()
        assert self._info is not None
        return self._info

    async def session(self) -> Session:
        """The session, made or brought up to date if needed. Raises as `info`."""
        try:
            return await self._live_session()
        except ConnectFailed as error:
            raise NotConnected from error

    async def _live_session(self) -> Session:
        """As `session`. Concurrent callers share one attempt. Raises ConnectFailed."""
        if self._closed:
            raise ConnectFailed from ServerError("the connection was closed")
        session = self._session
        if session is not None and self._monotonic() - self._info_read_at < INFO_MAX_AGE_SECONDS:
            return session
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect(session), name="ark-server-connect")
            self._attempt.add_done_callback(self._attempt_ended)
        # The attempt belongs to all who wait for it: one that gives up does not end it.
        return await asyncio.shield(self._attempt)

    async def close(self) -> None:
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    # --- calls

    async def call(
        self, method: Method[Req, Resp], request: Req, *, timeout_seconds: float | None = None
    ) -> Resp:
        """One unary call. Raises ServerRejected, ServerUnavailable, and what `info` raises."""
        session = await self.session()
        deadline = self._settings.call_timeout_seconds if timeout_seconds is None else timeout_seconds
        session.calls += 1
        try:
            return await self._unary(session, method, request, deadline)
        except grpc.aio.AioRpcError as error:
            self._note(session, error)
            raise translate(error, method.name) from None
        finally:
            await self._leave(session)

    async def stream(self, method: Method[Req, Resp], request: Req) -> AsyncGenerator[Resp, None]:
        """One server stream, without a deadline. Ends, or raises as `call` does and ServerStreamEnded."""
        session = await self.session()
        session.calls += 1
        call = None
        try:
            multi = session.channel.unary_stream(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response,
            )
            call = multi(request, metadata=self._metadata(session))
            async for message in call:
                yield _readable(message, method)
        except grpc.aio.AioRpcError as error:
            self._note(session, error)
            raise translate_stream(error, method.name) from None
        finally:
            if call is not None:
                call.cancel()
            await self._leave(session)

    async def _unary(
        self, session: Session, method: Method[Req, Resp], request: Req, timeout_seconds: float
    ) -> Resp:
        multi = session.channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response,
        )
        response: Resp | None = await multi(
            request, metadata=self._metadata(session), timeout=timeout_seconds
        )
        return _readable(response, method)

    def _metadata(self, session: Session) -> tuple[tuple[str, str], ...]:
        metadata = [("x-user-agent", self._settings.user_agent)]
        if session.protocol_version:  # not before the first handshake
            metadata.append(("pver", str(session.protocol_version)))
        if self._settings.access_token is not None:
            metadata.append(("ark-access-token", self._settings.access_token))
        return tuple(metadata)

    def _note(self, session: Session, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._retire(session)

    def _retire(self, session: Session) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _leave(self, session: Session) -> None:
        session.calls -= 1
        if session.retired and session.calls == 0:
            await session.close()

    # --- connecting

    def _attempt_ended(self, attempt: asyncio.Task[Session]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # every waiter may be gone; it is theirs, not the event loop's, to report

    async def _connect(self, session: Session | None) -> Session:
        """Make a session, or bring the given one up to date."""
        if session is None:
            session = await self._dial()
        session.calls += 1
        try:
            session.protocol_version = await self._handshake(session)
            info = await self._fetch_info(session)
            await self._verify_identity(info)
        except BaseException:
            self._retire(session)
            raise
        finally:
            await self._leave(session)
        self._session = session
        self._info = info
        self._info_read_at = self._monotonic()
        return session

    async def _dial(self) -> Session:
        address = ServerAddress.parse(self._settings.address)
        options = list(_CHANNEL_OPTIONS)
        target, tunnel = address.target, None
        proxy = self._settings.socks5_proxy
        if proxy is not None:
            proxy_address = socks.parse_proxy(proxy)
            if not socks.bypasses_proxy(address.host):
                tunnel = socks.Tunnel(proxy_address, address.host, address.port)
                target = await tunnel.open()
                options.append(("grpc.default_authority", address.target))
                if address.tls:
                    options.append(("grpc.ssl_target_name_override", address.host))
        if address.tls:
            credentials = grpc.ssl_channel_credentials(_system_roots())
            channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            channel = grpc.aio.insecure_channel(target, options=options)
        return Session(channel, tunnel)

    async def _handshake(self, session: Session) -> int:
        """The protocol version to speak. Raises VersionMismatch, ConnectFailed."""
        request = pb.HandshakeRequest(bark_version=BARK_VERSION)
        try:
            response = await self._unary(session, HANDSHAKE, request, self._settings.connect_timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise ConnectFailed from _with_prefix("handshake request failed", error)
        if response.HasField("psa"):
            log.warning('Message from Ark server: "%s"', printable(response.psa))
        return negotiate(response.min_protocol_version, response.max_protocol_version)

    async def _fetch_info(self, session: Session) -> ArkInfo:
        try:
            response = await self._unary(
                session, GET_ARK_INFO, core_pb2.Empty(), self._settings.connect_timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise ConnectFailed from _with_prefix("error getting ark info", error)
        try:
            info = convert.ark_info(response)
        except ConversionError as error:
            raise UnusableArkInfo from error
        if info.network != self._settings.network:
            raise NetworkMismatch(expected=self._settings.network, got=info.network)
        check_safety(info, vtxo_exit_margin=self._settings.vtxo_exit_margin)
        try:
            validate_schedule(info.fees)
        except FeeScheduleInvalid as error:
            raise InvalidFeeSchedule from error
        return info


def _readable(response: Resp | None, method: Method[Req, Resp]) -> Resp:
    """The message. Raises ConversionError for bytes that are none, which grpc hands out as None."""
    if response is None:
        raise ConversionError(f"malformed answer to {method.name}")
    return response


def negotiate(server_min: int, server_max: int) -> int:
    """The newest version both sides speak. Raises VersionMismatch."""
    if server_min > MAX_PROTOCOL_VERSION:
        raise VersionMismatch(
            f"version mismatch. Client max is: {MAX_PROTOCOL_VERSION}, server min is: {server_min}"
        )
    if server_max < MIN_PROTOCOL_VERSION:
        raise VersionMismatch(
            f"version mismatch. Client min is: {MIN_PROTOCOL_VERSION}, server max is: {server_max}"
        )
    return min(MAX_PROTOCOL_VERSION, server_max)


def _with_prefix(prefix: str, error: grpc.aio.AioRpcError) -> ServerError:
    translated = translate(error, prefix, prefix)
    translated.__cause__ = None
    return translated


def _system_roots() -> bytes | None:
    """The system's certificate authorities as PEM; None (grpc's own list) where there are none."""
    context = ssl.create_default_context()
    certificates = context.get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in certificates).encode() or None
