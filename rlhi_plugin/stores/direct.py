"""Statements that run past SQLAlchemy, where its time counts: appending to SQLite, and reading all of it.

SQLAlchemy takes 20 to 50 microseconds to run a statement for which SQLite needs 2 to 10. Beside a write that waits 200
for the disk, that would double the time of a turn. So the statement is still Core's, but it is compiled once and given
to the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Insert, PoolProxiedConnection, Select
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect
from sqlalchemy.sql.compiler import SQLCompiler

SQLiteError = sqlite3.Error
"""What the driver raises."""

_Convert = Callable[[Any], Any]


class SQLiteStatement:
    """A statement that was compiled for SQLite. What it raises is the driver's, `sqlite3.Error`.

    Args:
        statement: Its parameters are `bindparam`s, none of them expanding.
    """

    def __init__(self, statement: Insert | Select[Any]) -> None:
        dialect = sqlite_dialect(paramstyle="qmark")
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - an INSERT or a SELECT compiles to nothing else
        self._sql = str(compiled)
        self._constants = compiled.params
        self._names = compiled.positiontup or []
        self._given = _conversions(
            compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in self._names
        )
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        self._found = _conversions(
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        )

    def rows(self, driver: sqlite3.Connection, parameters: Mapping[str, Any]) -> list[Sequence[Any]]:
        """All rows that are selected."""
        found = driver.execute(self._sql, self._values(parameters)).fetchall()
        return [_converted(list(row), self._found) for row in found]

    def one(self, driver: sqlite3.Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """The row that is selected, where there always is one."""
        row = driver.execute(self._sql, self._values(parameters)).fetchone()
        assert row is not None  # noqa: S101 - the statement gives a row whatever is stored
        return _converted(list(row), self._found)

    def insert(self, driver: sqlite3.Connection, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run it; the cursor knows how many rows came into being, and the number of the last one."""
        return driver.execute(self._sql, self._values(parameters))

    def _values(self, given: Mapping[str, Any]) -> list[Any]:
        whole = {**self._constants, **given}
        return _converted([whole[name] for name in self._names], self._given)


def _conversions(processors: Iterable[_Convert | None]) -> list[tuple[int, _Convert]]:
    """Which values are converted, by position: most are not, and asking each of them takes time."""
    return [(position, convert) for position, convert in enumerate(processors) if convert is not None]


def _converted(values: list[Any], conversions: Sequence[tuple[int, _Convert]]) -> list[Any]:
    for position, convert in conversions:
        values[position] = convert(values[position])
    return values


def read_rows(connection: Connection, query: Select[Any], at_once: int) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows of a query, `at_once` at a time, with values as the database has them."""
    if connection.dialect.name != "sqlite":
        with closing(connection.execution_options(yield_per=at_once).execute(query)) as result:
            yield from result.partitions()
        return
    compiled = query.compile(dialect=connection.dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - a SELECT compiles to nothing else
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    if not connection.in_transaction():
        # What is read by other statements on this connection belongs to the same snapshot.
        connection.begin()
    cursor = driver_of(connection.connection).execute(str(compiled), values)
    with closing(cursor):
        while rows := cursor.fetchmany(at_once):
            yield rows


def driver_of(connection: PoolProxiedConnection) -> sqlite3.Connection:
    """The driver's connection under one of the pool's to SQLite."""
    driver = connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the pool has handed it out, and it is SQLite's
    return driver
