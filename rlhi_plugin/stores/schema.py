"""The tables of the SQL store, as they are now; `rlhi_plugin.stores.migrations` is how they became so.

Names begin with ``rlhi_``, so that an app may keep its own tables in the same database. `STORE_SCHEMA` counts changes
that an older program could not work with.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from rlhi_plugin.stores.columns import AnyText, Identity, UTCTime

STORE_SCHEMA = 3
"""Version of these tables. 3: whether an answer is whole; a program that knows only 2 would take halves for answers. 2:
feedback, consent, tombstones; what a turn cost; a program that knows only 1 would log again what a forgotten user had
said. Older programs are refused."""

metadata = MetaData()

meta = Table("rlhi_meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False))
"""One row, ``schema``: the `STORE_SCHEMA` that wrote these tables."""

conversations = Table(
    "rlhi_conversations",
    metadata,
    # The order in which conversations were created; times may be missing or run backwards.
    Column("number", Identity, primary_key=True, autoincrement=True),
    Column("conversation_id", AnyText(256), nullable=False, unique=True),
    Column("user_id", String(128), index=True),
    Column("started_at", UTCTime),
    Column("language", AnyText(64)),
    Column("toxic", Boolean),
    Column("source", AnyText(64), nullable=False),
    sqlite_autoincrement=True,
)

messages = Table(
    "rlhi_messages",
    metadata,
    Column("conversation", Identity, ForeignKey("rlhi_conversations.number"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("message_id", AnyText(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", AnyText, nullable=False),
    Column("created_at", UTCTime),
    Column("model", AnyText),
    Column("adapter", AnyText),
    Column("persona_digest", AnyText(64)),
    Column("parent_id", AnyText(256)),
    Column("latency_s", Float),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("finish", String(16)),
    UniqueConstraint("conversation", "message_id"),
)

personas = Table(
    "rlhi_personas",
    metadata,
    # Every version is kept: an answer logged under an older persona can still be explained.
    Column("number", Identity, primary_key=True, autoincrement=True),
    Column("user_id", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", UTCTime, nullable=False),
    Column("body", Text, nullable=False),
    Index("rlhi_personas_by_user", "user_id", "number"),
    sqlite_autoincrement=True,
)

feedback = Table(
    "rlhi_feedback",
    metadata,
    Column("number", Identity, primary_key=True, autoincrement=True),
    # No reference to the conversation: feedback may come before the turn that it is about, or without one.
    Column("conversation_id", AnyText(256), nullable=False),
    Column("event_id", AnyText(256), nullable=False),
    Column("message_id", AnyText(256)),
    Column("user_id", String(128), index=True),
    Column("kind", String(32), nullable=False),
    Column("value", AnyText),
    # Imported logs may not say when.
    Column("created_at", UTCTime),
    UniqueConstraint("conversation_id", "event_id"),
    sqlite_autoincrement=True,
)

consent = Table(
    "rlhi_consent",
    metadata,
    # Every decision is kept: what was allowed at a given time can still be shown.
    Column("number", Identity, primary_key=True, autoincrement=True),
    Column("user_id", String(128), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("granted", Boolean, nullable=False),
    Column("decided_at", UTCTime, nullable=False),
    Index("rlhi_consent_by_user", "user_id", "purpose", "decided_at"),
    sqlite_autoincrement=True,
)

tombstones = Table(
    "rlhi_tombstones",
    metadata,
    Column("user_id", String(128), primary_key=True),
    Column("forgotten_at", UTCTime, nullable=False),
)
"""Each forgotten user once, with the latest time."""
