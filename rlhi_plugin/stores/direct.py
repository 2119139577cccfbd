"""Statements that run past SQLAlchemy, for the one path where its time counts: appending to SQLite.

SQLAlchemy takes 20 to 50 microseconds to run a statement for which SQLite needs 2 to 10. Beside a write that waits 200
for the disk, that would double the time of a turn. So the statement is still Core's, but it is compiled once and given
to the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Select
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

    def first(self, connection: Connection, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The first row that is selected, or None."""
        row = _driver(connection).execute(self._sql, self._values(parameters)).fetchone()
        if row is None:
            return None
        converted = zip(row, self._results, strict=True)
        return tuple(value if convert is None else convert(value) for value, convert in converted)

    def insert(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run once for each row; how many rows came into being."""
        return int(_driver(connection).executemany(self._sql, [self._values(row) for row in rows]).rowcount)

    def _values(self, given: Mapping[str, Any]) -> list[Any]:
        constants = self._constants
        return [
            (value if convert is None else convert(value))
            for value, convert in (
                (given[name] if name in given else constants[name], convert) for name, convert in self._parameters
            )
        ]


def _driver(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - the transaction has begun on it
    return driver
