"""What the real barkd 0.8.0 answered about refreshes and offboards, asked of our API.

The wallet is fake, but its refusals are the real ones; amounts and fees follow from the recorded VTXOs.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.settings import DEFAULT_FEES
from barkd_py.wallet.rounds.states import (
    Delegated,
    Issued,
    Output,
    Pending,
    Registered,
    Round,
    RoundInfo,
    RoundState,
    Unconfirmed,
    Waiting,
)
from barkd_py.wallet.vtxo_states import Locked, Spendable, Spent, VtxoState, WalletVtxo
from tests.contract.recorded import SMALL_VTXO, SPENDABLE_VTXO, SPENT_VTXO, Case, cases
from tests.contract.test_recorded import check
from tests.fakes.rounds import OFFBOARD_TX, OUTPUT_KEY, FakeOffboards, FakeRounds
from tests.fakes.wallet import ARK_INFO, some_vtxo
from tests.support.api_server import RunningApi

# The recorded address was of this kind, whose length is in the fees.
P2PKH_ADDRESS = address_from_script(b"\x76\xa9\x14" + b"\x01" * 20 + b"\x88\xac", Network.REGTEST)
PLACEHOLDERS = {
    "<bitcoin_address>": str(P2PKH_ADDRESS),
    "<arkoor_vtxo>": SPENT_VTXO,
    "<offboard_vtxo>": SPENDABLE_VTXO,
    "<small2>": SPENDABLE_VTXO,
    "<exit_vtxo>": SPENDABLE_VTXO,
    "<vtxo_id>": SPENDABLE_VTXO,
    "<pubkey>": str(OUTPUT_KEY),
    "<future_height>": "110",
}
TIP_HEIGHT = 100
FAR_HEIGHT = TIP_HEIGHT + 4_000
"""In the dearest bracket of the fees."""

_PATHS = ("/wallet/refresh/", "/wallet/rounds", "/wallet/offboard/", "/wallet/send-onchain", "/fees/offboard",
          "/fees/send-onchain")  # fmt: skip
# Six VTXOs whose amounts and ages were not recorded.
UNKNOWN_INPUTS = {"refresh/counterparty"}
SELECTED = [
    case
    for case in cases()
    if any(path in case.path for path in _PATHS)
    and not case.state.startswith("no wallet")
    and case.name not in UNKNOWN_INPUTS
]


def _filled(case: Case) -> Case:
    def fill(value: object) -> object:
        text = json.dumps(value)
        for placeholder, filling in PLACEHOLDERS.items():
            text = text.replace(placeholder, filling)
        return json.loads(text)

    query = case.query and str(fill(case.query))
    return replace(case, query=query, body=fill(case.body), response=fill(case.response))


def _vtxo(vtxo_id: str, amount_sat: int, state: VtxoState | None = None) -> WalletVtxo:
    return replace(some_vtxo(vtxo_id, amount_sat, state or Spendable()), expiry_height=FAR_HEIGHT)


def _amount_sat(case: Case) -> int:
    """What the recorded VTXO held, from what came of it."""
    match case.response:
        case {"participation": {"outputs": [{"amount_sat": int(net_sat)}]}}:
            return next(
                gross_sat
                for gross_sat in range(net_sat, 2 * net_sat)
                if gross_sat - 150 - -(-gross_sat * 8_000 // 1_000_000) == net_sat
            )
        case {"message": str(text)} if "0.00629574 BTC is available" in text:
            return 629_574
        case _:
            return 599_300


def _vtxos(case: Case) -> Sequence[WalletVtxo]:
    match case.state:
        case "just created, empty, server connected" | "everything offboarded":
            return ()
        case "offboarded":
            return (_vtxo(SPENDABLE_VTXO, 12_345, Locked(None)),)
        case "a VTXO of 1,000 sat" if case.status == 500:
            return (_vtxo(SPENDABLE_VTXO, 1_000, Locked(None)),)
        case _:
            return (
                _vtxo(SPENDABLE_VTXO, _amount_sat(case)),
                _vtxo(SMALL_VTXO, _amount_sat(case)),
                _vtxo(SPENT_VTXO, 30_000, Spent()),
            )


def _recorded_rounds(answer: Sequence[dict[str, Any]]) -> list[RoundInfo]:
    """Participations like the listed ones."""
    flows: dict[str, RoundState] = {
        "pending": Waiting(),
        "ongoing": Registered(1, 0, bytes(32)),
        "delegated-pending": Delegated(bytes(32)),
        "awaiting-confirmations": Issued(bytes(32), OFFBOARD_TX, (), is_delegated=False),
    }
    found = []
    for number, listed in enumerate(answer, 1):
        participation = listed["participation"]
        (vtxo_id,), (output,) = participation["inputs"], participation["outputs"]
        state = flows[listed["state"]]
        round_ = Round(
            (VtxoId.parse(SMALL_VTXO if "small" in vtxo_id else SPENDABLE_VTXO),),
            (Output(output["amount_sat"], OUTPUT_KEY),),
            state,
            scheduled_height=None if listed["scheduled_height"] is None else 110,
        )
        status = Unconfirmed(OFFBOARD_TX.txid) if isinstance(state, Issued) else Pending()
        found.append(RoundInfo(number, round_, status, 1))
    return found


@pytest.mark.parametrize("case", SELECTED, ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_answers_are_the_recorded_ones(api: RunningApi, case: Case) -> None:
    wallet, info = api.wallet, replace(ARK_INFO, fees=DEFAULT_FEES)
    wallet.stored.clear()
    for vtxo in _vtxos(case):
        wallet.add_vtxo(vtxo)
    stored = [vtxo for vtxo, _ in wallet.stored.values()]
    if case.path.endswith(("/all", "-all", "send-onchain")):  # everything was one VTXO
        stored = stored[:1]
    wallet.rounds = FakeRounds(lambda: stored, info, TIP_HEIGHT)
    wallet.offboards = FakeOffboards(lambda: stored, info, TIP_HEIGHT)
    if case.path.endswith("/rounds"):
        wallet.rounds.infos = _recorded_rounds(case.response)
    await check(api, _filled(case))
