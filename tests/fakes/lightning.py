"""Lightning payments of the fake wallet: what is paid is under way until a test says how it ended."""

from dataclasses import dataclass

from barkd_py.bitcoin.hashes import sha256
from barkd_py.errors import BarkdError
from barkd_py.wallet.lightning.sends import LightningDestination, LightningSend, PayEstimate, SendState
from barkd_py.wallet.payment_request import InvoiceDestination


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `pay`."""

    destination: LightningDestination
    amount_sat: int | None
    comment: str | None
    retry_for_secs: int | None


class FakeLightning:
    """asked: what was paid. failure: raised by everything that needs the server."""

    FEE_SAT = 7

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.sends: dict[bytes, LightningSend] = {}
        self.failure: BarkdError | None = None

    async def pay(
        self,
        destination: LightningDestination,
        amount_sat: int | None,
        *,
        comment: str | None = None,
        retry_for_secs: int | None = None,
        wait: bool = False,
    ) -> bytes:
        if self.failure is not None:
            raise self.failure
        self.asked.append(Asked(destination, amount_sat, comment, retry_for_secs))
        if isinstance(destination, InvoiceDestination):
            payment_hash, invoice = destination.invoice.payment_hash, destination.invoice.text
        else:
            payment_hash, invoice = sha256(b"%d" % len(self.asked)), "lnbcrt1"
        self.sends[payment_hash] = LightningSend(payment_hash, SendState.PAYMENT_INITIATED, invoice)
        return payment_hash

    async def send(self, payment_hash: bytes) -> LightningSend:
        return self.sends.get(payment_hash, LightningSend(payment_hash, SendState.UNKNOWN))

    async def estimate_pay(self, amount_sat: int) -> PayEstimate:
        if self.failure is not None:
            raise self.failure
        return PayEstimate(amount_sat + self.FEE_SAT, self.FEE_SAT, amount_sat, ())
