"""Schema 1: conversations, messages, personas, on SQLite only. Later schemas begin from it."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
only_adds = True


def upgrade() -> None:
    """Create the tables as the first release did."""
    op.create_table(
        "rlhi_meta",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "rlhi_conversations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.String(256), nullable=False, unique=True),
        sa.Column("user_id", sa.String(128), index=True),
        sa.Column("started_at", sa.String(32)),
        sa.Column("language", sa.String(64)),
        sa.Column("toxic", sa.Boolean),
        sa.Column("source", sa.String(64), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rlhi_messages",
        sa.Column("conversation", sa.Integer, sa.ForeignKey("rlhi_conversations.number"), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("message_id", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32)),
        sa.Column("model", sa.Text),
        sa.Column("adapter", sa.Text),
        sa.Column("persona_digest", sa.String(64)),
        sa.UniqueConstraint("conversation", "message_id"),
    )
    op.create_table(
        "rlhi_personas",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("rlhi_personas_by_user", "rlhi_personas", ["user_id", "number"])
    op.execute("INSERT INTO rlhi_meta (key, value) VALUES ('schema', '1')")
