"""Rows of a CSV file, numbered by the line on which each begins."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from rlhi_plugin.importers.limits import LIMIT


def csv_rows(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The line on which a row begins, with its cells by column name or the ValueError that says why there are none."""
    # The module's own limit of 128 KiB a cell is less than one long answer. It holds for the process: only raise it.
    csv.field_size_limit(max(csv.field_size_limit(), LIMIT))
    # Bytes that are not UTF-8 become surrogates, so that they spoil their own row alone.
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text)
        columns = next(reader, None)
        while columns is not None:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield number, ValueError(str(error))
                continue
            if cells is None:
                return
            if cells:
                yield number, _row(columns, cells)


def _row(columns: list[str], cells: list[str]) -> dict[str, str] | ValueError:
    if len(cells) != len(columns):
        return ValueError(f"{len(cells)} cells, but {len(columns)} columns")
    for column, cell in zip(columns, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            return ValueError(f"not UTF-8 in the column {column!a}, at character {error.start}")
    return dict(zip(columns, cells, strict=True))
