"""The schema, for SQLite and PostgreSQL alike.

Ids of VTXOs and transactions are text in display order, so that a person at a database prompt can read them.
Times are microseconds since the epoch (`UtcTime`). States whose fields belong to a state machine are
versioned JSON (`payloads`); what queries need of them has columns of its own.

The database itself guards what must never happen: a lock needs its holder's row to exist (so a coin is never
locked by something that is gone), a movement belongs to one action, an outpoint is stored once. The two lock
columns are checked at commit, so the order inside a transaction is free.

Changes here need a migration in ``alembic/versions``; a test compares the two. What is special about an index
in one database is said there alone: here it would load the drivers of both whenever the program starts.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# SQLite numbers rows by itself only in an INTEGER primary key.
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment as microseconds since the epoch: exact, sortable, and the same in every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class OutsideText(sa.types.TypeDecorator[str]):
    """Text that others wrote, in a row or looked for. JSON needs no such care: `to_json` escapes.

    PostgreSQL stores no NUL and neither database half a character: they become U+FFFD, in both alike.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


# --- the wallet

properties = sa.Table(
    "properties",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("server_pubkey", sa.LargeBinary),
    sa.Column("server_mailbox_pubkey", sa.LargeBinary),
    sa.Column("recovery_pending", sa.Boolean, nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)

# How often the wallet was opened, where several daemons may share the database. See `lease`.
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)

# The newest backup of each wallet that was in this database; it stays when the wallet is deleted.
last_backup = sa.Table(
    "last_backup",
    metadata,
    sa.Column("fingerprint", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("made_at", sa.Text, nullable=False),
)

OUTLIVING = (lease, last_backup)
"""Of no wallet: whoever has the lease keeps it when one is deleted, and old backups stay old."""

recovery_vtxo = sa.Table(
    "recovery_vtxo",
    metadata,
    sa.Column("vtxo_id", sa.Text, primary_key=True),
)

# The recovery that is under way, or the last one. payload: how far it is. finished_at: null while it goes on.
recovery_run = sa.Table(
    "recovery_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("finished_at", UtcTime),
    sa.CheckConstraint("id = 1", name="single_row"),
)

# What became of each VTXO that it heard of.
recovery_entry = sa.Table(
    "recovery_entry",
    metadata,
    sa.Column("vtxo_id", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("amount_sat", sa.BigInteger),
    sa.Column("reason", OutsideText),
)

mailbox_checkpoint = sa.Table(
    "mailbox_checkpoint",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)

# --- VTXOs

vtxo_key = sa.Table(
    "vtxo_key",
    metadata,
    sa.Column("key_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False, unique=True),
)

vtxo = sa.Table(
    "vtxo",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("amount_sat", sa.BigInteger, nullable=False),
    sa.Column("policy_kind", sa.Text, nullable=False),
    sa.Column("user_pubkey", sa.LargeBinary, nullable=False),
    sa.Column("server_pubkey", sa.LargeBinary, nullable=False),
    sa.Column("expiry_height", sa.BigInteger, nullable=False),
    sa.Column("exit_delta", sa.Integer, nullable=False),
    sa.Column("anchor_point", sa.Text, nullable=False),
    sa.Column("exit_depth", sa.Integer, nullable=False),
    sa.Column("exit_tx_weight_wu", sa.BigInteger, nullable=False),
    sa.Column("registered", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    # The current state: always that of the newest row of vtxo_state, written in the same transaction.
    sa.Column("state_kind", sa.Text, nullable=False),
    sa.Column(
        "lock_movement_id",
        sa.ForeignKey("movement.id", deferrable=True, initially="DEFERRED"),
        index=True,
    ),
    sa.Column(
        "lock_action_id",
        sa.ForeignKey("action_checkpoint.id", deferrable=True, initially="DEFERRED"),
        index=True,
    ),
    sa.CheckConstraint("amount_sat >= 0", name="amount"),
    sa.CheckConstraint("state_kind IN ('Spendable', 'Locked', 'Spent', 'Exited')", name="state_kind"),
    sa.CheckConstraint(
        "(lock_movement_id IS NULL AND lock_action_id IS NULL) OR (state_kind = 'Locked'"
        " AND (lock_movement_id IS NULL OR lock_action_id IS NULL))",
        name="lock_holder",
    ),
)

# Answers the balance without touching the table, and yields spendable VTXOs in the order in which they are
# spent.
sa.Index(
    "ix_vtxo_state_kind",
    vtxo.c.state_kind,
    vtxo.c.expiry_height,
    vtxo.c.exit_depth.desc(),
    vtxo.c.amount_sat.desc(),
    vtxo.c.id,
)

# Says whether any spendable one is so deep that it must be refreshed.
sa.Index("ix_vtxo_exit_depth", vtxo.c.state_kind, vtxo.c.exit_depth)

# Yields the list of all, a page at a time.
sa.Index("ix_vtxo_expiry_height", vtxo.c.expiry_height, vtxo.c.amount_sat.desc(), vtxo.c.id)

# Said by what it is not: SQLite would rather search `ix_vtxo_state_kind` for two equal values, and then sort.
IS_UNSPENT = sa.and_(
    vtxo.c.state_kind != sa.literal_column("'Spent'"), vtxo.c.state_kind != sa.literal_column("'Exited'")
)

# Yields lists in their order, a page at a time, however many VTXOs were ever spent: it holds those that are
# `IS_UNSPENT`, and a query uses it if it has that condition to the letter.
sa.Index("ix_vtxo_unspent", vtxo.c.expiry_height, vtxo.c.amount_sat.desc(), vtxo.c.id)

IS_UNREGISTERED = sa.and_(sa.not_(vtxo.c.registered), vtxo.c.state_kind != sa.literal_column("'Spent'"))

# Holds those that are `IS_UNREGISTERED`, to the letter: few, or none.
sa.Index("ix_vtxo_unregistered", vtxo.c.created_at, vtxo.c.id)

# Apart from `vtxo`, because lists and balances never read it and it is by far the larger part.
vtxo_body = sa.Table(
    "vtxo_body",
    metadata,
    sa.Column("vtxo_id", sa.ForeignKey("vtxo.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("bare", sa.LargeBinary, nullable=False),
    sa.Column("genesis", sa.LargeBinary, nullable=False),
)

vtxo_state = sa.Table(
    "vtxo_state",
    metadata,
    sa.Column("id", RowId, primary_key=True),
    sa.Column("vtxo_id", sa.ForeignKey("vtxo.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

# --- movements

movement = sa.Table(
    "movement",
    metadata,
    sa.Column("id", RowId, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("subsystem_name", sa.Text, nullable=False),
    sa.Column("subsystem_kind", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("intended_balance_sat", sa.BigInteger, nullable=False),
    sa.Column("effective_balance_sat", sa.BigInteger, nullable=False),
    sa.Column("offchain_fee_sat", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("completed_at", UtcTime),
    sa.Column("action_id", sa.Text, unique=True),
    sa.CheckConstraint("status IN ('pending', 'successful', 'failed', 'canceled')", name="status"),
    sa.CheckConstraint("(status = 'pending') = (completed_at IS NULL)", name="completed"),
    sqlite_autoincrement=True,
)

IS_FAILED = movement.c.status == sa.literal_column("'failed'")

# Holds those that are `IS_FAILED`, to the letter: few, however long the history is.
sa.Index("ix_movement_failed", movement.c.id)

movement_destination = sa.Table(
    "movement_destination",
    metadata,
    sa.Column("movement_id", sa.ForeignKey("movement.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("method_kind", sa.Text, nullable=False),
    sa.Column("method_value", OutsideText, nullable=False),
    sa.Column("amount_sat", sa.BigInteger, nullable=False),
    sa.CheckConstraint("role IN ('sent_to', 'received_on')", name="role"),
    # A hash index in PostgreSQL, which puts no very long texts, such as BOLT 12 invoices, into a B-tree.
    sa.Index("ix_movement_destination_method_value", "method_value"),
)

movement_vtxo = sa.Table(
    "movement_vtxo",
    metadata,
    sa.Column("movement_id", sa.ForeignKey("movement.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("vtxo_id", sa.Text, nullable=False),
    sa.CheckConstraint("role IN ('input', 'output', 'exited')", name="role"),
    sa.UniqueConstraint("movement_id", "role", "vtxo_id"),
)

# --- operations that span network calls

action_checkpoint = sa.Table(
    "action_checkpoint",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
)

# The VTXOs that an action reports to the balance in its present state.
action_vtxo = sa.Table(
    "action_vtxo",
    metadata,
    sa.Column("action_id", sa.ForeignKey("action_checkpoint.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("vtxo_id", sa.Text, primary_key=True, index=True),
)

round_state = sa.Table(
    "round_state",
    metadata,
    sa.Column("id", RowId, primary_key=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("movement_id", sa.ForeignKey("movement.id"), index=True),
    sa.Column("unlock_hash", sa.LargeBinary, index=True),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,  # the id names a lock, so it is never used twice
)

round_input = sa.Table(
    "round_input",
    metadata,
    sa.Column("round_id", sa.ForeignKey("round_state.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("vtxo_id", sa.Text, primary_key=True, index=True),
)

# --- Lightning: facts that outlive their action

paid_invoice = sa.Table(
    "paid_invoice",
    metadata,
    sa.Column("payment_hash", sa.LargeBinary, primary_key=True),
    sa.Column("preimage", sa.LargeBinary, nullable=False),
    sa.Column("paid_at", UtcTime, nullable=False),
)

settled_receive = sa.Table(
    "settled_receive",
    metadata,
    sa.Column("payment_hash", sa.LargeBinary, primary_key=True),
    sa.Column("preimage", sa.LargeBinary, nullable=False),
    sa.Column("invoice", sa.Text, nullable=False),
    sa.Column("amount_sat", sa.BigInteger, nullable=False),
    sa.Column("settled_at", UtcTime, nullable=False),
)

# --- exits

exit_state = sa.Table(
    "exit_state",
    metadata,
    sa.Column("vtxo_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("history", sa.Text, nullable=False),
    sa.Column("movement_id", sa.ForeignKey("movement.id"), index=True),
)

exit_child = sa.Table(
    "exit_child",
    metadata,
    sa.Column("exit_txid", sa.Text, primary_key=True),
    sa.Column("child_tx", sa.LargeBinary, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
)

# Claims of ours, so that one whose broadcast was cut short is sent again.
exit_claim = sa.Table(
    "exit_claim",
    metadata,
    sa.Column("txid", sa.Text, primary_key=True),
    sa.Column("tx", sa.LargeBinary, nullable=False),
)

# --- on-chain wallet; see `barkd_py.onchain.store`. Hashes are in internal order here.

onchain_wallet = sa.Table(
    "onchain_wallet",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("descriptor", sa.Text, nullable=False),
    sa.Column("last_revealed", sa.BigInteger),
    sa.CheckConstraint("id = 1", name="single_row"),
)

onchain_block = sa.Table(
    "onchain_block",
    metadata,
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

onchain_transaction = sa.Table(
    "onchain_transaction",
    metadata,
    sa.Column("txid", sa.LargeBinary, primary_key=True),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("confirmed_height", sa.BigInteger),
    sa.Column("confirmed_block_hash", sa.LargeBinary),
    sa.Column("confirmed_time", sa.BigInteger),
    sa.Column("first_seen", sa.BigInteger),
    sa.Column("last_seen", sa.BigInteger),
)

onchain_output = sa.Table(
    "onchain_output",
    metadata,
    sa.Column("txid", sa.LargeBinary, primary_key=True),
    sa.Column("vout", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value_sat", sa.BigInteger, nullable=False),
    sa.Column("script_pubkey", sa.LargeBinary, nullable=False),
)
