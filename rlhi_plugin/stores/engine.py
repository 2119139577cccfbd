"""Opening a database: what a store URL may be, how SQLite is made durable, and how vendor errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.stores.schema import STORE_SCHEMA, meta, metadata

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another process's write before it gives up."""

_EXAMPLE = "Write it as sqlite:///rlhi.db (a file in this folder) or sqlite:////var/lib/rlhi.db (an absolute path)."


def database_file(url: str) -> Path:
    """The file that a store URL names.

    Raises:
        ConfigError: the URL is malformed, of another database, or names no file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(f"{url!r} is not a store URL. {_EXAMPLE}") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ConfigError(f"stores on {parsed.drivername!r} are not supported, only SQLite. {_EXAMPLE}")
    if parsed.host or not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigError(f"{url!r} names no file that would outlive the process. {_EXAMPLE}")
    return Path(parsed.database)


def open_engine(url: str, *, create: bool) -> Engine:
    """Connect, and create the tables where there are none.

    Raises:
        ConfigError: see `database_file`; also when the file or its folder is absent and may not be created.
        StoreError: the file cannot be opened, is no database, or has a newer schema.
    """
    file = database_file(url)
    if not file.parent.is_dir():
        raise ConfigError(f"the folder of the store does not exist: {file.parent}. Create it, or correct the URL.")
    if not create and not file.exists():
        raise ConfigError(f"there is no store at {file}. Correct the URL, or log or import something into it first.")
    # Writers queue on a lock of ours and readers are few: a pool without a ceiling cannot deadlock.
    engine = create_engine(f"sqlite+pysqlite:///{file}", pool_size=8, max_overflow=-1)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin)
    with translated(f"open the store {file}"):
        _prepare_schema(engine, file)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the write lock at once."""
    return engine.execution_options(rlhi_writes=True)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what SQLAlchemy and SQLite raise into a `StoreError` that says what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error)
        raise StoreError(f"cannot {doing}: {cause}. {_remedy(cause)}") from error
    except UnicodeEncodeError as error:
        raise StoreError(f"cannot {doing}: {error}. Replace lone surrogates in the text first.") from error


def _remedy(cause: str) -> str:
    remedies = {
        "locked": "Another process holds it; find the long-running writer and try again.",
        "full": "The disk is full; free some space.",
        "readonly": "Give this user write permission to the file and its folder.",
        "unable to open": "Check that the path is a file that this user may read and write.",
        "not a database": "The file is something else; give another path.",
        "malformed": "The file is damaged; restore it from a backup, or rescue rows with: sqlite3 FILE .recover",
    }
    return next((text for key, text in remedies.items() if key in cause), "Check the file and its permissions.")


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own implicit BEGIN is deferred and would meet SQLITE_BUSY in the middle of a transaction.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("rlhi_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_schema(engine: Engine, file: Path) -> None:
    with writing(engine).begin() as connection:
        metadata.create_all(connection)
        found = connection.execute(select(meta.c.value).where(meta.c.key == "schema")).scalar_one_or_none()
        if found is None:
            connection.execute(meta.insert().values(key="schema", value=str(STORE_SCHEMA)))
        elif int(found) > STORE_SCHEMA:
            raise StoreError(
                f"{file} was written by a newer RLHI (schema {found}; this one knows {STORE_SCHEMA}). "
                "Upgrade with: pip install --upgrade rlhi"
            )
