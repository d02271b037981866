"""The tables of the Ark server. Ids and keys are bytes in wire order, amounts satoshi, heights blocks.

Source: sheet 10 §3.1.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
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
