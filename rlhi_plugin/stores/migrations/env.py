"""Run by Alembic: takes the steps on the connection, and in the transaction, that the caller holds."""

from alembic import context

from rlhi_plugin.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="rlhi_migrations",
    # The caller's transaction holds the write lock; on SQLite too it covers changes of tables.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
