"""Recoveries of a wallet that see another server, or another chain, than the wallet does."""

import time
from collections.abc import Callable
from typing import Any

from barkd_py.wallet.recovery.evidence import Evidence
from barkd_py.wallet.recovery.ledger import Ledger
from barkd_py.wallet.recovery.service import Effect, Recovery
from barkd_py.wallet.recovery.xpub import MAX_PAGES
from barkd_py.wallet.wallet import Wallet


def recovery_with(
    wallet: Wallet,
    server: Any,
    chain: Any = None,
    *,
    rescan_onchain: Effect | None = None,
    max_xpub_pages: int = MAX_PAGES,
    monotonic: Callable[[], float] = time.monotonic,
) -> Recovery:
    evidence = Evidence(wallet.store, server, chain or wallet.chain, wallet.keychain, gap_limit=20)
    return Recovery(
        wallet.store,
        server,
        wallet.keychain,
        evidence,
        Ledger(wallet.store, wallet.mailbox.received_on),
        network=wallet.network,
        start_exits=wallet.exits.start_found,
        complete_round=wallet.rounds.on_completed,
        drain_mailbox=wallet.mailbox.sync,
        rescan_onchain=rescan_onchain or wallet.chain.tip,
        take_back=wallet.lightning.adopt,
        wake_registration=lambda: None,
        max_xpub_pages=max_xpub_pages,
        monotonic=monotonic,
    )
