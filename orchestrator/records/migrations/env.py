"""How Alembic runs here: on the connection that `orchestrator.records.migrate` holds, in its one transaction."""

from __future__ import annotations

from alembic import context

from orchestrator.records.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
