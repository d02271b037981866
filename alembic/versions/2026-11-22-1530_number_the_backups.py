"""Number the backups of a wallet where the wallet is, so that all machines that share it count together.

And the history is in the order of its ids.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "last_backup",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_last_backup")),
    )
    op.drop_index("ix_movement_created_at", "movement")
