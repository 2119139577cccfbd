"""What a conversation on SQLite ends with, read past SQLAlchemy on one connection that is kept.

Every turn of a conversation that is new to a process asks for it. A connection out of the pool and back, and a thread
that keeps a time limit, take several times as long as SQLite does: so the limit is SQLite's own.
"""

from __future__ import annotations

import math
import threading

from sqlalchemy import Engine, PoolProxiedConnection, bindparam, select

from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.stores.dialects import BUSY_TIMEOUT_MS
from rlhi_plugin.stores.direct import SQLiteStatement, driver_of
from rlhi_plugin.stores.schema import conversations, messages

LAST_MESSAGE = (
    select(messages.c.message_id)
    .join(conversations)
    .where(conversations.c.conversation_id == bindparam("name"))
    .order_by(messages.c.sequence.desc())
    .limit(1)
)
"""Id of the message that was added last to the conversation ``name``."""
_LAST = SQLiteStatement(LAST_MESSAGE)


class SQLiteEnds:
    """Reads ends of conversations, one thread at a time. What it raises is the driver's, or StoreTimeoutError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.after_fork()

    def last_message_id(self, conversation_id: str, limit_s: float | None = None) -> str | None:
        """Id of the message that was added last to a conversation; None where there is none.

        Args:
            conversation_id: Which.
            limit_s: Seconds to wait at most, for the database and for other threads each; None is the store's default.

        Raises:
            StoreTimeoutError: other threads took longer.
        """
        busy_ms = BUSY_TIMEOUT_MS if limit_s is None else math.ceil(1000 * limit_s)
        if not self._lock.acquire(timeout=busy_ms / 1000):
            raise StoreTimeoutError(f"the store was not read within {limit_s} s. See whether it is overloaded.")
        try:
            found = _LAST.first(driver_of(self._connection(busy_ms)), {"name": conversation_id})
        except BaseException:
            # Whatever state the connection is in: the next one is fresh.
            self._drop()
            raise
        finally:
            self._lock.release()
        return None if found is None else str(found[0])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        self._lock = threading.Lock()
        self._kept: PoolProxiedConnection | None = None
        self._busy_ms = BUSY_TIMEOUT_MS

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
