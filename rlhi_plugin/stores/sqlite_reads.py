"""What is read of SQLite while a user waits, past SQLAlchemy on one connection that is kept.

A conversation that is new to a process, and a user of whom nothing was read for a while, cost such reads. A connection
out of the pool and back, and a thread that keeps a time limit, take several times as long as SQLite does: so the limit
is SQLite's own. Where many users come together, one thread reads for all (`rlhi_plugin.stores.combining`): in a queue
for the connection each would wait until the one before had done other things and let go of the interpreter.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, PoolProxiedConnection, bindparam, select

from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.records import ConsentDecision, Purpose
from rlhi_plugin.stores.combining import CombiningCommit
from rlhi_plugin.stores.dialects import BUSY_TIMEOUT_MS
from rlhi_plugin.stores.direct import SQLiteStatement, driver_of
from rlhi_plugin.stores.schema import consent, conversations, messages, personas, tombstones

LAST_MESSAGE = (
    select(messages.c.message_id)
    .join(conversations)
    .where(conversations.c.conversation_id == bindparam("name"))
    .order_by(messages.c.sequence.desc())
    .limit(1)
)
"""Id of the message that was added last to the conversation ``name``."""
NEWEST_PERSONA = (
    select(personas.c.body).where(personas.c.user_id == bindparam("user")).order_by(personas.c.number.desc()).limit(1)
)
"""The current persona of ``user``."""
_LAST, _PERSONA = SQLiteStatement(LAST_MESSAGE), SQLiteStatement(NEWEST_PERSONA)
_STONE = SQLiteStatement(select(tombstones.c.forgotten_at).where(tombstones.c.user_id == bindparam("user")))
_DECISIONS = SQLiteStatement(
    select(consent.c.user_id, consent.c.purpose, consent.c.granted, consent.c.decided_at)
    .where(consent.c.user_id == bindparam("user"))
    .order_by(consent.c.decided_at, consent.c.number)
)


class _Question(NamedTuple):
    statement: SQLiteStatement
    parameters: Mapping[str, Any]


class SQLiteReads:
    """Small reads. What they raise is the driver's, or StoreTimeoutError.

    Every limit is in seconds, for the database and for other threads each; None is the store's default.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._combined: CombiningCommit[_Question, list[Sequence[Any]]] = CombiningCommit(self._read_all)
        self.after_fork()

    def last_message_id(self, conversation_id: str, limit_s: float | None = None) -> str | None:
        """Id of the message that was added last to a conversation; None where there is none.

        Raises:
            StoreTimeoutError: other threads took longer.
        """
        found: str | None = _only(self._rows(_LAST, {"name": conversation_id}, limit_s))
        return found

    def persona(self, user_id: str, limit_s: float | None = None) -> str | None:
        """The current persona of a user, as JSON; None where there is none. Errors as above."""
        found: str | None = _only(self._rows(_PERSONA, {"user": user_id}, limit_s))
        return found

    def forgotten_at(self, user_id: str, limit_s: float | None = None) -> datetime | None:
        """When a user was forgotten last; None where they never were. Errors as above."""
        found: datetime | None = _only(self._rows(_STONE, {"user": user_id}, limit_s))
        return found

    def consents(self, user_id: str, limit_s: float | None = None) -> dict[Purpose, ConsentDecision]:
        """See `ConsentStore.consents`. Errors as above."""
        found: dict[Purpose, ConsentDecision] = {}
        for user, purpose, granted, decided_at in self._rows(_DECISIONS, {"user": user_id}, limit_s):
            found[Purpose(purpose)] = ConsentDecision(
                user_id=user, purpose=Purpose(purpose), granted=granted, decided_at=decided_at
            )
        return found

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        self._lock = threading.Lock()
        self._kept: PoolProxiedConnection | None = None
        self._busy_ms = BUSY_TIMEOUT_MS

    def _rows(
        self, statement: SQLiteStatement, parameters: Mapping[str, Any], limit_s: float | None
    ) -> list[Sequence[Any]]:
        limit_s = BUSY_TIMEOUT_MS / 1000 if limit_s is None else limit_s
        return self._combined.submit(_Question(statement, parameters)).result(limit_s)

    def _read_all(
        self, questions: Sequence[_Question], limit_s: float | None
    ) -> Sequence[list[Sequence[Any]] | Exception]:
        """Rows for each question, or what the driver raised about it."""
        busy_ms = BUSY_TIMEOUT_MS if limit_s is None else math.ceil(1000 * limit_s)
        if not self._lock.acquire(timeout=busy_ms / 1000):
            raise StoreTimeoutError(f"the store was not read within {limit_s} s. See whether it is overloaded.")
        try:
            return [self._answer(question, busy_ms) for question in questions]
        except BaseException:
            # Whatever state the connection is in: the next one is fresh.
            self._drop()
            raise
        finally:
            self._lock.release()

    def _answer(self, question: _Question, busy_ms: int) -> list[Sequence[Any]] | Exception:
        try:
            return question.statement.rows(driver_of(self._connection(busy_ms)), question.parameters)
        except Exception as error:  # noqa: BLE001 - it is raised where the question came from
            self._drop()
            return error

    def _connection(self, busy_ms: int) -> PoolProxiedConnection:
        if self._kept is None:
            self._kept, self._busy_ms = self._engine.raw_connection(), BUSY_TIMEOUT_MS
        if busy_ms != self._busy_ms:
            driver_of(self._kept).execute(f"PRAGMA busy_timeout={busy_ms}")
            self._busy_ms = busy_ms
        return self._kept

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.invalidate()


def _only(rows: Sequence[Sequence[Any]]) -> Any:
    """The value of the row of a query that gives one row at most."""
    return rows[0][0] if rows else None
