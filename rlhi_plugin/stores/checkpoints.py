"""Moving SQLite's write-ahead log into the file, while turns go on being written.

SQLite does it by itself at the end of a commit, every thousand pages: then one turn in a hundred waits for two more
fsyncs and a thousand writes. A passive checkpoint on a connection of its own keeps nobody from reading or writing.

But while others write on, it never gets to the log's end, so that SQLite never begins the log anew: it grows without
bounds, and to make a file longer takes the disk and the processor up to twice as long as to write over what is there.
So the few pages that came meanwhile are moved while no append of this process runs.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from rlhi_plugin.stores.direct import SQLiteError, driver_of

COMMITS = 128
"""Commits after which the log is moved: about as many as fill SQLite's own thousand pages (ours)."""
_PATIENCE_S = 0.1
"""Seconds to wait for appends to pause; in vain, the next checkpoint gets to the log's end (ours)."""

_log = logging.getLogger("rlhi.store")


class Checkpoints:
    """Checkpoints in a thread that lives as long as one takes.

    Args:
        engine: The database's.
        appending: Gives the lock that whoever appends in this process holds.
    """

    def __init__(self, engine: Engine, appending: Callable[[], threading.Lock]) -> None:
        self._engine = engine
        self._appending = appending
        self._commits = 0
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """Say that a transaction was committed; called from one thread at a time."""
        self._commits += 1
        if self._commits < COMMITS or (self._thread is not None and self._thread.is_alive()):
            return
        self._commits = 0
        self._thread = threading.Thread(target=self._checkpoint, name="rlhi-checkpoint", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down; SQLite moves the log when the file is closed
            self._thread = None

    def wait(self) -> None:
        """Wait for a checkpoint in progress."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def after_fork(self) -> None:
        """In a child process: the thread is the parent's."""
        self._thread = None

    def _checkpoint(self) -> None:
        try:
            with closing(self._engine.raw_connection()) as connection:
                _move(driver_of(connection))
                self._move_rest(driver_of(connection))
        except (SQLAlchemyError, SQLiteError) as error:
            # Nothing is lost: the log only grows until the next one.
            _log.warning("the write-ahead log of %s could not be moved into it: %s", self._engine.url.database, error)

    def _move_rest(self, driver: sqlite3.Connection) -> None:
        appending = self._appending()
        if appending.acquire(timeout=_PATIENCE_S):
            try:
                _move(driver)
            finally:
                appending.release()


def _move(driver: sqlite3.Connection) -> None:
    """Move what is in the log now, and what can be moved without making anybody wait."""
    driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
