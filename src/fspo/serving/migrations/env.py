"""What alembic runs: the migrations, on the connection of the store."""

from alembic import context

from fspo.serving.schema import Base

__all__: list[str] = []

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
