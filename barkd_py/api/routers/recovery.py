"""Tag `wallet`: recovery from the mnemonic, at any time. barkd recovers when it creates a wallet, and never
again, and tells nobody what it found.
"""

import asyncio
import contextlib

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.responses import FAILED, NOT_FOUND
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import recovery as schemas
from barkd_py.errors import KnownError

router = new_router("/wallet", "wallet")

WAIT_SECS = 30.0
"""How long a caller waits for the end; the report says how far it is."""


@router.get(
    "/recovery",
    response_model=schemas.RecoveryReport,
    responses=NOT_FOUND,
    summary="What the last recovery found",
)
async def recovery(wallet: Wallet) -> object:
    return render.recovery_report(await wallet.recovery.report())


@router.post(
    "/recovery",
    response_model=schemas.RecoveryReport,
    responses=FAILED,
    summary="Look for VTXOs of the mnemonic again",
)
async def recover(wallet: Wallet) -> object:
    with contextlib.suppress(TimeoutError, KnownError):  # it goes on; the report says what is the matter
        await asyncio.wait_for(wallet.recovery.start(), WAIT_SECS)
    return render.recovery_report(await wallet.recovery.report())
