"""What a creation, a restore or a deletion has left in the data directory that was killed.

While one of them is under way there is a note in the directory. The words are written before the database
gets the row that makes it a wallet, and go after the wallet's rows. So rows of a wallet are never without
their words, and whoever finds the note asks the database: if it holds the wallet of the words, the wallet is
whole, or still there; if not, what was being made, or deleted, is rubbish. Rows without such a row are
nobody's, and the next creation removes them. Rows of other words belong to somebody else, whatever the note
is of. What a restore works with before that is in a directory of its own, which is nobody's once it is gone.
"""

import logging
from pathlib import Path

from barkd_py.daemon.wallet_api import WalletBackend
from barkd_py.datadir import WALLET_LOCK_FILE, Datadir, DatadirError
from barkd_py.wallet.store.snapshot import NotABackup, read_description

log = logging.getLogger(__name__)


class ChangedElsewhere(DatadirError):
    """Whether the words in the directory are still needed can be told by another database only."""

    def __init__(self, database: str) -> None:
        start = f"with BARKD_DATABASE_URL for {database}" if database else "without BARKD_DATABASE_URL"
        super().__init__(
            "the creation or deletion of a wallet was killed, and this is not the database that it was in; "
            f"start once {start}"
        )
        self.database = database


async def settle(datadir: Datadir, backend: WalletBackend) -> None:
    """Afterwards there is a whole wallet, or none, and no note. The process lock is held.

    Raises KnownError if nobody can tell.
    """
    datadir.remove_scratch()
    if not datadir.is_changing():
        return
    database = datadir.changing_database()
    is_same_database = database == backend.database_name(datadir)
    if datadir.mnemonic.exists():
        if not is_same_database:
            raise ChangedElsewhere(database)
        if await backend.holds_wallet(datadir.path):
            datadir.end_change()
            return
    log.warning("removing what was left in %s when a creation or deletion was killed", datadir.path)
    if datadir.may_be_deletion() and not _holds_backup(datadir.path):
        datadir.wipe_wallet()
    else:
        # Of another database the caller has no lock.
        datadir.undo_change(database_file=backend.empty_file(datadir) if is_same_database else None)


def _holds_backup(directory: Path) -> bool:
    return any(_is_backup(file) for file in directory.rglob("*"))


def _is_backup(file: Path) -> bool:
    if file.name == WALLET_LOCK_FILE or not file.is_file():
        return False  # a look at the lock would drop it
    try:
        read_description(file)
    except NotABackup:
        return False
    return True
