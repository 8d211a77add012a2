"""Which withdrawals a policy's training already knew."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("trainings", sa.Column("withdrawal", sa.BigInteger(), nullable=False, server_default="0"))
