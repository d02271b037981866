"""What wallets of the real barkd 0.8.0 held, shown by our API: VTXOs, balances, histories, coins.

The recorded answer is filled with made-up ids, keys and times; a fake wallet is made to hold just that, and
must answer it again. So every kind of movement, state and transaction that was recorded is rendered.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.movements import (
    Movement,
    MovementDestination,
    MovementStatus,
    PaymentMethod,
    PaymentMethodKind,
    Subsystem,
)
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Locked,
    MovementHolder,
    Spendable,
    Spent,
    VtxoState,
)
from tests.contract.recorded import FILLINGS, REGTEST_INVOICE, Case, cases
from tests.contract.test_recorded import check
from tests.fakes.wallet import FakeWallet, OnchainBalance, OnchainTx, OnchainUtxo, some_tx, some_vtxo
from tests.support.api_server import RunningApi

_SHOWN = re.compile(
    r"/api/v1/(wallet/(vtxos(/<\w+>)?|balance|history|movements)|history|onchain/(transactions|utxos|balance))$"
)
_NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
_NAMES: Mapping[str, str] = {
    **FILLINGS,
    "own_ark_address": FILLINGS["other_ark_address"],
    "own_ark_address2": FILLINGS["other_ark_address"],
    "old_invoice": REGTEST_INVOICE,
    "regtest_payment_hash": "12" * 32,
    "arkoor_vtxo": FILLINGS["spent_vtxo"],
    "offboard_vtxo": f"{'77' * 32}:0",
}

SELECTED = [
    case
    for case in cases()
    if case.method == "GET"
    and case.status == 200
    and case.auth is True
    and _SHOWN.match(case.path)
    and not case.state.startswith("no wallet")
]


class _Maker:
    """Makes up values for what a recorded answer leaves open; each is another one."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = itertools.count(0x80)

    def fill(self, value: Any, key: str = "") -> Any:
        match value:
            case {"txid": "<txid>", "tx": "<hex>"}:
                tx = some_tx(next(self._numbers), TxOut(1_000, b"\x51\x20" + b"\x01" * 32))
                rest = {name: self.fill(inner, name) for name, inner in value.items()}
                return {**rest, "txid": str(tx.txid), "tx": tx.serialize().hex()}
            case dict():
                return {name: self.fill(inner, name) for name, inner in value.items()}
            case list():  # the recording cuts long lists short: "<3 more>"
                whole = [item for item in value if not (isinstance(item, str) and item.endswith("more>"))]
                return [self.fill(item, key) for item in whole]
            case "<int>":
                return self._integer(key)
            case "<time>":
                return f"{_NOON.isoformat().removesuffix('+00:00')}Z"
            case str():
                return re.sub(r"<(\w+)>", self._word, value)
            case _:
                return value

    def _integer(self, key: str) -> int:
        number = next(self._numbers)
        return 100_000 - number if key == "id" else number

    def _word(self, match: re.Match[str]) -> str:
        name = match[1]
        if name in _NAMES:
            return _NAMES[name]
        unique = f"{next(self._numbers):064x}"
        return {"pubkey": f"02{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}",
                "vtxo_id": f"{unique}:0", "outpoint": f"{unique}:1"}.get(name, unique)  # fmt: skip


# --- the wallet that answers so


def _stock(wallet: FakeWallet, path: str, answer: Any) -> None:
    wallet.stored.clear()
    wallet.movements.clear()
    onchain = wallet.onchain
    assert onchain is not None
    match path.removeprefix("/api/v1").split("/")[1:]:
        case ["wallet", "balance"]:
            wallet.told_balance = Balance(**answer)
        case ["wallet", "vtxos", *_]:
            for shown in answer if isinstance(answer, list) else [answer]:
                wallet.add_vtxo(_vtxo(shown))
        case ["onchain", "balance"]:
            onchain.told_balance = OnchainBalance(**answer)
        case ["onchain", "utxos"]:
            onchain.coins = {
                OutPoint.parse(coin["outpoint"]): OnchainUtxo(
                    OutPoint.parse(coin["outpoint"]), coin["amount_sat"], coin["confirmation_height"]
                )
                for coin in answer
            }
        case ["onchain", "transactions"]:
            onchain.txs = [_onchain_tx(shown) for shown in answer]
        case _:
            wallet.movements = [_movement(shown) for shown in answer]


def _vtxo(shown: dict[str, Any]) -> Any:
    return replace(
        some_vtxo(shown["id"], shown["amount_sat"], _state(shown["state"])),
        policy_kind=shown["policy_type"],
        user_pubkey=PublicKey(bytes.fromhex(shown["user_pubkey"])),
        server_pubkey=PublicKey(bytes.fromhex(shown["server_pubkey"])),
        expiry_height=shown["expiry_height"],
        exit_delta=shown["exit_delta"],
        anchor_point=OutPoint.parse(shown["chain_anchor"]),
        exit_depth=shown["exit_depth"],
    )


def _state(shown: dict[str, Any]) -> VtxoState:
    match shown:
        case {"type": "spendable"}:
            return Spendable()
        case {"type": "spent"}:
            return Spent()
        case {"type": "exited"}:
            return Exited()
        case {"type": "locked", "movement_id": number}:
            return Locked(MovementHolder(number))
        case {"type": "locked", "action_id": action_id}:
            return Locked(ActionHolder(action_id))
        case _:
            return Locked(None)


def _movement(shown: dict[str, Any]) -> Movement:
    times = {name: datetime.fromisoformat(value) for name, value in shown["time"].items()}
    return Movement(
        id=shown["id"],
        status=MovementStatus(shown["status"]),
        subsystem=Subsystem(**shown["subsystem"]),
        created_at=times["created_at"],
        updated_at=times["updated_at"],
        completed_at=times.get("completed_at"),
        metadata=dict(reversed(shown.get("metadata", {}).items())),
        intended_balance_sat=shown["intended_balance_sat"],
        effective_balance_sat=shown["effective_balance_sat"],
        offchain_fee_sat=shown["offchain_fee_sat"],
        sent_to=tuple(map(_destination, shown["sent_to"])),
        received_on=tuple(map(_destination, shown["received_on"])),
        input_vtxos=tuple(map(VtxoId.parse, shown["input_vtxos"])),
        output_vtxos=tuple(map(VtxoId.parse, shown["output_vtxos"])),
        exited_vtxos=tuple(map(VtxoId.parse, shown["exited_vtxos"])),
    )


def _destination(shown: dict[str, Any]) -> MovementDestination:
    method = PaymentMethod(PaymentMethodKind(shown["destination"]["type"]), shown["destination"]["value"])
    return MovementDestination(method, shown["amount_sat"])


def _onchain_tx(shown: dict[str, Any]) -> OnchainTx:
    block = shown["confirmation"]
    return OnchainTx(
        Tx.parse(bytes.fromhex(shown["tx"])),
        shown.get("onchain_fee_sat"),
        shown["balance_change_sat"],
        None if block is None else BlockRef(block["height"], BlockHash.from_hex(block["hash"])),
        is_cpfp=shown["is_cpfp"],
    )


@pytest.mark.parametrize("case", SELECTED, ids=lambda case: f"{case.state}: {case.name}")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wallet_is_shown_as_the_recorded_one(api: RunningApi, case: Case) -> None:
    maker = _Maker()
    answer = maker.fill(case.response)
    path, query = maker.fill(case.path), case.query and maker.fill(case.query)
    _stock(api.wallet, path, answer)
    if path.endswith(
        "/onchain/transactions"
    ):  # oldest first, as documented; barkd puts unconfirmed ones first
        answer = sorted(answer, key=lambda shown: shown["confirmation"] is None)
    await check(api, replace(case, path=path, query=query, response=answer))
