"""What endpoints ask for besides their parameters: the wallet, the runtime, the client's contract.

They are looked up after the parameters have been read, so malformed input is refused first, whether there is
a wallet or not. Each one is a plain function of the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from barkd_py.api.auth import AuthToken
from barkd_py.api.contract import Contract, contract_of, override
from barkd_py.api.errors import Unprocessable
from barkd_py.api.tickets import Tickets
from barkd_py.daemon.runtime import Runtime
from barkd_py.daemon.wallet_api import OnchainApi, WalletApi


@dataclass(slots=True)
class ApiState:
    """What the API works with.

    token: None switches authentication off. loopback_only: the daemon listens on a loopback address, so
    without a token only requests made to such an address are served. rest_contract: from the environment,
    over the one of the wallet's settings. wait_secs: how long a poll
    for notifications may wait.
    """

    runtime: Runtime
    token: AuthToken | None
    allowed_origins: frozenset[bytes] = frozenset()
    expose_mnemonic: bool = False
    loopback_only: bool = True
    rest_contract: str | None = None
    wait_secs: float = 30.0
    tickets: Tickets = field(default_factory=Tickets)


class OnchainNotConfigured(Unprocessable):
    def __init__(self) -> None:
        super().__init__("No onchain wallet configured")


def get_state(request: Request) -> ApiState:
    state = request.app.barkd
    assert isinstance(state, ApiState)
    return state


def get_runtime(request: Request) -> Runtime:
    return get_state(request).runtime


def get_wallet(request: Request) -> WalletApi:
    """Raises WalletNotLoaded."""
    return get_state(request).runtime.wallet


def get_onchain(request: Request) -> OnchainApi:
    """Raises WalletNotLoaded or OnchainNotConfigured."""
    onchain = get_wallet(request).onchain
    if onchain is None:
        raise OnchainNotConfigured
    return onchain


def get_contract(request: Request) -> Contract:
    """The version of barkd's REST contract that this client reads."""
    return contract_for(get_state(request), request.scope["headers"])


def contract_for(state: ApiState, headers: Sequence[tuple[bytes, bytes]]) -> Contract:
    config = state.runtime.config
    forced = override(state.rest_contract or (config.rest_contract if config is not None else "auto"))
    if forced is not None:
        return forced
    for name, value in headers:
        if name == b"user-agent":
            return contract_of(value.decode("latin-1"))
    return Contract.UNSTATED


State = Annotated[ApiState, Depends(get_state)]
CurrentRuntime = Annotated[Runtime, Depends(get_runtime)]
Wallet = Annotated[WalletApi, Depends(get_wallet)]
Onchain = Annotated[OnchainApi, Depends(get_onchain)]
ClientContract = Annotated[Contract, Depends(get_contract)]
