"""Appending to SQLite, past SQLAlchemy, on one connection that is kept.

A turn waits for the disk about as long as SQLAlchemy would take to begin a transaction, run four statements and hand
the connection back.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, PoolProxiedConnection

from rlhi_plugin.stores.appending import Part, append_to
from rlhi_plugin.stores.checkpoints import Checkpoints
from rlhi_plugin.stores.dialects import BUSY_TIMEOUT_MS
from rlhi_plugin.stores.direct import driver_of
from rlhi_plugin.stores.sqlite_rows import SQLiteRows
from rlhi_plugin.stores.sqlite_turns import MESSAGES_AT_MOST, PARTS_AT_MOST, Kind, SQLiteTurns

_STEP_S = 0.1
"""A limit is rounded up to a multiple of this, so that the connection is not told another one for each turn (ours)."""


class SQLiteAppends:
    """Transactions that append. What they raise is the driver's.

    Args:
        engine: The database's.
        appending: Gives the lock that the caller holds around `append`.
    """

    def __init__(self, engine: Engine, appending: Callable[[], threading.Lock]) -> None:
        self._engine = engine
        self._checkpoints = Checkpoints(engine, appending)
        self._kept: _Kept | None = None

    def append(self, parts: Sequence[Part], limit_s: float | None = None) -> list[int | Exception]:
        """See `append_to`; durable when it returns.

        Args:
            parts: What to add.
            limit_s: Seconds to wait at most while another process writes; None waits as long as it does by default.
        """
        try:
            kept = self._connected()
            if limit_s != kept.limit_s:
                kept.wait_at_most(limit_s)
            outcomes = _at_once(kept.turns, parts) or _in_a_transaction(kept, parts)
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

    def _connected(self) -> _Kept:
        if self._kept is None:
            self._kept = _Kept(self._engine.raw_connection())
        return self._kept

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            # Closing rolls back.
            kept.pooled.invalidate()


class _Kept:
    """A connection."""

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self.pooled = pooled
        self.driver = driver_of(pooled)
        self.turns = SQLiteTurns(self.driver)
        self.limit_s: float | None = None
        self._busy_ms = BUSY_TIMEOUT_MS
        # The pool gets it back closed: other connections move the log by themselves.
        self.driver.execute("PRAGMA wal_autocheckpoint=0")

    def wait_at_most(self, limit_s: float | None) -> None:
        """Wait so many seconds while it is locked out."""
        busy_ms = BUSY_TIMEOUT_MS if limit_s is None else math.ceil(limit_s / _STEP_S) * round(_STEP_S * 1000)
        if busy_ms != self._busy_ms:
            self.driver.execute(f"PRAGMA busy_timeout={busy_ms}")
        self.limit_s, self._busy_ms = limit_s, busy_ms


def _at_once(turns: SQLiteTurns, parts: Sequence[Part]) -> list[int | Exception] | None:
    """Add parts in one statement; None where nothing was written, and all is to be looked at."""
    first, count = parts[0], len(parts[0].offered)
    if len(parts) == 1:
        return [count] if _is_written(turns, first) else None
    if len(parts) > PARTS_AT_MOST or not 0 < count <= MESSAGES_AT_MOST:
        return None
    for part in parts:
        if part.opens is not first.opens or len(part.offered) != count:
            return None
    return [count] * len(parts) if turns.write(Kind.BEGINS if first.opens else Kind.GOES_ON, parts) else None


def _in_a_transaction(kept: _Kept, parts: Sequence[Part]) -> list[int | Exception]:
    """Add parts of which one needs another look, or more than one statement takes."""
    kept.driver.execute("BEGIN IMMEDIATE")
    outcomes: list[int | Exception] = [len(part.offered) for part in parts]
    rest: list[int] = []
    late: set[str] = set()
    for start in range(0, len(parts), PARTS_AT_MOST):
        some = parts[start : start + PARTS_AT_MOST]
        # As many as one statement takes were tried before.
        if len(parts) > PARTS_AT_MOST and not late and _at_once(kept.turns, some):
            continue
        for index, part in enumerate(some, start):
            name = part.head.conversation_id
            # No part overtakes another one of its conversation.
            if len(parts) == 1 or name in late or not _is_written(kept.turns, part):
                late.add(name)
                rest.append(index)
    if rest:
        looked_at = append_to(SQLiteRows(kept.driver), [parts[index] for index in rest])
        for index, outcome in zip(rest, looked_at, strict=True):
            outcomes[index] = outcome
    kept.driver.execute("COMMIT")
    return outcomes


def _is_written(turns: SQLiteTurns, part: Part) -> bool:
    """Whether a part could be added without a look at what is stored."""
    if not 0 < len(part.offered) <= MESSAGES_AT_MOST:
        return False
    return (not part.opens and turns.write(Kind.GOES_ON, [part])) or turns.write(Kind.BEGINS, [part])
