"""The chain source's cases on a real bitcoind: over RPC, and over Esplora's face of it."""

import pytest

from tests.chain.source_cases import *  # noqa: F403
from tests.interop.real_node import bitcoind, node, source  # noqa: F401

pytestmark = pytest.mark.interop
