"""Consent to training, where preferences come from, thumbs, and datasets beside policies."""

from typing import Any

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0004"
down_revision = "studies"

_NEW: tuple[tuple[str, str, sa.types.TypeEngine[Any], Any], ...] = (
    ("users", "allow_training", sa.Boolean(), sa.false()),
    ("preferences", "origin", sa.String(32), "comparison"),
    ("preferences", "answers", sa.JSON(), "[]"),
    ("conversations", "turns_digest", sa.String(64), ""),
    ("conversations", "thumb", sa.String(8), ""),
    ("trainings", "kind", sa.String(16), "policy"),
)


def upgrade() -> None:
    """Add the columns, and write the pseudonyms in their new, shorter form."""
    for table, column, kind, default in _NEW:
        op.add_column(table, sa.Column(column, kind, nullable=False, server_default=default))
    with op.batch_alter_table("trainings") as batch:
        batch.alter_column("policy", existing_type=sa.String(200), type_=sa.String(1_000), existing_nullable=False)
    for table in ("trainings", "withdrawals"):
        op.execute(f"UPDATE {table} SET pseudonym = 'person-' || substr(pseudonym, 1, 16)")
