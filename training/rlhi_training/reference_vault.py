"""Reference log-probabilities, kept between runs.

DPO compares the policy with its base, whose weights never change: what it thinks of an answer is computed once, by
whichever run comes first, and read by every epoch, sweep and later run. An entry's name is a digest of the base's
weights, the number format and the tokens of prompt and answer; the tokens already say which chat template made them.
A vault can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

_log = logging.getLogger("rlhi.training")

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt, and of an answer to it."""

_AT_ONCE = 500
_TABLE = "CREATE TABLE IF NOT EXISTS reference (digest BLOB PRIMARY KEY, log_prob REAL NOT NULL) WITHOUT ROWID"


class ReferenceVault:
    """Log-probabilities of answers under one base, in one SQLite file. A vault that cannot be used is as good as empty.

    Args:
        file: Created with its folder when absent; runs may share it at the same time.
        base_digest: Of the base's weights (`rlhi_adapters.base_models`).
        numbers: What else the values depend on: number format, and options of the loss that reach into them.
    """

    def __init__(self, file: Path, *, base_digest: str, numbers: str) -> None:
        self._file = file
        self._salt = hashlib.sha256(f"{base_digest}\0{numbers}".encode()).digest()
        self._connection = self._open()

    def get(self, rows: Sequence[Row]) -> list[float | None]:
        """The kept values in the order of `rows`; None where there is none."""
        digests = [self._digest(row) for row in rows]
        found: dict[bytes, float] = {}
        if self._connection is not None:
            try:
                for some in _batches(sorted(set(digests))):
                    marks = ",".join("?" * len(some))
                    query = f"SELECT digest, log_prob FROM reference WHERE digest IN ({marks})"  # noqa: S608 - only question marks
                    found |= dict(self._connection.execute(query, some))
            except sqlite3.Error as error:
                self._give_up(error)
        return [found.get(digest) for digest in digests]

    def put(self, rows: Sequence[Row], log_probs: Sequence[float]) -> None:
        """Keep one value a row."""
        if self._connection is None:
            return
        named = [(self._digest(row), value) for row, value in zip(rows, log_probs, strict=True)]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO reference VALUES (?, ?)", named)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Release the file. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection | None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._file, timeout=30)
            try:
                with closing(connection.cursor()) as cursor:
                    cursor.execute("PRAGMA journal_mode=WAL")
                    cursor.execute(_TABLE)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            self._warn(error)
            return None
        return connection

    def _give_up(self, error: Exception) -> None:
        self._warn(error)
        self.close()

    def _warn(self, error: Exception) -> None:
        _log.warning(
            "reference log-probabilities are computed anew: %s cannot be used (%s). Delete it if it is damaged.",
            self._file,
            error,
        )

    def _digest(self, row: Row) -> bytes:
        prompt, answer = (array("q", ids).tobytes() for ids in row)
        return hashlib.sha256(self._salt + len(prompt).to_bytes(8, "little") + prompt + answer).digest()


def _batches(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(digests), _AT_ONCE):
        yield digests[start : start + _AT_ONCE]
