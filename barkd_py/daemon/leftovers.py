"""What a creation, a restore or a deletion has left in the data directory that was killed.

While one of them is under way there is a note in the directory. The words are written before the database
gets the row that makes it a wallet, and go after the wallet's rows. So rows of a wallet are never without
their words, and whoever finds the note asks the database: if it holds the wallet of the words, the wallet is
whole, or still there; if not, whatever is in the directory is rubbish. Rows without such a row are nobody's,
and the next creation removes them. Rows of other words belong to somebody else, whatever the note is of.
"""

import logging

from barkd_py.daemon.wallet_api import WalletBackend
from barkd_py.datadir import Datadir

log = logging.getLogger(__name__)


async def settle(datadir: Datadir, backend: WalletBackend) -> None:
    """Afterwards there is a whole wallet, or none, and no note. Raises KnownError if nobody can tell."""
    if not datadir.is_changing():
        return
    if datadir.mnemonic.exists() and await backend.holds_wallet(datadir.path):
        datadir.end_change()
        return
    log.warning("removing what was left in %s when a creation or deletion was killed", datadir.path)
    datadir.undo_change()
