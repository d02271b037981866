"""The API behind real HTTP on a loopback port, in the test's own event loop."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from barkd_py.api.app import BarkdApi
from barkd_py.api.auth import AuthToken
from barkd_py.api.deps import ApiState
from barkd_py.api.server import ApiServer, bind
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir
from tests.fakes.wallet import FakeBackend, FakeWallet
from tests.support import raw_http

TOKEN = AuthToken(b"\x2a" * 32)
MNEMONIC = "test test test test test test test test test test test junk"


@dataclass(slots=True)
class RunningApi:
    """A served API. `http` carries the token; `raw` sends what it is told."""

    port: int
    state: ApiState
    backend: FakeBackend
    http: httpx.AsyncClient

    @property
    def runtime(self) -> Runtime:
        return self.state.runtime

    @property
    def wallet(self) -> FakeWallet:
        return self.backend.opened[-1]

    @property
    def bearer(self) -> tuple[str, str]:
        return "Authorization", f"Bearer {TOKEN.encode()}"

    async def raw(
        self, method: str, target: str, headers: raw_http.Headers = (), body: bytes | None = None
    ) -> raw_http.Response:
        return await raw_http.request(self.port, method, target, headers, body)


@contextlib.asynccontextmanager
async def running_api(
    directory: Path,
    *,
    token: AuthToken | None = TOKEN,
    allowed_origins: frozenset[bytes] = frozenset(),
    expose_mnemonic: bool = False,
    with_wallet: bool = False,
    wait_secs: float = 30.0,
    rest_contract: str | None = None,
) -> AsyncIterator[RunningApi]:
    """Serve the API of a data directory. with_wallet: a fake wallet is created and loaded first."""
    datadir = Datadir(directory)
    datadir.prepare()
    backend = FakeBackend()
    runtime = Runtime(datadir, backend, environment={})
    if with_wallet:
        datadir.write_mnemonic(MNEMONIC)
        datadir.database.touch(mode=0o600)
        await runtime.open_existing()
    state = ApiState(
        runtime,
        token,
        allowed_origins=allowed_origins,
        expose_mnemonic=expose_mnemonic,
        wait_secs=wait_secs,
        rest_contract=rest_contract,
    )
    listener = bind(ipaddress.ip_address("127.0.0.1"), 0)
    port = listener.getsockname()[1]
    server = ApiServer(BarkdApi(state), listener)
    serving = asyncio.create_task(server.run_until_stopped())
    headers = {} if token is None else {"Authorization": f"Bearer {token.encode()}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60
        ) as http:
            yield RunningApi(port, state, backend, http)
    finally:
        runtime.begin_stop()
        server.stop()
        await serving
        await runtime.close()
