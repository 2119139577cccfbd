"""The tables of the SQL store.

Names begin with ``rlhi_``, so that an app may keep its own tables in the same database. `STORE_SCHEMA` counts changes
that an older program could not read.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

STORE_SCHEMA = 1
"""Version of these tables."""


class UTCTime(TypeDecorator[datetime]):
    """An aware time as ISO 8601 text in UTC with microseconds: sorts as text, and SQLite keeps no time zones itself."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Aware time to text."""
        del dialect
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Text to aware time."""
        del dialect
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

meta = Table("rlhi_meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False))
"""One row, ``schema``: the `STORE_SCHEMA` that wrote these tables."""

conversations = Table(
    "rlhi_conversations",
    metadata,
    # The order in which conversations were created; times may be missing or run backwards.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(256), nullable=False, unique=True),
    Column("user_id", String(128), index=True),
    Column("started_at", UTCTime),
    Column("language", String(64)),
    Column("toxic", Boolean),
    Column("source", String(64), nullable=False),
    sqlite_autoincrement=True,
)

messages = Table(
    "rlhi_messages",
    metadata,
    Column("conversation", ForeignKey("rlhi_conversations.number"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("message_id", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", UTCTime),
    Column("model", Text),
    Column("adapter", Text),
    Column("persona_digest", String(64)),
    Column("parent_id", String(256)),
    Column("latency_s", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    UniqueConstraint("conversation", "message_id"),
)

personas = Table(
    "rlhi_personas",
    metadata,
    # Every version is kept: an answer logged under an older persona can still be explained.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("user_id", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", UTCTime, nullable=False),
    Column("body", Text, nullable=False),
    Index("rlhi_personas_by_user", "user_id", "number"),
    sqlite_autoincrement=True,
)
