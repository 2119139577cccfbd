"""Rows of a benchmark from local files: JSONL, packed or not, or CSV; columns renamed to what the task expects."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import ConfigError, RecordError


def read_rows(path: Path, columns: Mapping[str, str], *, how_to_get: str) -> list[dict[str, Any]]:
    """All rows of a file.

    Args:
        path: ``.jsonl``, ``.jsonl.gz`` or ``.csv``.
        columns: Name in the file to the name that the task expects.
        how_to_get: What the message says where the file is absent.

    Raises:
        ConfigError: there is no such file, it is of another kind, or it holds no row.
        RecordError: a line is damaged; names file and line.
    """
    rows = _csv_rows(path, how_to_get) if path.suffix == ".csv" else _json_rows(path, how_to_get)
    if not rows:
        raise ConfigError(f"{path} holds no row. {how_to_get}")
    if missing := [name for name in columns if name not in rows[0]]:
        raise ConfigError(f"{path} has no column {', '.join(missing)}; it has {', '.join(rows[0])}. {how_to_get}")
    return [{columns.get(name, name): value for name, value in row.items()} for row in rows]


def refuse_doubled(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """An item that is there twice would count twice.

    Raises:
        ConfigError: two rows are the same in all columns; names the places of the first such pair.
    """
    seen: dict[str, int] = {}
    for place, row in enumerate(rows, start=1):
        first = seen.setdefault(digest_of([row]), place)
        if first != place:
            raise ConfigError(f"{path}: row {place} is row {first} again. Keep one of them.")


def digest_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the rows in their order, wherever they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _json_rows(path: Path, how_to_get: str) -> list[dict[str, Any]]:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"{path} is neither .jsonl, .jsonl.gz nor .csv. {how_to_get}")
    rows = []
    for number, line in enumerate(_text(path, how_to_get).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordError("no JSON. Get the file again.", path=path, line=number) from error
        if not isinstance(row, dict):
            raise RecordError("no JSON object. Get the file again.", path=path, line=number)
        rows.append(row)
    return rows


def _csv_rows(path: Path, how_to_get: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(path, how_to_get), newline=""))
    return [{str(name): value for name, value in row.items() if name is not None} for row in reader]


def _text(path: Path, how_to_get: str) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing. {how_to_get}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. {how_to_get}") from error
