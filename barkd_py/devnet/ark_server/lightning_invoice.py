"""The invoices that the server is asked to pay.

Source: sheet 10 §6.5; sheet 05 §2.1.
"""

from dataclasses import dataclass

from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.devnet.ark_server.failures import BadArgument


@dataclass(frozen=True, slots=True)
class PayableInvoice:
    """What matters of an invoice. amount_msat: None if the payer chooses."""

    text: str
    payment_hash: bytes
    amount_msat: int | None

    def to_pay_msat(self, amount_sat: int) -> int:
        """The invoice's own amount; the given one only if it has none."""
        return amount_sat * 1000 if self.amount_msat is None else self.amount_msat


def parse_invoice(text: str) -> PayableInvoice:
    """Raises BadArgument."""
    try:
        invoice = Bolt11Invoice.parse(text)
    except InvalidInvoice as error:
        raise BadArgument("invalid invoice: cannot parse invoice") from error
    return PayableInvoice(text, invoice.payment_hash, invoice.amount_msat)
