"""Create the wallet's tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "action_checkpoint",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action_checkpoint")),
        sa.UniqueConstraint("sequence", name=op.f("uq_action_checkpoint_sequence")),
    )
    op.create_table(
        "exit_child",
        sa.Column("exit_txid", sa.Text(), nullable=False),
        sa.Column("child_tx", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("exit_txid", name=op.f("pk_exit_child")),
    )
    op.create_table(
        "exit_claim",
        sa.Column("txid", sa.Text(), nullable=False),
        sa.Column("tx", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("txid", name=op.f("pk_exit_claim")),
    )
    op.create_table(
        "mailbox_checkpoint",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_mailbox_checkpoint_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_checkpoint")),
    )
    op.create_table(
        "movement",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("subsystem_name", sa.Text(), nullable=False),
        sa.Column("subsystem_kind", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("intended_balance_sat", sa.BigInteger(), nullable=False),
        sa.Column("effective_balance_sat", sa.BigInteger(), nullable=False),
        sa.Column("offchain_fee_sat", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("action_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status = 'pending') = (completed_at IS NULL)", name=op.f("ck_movement_completed")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'successful', 'failed', 'canceled')", name=op.f("ck_movement_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_movement")),
        sa.UniqueConstraint("action_id", name=op.f("uq_movement_action_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_movement_created_at", "movement", ["created_at", "id"], unique=False)
    op.create_table(
        "onchain_block",
        sa.Column("height", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("height", name=op.f("pk_onchain_block")),
    )
    op.create_table(
        "onchain_output",
        sa.Column("txid", sa.LargeBinary(), nullable=False),
        sa.Column("vout", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value_sat", sa.BigInteger(), nullable=False),
        sa.Column("script_pubkey", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("txid", "vout", name=op.f("pk_onchain_output")),
    )
    op.create_table(
        "onchain_transaction",
        sa.Column("txid", sa.LargeBinary(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("confirmed_height", sa.BigInteger(), nullable=True),
        sa.Column("confirmed_block_hash", sa.LargeBinary(), nullable=True),
        sa.Column("confirmed_time", sa.BigInteger(), nullable=True),
        sa.Column("first_seen", sa.BigInteger(), nullable=True),
        sa.Column("last_seen", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("txid", name=op.f("pk_onchain_transaction")),
    )
    op.create_table(
        "onchain_wallet",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("descriptor", sa.Text(), nullable=False),
        sa.Column("last_revealed", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_onchain_wallet_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_onchain_wallet")),
    )
    op.create_table(
        "paid_invoice",
        sa.Column("payment_hash", sa.LargeBinary(), nullable=False),
        sa.Column("preimage", sa.LargeBinary(), nullable=False),
        sa.Column("paid_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_hash", name=op.f("pk_paid_invoice")),
    )
    op.create_table(
        "properties",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("server_pubkey", sa.LargeBinary(), nullable=True),
        sa.Column("server_mailbox_pubkey", sa.LargeBinary(), nullable=True),
        sa.Column("recovery_pending", sa.Boolean(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_properties_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_properties")),
    )
    op.create_table(
        "recovery_vtxo",
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("vtxo_id", name=op.f("pk_recovery_vtxo")),
    )
    op.create_table(
        "settled_receive",
        sa.Column("payment_hash", sa.LargeBinary(), nullable=False),
        sa.Column("preimage", sa.LargeBinary(), nullable=False),
        sa.Column("invoice", sa.Text(), nullable=False),
        sa.Column("amount_sat", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_hash", name=op.f("pk_settled_receive")),
    )
    op.create_table(
        "vtxo_key",
        sa.Column("key_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_index", name=op.f("pk_vtxo_key")),
        sa.UniqueConstraint("public_key", name=op.f("uq_vtxo_key_public_key")),
    )
    op.create_table(
        "action_vtxo",
        sa.Column("action_id", sa.Text(), nullable=False),
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["action_id"], ["action_checkpoint.id"], name=op.f("fk_action_vtxo_action_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("action_id", "vtxo_id", name=op.f("pk_action_vtxo")),
    )
    op.create_index(op.f("ix_action_vtxo_vtxo_id"), "action_vtxo", ["vtxo_id"], unique=False)
    op.create_table(
        "exit_state",
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.Column("movement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(["movement_id"], ["movement.id"], name=op.f("fk_exit_state_movement_id")),
        sa.PrimaryKeyConstraint("vtxo_id", name=op.f("pk_exit_state")),
    )
    op.create_index(op.f("ix_exit_state_kind"), "exit_state", ["kind"], unique=False)
    op.create_index(op.f("ix_exit_state_movement_id"), "exit_state", ["movement_id"], unique=False)
    op.create_table(
        "movement_destination",
        sa.Column("movement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("method_kind", sa.Text(), nullable=False),
        sa.Column("method_value", sa.Text(), nullable=False),
        sa.Column("amount_sat", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IN ('sent_to', 'received_on')", name=op.f("ck_movement_destination_role")),
        sa.ForeignKeyConstraint(
            ["movement_id"],
            ["movement.id"],
            name=op.f("fk_movement_destination_movement_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("movement_id", "role", "position", name=op.f("pk_movement_destination")),
    )
    op.create_index(
        "ix_movement_destination_method_value",
        "movement_destination",
        ["method_value"],
        unique=False,
        postgresql_using="hash",
    )
    op.create_table(
        "movement_vtxo",
        sa.Column("movement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('input', 'output', 'exited')", name=op.f("ck_movement_vtxo_role")),
        sa.ForeignKeyConstraint(
            ["movement_id"], ["movement.id"], name=op.f("fk_movement_vtxo_movement_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("movement_id", "role", "position", name=op.f("pk_movement_vtxo")),
        sa.UniqueConstraint(
            "movement_id", "role", "vtxo_id", name=op.f("uq_movement_vtxo_movement_id_role_vtxo_id")
        ),
    )
    op.create_table(
        "round_state",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("movement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("unlock_hash", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["movement_id"], ["movement.id"], name=op.f("fk_round_state_movement_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_round_state")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_round_state_movement_id"), "round_state", ["movement_id"], unique=False)
    op.create_index(op.f("ix_round_state_unlock_hash"), "round_state", ["unlock_hash"], unique=False)
    op.create_table(
        "vtxo",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("amount_sat", sa.BigInteger(), nullable=False),
        sa.Column("policy_kind", sa.Text(), nullable=False),
        sa.Column("user_pubkey", sa.LargeBinary(), nullable=False),
        sa.Column("server_pubkey", sa.LargeBinary(), nullable=False),
        sa.Column("expiry_height", sa.BigInteger(), nullable=False),
        sa.Column("exit_delta", sa.Integer(), nullable=False),
        sa.Column("anchor_point", sa.Text(), nullable=False),
        sa.Column("exit_depth", sa.Integer(), nullable=False),
        sa.Column("exit_tx_weight_wu", sa.BigInteger(), nullable=False),
        sa.Column("registered", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state_kind", sa.Text(), nullable=False),
        sa.Column("lock_movement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("lock_action_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(lock_movement_id IS NULL AND lock_action_id IS NULL) OR (state_kind = 'Locked'"
            " AND (lock_movement_id IS NULL OR lock_action_id IS NULL))",
            name=op.f("ck_vtxo_lock_holder"),
        ),
        sa.CheckConstraint(
            "state_kind IN ('Spendable', 'Locked', 'Spent', 'Exited')", name=op.f("ck_vtxo_state_kind")
        ),
        sa.CheckConstraint("amount_sat >= 0", name=op.f("ck_vtxo_amount")),
        sa.ForeignKeyConstraint(
            ["lock_action_id"],
            ["action_checkpoint.id"],
            name=op.f("fk_vtxo_lock_action_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["lock_movement_id"],
            ["movement.id"],
            name=op.f("fk_vtxo_lock_movement_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vtxo")),
    )
    op.create_index(op.f("ix_vtxo_lock_action_id"), "vtxo", ["lock_action_id"], unique=False)
    op.create_index(op.f("ix_vtxo_lock_movement_id"), "vtxo", ["lock_movement_id"], unique=False)
    op.create_index(
        "ix_vtxo_state_kind",
        "vtxo",
        ["state_kind", "expiry_height", "amount_sat", "exit_depth"],
        unique=False,
    )
    op.create_index(
        "ix_vtxo_unspent",
        "vtxo",
        ["expiry_height", sa.literal_column("amount_sat DESC"), "id"],
        unique=False,
        sqlite_where=sa.text("state_kind != 'Spent' AND state_kind != 'Exited'"),
        postgresql_where=sa.text("state_kind != 'Spent' AND state_kind != 'Exited'"),
    )
    op.create_table(
        "round_input",
        sa.Column("round_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"], ["round_state.id"], name=op.f("fk_round_input_round_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("round_id", "vtxo_id", name=op.f("pk_round_input")),
    )
    op.create_index(op.f("ix_round_input_vtxo_id"), "round_input", ["vtxo_id"], unique=False)
    op.create_table(
        "vtxo_body",
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.Column("bare", sa.LargeBinary(), nullable=False),
        sa.Column("genesis", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["vtxo_id"], ["vtxo.id"], name=op.f("fk_vtxo_body_vtxo_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vtxo_id", name=op.f("pk_vtxo_body")),
    )
    op.create_table(
        "vtxo_state",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["vtxo_id"], ["vtxo.id"], name=op.f("fk_vtxo_state_vtxo_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vtxo_state")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_vtxo_state_vtxo_id"), "vtxo_state", ["vtxo_id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("a wallet is only migrated forward")
