"""Alembic's environment: runs the migrations on the connection that ``cluster.migrate`` opened."""

from alembic import context

from cluster.store import metadata

connection = context.config.attributes["connection"]
# SQLite cannot alter a column: there a table is copied ("batch").
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
# The transaction is the caller's: all migrations are done, or none.
context.run_migrations()
