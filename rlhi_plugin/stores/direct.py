"""Statements that run past SQLAlchemy, where its time counts: appending to SQLite, and reading all of it.

SQLAlchemy takes 20 to 50 microseconds to run a statement for which SQLite needs 2 to 10. Beside a write that waits 200
for the disk, that would double the time of a turn. So the statement is still Core's, but it is compiled once and given
to the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Insert, PoolProxiedConnection, Select
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect
from sqlalchemy.sql.compiler import SQLCompiler

_Convert = Callable[[Any], Any] | None


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
        self._parameters: list[tuple[str, _Convert]] = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        columns = statement.selected_columns if isinstance(statement, Select) else ()
        self._results: list[_Convert] = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]

    def rows(self, driver: sqlite3.Connection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows that are selected."""
        return [
            tuple(value if convert is None else convert(value) for value, convert in zip(row, self._results, strict=True))
            for row in driver.execute(self._sql, self._values(parameters)).fetchall()
        ]

    def insert(self, driver: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run once for each row; how many rows came into being."""
        return driver.executemany(self._sql, [self._values(row) for row in rows]).rowcount

    def _values(self, given: Mapping[str, Any]) -> list[Any]:
        constants = self._constants
        return [
            (value if convert is None else convert(value))
            for value, convert in (
                (given[name] if name in given else constants[name], convert) for name, convert in self._parameters
            )
        ]


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
