import pytest

from barkd_py.bitcoin.bip32 import Seed, parse_mnemonic
from tests.chain.conftest import clock, node, rpc, source
from tests.fakes.onchain_store import MemoryOnchainStore

__all__ = ["clock", "node", "rpc", "source"]


@pytest.fixture(scope="session")
def seed() -> Seed:
    return parse_mnemonic("abandon " * 11 + "about")


@pytest.fixture
def store() -> MemoryOnchainStore:
    return MemoryOnchainStore()
