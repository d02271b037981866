"""Yield the VTXOs in the order in which they are spent, and other lists, without reading all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_vtxo_state_kind", "vtxo")
    op.create_index(
        "ix_vtxo_state_kind",
        "vtxo",
        [
            "state_kind",
            "expiry_height",
            sa.literal_column("exit_depth DESC"),
            sa.literal_column("amount_sat DESC"),
            "id",
        ],
        unique=False,
    )
    op.create_index(
        "ix_vtxo_expiry_height",
        "vtxo",
        ["expiry_height", sa.literal_column("amount_sat DESC"), "id"],
        unique=False,
    )
    op.create_index("ix_vtxo_exit_depth", "vtxo", ["state_kind", "exit_depth"], unique=False)
    op.create_index(
        "ix_vtxo_unregistered",
        "vtxo",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("registered = 0 AND state_kind != 'Spent'"),
        postgresql_where=sa.text("NOT registered AND state_kind != 'Spent'"),
    )
