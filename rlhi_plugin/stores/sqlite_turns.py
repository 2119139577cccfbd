"""Turns into SQLite, any number of them in one statement, which begins and commits by itself.

Between two statements, and within each, another thread may take the interpreter, which then is waited for: that takes
longer than the statements do. One that writes to two tables takes a trigger: it is on a view that only this connection
sees, whose columns are those of a conversation and of so many messages.

All of the turns are written or, where one of them needs another look, none: it is known already, its user was
forgotten, its conversation is there or is not, or is somebody else's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any

from rlhi_plugin.records import Message
from rlhi_plugin.stores.appending import HEAD_COLUMNS, MESSAGE_COLUMNS, Part

MESSAGES_AT_MOST = 8
"""A turn is two messages, four with a tool; SQLite compiles a statement for each number of them once."""
PARTS_AT_MOST = 16
"""Parts in one statement: to compile it takes 0.1 ms and 10 KB for each, once for each number of them (ours)."""

_head_of = attrgetter(*HEAD_COLUMNS)
_message_of = itemgetter(*("id" if name == "message_id" else name for name in MESSAGE_COLUMNS))
_STARTED_AT, _CREATED_AT = HEAD_COLUMNS.index("started_at"), MESSAGE_COLUMNS.index("created_at")


class Kind(StrEnum):
    """What the conversation of a turn must be."""

    BEGINS = "begins"
    """None so far."""
    GOES_ON = "goes_on"
    """This user's."""


class SQLiteTurns:
    """Statements of one connection.

    Args:
        driver: The connection; nobody else may write with it.
    """

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver
        self._views: set[tuple[Kind, int]] = set()

    def write(self, kind: Kind, parts: Sequence[Part]) -> bool:
        """Add all messages of up to `PARTS_AT_MOST` parts that have the same number of them, up to `MESSAGES_AT_MOST`.

        Returns:
            Whether they were; else none was.

        Raises:
            sqlite3.Error, OverflowError, UnicodeEncodeError: see `sqlite3.Connection.execute`.
        """
        count = len(parts[0].offered)
        if (kind, count) not in self._views:
            for statement in _view(kind, count):
                self._driver.execute(statement)
            self._views.add((kind, count))
        values: list[Any] = []
        for part in parts:
            start = len(values)
            values += _head_of(part.head)
            values[start + _STARTED_AT] = time_text(values[start + _STARTED_AT])
            for message in part.offered:
                values += message_columns(message)
        try:
            self._driver.execute(_insert(kind, count, len(parts)), values)
        except sqlite3.IntegrityError:
            return False
        return True


def message_columns(message: Message) -> list[Any]:
    """Values of `MESSAGE_COLUMNS` as SQLite keeps them."""
    # Fields of a record are looked up here in half the time.
    values = list(_message_of(message.__dict__))
    values[_CREATED_AT] = time_text(values[_CREATED_AT])
    return values


def time_text(time: datetime | None) -> str | None:
    """What `rlhi_plugin.stores.columns.UTCTime` makes of a time, without SQLAlchemy."""
    if time is None:
        return None
    return (time if time.tzinfo is UTC else time.astimezone(UTC)).isoformat(timespec="microseconds")


@cache
def _insert(kind: Kind, count: int, parts: int) -> str:
    row = f"({', '.join('?' * (len(HEAD_COLUMNS) + count * len(MESSAGE_COLUMNS)))})"
    return f"INSERT INTO rlhi_{kind}_{count} VALUES {', '.join([row] * parts)}"  # noqa: S608 - names of ours alone


@cache
def _view(kind: Kind, count: int) -> tuple[str, str]:
    """The view and its trigger, for so many messages."""
    view, places = f"rlhi_{kind}_{count}", range(count)
    columns = [*HEAD_COLUMNS, *(f"{name}_{place}" for place in places for name in MESSAGE_COLUMNS)]
    number = "(SELECT number FROM rlhi_conversations WHERE conversation_id = NEW.conversation_id)"
    if kind is Kind.BEGINS:
        first = "0"
        conversation = (
            f"INSERT INTO rlhi_conversations ({', '.join(HEAD_COLUMNS)})"  # noqa: S608 - as above
            f" VALUES ({', '.join(f'NEW.{name}' for name in HEAD_COLUMNS)})"
        )
    else:
        first = f"(SELECT coalesce(max(sequence) + 1, 0) FROM rlhi_messages WHERE conversation = {number})"  # noqa: S608 - as above
        conversation = (
            "SELECT RAISE(ABORT, 'not theirs') WHERE NOT EXISTS (SELECT 1 FROM rlhi_conversations"
            " WHERE conversation_id = NEW.conversation_id AND user_id IS NEW.user_id)"
        )
    said = " UNION ALL ".join(
        f"SELECT {place} AS place, {', '.join(f'NEW.{name}_{place} AS {name}' for name in MESSAGE_COLUMNS)}"
        for place in places
    )
    trigger = (
        f"CREATE TEMP TRIGGER {view}_insert INSTEAD OF INSERT ON {view} BEGIN"  # noqa: S608 - as above
        " SELECT RAISE(ABORT, 'forgotten') WHERE EXISTS (SELECT 1 FROM rlhi_tombstones WHERE user_id = NEW.user_id);"
        f" {conversation};"
        f" INSERT INTO rlhi_messages (conversation, sequence, {', '.join(MESSAGE_COLUMNS)})"
        f" SELECT {number}, {first} + place, {', '.join(MESSAGE_COLUMNS)} FROM ({said});"
        " END"
    )
    return f"CREATE TEMP VIEW {view} ({', '.join(columns)}) AS SELECT {', '.join(['NULL'] * len(columns))}", trigger
