"""What the parts of the server that do Lightning work with."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument
from barkd_py.devnet.ark_server.faults import Faults
from barkd_py.devnet.ark_server.funds.vtxo_pool import VtxoPool
from barkd_py.devnet.ark_server.lightning.node import LightningNode
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store import participation_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.vtxos.arkoor import Arkoor
from barkd_py.devnet.ark_server.vtxos.mailboxes import Mailboxes


@dataclass(frozen=True, slots=True)
class LightningParts:
    """clock: Unix seconds."""

    settings: ServerSettings
    keys: ServerKeys
    store: Store
    chain: ServerChain
    arkoor: Arkoor
    mailboxes: Mailboxes
    pool: VtxoPool
    node: LightningNode
    faults: Faults
    clock: Callable[[], float]


def check_no_collision(connection: Connection, payment_hash: bytes) -> None:
    """A hash that unlocks a round's coins must not become known as a payment's. Raises BadArgument."""
    if participation_rows.find(connection, payment_hash) is not None:
        raise BadArgument("payment hash collides with an existing unlock hash")
