"""Schema 2: branches and costs of a message; feedback, consent, tombstones."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
only_adds = True

# SQLite counts up only a column that is declared INTEGER.
_IDENTITY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add columns that may be empty, and tables."""
    op.add_column("rlhi_messages", sa.Column("parent_id", sa.String(256)))
    op.add_column("rlhi_messages", sa.Column("latency_s", sa.Float))
    op.add_column("rlhi_messages", sa.Column("input_tokens", sa.BigInteger))
    op.add_column("rlhi_messages", sa.Column("output_tokens", sa.BigInteger))
    op.create_table(
        "rlhi_feedback",
        sa.Column("number", _IDENTITY, primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.String(256), nullable=False),
        sa.Column("event_id", sa.String(256), nullable=False),
        sa.Column("message_id", sa.String(256)),
        sa.Column("user_id", sa.String(128), index=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("created_at", sa.String(32)),
        sa.UniqueConstraint("conversation_id", "event_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rlhi_consent",
        sa.Column("number", _IDENTITY, primary_key=True, autoincrement=True),
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
        sa.Column("decided_at", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("rlhi_consent_by_user", "rlhi_consent", ["user_id", "purpose", "decided_at"])
    op.create_table(
        "rlhi_tombstones",
        sa.Column("user_id", sa.String(128), primary_key=True),
        sa.Column("forgotten_at", sa.String(32), nullable=False),
    )
    op.execute("UPDATE rlhi_meta SET value = '2' WHERE key = 'schema'")
