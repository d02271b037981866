"""What the Lightning nodes of devnet keep over restarts. Amounts in millisatoshi, times in Unix seconds."""

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

# The keys of the nodes; one row each.
node = Table(
    "node",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
)

# Invoices of payees outside Ark. text: bolt11, or a bolt12 invoice as lni1…. behaviour: JSON.
# state: open, held, paid. comment: of the payer, where one came.
outside_invoice = Table(
    "outside_invoice",
    metadata,
    Column("payment_hash", LargeBinary(32), primary_key=True),
    Column("text", Text, nullable=False),
    Column("amount_msat", BigInteger),
    Column("preimage", LargeBinary(32), nullable=False),
    Column("behaviour", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("min_final_cltv_delta", Integer, nullable=False),
    Column("refused", Integer, nullable=False, default=0),
    Column("state", Text, nullable=False),
    Column("comment", Text),
)

# How Lightning addresses behave that do not as all do. config: JSON.
address = Table(
    "address",
    metadata,
    Column("name", Text, primary_key=True),
    Column("config", Text, nullable=False),
)

# Offers of payees outside Ark, by their TLV stream. secret: of the key that signs the invoices.
offer = Table(
    "offer",
    metadata,
    Column("data", LargeBinary, primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
    Column("behaviour", Text, nullable=False),
)

# Payments that payees outside Ark get from the Ark server's node. state: pending, succeeded, failed.
# preimage: also of a failed one, if the payee took it all the same.
payment = Table(
    "payment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("payment_hash", LargeBinary(32), nullable=False, index=True),
    Column("invoice", Text, nullable=False),
    Column("amount_msat", BigInteger, nullable=False),
    Column("max_fee_msat", BigInteger, nullable=False),
    Column("max_cltv_delta", Integer, nullable=False),
    Column("retry_until", Float, nullable=False),
    Column("retry_secs", Integer, nullable=False),
    Column("expiry_height", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Integer, nullable=False, default=0),
    Column("preimage", LargeBinary(32)),
    sqlite_autoincrement=True,
)

# Hold invoices of the Ark server's node. state: open, settled, canceled.
hold_invoice = Table(
    "hold_invoice",
    metadata,
    Column("payment_hash", LargeBinary(32), primary_key=True),
    Column("text", Text, nullable=False),
    Column("amount_msat", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("min_final_cltv_delta", Integer, nullable=False),
    Column("state", Text, nullable=False),
)

# Payments that the Ark server's node gets from payers outside Ark. expiry_height: when the payer gets it
# back. state: held, settled, failed.
incoming = Table(
    "incoming",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("payment_hash", LargeBinary(32), nullable=False, index=True),
    Column("amount_msat", BigInteger, nullable=False),
    Column("expiry_height", Integer, nullable=False),
    Column("arrived_at", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Integer, nullable=False, default=0),
    Column("preimage", LargeBinary(32)),
    sqlite_autoincrement=True,
)
