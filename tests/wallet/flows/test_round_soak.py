"""Two wallets, many rounds, random faults: no satoshi is lost, and nothing is stuck in the end.

``BARKD_SOAK_ROUNDS`` and ``BARKD_SOAK_SEED`` make it longer, and different. See `round_soak`.
"""

import os

import pytest

from barkd_py.devnet.ark_server.settings import ServerSettings
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.round_soak import Soak

SHORT_ROUNDS = 10
SEED = 5


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60, vtxo_lifetime=150
    )


async def test_rounds_with_random_faults(net: Net, alice: Owner, bob: Owner) -> None:
    await bob.board(300_000)
    soak = Soak(net, [alice, bob], seed=int(os.environ.get("BARKD_SOAK_SEED", SEED)))
    nb_rounds = int(os.environ.get("BARKD_SOAK_ROUNDS", SHORT_ROUNDS))
    report = await soak.run(nb_rounds)
    print(report)
    assert report.counts["RoundFinished"] > 0
    assert report.counts["refreshes successful"] > 0
    if nb_rounds >= 50:  # fewer may be lucky
        assert report.counts["client died"] > 0
        assert report.counts["faults of the server that struck"] > 0
