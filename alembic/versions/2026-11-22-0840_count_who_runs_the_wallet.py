"""Count who runs the wallet, so that a daemon notices that another has taken it over."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_lease_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
