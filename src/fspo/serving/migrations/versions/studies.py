"""Human studies, their participants, and their items."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "studies"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "studies",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("registration", sa.JSON(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_studies"),
    )
    _personal(
        "study_participants",
        [
            _column("study", sa.String(64)),
            _column("language", sa.String(32)),
            _column("consent", sa.Text()),
            *(_column(name, sa.BigInteger()) for name in ("consented", "seen")),
            sa.Column("about", sa.JSON(none_as_null=True), nullable=True),
            *(_column(name, sa.BigInteger()) for name in ("begun", "finished", "withdrawn")),
            _column("closed", sa.String(16)),
            _column("site", sa.JSON()),
            sa.Column("invitation", sa.String(64), nullable=True),
        ],
        ["invitation"],
    )
    op.create_index("ix_study_participants_study", "study_participants", ["study"])
    _personal(
        "study_items",
        [
            _column("id", sa.String(64)),
            _column("stage", sa.String(16)),
            _column("position", sa.Integer()),
            *(_column(name, sa.Text()) for name in ("prompt", "topic", "first", "second")),
            *(_column(name, sa.String(64)) for name in ("first_arm", "second_arm")),
            *(_column(name, sa.JSON()) for name in ("first_traits", "second_traits")),
            _column("correct", sa.String(8)),
            _column("shots", sa.Integer()),
            _column("matched", sa.Boolean()),
            _column("choice", sa.String(8)),
            *(_column(name, sa.BigInteger()) for name in ("shown", "voted")),
            sa.UniqueConstraint("user_id", "stage", "position", name="uq_study_items_user_id"),
        ],
        ["id"],
    )


def _personal(table: str, columns: list[sa.schema.SchemaItem], unique: list[str]) -> None:
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


def _column(name: str, kind: sa.types.TypeEngine) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(name, kind, nullable=False)
