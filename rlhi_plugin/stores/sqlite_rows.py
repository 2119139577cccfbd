"""What an append reads and writes in SQLite where it has to look: past SQLAlchemy, within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, literal, select

from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.appending import BEGIN, MESSAGE_COLUMNS, Head, Part, Row, head_values
from rlhi_plugin.stores.direct import SQLiteStatement
from rlhi_plugin.stores.schema import conversations, messages, tombstones
from rlhi_plugin.stores.sqlite_turns import MESSAGES_AT_MOST, message_columns

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


@cache
def _insert_of(count: int) -> str:
    """Adds so many messages: key of the conversation, place in it and columns of the first, then of the second."""
    row = f"(?, ?{', ?' * len(MESSAGE_COLUMNS)})"
    return (
        f"INSERT INTO rlhi_messages (conversation, sequence, {', '.join(MESSAGE_COLUMNS)})"  # noqa: S608 - names of ours alone
        f" VALUES {', '.join([row] * count)} ON CONFLICT (conversation, message_id) DO NOTHING"
    )


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

    def begin(self, heads: Sequence[Head | Conversation]) -> dict[str, Row]:
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
        for start in range(0, len(messages), MESSAGES_AT_MOST):
            some = messages[start : start + MESSAGES_AT_MOST]
            values: list[Any] = []
            for sequence, message in enumerate(some, self._next[number]):
                values += (number, sequence, *message_columns(message))
            added += self._driver.execute(_insert_of(len(some)), values).rowcount
            self._next[number] += len(some)
        return added
