"""Alembic's scripts: one file in ``versions`` for each schema, which makes it from the one before."""
