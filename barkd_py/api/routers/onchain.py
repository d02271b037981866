"""Tag `onchain`: the on-chain wallet."""

from collections.abc import Awaitable

from barkd_py.api import render
from barkd_py.api.amounts import BadAmount, parse_amount
from barkd_py.api.deps import Onchain, Wallet
from barkd_py.api.errors import BadRequest, Failure, failing
from barkd_py.api.responses import EMPTY, FAILED, REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import onchain as schemas
from barkd_py.api.values import parse_destination_script
from barkd_py.bitcoin.address import InvalidAddress, WrongNetworkAddress, parse_address
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import MAX_MONEY_SAT, Network, format_btc
from barkd_py.daemon.wallet_api import OnchainApi

router = new_router("/onchain", "onchain")


@router.get(
    "/balance", response_model=schemas.OnchainBalance, responses=FAILED, summary="Get on-chain balance"
)
async def onchain_balance(onchain: Onchain) -> object:
    return render.onchain_balance(await onchain.balance())


@router.get("/utxos", response_model=list[schemas.UtxoInfo], responses=FAILED, summary="List UTXOs")
async def onchain_utxos(onchain: Onchain) -> object:
    return [render.utxo(utxo) for utxo in await onchain.utxos()]


@router.get(
    "/transactions", response_model=list[schemas.WalletTxInfo], responses=FAILED, summary="List transactions"
)
async def onchain_transactions(onchain: Onchain) -> object:
    return [render.wallet_tx(entry) for entry in await onchain.transactions()]


@router.post(
    "/addresses/next", response_model=schemas.Address, responses=FAILED, summary="Get a new on-chain address"
)
async def onchain_address(onchain: Onchain) -> object:
    with failing("Wallet failed to generate address"):
        return {"address": await onchain.next_address()}


@router.post("/send", response_model=schemas.Send, responses=REFUSED, summary="Send on-chain")
async def onchain_send(body: schemas.OnchainSendRequest, wallet: Wallet, onchain: Onchain) -> object:
    script = parse_destination_script(body.destination, wallet.network)
    with failing("Failed to send onchain payment"):
        await _refuse_impossible(onchain, body.amount_sat)
        return await _txid(onchain.send_many([(script, body.amount_sat)]))


@router.post("/send-many", response_model=schemas.Send, responses=REFUSED, summary="Send on-chain to many")
async def onchain_send_many(body: schemas.OnchainSendManyRequest, wallet: Wallet, onchain: Onchain) -> object:
    recipients = [_parse_recipient(text, wallet.network) for text in body.destinations]
    with failing("Failed to send many onchain payments"):
        for index, (script, amount_sat) in enumerate(recipients):
            if amount_sat < _least_relayed_sat(script):
                raise Failure(f"error building tx: Output below the dust limit: {index}")
        await _refuse_impossible(onchain, sum(amount_sat for _, amount_sat in recipients))
        return await _txid(onchain.send_many(recipients))


@router.post("/drain", response_model=schemas.Send, responses=REFUSED, summary="Send everything on-chain")
async def onchain_drain(body: schemas.OnchainDrainRequest, wallet: Wallet, onchain: Onchain) -> object:
    script = parse_destination_script(body.destination, wallet.network)
    with failing("Failed to drain onchain wallet"):
        return await _txid(onchain.drain(script))


@router.post("/sync", response_model=None, responses={**EMPTY, **FAILED}, summary="Sync the on-chain wallet")
async def onchain_sync(onchain: Onchain) -> None:
    await onchain.sync()


async def _txid(sending: Awaitable[Txid]) -> object:
    return {"txid": str(await sending)}


def _least_relayed_sat(script: bytes) -> int:
    """What nodes take for an output to an address: three times the bytes to make and to spend it."""
    is_legacy = script[0] in (0x76, 0xA9)  # OP_DUP of P2PKH, OP_HASH160 of P2SH
    return 3 * (8 + 1 + len(script) + (148 if is_legacy else 67))


async def _refuse_impossible(onchain: OnchainApi, amount_sat: int) -> None:
    """More than there will ever be is too much for the wallet's arithmetic, not only for its coins."""
    if amount_sat > MAX_MONEY_SAT:
        balance = await onchain.balance()
        raise Failure(
            f"error building tx: Insufficient funds: {format_btc(balance.total_sat)} available "
            f"of {format_btc(amount_sat)} needed"
        )


def _parse_recipient(text: str, network: Network) -> tuple[bytes, int]:
    """`address:amount` with the amount's denomination."""
    address, colon, amount = text.partition(":")
    if not colon:
        raise BadRequest("invalid destination format, expected address:amount")
    try:
        script = parse_address(address, network)
    except InvalidAddress as error:
        raise BadRequest("invalid address") from error
    except WrongNetworkAddress as error:
        raise BadRequest("address is not valid for configured network") from error
    try:
        return script, parse_amount(amount)
    except BadAmount as error:
        raise BadRequest(f"invalid amount: {error}") from None
