"""How many bytes of text each preference and conversation has."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0005"
down_revision = "0004"

_TEXTS = {"preferences": ("turns", "chosen", "rejected", "source"), "conversations": ("turns", "answer")}


def upgrade() -> None:
    """Add the column with its index. For older rows it counts the turns as JSON, so a few bytes too many."""
    name = op.get_bind().dialect.name
    for table, texts in _TEXTS.items():
        op.add_column(table, sa.Column("nbytes", sa.BigInteger(), nullable=False, server_default="0"))
        bytes_of = "length(CAST({} AS BLOB))" if name == "sqlite" else "octet_length(CAST({} AS TEXT))"
        op.execute(f"UPDATE {table} SET nbytes = " + " + ".join(bytes_of.format(text) for text in texts))
        op.create_index(f"ix_{table}_nbytes", table, ["user_id", "nbytes"])
