"""What SQLite and PostgreSQL each do their own way: engine options, locks, inserts, and getting rid of bytes."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError

from rlhi_plugin.errors import MissingExtraError

DIALECTS = ("sqlite", "postgresql")
"""As SQLAlchemy names them."""

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another process's write before it gives up."""

CONNECT_TIMEOUT_S = 5
"""How long a server may take to answer before it counts as down, unless the URL says otherwise."""

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(key) FROM unnest(CAST(:keys AS bigint[])) AS key")
_SCHEMA_LOCK = "rlhi schema"

_RETRIED = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock: the transaction was rolled back and may be run again."""


def make_engine(url: URL) -> Engine:
    """An engine whose commits are on disk when they return.

    Raises:
        MissingExtraError: the URL is PostgreSQL's, and psycopg is not installed.
    """
    if url.get_backend_name() == "sqlite":
        # Writers queue on a lock of ours and readers are few: a pool without a ceiling cannot deadlock.
        engine = create_engine(url, pool_size=8, max_overflow=-1)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "rlhi"}
    try:
        engine = create_engine(
            url,
            pool_size=4,
            max_overflow=-1,
            # A server that was restarted leaves dead connections in the pool.
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={name: value for name, value in options.items() if name not in url.query},
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgres") from error
    event.listen(engine, "connect", _configure_postgresql)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions on SQLite take the write lock at once."""
    return engine.execution_options(rlhi_writes=True)


def insert_if_absent(dialect: str, table: Table, key: Sequence[str]) -> SQLiteInsert | PostgreSQLInsert:
    """An INSERT that does nothing where a stored row has the same `key` columns; its row count is 0 there.

    On PostgreSQL it waits for other transactions that are inserting the same key.
    """
    insert = sqlite_insert if dialect == "sqlite" else postgresql_insert
    # inline: nothing has to come back but the row count, which SQLAlchemy keeps for an INSERT only when told so.
    statement = insert(table).inline().execution_options(preserve_rowcount=True)
    return statement.on_conflict_do_nothing(index_elements=list(key))


def insert_or_replace(dialect: str, table: Table, key: str, row: Mapping[str, Any]) -> SQLiteInsert | PostgreSQLInsert:
    """An INSERT of one row that overwrites the stored row with the same `key` column."""
    if dialect == "sqlite":
        return sqlite_insert(table).values(row).on_conflict_do_update(index_elements=[key], set_=dict(row))
    return postgresql_insert(table).values(row).on_conflict_do_update(index_elements=[key], set_=dict(row))


def lock_users(connection: Connection, users: Iterable[str | None], *, alone: bool = False) -> None:
    """Keep users from being forgotten until the transaction ends; with `alone`, keep everybody else from writing them.

    SQLite has one writer anyway. On PostgreSQL it must come before any row is locked: that order excludes deadlocks
    with `forget`.
    """
    if connection.dialect.name == "sqlite":
        return
    keys = sorted(_lock_key(user) for user in set(users) if user is not None)
    if alone:
        for key in keys:
            connection.execute(_LOCK, {"key": key})
    elif keys:
        connection.execute(_LOCK_SHARED, {"keys": keys})


def lock_schema(connection: Connection) -> None:
    """Let no other process create or change tables until the transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(_LOCK, {"key": _lock_key(_SCHEMA_LOCK)})


def may_run_again(error: DBAPIError) -> bool:
    """Whether the database gave up a transaction only because of another one, so that it may be tried again."""
    return getattr(error.orig, "sqlstate", None) in _RETRIED


def erase_deleted(engine: Engine) -> bool:
    """Rid the files of the bytes of rows that were deleted.

    SQLite overwrites deleted rows, but a page that was split before may hold a second copy of one; only writing the
    file anew is sure to lose it. That takes as long as copying it, and other writers wait.

    Returns:
        Whether no byte of them is left. False on SQLite while another process reads on and on, and always on
        PostgreSQL, which frees them at its own time (vacuum) and keeps a write-ahead log.
    """
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None  # noqa: S101 - the pool has just handed it out
        try:
            driver.execute("VACUUM")
        except sqlite3.OperationalError:
            # Busy, or no room for a second file: the deletion itself is done.
            return False
    return truncate_log(engine)


def truncate_log(engine: Engine) -> bool:
    """Move SQLite's write-ahead log, in which deleted text may still stand, into the file and empty it.

    Returns:
        Whether it is empty: not so while another process reads an older state, nor on PostgreSQL.
    """
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None  # noqa: S101 - the pool has just handed it out
        busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own implicit BEGIN is deferred and would meet SQLITE_BUSY in the middle of a transaction.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What is deleted is overwritten with zeros, not only marked as free.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Two processes that change the mode of a new file at once: SQLite refuses one of them without waiting.
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("rlhi_writes", False)
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a transaction begins on a connection
    # Past SQLAlchemy, whose way to run a statement costs as much as the rest of an append.
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_postgresql(connection: Any, _record: object) -> None:
    # A role or database may have turned durability off for everybody; for us a commit must be on disk.
    query = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    with connection.cursor() as cursor:
        cursor.execute(query)
    connection.commit()


def _lock_key(name: str) -> int:
    """A 64-bit number for the name, among all that a database's advisory locks share."""
    return int.from_bytes(hashlib.sha256(f"rlhi:{name}".encode()).digest()[:8], "big", signed=True)
