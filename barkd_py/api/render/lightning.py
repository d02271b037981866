"""Lightning payments and receives. Source: protocol sheet 07 §7.6."""

from barkd_py.api.contract import Contract
from barkd_py.api.render.values import Json, timestamp
from barkd_py.api.render.wallet import vtxo
from barkd_py.wallet.lightning.receive.service import LightningReceive
from barkd_py.wallet.lightning.send.service import LightningSend


def lightning_send(send: LightningSend) -> Json:
    return {
        "payment_hash": send.payment_hash.hex(),
        "state": send.state.value,
        "invoice": send.invoice,
        "preimage": None if send.preimage is None else send.preimage.hex(),
    }


def lightning_receive(receive: LightningReceive, contract: Contract) -> Json:
    """All names of all versions: the newer ones of a moment, and the older ones that clients of 0.1.4 read.

    The preimage is a secret until the payment has settled; the contract wants it shown.
    """
    revealed_at, settled_at = receive.preimage_revealed_at, receive.settled_at
    finished_at = receive.finished_at
    return {
        "payment_hash": receive.payment_hash.hex(),
        "state": receive.state,
        "invoice": receive.invoice,
        "payment_preimage": receive.preimage.data.hex(),
        "amount_sat": receive.amount_sat,
        "htlc_vtxo_ids": [str(htlc.id) for htlc in receive.htlc_vtxos],
        "settled_at": None if settled_at is None else timestamp(settled_at),
        "preimage_revealed_at": None if revealed_at is None else timestamp(revealed_at),
        "finished_at": None if finished_at is None else timestamp(finished_at),
        "htlc_vtxos": [vtxo(htlc, contract) for htlc in receive.htlc_vtxos],
    }
