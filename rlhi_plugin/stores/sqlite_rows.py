"""Appending to SQLite, past SQLAlchemy, on one connection that is kept.

A turn waits for the disk about as long as SQLAlchemy would take to begin a transaction, run four statements and hand
the connection back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import Engine, PoolProxiedConnection, bindparam, func, literal, select

from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.appending import BEGIN, Part, Row, append_to, head_values, message_values
from rlhi_plugin.stores.checkpoints import Checkpoints
from rlhi_plugin.stores.dialects import insert_if_absent
from rlhi_plugin.stores.direct import SQLiteStatement, driver_of
from rlhi_plugin.stores.schema import conversations, messages, tombstones

_OWNERS, _USERS = tombstones.alias(), tombstones.alias()
_NEXT = (
    select(func.coalesce(func.max(messages.c.sequence) + 1, 0))
    .where(messages.c.conversation == conversations.c.number)
    .scalar_subquery()
)
_ALWAYS = select(literal(1).label("one")).subquery()
# All that an append asks, in one statement: between two statements another thread may take the interpreter.
_FIND = SQLiteStatement(
    select(
        conversations.c.number,
        conversations.c.user_id,
        _OWNERS.c.forgotten_at,
        _NEXT.label("next"),
        _USERS.c.forgotten_at.label("user_forgotten_at"),
    ).select_from(
        _ALWAYS.outerjoin(conversations, conversations.c.conversation_id == bindparam("name"))
        .outerjoin(_OWNERS, _OWNERS.c.user_id == conversations.c.user_id)
        .outerjoin(_USERS, _USERS.c.user_id == bindparam("user"))
    )
)
_BEGIN = SQLiteStatement(BEGIN["sqlite"])
_MESSAGES_PER_STATEMENT = 8
"""A turn is two messages, four with a tool; SQLite compiles a statement for each number of them once."""


@cache
def _insert_of(count: int) -> SQLiteStatement:
    """Adds so many messages, each column named with the message's position."""
    rows = [
        {column.name: bindparam(f"{column.name}_{row}", type_=column.type) for column in messages.columns}
        for row in range(count)
    ]
    return SQLiteStatement(insert_if_absent("sqlite", messages, ("conversation", "message_id")).values(rows))


LAST_MESSAGE = (
    select(messages.c.message_id)
    .join(conversations)
    .where(conversations.c.conversation_id == bindparam("name"))
    .order_by(messages.c.sequence.desc())
    .limit(1)
)
"""Id of the message that was added last to the conversation ``name``."""
_LAST = SQLiteStatement(LAST_MESSAGE)


class SQLiteRows:
    """`Rows` of SQLite, whose writer is alone anyway."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver
        self._next: dict[int, int] = {}
        self._forgotten: dict[str | None, datetime] = {}

    def find(self, parts: Sequence[Part]) -> dict[str, Row]:
        """See `Rows.find`."""
        rows: dict[str, Row] = {}
        for head in (part.head for part in parts):
            asked = {"name": head.conversation_id, "user": head.user_id}
            number, owner, forgotten_at, following, user_forgotten_at = _FIND.one(self._driver, asked)
            if number is not None:
                rows[head.conversation_id] = Row(number, owner, forgotten_at)
                self._next[number] = following
            if user_forgotten_at is not None:
                self._forgotten[head.user_id] = user_forgotten_at
        return rows

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """See `Rows.forgotten`."""
        return {user: self._forgotten[user] for user in users if user in self._forgotten}

    def begin(self, heads: Sequence[Conversation]) -> dict[str, Row]:
        """See `Rows.begin`."""
        rows: dict[str, Row] = {}
        for head in heads:
            number = _BEGIN.insert(self._driver, head_values(head)).lastrowid
            assert number is not None  # noqa: S101 - `find` did not find it, and nobody else writes
            rows[head.conversation_id] = Row(number, head.user_id, self._forgotten.get(head.user_id))
            self._next[number] = 0
        return rows

    def insert(self, number: int, messages: Sequence[Message]) -> int:
        """See `Rows.insert`. A message that is not new leaves a gap in the sequence, which only orders."""
        added = 0
        for start in range(0, len(messages), _MESSAGES_PER_STATEMENT):
            some = messages[start : start + _MESSAGES_PER_STATEMENT]
            values = {
                f"{name}_{row}": value
                for row, message in enumerate(some)
                for name, value in (
                    ("conversation", number),
                    ("sequence", self._next[number] + row),
                    *message_values(message).items(),
                )
            }
            added += _insert_of(len(some)).insert(self._driver, values).rowcount
            self._next[number] += len(some)
        return added


class SQLiteAppends:
    """Transactions that append; one at a time, which the caller sees to. What they raise is the driver's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._checkpoints = Checkpoints(engine)
        self._kept: PoolProxiedConnection | None = None

    def append(self, parts: Sequence[Part]) -> list[int | Exception]:
        """See `append_to`; durable when it returns."""
        if self._kept is None:
            self._kept = self._engine.raw_connection()
            # The pool gets it back closed: other connections move the log by themselves.
            driver_of(self._kept).execute("PRAGMA wal_autocheckpoint=0")
        driver = driver_of(self._kept)
        try:
            driver.execute("BEGIN IMMEDIATE")
            outcomes = append_to(SQLiteRows(driver), parts)
            driver.execute("COMMIT")
        except BaseException:
            # Whatever state the connection is in: the next one is fresh.
            self._drop()
            raise
        self._checkpoints.committed()
        return outcomes

    def close(self) -> None:
        """Close the connection."""
        self._checkpoints.wait()
        self._drop()

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        self._checkpoints.after_fork()
        self._kept = None

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            # Closing rolls back.
            kept.invalidate()


def last_message_id(engine: Engine, conversation_id: str) -> str | None:
    """Id of the message that was added last to a conversation; None where there is none."""
    connection = engine.raw_connection()
    try:
        found = _LAST.first(driver_of(connection), {"name": conversation_id})
    finally:
        connection.close()
    return None if found is None else str(found[0])
