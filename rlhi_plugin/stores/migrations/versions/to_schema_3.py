"""Schema 3: whether an answer is whole."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"
only_adds = True


def upgrade() -> None:
    """Add a column that may be empty: what was logged before counts as whole."""
    op.add_column("rlhi_messages", sa.Column("finish", sa.String(16)))
    op.execute("UPDATE rlhi_meta SET value = '3' WHERE key = 'schema'")
