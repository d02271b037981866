"""The VTXOs that mailbox messages name. What cannot be read is passed over: it is nobody's money."""

import logging
from collections.abc import Sequence

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import ArkoorDelivery, MailboxMessage, RecoveryVtxoIds
from barkd_py.wallet.recovery.evidence import Sighting

log = logging.getLogger(__name__)


def sightings_in(messages: Sequence[MailboxMessage]) -> list[Sighting]:
    """Of both mailboxes: payments come with their VTXOs, recovery messages are ids."""
    found: list[Sighting] = []
    for message in messages:
        match message.content:
            case ArkoorDelivery(blobs):
                found.extend(_delivered(blobs))
            case RecoveryVtxoIds(ids):
                found.extend(_named(ids))
            case _:
                pass
    return found


def _delivered(blobs: Sequence[bytes]) -> list[Sighting]:
    found = []
    for blob in blobs:
        try:
            vtxo = Vtxo.decode(blob)
        except DecodeError as error:
            log.warning("recovery: passing over a VTXO in the mailbox: %s", error)
            continue
        found.append(Sighting(vtxo.id, vtxo))
    return found


def _named(ids: Sequence[bytes]) -> list[Sighting]:
    found = []
    for data in ids:
        try:
            found.append(Sighting(VtxoId.from_bytes(data)))
        except (BarkdError, ValueError):
            log.warning("recovery: passing over an id in the mailbox that is none")
    return found
