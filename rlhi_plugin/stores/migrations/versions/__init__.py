"""One file for each schema of the store. Revision ids are the numbers of `rlhi_plugin.stores.schema.STORE_SCHEMA`.

Beside Alembic's own names, each file says whether its step only adds. Such a step loses nothing and lets programs that
are already running go on writing, so it is taken when a store is opened. Any other waits for `rlhi db upgrade`.
"""
