"""Tag `bitcoin`."""

from barkd_py.api.deps import Wallet
from barkd_py.api.responses import FAILED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import bitcoin as schemas

router = new_router("/bitcoin", "bitcoin")


@router.get("/tip", response_model=schemas.TipResponse, responses=FAILED, summary="Get bitcoin tip height")
async def tip(wallet: Wallet) -> object:
    return {"tip_height": await wallet.tip_height()}
