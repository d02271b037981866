"""What the real barkd 0.8.0 answered about exits, asked of our API with a wallet in the recorded state.

The recording says in words which wallet a request met. Where the answer lists exits, the wallet is given
exits of that kind, so that what is compared is the rendering; elsewhere `WALLETS` puts it into the state.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, PackageFee
from barkd_py.wallet.exits import states
from barkd_py.wallet.exits.states import ExitStatus
from barkd_py.wallet.vtxo_states import Spent
from tests.contract.recorded import (
    EXIT_VTXO,
    OTHER_VTXO,
    SMALL_VTXO,
    SPENDABLE_VTXO,
    SPENT_VTXO,
    Case,
    cases,
    fill,
)
from tests.contract.test_recorded import check
from tests.fakes import exits as samples
from tests.fakes.wallet import FakeExits, FakeWallet, some_vtxo
from tests.support.api_server import RunningApi

SELECTED = [
    case
    for case in cases()
    if case.path.startswith("/api/v1/exits/") and not case.state.startswith("no wallet")
]


def _exit(wallet: FakeWallet, state: states.ExitState) -> None:
    wallet.exits.put(ExitStatus(VtxoId.parse(EXIT_VTXO), state))


def _with_exit(state: states.ExitState) -> Callable[[FakeWallet], None]:
    def put(wallet: FakeWallet) -> None:
        wallet.add_vtxo(some_vtxo(EXIT_VTXO, 49_670))
        wallet.add_vtxo(some_vtxo(SMALL_VTXO, 1_000))
        wallet.add_vtxo(some_vtxo(SPENT_VTXO, 1_000, Spent()))
        _exit(wallet, state)

    return put


def _without_exits(wallet: FakeWallet) -> None:
    wallet.add_vtxo(some_vtxo(EXIT_VTXO, 49_670))
    wallet.add_vtxo(some_vtxo(SPENT_VTXO, 1_000, Spent()))


def _one_board(wallet: FakeWallet) -> None:
    wallet.add_vtxo(some_vtxo(SPENDABLE_VTXO, 49_670))


def _empty(_: FakeWallet) -> None:
    pass


FAST_SAT_PER_VB = 5.004
"""The fake wallet's; the recorded one had 1."""

CLAIMABLE = samples.STATES[4]
BROADCAST = samples.processing(samples.BROADCAST)
WALLETS: Mapping[str, Callable[[FakeWallet], None]] = {
    "just created, empty, server connected": _empty,
    "everything offboarded": _empty,
    "other VTXOs left": _without_exits,
    "one spendable VTXO from a confirmed board": _one_board,
    "VTXOs and on-chain coins": _without_exits,
    "two boards, one split by a send to itself": _without_exits,
    "a VTXO of a board": _without_exits,
    "one exit started": _with_exit(states.Start(100)),
    "exit canceled": _with_exit(states.Canceled(100)),
    "exit awaiting-delta": _with_exit(samples.STATES[2]),
    "exit tx broadcast, unconfirmed": _with_exit(BROADCAST),
    "exit claimable": _with_exit(CLAIMABLE),
    "every exit claimable": _with_exit(CLAIMABLE),
    "exit claimed, not yet progressed": _with_exit(CLAIMABLE),
    "claimed": _with_exit(samples.STATES[6]),
}


# --- recorded exits as ours


def _state(json: dict[str, Any]) -> states.ExitState:
    if json["type"] == "processing":
        return samples.processing(*(_tx_status(tx["status"]) for tx in json["transactions"]))
    candidates = [state for state in samples.STATES if state.type == json["type"]]
    if json["type"] == "claimable":
        return candidates[0 if json["last_scanned_block"] is None else 1]
    (found,) = candidates
    return found


def _tx_status(json: dict[str, Any]) -> states.ExitTxStatus:
    candidates = (samples.VERIFY, samples.WAITING, samples.UNPAID, samples.BROADCAST, samples.CONFIRMED)
    status = next(status for status in candidates if status.type == json["type"])
    if isinstance(status, states.AwaitingConfirmation) and json["origin"]["confirmed_in"] is not None:
        return replace(status, origin=samples.OWN_CONFIRMED)
    return status


def _package(json: dict[str, Any]) -> states.ExitPackage:
    child = json["child"]
    if child is None:
        return states.ExitPackage(samples.PARENT, None)
    assert child["origin"]["type"] == "wallet"
    origin = samples.OWN if child["origin"]["confirmed_in"] is None else samples.OWN_CONFIRMED
    fee = None
    if "fee_info" in child:
        fee = PackageFee(child["fee_info"]["fee_rate_sat_per_kvb"] // 4, 1_000)
    return states.ExitPackage(samples.PARENT, states.ExitChild(samples.CHILD, origin, fee))


def _put_recorded(exits: FakeExits, answer: Any) -> None:
    """Give the wallet the exits that the answer lists, and one that it leaves out."""
    listed: list[dict[str, Any]]
    match answer:
        case {"exits": list(listed)} | list(listed):
            pass
        case {"vtxo_id": _}:
            listed = [answer]
        case _:
            return
    for number, json in enumerate(listed):
        vtxo_id = fill(json["vtxo_id"]) if json["vtxo_id"] != "<vtxo_id>" else OTHER_VTXO[:-1] + str(number)
        exits.put(
            ExitStatus(
                VtxoId.parse(vtxo_id),
                _state(json["state"]),
                history=tuple(map(_state, json.get("history", ()))),
                packages=tuple(map(_package, json.get("transactions", ()))),
            )
        )


def _sorted(answer: Any) -> Any:
    """The recorded lists are in barkd's order, which is none; ours are by id."""
    match answer:
        case {"exits": list(listed), **others}:
            return {"exits": sorted(listed, key=lambda json: fill(json["vtxo_id"])), **others}
        case [{"vtxo_id": _}, *_]:
            return sorted(answer, key=lambda json: fill(json["vtxo_id"]))
        case _:
            return answer


@pytest.mark.parametrize("case", SELECTED, ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_answers_are_the_recorded_ones(api: RunningApi, case: Case) -> None:
    wallet = api.wallet
    wallet.stored.clear()
    wallet.exits = FakeExits(wallet)
    if case.state in WALLETS:
        WALLETS[case.state](wallet)
    if case.status == 200:
        wallet.exits.statuses_by_id.clear()
        if "claim/" in case.path or "exits/cancel" in case.path:
            WALLETS[case.state](wallet)
        _put_recorded(wallet.exits, case.response)
    if case.name == "exits/claim/vtxos: twice":
        text = "RPC server returned error 'min relay fee not met, 1 < 12' (code -26)"
        wallet.exits.failure = BroadcastError(BroadcastErrorKind.OTHER, text)
    response = case.response
    if "/exits/fee" in case.path and case.status == 200:
        response = {
            **response,
            "txs_to_broadcast": "<int>",
        }
        if "fee_rate" not in (case.query or ""):
            response["fee_rate_sat_per_vb"] = FAST_SAT_PER_VB
    await check(api, replace(case, response=_sorted(response)))
