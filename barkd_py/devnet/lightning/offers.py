"""Writing offers, and invoices for them: what a payee outside Ark does.

An offer names who signs its invoices: by a key (the issuer), or as the end of a path that leads there. The
paths here lead nowhere else: their only hop is the payee.

Source: BOLT-12; BOLT-4, blinded paths.
"""

from dataclasses import dataclass
from secrets import token_bytes

from barkd_py.bitcoin import bolt12 as offer_types
from barkd_py.bitcoin import bolt12_invoice as invoice_types
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice, genesis_hash
from barkd_py.bitcoin.bolt12_signature import merkle_root, signature_digest
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tlv import read_tlv_stream, tlv_record, truncated_u64
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.lightning.invoice import read_offer

_PAYER_METADATA = 0
_PAYER_ID = 88

_PAY_INFO_LIMIT_MSAT = 2**40
_GENESIS_HASH = genesis_hash(Network.REGTEST)


@dataclass(frozen=True, slots=True)
class OfferTerms:
    """amount_msat: None if the payer chooses. by_path: whether the signer is the end of a path."""

    amount_msat: int | None
    description: str
    by_path: bool = False


def write_offer(secret: SecretKey, terms: OfferTerms) -> Offer:
    """An offer whose invoices this key will sign."""
    records = {offer_types.CHAINS: _GENESIS_HASH, offer_types.DESCRIPTION: terms.description.encode()}
    if terms.amount_msat is not None:
        records[offer_types.AMOUNT] = truncated_u64(terms.amount_msat)
    if terms.by_path:
        records[offer_types.PATHS] = _path_to(secret.public_key)
    else:
        records[offer_types.ISSUER_ID] = secret.public_key.data
    return read_offer(_stream(records))


@dataclass(frozen=True, slots=True)
class Bolt12Terms:
    """What an invoice for an offer is to say. created_at: Unix seconds."""

    amount_msat: int
    payment_hash: bytes
    created_at: int
    expiry_secs: int
    min_final_cltv_delta: int


def write_invoice(secret: SecretKey, offer: Offer, terms: Bolt12Terms) -> Bolt12Invoice:
    """The invoice for an offer, signed with this key, whether it is the offer's or not."""
    payee = secret.public_key
    pay_info = b"".join(
        (
            (0).to_bytes(4, "big"),  # base fee
            (0).to_bytes(4, "big"),  # proportional fee
            terms.min_final_cltv_delta.to_bytes(2, "big"),
            (1).to_bytes(8, "big"),
            _PAY_INFO_LIMIT_MSAT.to_bytes(8, "big"),
            (0).to_bytes(2, "big"),  # no features
        )
    )
    records = {
        _PAYER_METADATA: token_bytes(16),
        **{record.type: record.value for record in offer.records},
        invoice_types.CHAIN: _GENESIS_HASH,
        invoice_types.REQUESTED_AMOUNT: truncated_u64(terms.amount_msat),
        _PAYER_ID: SecretKey.generate().public_key.data,
        invoice_types.PATHS: _path_to(payee),
        invoice_types.BLINDED_PAY: pay_info,
        invoice_types.CREATED_AT: truncated_u64(terms.created_at),
        invoice_types.RELATIVE_EXPIRY: truncated_u64(terms.expiry_secs),
        invoice_types.PAYMENT_HASH: terms.payment_hash,
        invoice_types.AMOUNT: truncated_u64(terms.amount_msat),
        invoice_types.NODE_ID: payee.data,
    }
    unsigned = _stream(records)
    digest = signature_digest("invoice", merkle_root(read_tlv_stream(unsigned)))
    signature = tlv_record(invoice_types.SIGNATURE, secret.sign_schnorr(digest))
    return Bolt12Invoice.decode(unsigned + signature)


def _path_to(payee: PublicKey) -> bytes:
    """One path with one hop, the payee itself."""
    hop = payee.data + (0).to_bytes(2, "big")
    return payee.data + SecretKey.generate().public_key.data + b"\x01" + hop


def _stream(records: dict[int, bytes]) -> bytes:
    return b"".join(tlv_record(kind, records[kind]) for kind in sorted(records))
