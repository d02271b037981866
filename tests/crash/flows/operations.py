"""Which flow each operation of the daemon is that changes something; or why it is none.

`tests/crash/test_flows.py` sees to it that no operation of openapi.json is missing.
"""

FLOW_OF = {
    "POST /boards/board-amount": "board",
    "POST /boards/board-all": "board all",
    "POST /exits/claim/all": "claim",
    "POST /exits/progress": "exit",
    "POST /exits/start/vtxos": "exit",
    "POST /lightning/pay": "Lightning send",
    "POST /lightning/receives/invoice": "Lightning receive",
    "POST /lightning/receives/invoice/for-address": "Lightning receive for another wallet",
    "POST /onchain/send": "on-chain send",
    "DELETE /wallet": "recovery",
    "POST /wallet/create": "wallet creation",
    "POST /wallet/import-vtxo": "import",
    "POST /wallet/offboard/vtxos": "offboard",
    "POST /wallet/recovery": "recovery that is asked for",
    "POST /wallet/refresh/delegated/vtxos": "delegated refresh",
    "POST /wallet/refresh/vtxos": "refresh",
    "POST /wallet/send": "arkoor send",
    "POST /wallet/send-onchain": "send on-chain",
    "POST /wallet/sync/mailbox": "arkoor receive",
}

# The same from the first commit on.
LIKE = {
    "POST /exits/claim/vtxos": "POST /exits/claim/all",
    "POST /exits/start/all": "POST /exits/start/vtxos",
    "POST /onchain/drain": "POST /onchain/send",
    "POST /onchain/send-many": "POST /onchain/send",
    "POST /wallet/offboard/all": "POST /wallet/offboard/vtxos",
    "POST /wallet/refresh/all": "POST /wallet/refresh/vtxos",
    "POST /wallet/refresh/counterparty": "POST /wallet/refresh/vtxos",
}

# One commit at most, or none; every flow runs the first four anyway.
MOVE_NOTHING = {
    "POST /onchain/addresses/next",
    "POST /onchain/sync",
    "POST /wallet/addresses/next",
    "POST /wallet/sync",
    "POST /exits/cancel/{vtxo_id}",
    "DELETE /lightning/receives/{identifier}",
    "POST /history/{id}/metadata",
    "POST /fees/offboard",
    "POST /message/sign",
    "POST /message/verify",
    "POST /wallet/bip321",
}

# What the daemon does unasked, and what a person does beside it.
WITHOUT_A_REQUEST = {
    "a round begins, and VTXOs expire soon": "automatic refresh",
    "others publish what a VTXO comes from": "forced exit",
    "a mailbox message comes": "arkoor receive",
    "a backup is made while a board is under way, and put back": "restore of a backup",
}
