"""The wallet's database: one writer, many readers, one schema for SQLite and PostgreSQL.

Start with `transaction`, which holds `Store` and the unit of work. Rows end at this folder's edge: what goes
in and out are the dataclasses of `wallet` and of the repositories.
"""

from barkd_py.wallet.store.transaction import Store, Transaction

__all__ = ["Store", "Transaction"]
