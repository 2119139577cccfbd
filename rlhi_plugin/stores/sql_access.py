"""How an SQL database is read and written: one transaction at a time where it has one writer, again where it asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from rlhi_plugin.stores.dialects import may_run_again, writing
from rlhi_plugin.stores.engine import translated
from rlhi_plugin.stores.sqlite_reads import SQLiteReads

T = TypeVar("T")

_TRIES = 5
"""How often a transaction is run that the database gives up because of another one."""


class SQLAccess:
    """Connections of an engine. What the database raises becomes a `StoreError`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)
        # SQLite has one writer; threads queue here fairly instead of polling the file's lock.
        self._write_lock = threading.Lock()
        self._reads = SQLiteReads(engine) if engine.dialect.name == "sqlite" else None

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        with translated(doing), self._engine.connect() as connection:
            yield connection

    def _write(self, doing: str, work: Callable[[Connection], T]) -> T:
        """Run `work` in one durable transaction, again where the database asks for that."""
        with self._write_lock, translated(doing):
            for _ in range(_TRIES - 1):
                try:
                    return self._transaction(work)
                except DBAPIError as error:
                    if not may_run_again(error):
                        raise
            return self._transaction(work)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with self._writer.begin() as connection:
            return work(connection)
