"""Tag `boards`: on-chain bitcoin onto Ark."""

from barkd_py.api import render
from barkd_py.api.deps import Wallet
from barkd_py.api.errors import Failure
from barkd_py.api.responses import FAILED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import boards as schemas
from barkd_py.bitcoin.units import format_btc
from barkd_py.daemon.wallet_api import PendingBoard, WalletApi
from barkd_py.errors import KnownError, chain_text

router = new_router("/boards", "boards")


@router.post(
    "/board-amount",
    response_model=schemas.PendingBoardInfo,
    responses=FAILED,
    summary="Board a specific amount",
)
async def board_amount(body: schemas.BoardRequest, wallet: Wallet) -> object:
    return render.pending_board(await _board(wallet, body.amount_sat))


@router.post(
    "/board-all",
    response_model=schemas.PendingBoardInfo,
    responses=FAILED,
    summary="Board all on-chain bitcoin",
)
async def board_all(wallet: Wallet) -> object:
    return render.pending_board(await _board(wallet, None))


@router.get(
    "/pending", response_model=list[schemas.PendingBoardInfo], responses=FAILED, summary="List pending boards"
)
async def get_pending_boards(wallet: Wallet) -> object:
    return [render.pending_board(board) for board in await wallet.pending_boards()]


async def _board(wallet: WalletApi, amount_sat: int | None) -> PendingBoard:
    """Board an amount, or everything. Every refusal is a 500 here, as upstream has it."""
    if wallet.onchain is None:
        raise Failure("no onchain wallet configured; cannot board")
    try:
        if amount_sat is None:
            return await wallet.board_all()
        return await wallet.board_amount(amount_sat)
    except KnownError as error:
        raise Failure(chain_text(error)) from None
    except OverflowError:
        balance = await wallet.onchain.balance()
        available = format_btc(balance.trusted_spendable_sat + balance.untrusted_pending_sat)
        needed = format_btc(amount_sat or 0)
        raise Failure(
            f"error building tx: Insufficient funds: {available} available of {needed} needed"
        ) from None
