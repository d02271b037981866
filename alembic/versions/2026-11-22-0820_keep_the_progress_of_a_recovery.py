"""Keep the progress and the findings of a recovery from the mnemonic."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "recovery_entry",
        sa.Column("vtxo_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("amount_sat", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("vtxo_id", name=op.f("pk_recovery_entry")),
    )
    op.create_table(
        "recovery_run",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_recovery_run_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_run")),
    )
