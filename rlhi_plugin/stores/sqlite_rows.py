"""Appending to SQLite, past SQLAlchemy, on one connection that is kept.

A turn waits for the disk about as long as SQLAlchemy would take to begin a transaction, run four statements and hand
the connection back. And between two statements another thread may take the interpreter, which then is waited for: so a
turn of a conversation that was written before is one statement, which begins and commits by itself.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection, bindparam, func, literal, select
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect

from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.appending import BEGIN, MESSAGE_COLUMNS, Head, Part, Row, append_to, head_values
from rlhi_plugin.stores.checkpoints import Checkpoints
from rlhi_plugin.stores.columns import UTCTime
from rlhi_plugin.stores.dialects import BUSY_TIMEOUT_MS
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
_DIALECT = sqlite_dialect()
_MESSAGES_PER_STATEMENT = 8
"""A turn is two messages, four with a tool; SQLite compiles a statement for each number of them once."""


_CONVERSATIONS_REMEMBERED = 10_000
_STEP_S = 0.1
"""A limit is rounded up to a multiple of this, so that the connection is not told another one for each turn (ours)."""

_values_of = attrgetter(*("id" if name == "message_id" else name for name in MESSAGE_COLUMNS))
_CREATED_AT = MESSAGE_COLUMNS.index("created_at")
_time_text = UTCTime().process_bind_param
_INTO = f"INSERT INTO rlhi_messages (conversation, sequence, {', '.join(MESSAGE_COLUMNS)})"
_ONCE = "ON CONFLICT (conversation, message_id) DO NOTHING"


_BEGIN_NEW = (
    "INSERT INTO rlhi_conversations (conversation_id, user_id, started_at, language, toxic, source)"
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM rlhi_tombstones WHERE user_id = ?2)"
    " ON CONFLICT (conversation_id) DO NOTHING"
)


@cache
def _insert_of(count: int) -> str:
    """Adds so many messages: key of the conversation, place in it and columns of the first, then of the second."""
    row = f"(?, ?{', ?' * len(MESSAGE_COLUMNS)})"
    return f"{_INTO} VALUES {', '.join([row] * count)} {_ONCE}"


@cache
def _insert_into_known(count: int) -> str:
    """Adds so many messages to a conversation, if its key, name and user still belong together and none was forgotten.

    Takes key, name and user, then the columns of each message.
    """
    numbers = iter(range(4, 4 + count * len(MESSAGE_COLUMNS)))
    rows = [f"({row}, {', '.join(f'?{next(numbers)}' for _ in MESSAGE_COLUMNS)})" for row in range(count)]
    said = ", ".join(f"column{place}" for place in range(2, len(MESSAGE_COLUMNS) + 2))
    return (
        f"{_INTO} SELECT ?1, (SELECT coalesce(max(sequence) + 1, 0) FROM rlhi_messages WHERE conversation = ?1)"  # noqa: S608 - as above
        f" + column1, {said} FROM (VALUES {', '.join(rows)})"
        " WHERE EXISTS (SELECT 1 FROM rlhi_conversations WHERE number = ?1 AND conversation_id = ?2 AND user_id IS ?3)"
        f" AND NOT EXISTS (SELECT 1 FROM rlhi_tombstones WHERE user_id = ?3) {_ONCE}"
    )


def _columns(message: Message) -> list[Any]:
    """Values of `MESSAGE_COLUMNS` as SQLite keeps them."""
    values = list(_values_of(message))
    values[_CREATED_AT] = _time_text(values[_CREATED_AT], _DIALECT)
    return values


class SQLiteRows:
    """`Rows` of SQLite, whose writer is alone anyway."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver
        self._next: dict[int, int] = {}
        self.numbers: dict[str, int] = {}
        """Keys of the conversations that were found or begun."""
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
                self.numbers[head.conversation_id] = number
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
        self.numbers |= {name: row.number for name, row in rows.items()}
        return rows

    def insert(self, number: int, messages: Sequence[Message]) -> int:
        """See `Rows.insert`. A message that is not new leaves a gap in the sequence, which only orders."""
        added = 0
        for start in range(0, len(messages), _MESSAGES_PER_STATEMENT):
            some = messages[start : start + _MESSAGES_PER_STATEMENT]
            values: list[Any] = []
            for sequence, message in enumerate(some, self._next[number]):
                values += (number, sequence, *_columns(message))
            added += self._driver.execute(_insert_of(len(some)), values).rowcount
            self._next[number] += len(some)
        return added


def _to_new(driver: sqlite3.Connection, part: Part, numbers: dict[str, int]) -> int:
    """Add the messages of a part to a conversation that does not exist; how many that were. None where it exists."""
    head, said = part.head, part.offered
    if head.conversation_id in numbers or not 0 < len(said) <= _MESSAGES_PER_STATEMENT:
        return 0
    started_at = _time_text(head.started_at, _DIALECT)
    values = (head.conversation_id, head.user_id, started_at, head.language, head.toxic, head.source)
    begun = driver.execute(_BEGIN_NEW, values)
    if begun.rowcount != 1 or begun.lastrowid is None:
        return 0
    numbers[head.conversation_id] = number = begun.lastrowid
    rows = [(number, sequence, *_columns(message)) for sequence, message in enumerate(said)]
    return driver.execute(_insert_of(len(said)), [value for row in rows for value in row]).rowcount


def _left(part: Part, added: int) -> bool:
    """Whether a part needs the long way: messages are left, or it has none and only the owner is to be looked at."""
    return added < len(part.offered) or not part.offered


class SQLiteAppends:
    """Transactions that append. What they raise is the driver's.

    Args:
        engine: The database's.
        appending: Gives the lock that the caller holds around `append`.
    """

    def __init__(self, engine: Engine, appending: Callable[[], threading.Lock]) -> None:
        self._engine = engine
        self._checkpoints = Checkpoints(engine, appending)
        self._kept: PoolProxiedConnection | None = None
        self._busy_ms = BUSY_TIMEOUT_MS
        self._known: OrderedDict[str, int] = OrderedDict()

    def append(self, parts: Sequence[Part], limit_s: float | None = None) -> list[int | Exception]:
        """See `append_to`; durable when it returns.

        Args:
            parts: What to add.
            limit_s: Seconds to wait at most while another process writes; None waits as long as it does by default.
        """
        try:
            driver = self._driver(limit_s)
            # A part alone may do without a transaction around its statement.
            added = [self._to_known(driver, parts[0])] if len(parts) == 1 else []
            outcomes: list[int | Exception] = list(added)
            if not added or _left(parts[0], added[0]):
                outcomes = self._append(driver, parts, added)
        except BaseException:
            # Whatever state the connection is in: the next one is fresh.
            self._drop()
            raise
        self._checkpoints.committed()
        return outcomes

    def _append(self, driver: sqlite3.Connection, parts: Sequence[Part], added: list[int]) -> list[int | Exception]:
        """Add parts in one transaction, of whose messages so many were added before it."""
        driver.execute("BEGIN IMMEDIATE")
        rows = SQLiteRows(driver)
        counts = self._quickly(driver, parts, added, rows.numbers)
        outcomes: list[int | Exception] = list(counts)
        rest = [index for index, part in enumerate(parts) if _left(part, counts[index])]
        if rest:
            for index, outcome in zip(rest, append_to(rows, [parts[index] for index in rest]), strict=True):
                outcomes[index] = outcome + counts[index] if isinstance(outcome, int) else outcome
        driver.execute("COMMIT")
        self._remember(rows.numbers)
        return outcomes

    def _quickly(
        self, driver: sqlite3.Connection, parts: Sequence[Part], added: list[int], numbers: dict[str, int]
    ) -> list[int]:
        """Add what takes no look at what is stored; of each part, how many messages that were."""
        counts, late = [], set()
        for index, part in enumerate(parts):
            name, count = part.head.conversation_id, added[index] if added else 0
            # No part overtakes another one of its conversation.
            if name not in late and not count:
                count = (0 if added else self._to_known(driver, part)) or _to_new(driver, part, numbers)
            if count < len(part.offered):
                late.add(name)
            counts.append(count)
        return counts

    def _to_known(self, driver: sqlite3.Connection, part: Part) -> int:
        """Add the messages of a part to a conversation whose key is remembered; how many that were.

        Fewer than there are where some are stored already, or another look is needed: at the owner, or at tombstones.
        """
        head, said = part.head, part.offered
        number = self._known.get(head.conversation_id)
        if number is None or part.opens or not 0 < len(said) <= _MESSAGES_PER_STATEMENT:
            return 0
        values = [number, head.conversation_id, head.user_id]
        for message in said:
            values += _columns(message)
        return driver.execute(_insert_into_known(len(said)), values).rowcount

    def _remember(self, numbers: dict[str, int]) -> None:
        self._known |= numbers
        while len(self._known) > _CONVERSATIONS_REMEMBERED:
            self._known.popitem(last=False)

    def _driver(self, limit_s: float | None) -> sqlite3.Connection:
        """The connection, which waits so long while it is locked out."""
        if self._kept is None:
            self._kept = self._engine.raw_connection()
            # The pool gets it back closed: other connections move the log by themselves.
            driver_of(self._kept).execute("PRAGMA wal_autocheckpoint=0")
            self._busy_ms = BUSY_TIMEOUT_MS
        driver = driver_of(self._kept)
        busy_ms = BUSY_TIMEOUT_MS if limit_s is None else math.ceil(limit_s / _STEP_S) * round(_STEP_S * 1000)
        if busy_ms != self._busy_ms:
            driver.execute(f"PRAGMA busy_timeout={busy_ms}")
            self._busy_ms = busy_ms
        return driver

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
