"""Every 500 that an answer may be: what barkd answers so too, and what it should have.

barkd answers 500 to much that is no failure of the program: too little money, a state that does not fit, a
refusal by the server. A client knows them by their words, so the list has the words; a 500 that is not in it
is a failure of ours. In a text, `*` stands for anything. `source` says who says so: RECORDED, a real barkd
0.8.0 did (and a test looks it up); a section of protocol sheet 07; or, where barkd does worse, what it does.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

RECORDED: Final = "recorded"


@dataclass(frozen=True, slots=True)
class Failure:
    """operation: method and path below /api/v1, with its parameters as the description has them."""

    operation: str
    text: str
    source: str

    def covers(self, operation: str, message: str) -> bool:
        return self.operation == operation and _pattern(self.text).fullmatch(message) is not None


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def is_documented(operation: str, message: str) -> bool:
    return any(failure.covers(operation, message) for failure in FAILURES)


_INSUFFICIENT: Final = "error building tx: Insufficient funds: * BTC available of * BTC needed"
_DUST: Final = "error building tx: Output below the dust limit: *"
_NO_MONEY: Final = "Insufficient money available. Needed * BTC but *"
_NO_SUITABLE: Final = f"Could not find enough suitable VTXOs to cover payment + fees: {_NO_MONEY}"
_ZERO_INVOICE: Final = (
    "Cannot create invoice for 0 sats "
    "(this would create an explicit 0 sat invoice, not an any-amount invoice)"
)
_FEE_TOO_HIGH: Final = "Fee (* BTC) exceeds amount (* BTC)"
_NOT_LOCKED: Final = (
    "Unable to lock VTXOs: vtxo * is in state * which is not in the allowed old states [Spendable]"
)
_NO_SUCH_RECEIVE: Final = "no pending lightning receive found for this payment hash"
_NO_NODE: Final = "code: 'Internal error', message: \"no active hold-compatible cln node\""
_TOO_LARGE: Final = "code: 'Internal error', message: \"invoice amount overflows\""
"""The Ark server's words."""


def _lightning_payment(operation: str) -> tuple[Failure, ...]:
    return (
        Failure(operation, "Invoice is for wrong network: *", RECORDED),
        Failure(operation, "invalid user amount: invoice=* BTC, user=* BTC", RECORDED),
        Failure(operation, "user amount required", RECORDED),
        Failure(
            operation, "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)", RECORDED
        ),
        Failure(
            operation,
            f"Could not find enough suitable VTXOs to cover lightning payment: {_NO_SUITABLE}",
            RECORDED,
        ),
        Failure(operation, "lightning address error: failed to make lnurl request: *", RECORDED),
        Failure(operation, "Invoice has already been paid", "sheet 07 §6.2, POST wallet/send"),
        Failure(operation, "invoice has bad payment amount: *", "sheet 07 §6.2, POST wallet/send"),
    )


FAILURES: Final = (
    # wallet
    Failure("GET /wallet/mnemonic", "failed to read mnemonic file at *", RECORDED),
    Failure(
        "GET /wallet/addresses/index/{index}",
        "Failed to get address at index *: VTXO key * does not exist, please derive it first",
        RECORDED,
    ),
    Failure("POST /wallet/create", "Error while creating wallet: *", RECORDED),
    Failure("POST /wallet/create", "Datadir has unexpected contents: *", RECORDED),
    Failure("POST /wallet/bip321", "Failed to build BIP 321 URI: amount cannot be zero", RECORDED),
    Failure(
        "POST /wallet/bip321",
        f"Failed to build BIP 321 URI: failed to generate lightning invoice: {_NO_NODE}",
        RECORDED,
    ),
    Failure(
        "POST /wallet/bip321",
        f"Failed to build BIP 321 URI: failed to generate lightning invoice: {_TOO_LARGE}",
        "sheet 07 §6.2, POST wallet/bip321: what the server says",
    ),
    Failure(
        "POST /wallet/bip321",
        f"Failed to build BIP 321 URI: failed to generate lightning invoice: {_FEE_TOO_HIGH}",
        "sheet 07 §2.3, fee sanity",
    ),
    Failure("POST /wallet/send", "amount missing", RECORDED),
    Failure("POST /wallet/send", _NO_MONEY, RECORDED),
    Failure("POST /wallet/send", "offboards are temporarily disabled", RECORDED),
    Failure("POST /wallet/send", "bitcoin address is not valid for configured network: *", RECORDED),
    Failure("POST /wallet/send", "Cannot send 0 sats", "barkd never answers; docs/api.md"),
    *_lightning_payment("POST /wallet/send"),
    *_lightning_payment("POST /lightning/pay"),
    *(
        Failure(operation, text, RECORDED)
        for operation, what in (
            ("POST /wallet/refresh/vtxos", "Failed to build round participation: "),
            ("POST /wallet/refresh/delegated/vtxos", "Failed to store round participation: "),
        )
        for text in (
            f"{what}duplicate VTXO id: *",
            f"{what}vtxo with id * not found",
            "Failed to store round participation: input VTXO * is not spendable (state: *)",
        )
    ),
    Failure("POST /wallet/offboard/vtxos", _NOT_LOCKED, RECORDED),
    Failure("POST /wallet/offboard/vtxos", "offboard inputs must not contain duplicates", RECORDED),
    Failure(
        "POST /wallet/offboard/vtxos",
        "offboard fee leaves dust: *",
        "sheet 07 §6.2, POST wallet/offboard/vtxos",
    ),
    Failure(
        "POST /wallet/offboard/all", "offboard fee leaves dust: Fee (* BTC) exceeds amount (0 BTC)", RECORDED
    ),
    Failure("POST /wallet/send-onchain", _NO_SUITABLE, RECORDED),
    Failure("POST /wallet/send-onchain", "the minimum you can send to * is * BTC", RECORDED),
    # boards, on chain, fees, history
    Failure("POST /boards/board-amount", _INSUFFICIENT, RECORDED),
    Failure("POST /boards/board-amount", _DUST, RECORDED),
    Failure(
        "POST /boards/board-amount",
        "board amount of * BTC is less than minimum board amount required by server (* BTC)",
        "sheet 07 §6.3",
    ),
    Failure("POST /boards/board-all", _INSUFFICIENT, RECORDED),
    Failure(
        "POST /boards/board-all",
        "board amount of * BTC is less than minimum board amount required by server (* BTC)",
        "sheet 07 §6.3",
    ),
    Failure("POST /onchain/send", f"Failed to send onchain payment: {_INSUFFICIENT}", RECORDED),
    Failure("POST /onchain/send", f"Failed to send onchain payment: {_DUST}", RECORDED),
    Failure("POST /onchain/send-many", f"Failed to send many onchain payments: {_INSUFFICIENT}", RECORDED),
    Failure("POST /onchain/send-many", f"Failed to send many onchain payments: {_DUST}", RECORDED),
    Failure(
        "POST /onchain/send-many",
        "Failed to send many onchain payments: error building tx: Cannot build tx without recipients",
        RECORDED,
    ),
    Failure("POST /onchain/drain", f"Failed to drain onchain wallet: {_INSUFFICIENT}", RECORDED),
    Failure(
        "GET /fees/board",
        "Failed to estimate board fee: board amount of * BTC does not meet minimum value of * BTC",
        RECORDED,
    ),
    Failure(
        "GET /fees/board",
        "Failed to estimate board fee: board amount of * BTC exceeds maximum value of * BTC",
        "sheet 07 §6.5",
    ),
    Failure(
        "POST /history/{id}/metadata",
        "Movement Load Error: Unable to load movement (*) from persister: Movement * not found",
        RECORDED,
    ),
    # Lightning
    *(
        Failure(operation, f"{what}: {reason}", source)
        for operation, what in (
            ("POST /lightning/receives/invoice", "Failed to create invoice"),
            ("POST /lightning/receives/invoice/for-address", "Failed to create invoice for address"),
        )
        for reason, source in (
            (_NO_NODE, RECORDED),
            (_TOO_LARGE, "sheet 07 §6.7: what the server says"),
            (_FEE_TOO_HIGH, "sheet 07 §2.3, fee sanity"),
        )
    ),
    Failure("POST /lightning/receives/invoice", f"Failed to create invoice: {_ZERO_INVOICE}", RECORDED),
    Failure(
        "POST /lightning/receives/invoice/for-address",
        f"Failed to create invoice for address: {_ZERO_INVOICE}",
        "sheet 07 §6.7, as for receives/invoice",
    ),
    Failure(
        "DELETE /lightning/receives/{identifier}",
        f"Failed to cancel lightning receive: {_NO_SUCH_RECEIVE}",
        RECORDED,
    ),
    Failure(
        "GET /lightning/receives/{identifier}",
        f"Failed to get lightning receive status: {_NO_SUCH_RECEIVE}",
        "barkd only; ours is the documented 404, see docs/contract.md",
    ),
    # exits
    *(
        Failure(f"POST /exits/claim/{which}", f"Failed to drain exits: {text}", source)
        for which, text, source in (
            ("all", "Claim Missing Inputs: No inputs given to claim", RECORDED),
            ("vtxos", "Claim Missing Inputs: No inputs given to claim", RECORDED),
            (
                "all",
                "Claim Fee Exceeds Output: Cost to claim exits was * BTC, but the total output was * BTC",
                RECORDED,
            ),
        )
    ),
    Failure(
        "POST /exits/claim/vtxos",
        "Failed to broadcast transaction: RPC server returned error 'min relay fee not met, *' (code -26)",
        RECORDED,
    ),
)
