"""The invoices that the server is asked to pay.

Source: sheet 10 §6.5; sheet 05 §2.1.
"""

from dataclasses import dataclass

from barkd_py.bitcoin.address import CHARSET, to_5_bits
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice, InvalidBolt12Invoice
from barkd_py.devnet.ark_server.failures import BadArgument


@dataclass(frozen=True, slots=True)
class PayableInvoice:
    """What matters of an invoice. amount_msat: None if the payer chooses. is_signed: by whom it names."""

    text: str
    payment_hash: bytes
    amount_msat: int | None
    is_signed: bool

    def to_pay_msat(self, amount_sat: int) -> int:
        """The invoice's own amount; the given one only if it has none."""
        return amount_sat * 1000 if self.amount_msat is None else self.amount_msat


def read_offer(data: bytes) -> Offer:
    """The offer of a TLV stream. Raises InvalidOffer."""
    return Offer.parse("lno1" + "".join(CHARSET[symbol] for symbol in to_5_bits(data)))


def parse_invoice(text: str) -> PayableInvoice:
    """A bolt11 or bolt12 invoice. Raises BadArgument."""
    try:
        if text.lower().startswith("lni1"):
            bolt12 = Bolt12Invoice.parse(text)
            return PayableInvoice(text, bolt12.payment_hash, bolt12.amount_msat, bolt12.is_signed())
        bolt11 = Bolt11Invoice.parse(text)
        return PayableInvoice(text, bolt11.payment_hash, bolt11.amount_msat, is_signed=True)
    except (InvalidInvoice, InvalidBolt12Invoice) as error:
        raise BadArgument("invalid invoice: cannot parse invoice") from error
