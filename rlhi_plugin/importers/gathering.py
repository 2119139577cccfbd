"""Rows that belong together, brought together on disk: a file may spread a conversation over all of its length."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlhi_plugin.importers.row import Place, Row


class Gathering:
    """Takes rows in any order and gives them back group by group. A context manager; its file is temporary."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rlhi-import-")
        self._database = sqlite3.connect(Path(self._folder.name) / "rows.db", isolation_level=None)
        # Nobody will read this file after a crash.
        self._database.executescript(
            """
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;
            CREATE TABLE rows (
                number INTEGER PRIMARY KEY, key TEXT, value TEXT, path TEXT, line INTEGER, unit TEXT, account TEXT);
            CREATE TABLE groups (key TEXT PRIMARY KEY, name TEXT);
            """
        )

    def add(self, row: Row, place: Place) -> None:
        """Keep a row until its group is complete."""
        self._database.execute(
            "INSERT INTO rows (key, value, path, line, unit, account) VALUES (?, ?, ?, ?, ?, ?)",
            (place.key, json.dumps(row.value, default=_spelled), str(row.path), row.line, row.unit, row.account),
        )
        if place.group is not None:
            self._database.execute("INSERT OR IGNORE INTO groups VALUES (?, ?)", (place.key, place.group))

    def groups(self) -> Iterator[list[Row]]:
        """The rows of each group in the order in which they came; groups in the order of their first rows."""
        self._database.executescript(
            """
            CREATE TABLE grouped AS
                SELECT number, min(number) OVER (PARTITION BY name IS NULL, coalesce(name, rows.key)) AS first
                FROM rows LEFT JOIN groups ON rows.key = groups.key;
            CREATE INDEX by_first ON grouped (first, number);
            """
        )
        found = self._database.execute(
            "SELECT first, value, path, line, unit, account FROM grouped JOIN rows USING (number)"
            " ORDER BY first, number"
        )
        for _, group in groupby(found, key=lambda row: row[0]):
            yield [Row(json.loads(value), Path(path), *rest) for _, value, path, *rest in group]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()


def _spelled(value: Any) -> str:
    """Times and other values that a Parquet file may hold and JSON has no word for."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
