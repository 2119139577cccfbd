"""Appending to SQLite, past SQLAlchemy, on one connection that is kept.

A turn waits for the disk about as long as SQLAlchemy would take to begin a transaction, run four statements and hand
the connection back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection, bindparam, select

from rlhi_plugin.stores.appending import BEGIN, INSERT, OWNED, Part, Row, append_to
from rlhi_plugin.stores.direct import SQLiteStatement, driver_of
from rlhi_plugin.stores.schema import conversations, messages, tombstones

_FIND = SQLiteStatement(OWNED.where(conversations.c.conversation_id == bindparam("name")))
_FORGOTTEN = SQLiteStatement(select(tombstones.c.forgotten_at).where(tombstones.c.user_id == bindparam("user")))
_BEGIN = SQLiteStatement(BEGIN["sqlite"])
_INSERT = SQLiteStatement(INSERT["sqlite"])
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

    def find(self, names: Sequence[str]) -> dict[str, Row]:
        """See `Rows.find`. One name after the other: each takes microseconds."""
        found = (row for name in set(names) for row in _FIND.rows(self._driver, {"name": name}))
        return {name: Row(*rest) for name, *rest in found}

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """See `Rows.forgotten`."""
        asked = {user for user in users if user is not None}
        return {user: at for user in asked for (at,) in _FORGOTTEN.rows(self._driver, {"user": user})}

    def begin(self, heads: Sequence[Mapping[str, Any]]) -> None:
        """See `Rows.begin`."""
        _BEGIN.insert(self._driver, heads)

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """See `Rows.insert`."""
        return _INSERT.insert(self._driver, rows)


class SQLiteAppends:
    """Transactions that append; one at a time, which the caller sees to. What they raise is the driver's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: PoolProxiedConnection | None = None

    def append(self, parts: Sequence[Part]) -> list[int | Exception]:
        """See `append_to`; durable when it returns."""
        if self._kept is None:
            self._kept = self._engine.raw_connection()
        driver = driver_of(self._kept)
        try:
            driver.execute("BEGIN IMMEDIATE")
            outcomes = append_to(SQLiteRows(driver), parts)
            driver.execute("COMMIT")
        except BaseException:
            # Whatever state the connection is in: the pool rolls back what it gets, and the next one is fresh.
            self.close()
            raise
        return outcomes

    def close(self) -> None:
        """Hand the connection back."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        self._kept = None


def last_message_id(engine: Engine, conversation_id: str) -> str | None:
    """Id of the message that was added last to a conversation; None where there is none."""
    connection = engine.raw_connection()
    try:
        found = _LAST.rows(driver_of(connection), {"name": conversation_id})
    finally:
        connection.close()
    return str(found[0][0]) if found else None
