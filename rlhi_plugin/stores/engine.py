"""Opening a database: its tables are made or brought up to date, and vendor errors become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from rlhi_plugin.errors import ConfigError, StoreError, StoreTimeoutError
from rlhi_plugin.stores.address import database_file, display_url, parse_url
from rlhi_plugin.stores.dialects import lock_schema, make_engine, writing
from rlhi_plugin.stores.schema import STORE_SCHEMA, meta, metadata


def open_engine(url: str, *, create: bool) -> Engine:
    """Connect; create the tables where there are none, and bring older ones up to date where that only adds to them.

    Raises:
        ConfigError: see `parse_url`; also when the file or its folder is absent and may not be created.
        MissingExtraError: the store is on PostgreSQL, and its driver is not installed.
        StoreError: the database cannot be opened, is none, has a newer schema, or needs `rlhi db upgrade`.
    """
    engine = connect(url, create=create)
    try:
        prepare(engine, url, create=create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def prepare(engine: Engine, url: str, *, create: bool) -> None:
    """Create the tables where there are none, and bring older ones up to date where that only adds to them.

    Raises:
        ConfigError: there are none, and they may not be created.
        StoreError: see `open_engine`.
    """
    with translated(f"open the store {display_url(url)}"):
        _prepare_schema(engine, url, create=create)


def may_come_back(error: StoreError) -> bool:
    """Whether what is wrong with a store may pass without a change of its URL, its rights or this program."""
    if isinstance(error, StoreTimeoutError):
        return True
    # What we say ourselves, about a newer schema for instance, has no cause.
    cause = error.__cause__
    if isinstance(cause, SQLAlchemyError | sqlite3.Error):
        return not any(words in str(cause) for words in _FOR_GOOD)
    return isinstance(cause, OSError)


_FOR_GOOD = ("authentication failed", "does not exist", "must be owner", "permission denied", "no pg_hba.conf entry")


def connect(url: str, *, create: bool) -> Engine:
    """An engine for the database at `url`, whose tables are left as they are.

    Raises:
        ConfigError, MissingExtraError: see `open_engine`.
    """
    parsed: URL = parse_url(url)
    file = database_file(url)
    if file is not None and not file.parent.is_dir():
        raise ConfigError(f"the folder of the store does not exist: {file.parent}. Create it, or correct the URL.")
    if file is not None and not create and not file.exists():
        raise ConfigError(f"there is no store at {file}. Correct the URL, or log or import something into it first.")
    return make_engine(parsed)


def stored_schema(connection: Connection) -> int | None:
    """The `STORE_SCHEMA` of the tables in this database, or None where there are none of ours."""
    if not connection.dialect.has_table(connection, meta.name):
        return None
    found = connection.execute(select(meta.c.value).where(meta.c.key == "schema")).scalar_one_or_none()
    return None if found is None else int(found)


def refuse_newer(found: int, where: str) -> None:
    """Raise where the tables were made by a later program than this one.

    Raises:
        StoreError: they were.
    """
    if found > STORE_SCHEMA:
        raise StoreError(
            f"{where} was written by a newer RLHI (schema {found}; this one knows {STORE_SCHEMA}). "
            "Upgrade with: pip install --upgrade rlhi"
        )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what SQLAlchemy and its drivers raise into a `StoreError` that says what to do."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StoreError(f"cannot {doing}: {cause}. {_remedy(cause)}") from error
    except UnicodeEncodeError as error:
        raise StoreError(f"cannot {doing}: {error}. Replace lone surrogates in the text first.") from error
    except OverflowError as error:
        raise StoreError(f"cannot {doing}: {error}. Give numbers below 2^63.") from error


def _remedy(cause: str) -> str:
    remedies = {
        "locked": "Another process holds it; find the long-running writer and try again.",
        "full": "The disk is full; free some space.",
        "No space left": "The server's disk is full; free some space.",
        "readonly": "Give this user write permission to the file and its folder.",
        "unable to open": "Check that the path is a file that this user may read and write.",
        "not a database": "The file is something else; give another path.",
        "malformed": "The file is damaged; restore it from a backup, or rescue rows with: sqlite3 FILE .recover",
        "authentication failed": "Check the user and the password in the URL.",
        "must be owner": "Upgrade the tables as their owner, with: rlhi db upgrade --store URL",
        "permission denied": "Grant this role its rights; tables are made and upgraded by their owner.",
        "does not exist": "Create the database or the role on the server first, or correct the URL.",
        "resolve host": "Check the host in the URL, and that its name can be looked up from here.",
        "connection": "Check that the server runs, and the host and port in the URL.",
        "out of range": "Give smaller numbers.",
    }
    return next((text for key, text in remedies.items() if key in cause), "Check the database and its permissions.")


def _prepare_schema(engine: Engine, url: str, *, create: bool) -> None:
    with engine.connect() as connection:
        found = stored_schema(connection)
    if found == STORE_SCHEMA:
        return
    where = display_url(url)
    if found is None and not create and database_file(url) is None:
        raise ConfigError(f"there is no store in {where}. Correct the URL, or log or import something into it first.")
    with writing(engine).begin() as connection:
        lock_schema(connection)
        # Another process may have been faster.
        found = stored_schema(connection)
        if found is None:
            metadata.create_all(connection)
            connection.execute(meta.insert().values(key="schema", value=str(STORE_SCHEMA)))
            return
        refuse_newer(found, where)
        if found < STORE_SCHEMA:
            from rlhi_plugin.stores.upgrading import upgrade_if_only_added

            upgrade_if_only_added(connection, found, where)
