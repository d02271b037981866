"""Lightning payments of the fake wallet: what is paid is under way until a test says how it ended.

Invoices are made by a node of its own, for nobody to pay; a test puts a payment where it wants it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.lightning_receive import Preimage
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, InvalidInput
from barkd_py.wallet.lightning.receive.errors import (
    CannotCancelReceive,
    UnknownReceive,
    ZeroInvoice,
)
from barkd_py.wallet.lightning.receive.service import LightningReceive, ReceiveEstimate
from barkd_py.wallet.lightning.send.invoices import LightningDestination, Order
from barkd_py.wallet.lightning.send.service import LightningSend, SendState
from barkd_py.wallet.lightning.send.terms import PayEstimate
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.request import InvoiceDestination


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `pay`."""

    destination: LightningDestination
    amount_sat: int | None
    comment: str | None
    retry_for_secs: int | None


class FakeLightning:
    """asked: what was paid. failure: raised by everything that needs the server.

    expected: what comes in, by payment hash. addresses: whom invoices were made for. tokens: that came along.
    """

    FEE_SAT = 7

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.sends: dict[bytes, LightningSend] = {}
        self.failure: BarkdError | None = None
        self.expected: dict[bytes, LightningReceive] = {}
        self.addresses: list[ArkAddress] = []
        self.tokens: list[str | None] = []

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
        if isinstance(destination, InvoiceDestination):
            method = PaymentMethod(PaymentMethodKind.INVOICE, destination.invoice.text)
            Order(destination.invoice, amount_sat, method).payable_sat(Network.REGTEST)
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

    # --- in

    async def create_invoice(
        self, amount_sat: int, *, description: str | None = None, token: str | None = None
    ) -> str:
        if amount_sat == 0:
            raise ZeroInvoice
        if self.failure is not None:
            raise self.failure
        preimage = Preimage(sha256(b"preimage %d" % len(self.expected)))
        invoice = create_invoice(
            SecretKey(b"\x21" * 32),
            network=Network.REGTEST,
            amount_msat=amount_sat * 1000,
            payment_hash=preimage.payment_hash,
            payment_secret=b"\x22" * 32,
            timestamp=1_780_000_000,
            description=description,
        )
        self.tokens.append(token)
        self.expected[preimage.payment_hash] = LightningReceive(
            preimage.payment_hash, "awaiting-payment", invoice.text, preimage, amount_sat
        )
        return invoice.text

    async def check_invoice_address(self, address: ArkAddress) -> None:
        if self.failure is not None:
            raise self.failure
        if not address.mailbox_ids():
            raise InvalidInput("no mailbox delivery mechanism configured on destination")

    async def create_invoice_for(
        self, address: ArkAddress, amount_sat: int, *, description: str | None = None
    ) -> str:
        self.addresses.append(address)
        return await self.create_invoice(amount_sat, description=description)

    async def receives(self) -> Sequence[LightningReceive]:
        return [receive for receive in self.expected.values() if receive.settled_at is None]

    async def receive(self, payment_hash: bytes) -> LightningReceive:
        if payment_hash not in self.expected:
            raise UnknownReceive(payment_hash)
        return self.expected[payment_hash]

    async def cancel_receive(self, payment_hash: bytes) -> None:
        if payment_hash not in self.expected:
            raise UnknownReceive(payment_hash)
        if self.expected[payment_hash].state != "awaiting-payment":
            raise CannotCancelReceive("cannot cancel: preimage has already been revealed")
        del self.expected[payment_hash]

    async def estimate_receive(self, amount_sat: int) -> ReceiveEstimate:
        if self.failure is not None:
            raise self.failure
        return ReceiveEstimate(amount_sat, self.FEE_SAT, max(0, amount_sat - self.FEE_SAT))
