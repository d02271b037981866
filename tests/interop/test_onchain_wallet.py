"""The on-chain wallet's cases on a real bitcoind: over RPC, and over Esplora's face of it."""

import pytest

from barkd_py.bitcoin.bip32 import Seed, generate_mnemonic
from tests.fakes.chains import Clock
from tests.fakes.onchain_store import MemoryOnchainStore
from tests.interop.real_node import bitcoind, node, source  # noqa: F401
from tests.onchain.wallet_cases import *  # noqa: F403

pytestmark = pytest.mark.interop


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryOnchainStore:
    return MemoryOnchainStore()


@pytest.fixture
def seed() -> Seed:
    """Another one for each test: they share the chain."""
    return generate_mnemonic()
