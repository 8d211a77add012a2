"""The first tables of the store."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("personalise", sa.Boolean(), nullable=False),
        sa.Column("keep_conversations", sa.Boolean(), nullable=False),
        sa.Column("rate", sa.String(100), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    _personal("keys", [_id(), _text("digest", sa.String(64)), _text("ending", sa.String(8))], ["id", "digest"])
    _personal(
        "preferences",
        [
            _id(),
            _text("turns", sa.JSON()),
            _text("chosen", sa.Text()),
            _text("rejected", sa.Text()),
            _text("source", sa.Text()),
            _text("updated", sa.BigInteger()),
        ],
        ["id"],
    )
    _personal(
        "conversations",
        [
            _id(),
            _text("model", sa.String(64)),
            _text("turns", sa.JSON()),
            _text("answer", sa.Text()),
            _text("shots", sa.JSON()),
        ],
        ["id"],
    )
    _personal("events", [_text("kind", sa.String(64)), _text("detail", sa.JSON())], [])
    op.create_table(
        "withdrawals",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("pseudonym", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_withdrawals"),
    )
    op.create_table(
        "trainings",
        sa.Column("policy", sa.String(200), nullable=False),
        sa.Column("pseudonym", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "pseudonym", name="pk_trainings"),
    )
    for table in ("withdrawals", "trainings"):
        op.create_index(f"ix_{table}_pseudonym", table, ["pseudonym"])


def _personal(table: str, columns: list[sa.Column], unique: list[str]) -> None:  # type: ignore[type-arg]
    op.create_table(
        table,
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("number", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id", ondelete="CASCADE"),
        *(sa.UniqueConstraint(column, name=f"uq_{table}_{column}") for column in unique),
        sqlite_autoincrement=True,
    )
    op.create_index(f"ix_{table}_user_id", table, ["user_id"])


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(64), nullable=False)


def _text(name: str, kind: sa.types.TypeEngine) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(name, kind, nullable=False)
