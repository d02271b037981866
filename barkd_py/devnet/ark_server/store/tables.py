"""The tables of the Ark server. Ids and keys are bytes in wire order, amounts satoshi, heights blocks.

Source: sheet 10 §3.1.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Every output that the server has a key in. vtxo: the full encoding. created_by: the txid of the id, for
# finding what a confirmed transaction made. spent_by: the one virtual transaction that spends it.
# is_frontier: it is on chain, or is expected there, and was not spent there.
vtxo = Table(
    "vtxo",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", LargeBinary(36), nullable=False, unique=True),
    Column("created_by", LargeBinary(32), nullable=False, index=True),
    Column("vtxo", LargeBinary, nullable=False),
    Column("amount_sat", BigInteger, nullable=False),
    Column("expiry_height", Integer, nullable=False),
    Column("policy_kind", Text, nullable=False),
    Column("user_pubkey", LargeBinary(33), index=True),
    Column("spend_state", Text, nullable=False),
    Column("spent_by", LargeBinary(32)),
    Column("spent_in_round", LargeBinary(32)),
    Column("offboarded_in", LargeBinary(32)),
    Column("banned_until_height", Integer),
    Column("is_frontier", Boolean, nullable=False, default=False),
    Column("confirmed_height", Integer),
    Column("onchain_spent_height", Integer),
    Column("onchain_spent_by", LargeBinary(32)),
    Index(None, "is_frontier", "confirmed_height"),
    sqlite_autoincrement=True,
)

# Transactions that the server cosigned or builds on. signed_tx: null until somebody hands it in.
virtual_tx = Table(
    "virtual_tx",
    metadata,
    Column("txid", LargeBinary(32), primary_key=True),
    Column("signed_tx", LargeBinary),
    Column("is_funding", Boolean, nullable=False),
)

# One row per delivered thing; rows of one post share a checkpoint and are one message.
mailbox = Table(
    "mailbox",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("mailbox_id", LargeBinary(33), nullable=False),
    Column("checkpoint", BigInteger, nullable=False),
    Column("type", Integer, nullable=False),
    Column("vtxo_id", LargeBinary(36)),
    Column("vtxo", LargeBinary),
    Column("payment_hash", LargeBinary(32)),
    Column("unlock_hash", LargeBinary(32)),
    Column("preimage", LargeBinary(32)),
    Column("amount_msat", BigInteger),
    Column("failure_reason", Integer),
    UniqueConstraint("type", "vtxo_id"),
    UniqueConstraint("type", "payment_hash"),
    Index(None, "mailbox_id", "checkpoint"),
    sqlite_autoincrement=True,
)

# A round whose tree is signed by everybody. funding_tx: unsigned first, signed soon after, with the same id.
# tree: SignedTreeSpec.
round_ = Table(
    "round",
    metadata,
    Column("funding_txid", LargeBinary(32), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("funding_tx", LargeBinary, nullable=False),
    Column("is_signed", Boolean, nullable=False),
    Column("tree", LargeBinary, nullable=False),
)

# The number of the last round that was begun; one row.
round_clock = Table(
    "round_clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# One swap of inputs for outputs. round: null while it waits to be taken into one. forfeited: whether all
# inputs have been forfeited, and the preimage was given out.
participation = Table(
    "participation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("unlock_hash", LargeBinary(32), nullable=False, unique=True),
    Column("preimage", LargeBinary(32), nullable=False),
    Column("round", LargeBinary(32), ForeignKey("round.funding_txid")),
    Column("scheduled_height", Integer),
    Column("mailbox_id", LargeBinary(33)),
    Column("is_forfeited", Boolean, nullable=False, default=False),
    sqlite_autoincrement=True,
)

participation_input = Table(
    "participation_input",
    metadata,
    Column("participation", ForeignKey("participation.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("vtxo_id", LargeBinary(36), nullable=False, index=True),
    Column("forfeit_txid", LargeBinary(32)),
)

# leaf: in the round's tree; null before there is one.
participation_output = Table(
    "participation_output",
    metadata,
    Column("participation", ForeignKey("participation.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("amount_sat", BigInteger, nullable=False),
    Column("policy", LargeBinary, nullable=False),
    Column("leaf", Integer),
)

# Offboard transactions that were signed. is_broadcast: whether the node has taken it.
offboard = Table(
    "offboard",
    metadata,
    Column("txid", LargeBinary(32), primary_key=True),
    Column("signed_tx", LargeBinary, nullable=False),
    Column("is_broadcast", Boolean, nullable=False),
)

# The server's own money on chain. script_index: of the key. spent_by: known before it confirms.
coin = Table(
    "coin",
    metadata,
    Column("outpoint", LargeBinary(36), primary_key=True),
    Column("created_by", LargeBinary(32), nullable=False, index=True),
    Column("value_sat", BigInteger, nullable=False),
    Column("script_index", Integer, nullable=False),
    Column("confirmed_height", Integer),
    Column("spent_by", LargeBinary(32)),
    Column("spent_height", Integer),
)

# Transactions of the server's own wallet, which it keeps in the mempool until they confirm.
# tx: null until it is signed.
treasury_tx = Table(
    "treasury_tx",
    metadata,
    Column("txid", LargeBinary(32), primary_key=True),
    Column("tx", LargeBinary),
    Column("confirmed_height", Integer),
)

# How many keys of the server's wallet were handed out; one row.
treasury_keys = Table(
    "treasury_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("used", Integer, nullable=False),
)

# The blocks of the active chain that were processed, for finding where a reorg forked off.
processed_block = Table(
    "processed_block",
    metadata,
    Column("height", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

# The last mailbox checkpoint that was given out; one row.
mailbox_clock = Table(
    "mailbox_clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("checkpoint", BigInteger, nullable=False),
)

# A user's wish to be paid over Lightning. invoice: what the server's node issued for it. The same payment
# hash may come again after a cancellation; the latest row counts. accepted_at: Unix seconds, since when the
# payment is held. lowest_expiry_height: of the HTLCs that are held.
ln_subscription = Table(
    "ln_subscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("payment_hash", LargeBinary(32), nullable=False, index=True),
    Column("invoice", Text, nullable=False),
    Column("amount_sat", BigInteger, nullable=False),
    Column("min_final_cltv_delta", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("mailbox_id", LargeBinary(33)),
    Column("status", Text, nullable=False, index=True),
    Column("accepted_at", Float),
    Column("lowest_expiry_height", Integer),
    sqlite_autoincrement=True,
)

# The VTXOs that a subscription was granted.
ln_grant = Table(
    "ln_grant",
    metadata,
    Column("subscription", ForeignKey("ln_subscription.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("vtxo_id", LargeBinary(36), nullable=False, unique=True),
)

# A try to pay an invoice for a user. subscription: the one of another user that it pays inside the server;
# null if the server's node pays. reason: why it failed, by the protocol's number.
ln_attempt = Table(
    "ln_attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("payment_hash", LargeBinary(32), nullable=False, index=True),
    Column("invoice", Text, nullable=False),
    Column("amount_sat", BigInteger, nullable=False),
    Column("mailbox_id", LargeBinary(33)),
    Column("subscription", ForeignKey("ln_subscription.id")),
    Column("status", Text, nullable=False, index=True),
    Column("reason", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    sqlite_autoincrement=True,
)
Index(
    "uq_ln_attempt_open",
    ln_attempt.c.payment_hash,
    unique=True,
    sqlite_where=text("status IN ('requested', 'submitted')"),
)

# The VTXOs that pay for an attempt.
ln_attempt_vtxo = Table(
    "ln_attempt_vtxo",
    metadata,
    Column("attempt", ForeignKey("ln_attempt.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("vtxo_id", LargeBinary(36), nullable=False, index=True),
)

# Which payment hashes are paid, and the only place that says so.
ln_settlement = Table(
    "ln_settlement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("payment_hash", LargeBinary(32), nullable=False, unique=True),
    Column("preimage", LargeBinary(32), nullable=False),
    sqlite_autoincrement=True,
)

# The VTXOs of the pool that can be given out, with the keys by which the server plays their user. anchor: the
# funding output at their root.
pool_coin = Table(
    "pool_coin",
    metadata,
    Column("vtxo_id", LargeBinary(36), primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
    Column("anchor", LargeBinary(36), nullable=False),
)
