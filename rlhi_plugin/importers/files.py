"""Files, archives and folders as rows: what the kinds of files have in common, and where each kind is read.

``.jsonl``, ``.json`` (an array, or objects), ``.csv``, each also with ``.gz``; ``.parquet``; ``.zip`` and folders that
hold these. A file that is damaged gives its good rows and then an error.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from pydantic_core import from_json

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.importers import chatgpt_export
from rlhi_plugin.importers.csv_rows import csv_rows
from rlhi_plugin.importers.json_values import json_values
from rlhi_plugin.importers.limits import LIMIT
from rlhi_plugin.importers.parquet_rows import parquet_rows
from rlhi_plugin.importers.row import Row

Unread = Callable[[Collection[str]], Collection[str]]

Opened = Callable[[], AbstractContextManager[BinaryIO]]

Watch = Callable[[int], object]
"""Hears how many more bytes were read from disk."""

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_BOM = b"\xef\xbb\xbf"
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError)
"""What reading a damaged file raises; RuntimeError comes from an encrypted archive."""


@dataclass(frozen=True, slots=True)
class _Source:
    """One file, wherever it is."""

    path: Path
    kind: str
    open: Opened
    account: str | None = None


def rows_of(path: str | Path, unread: Unread, watch: Watch | None = None) -> Iterator[Row | RecordError]:
    """The rows of a file, or of all the files in an archive or folder, in the order of their names.

    Other files of an archive or a folder are not looked at.

    Args:
        path: The file, archive or folder.
        unread: Of the columns of a Parquet file, those that nobody will look at.
        watch: Hears of progress.

    Raises:
        ConfigError: there is no such file, there is no log in the folder, or it cannot be opened. At once, not when the
            first row is asked for.
    """
    file = Path(path)
    if file.is_dir():
        sources = _in_folder(file, watch)
    elif _kind(file.name) == ".zip":
        sources = _in_archive(file, watch)
    else:
        sources = [_Source(file, _kind(file.name) or ".jsonl", partial(_opened, file, watch))]
    for source in sources[:1]:
        # A file that cannot be opened is the caller's mistake, and is said before anything is read.
        try:
            with source.open():
                pass
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}. Give the path of a log.") from error
        except _DAMAGE:
            break  # A damaged or locked part of an archive is reported in its place.
    if not sources:
        raise ConfigError(f"{file} holds no log. Put .jsonl, .json, .csv or .parquet files there, or name one.")
    return (row for source in sources for row in _rows(source, unread))


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of a JSONL file.

    Attributes:
        path: The file.
        start: Its first byte.
        end: The byte after its last.
        line: Number of its first line, from 1.
    """

    path: Path
    start: int
    end: int
    line: int


def plain_files(path: str | Path) -> list[Path] | None:
    """The JSONL files that a log consists of, in the order in which it is read; None where it has any other part."""
    file = Path(path)
    sources = (
        _in_folder(file, None)
        if file.is_dir()
        else [_Source(file, _kind(file.name) or ".jsonl", partial(_opened, file, None))]
    )
    if not sources or any(one.kind != ".jsonl" or one.path.suffix == ".gz" or one.account for one in sources):
        return None
    return [one.path for one in sources]


def parts_of(path: Path, size: int) -> Iterator[Part]:
    """A JSONL file in parts of about so many bytes."""
    with path.open("rb") as stream:
        start, line, lines, end = 0, 1, 0, 0
        while chunk := stream.read(1 << 20):
            last = chunk.rfind(b"\n")
            if last >= 0 and end + last + 1 - start >= size:
                lines += chunk.count(b"\n")
                yield Part(path, start, end + last + 1, line)
                start, line, lines = end + last + 1, line + lines, 0
            else:
                lines += chunk.count(b"\n")
            end += len(chunk)
        if end > start:
            yield Part(path, start, end, line)


class _Lines:
    """The lines of a part, for who reads line by line."""

    def __init__(self, stream: BinaryIO, part: Part) -> None:
        stream.seek(part.start)
        self._stream, self._left = stream, part.end - part.start

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(min(limit, self._left))
        self._left -= len(line)
        return line


def rows_of_part(part: Part) -> Iterator[Row | RecordError]:
    """As `rows_of`, for a part of a file."""
    where = partial(RecordError, path=part.path, unit="line")
    with part.path.open("rb") as stream:
        for number, value in _jsonl(cast("BinaryIO", _Lines(stream, part))):
            line = part.line + number - 1
            if isinstance(value, ValueError):
                yield where(str(value), line=line)
            elif not isinstance(value, dict):
                yield where("not a JSON object", line=line)
            else:
                yield Row(value, part.path, line)


def size_of(path: str | Path) -> int:
    """Bytes on disk of what `rows_of` reads."""
    file = Path(path)
    files = [inner for inner in file.rglob("*") if _kind(inner.name) is not None] if file.is_dir() else [file]
    return sum(inner.stat().st_size for inner in files if inner.is_file())


def _kind(name: str) -> str | None:
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return {".ndjson": ".jsonl"}.get(suffix, suffix if suffix in {*_READERS, ".parquet", ".zip"} else None)


class _Watched(io.FileIO):
    """A file that says how much of it was read."""

    def __init__(self, file: Path, watch: Watch) -> None:
        super().__init__(file, "rb")
        self._watch = watch

    def readinto(self, buffer: Any, /) -> int | None:
        count = super().readinto(buffer)
        self._watch(count or 0)
        return count


@contextmanager
def _opened(file: Path, watch: Watch | None) -> Iterator[BinaryIO]:
    with _on_disk(file, watch) as stream, _unpacked(stream, file.name) as unpacked:
        yield unpacked


@contextmanager
def _opened_member(file: Path, member: str, watch: Watch | None) -> Iterator[BinaryIO]:
    with (
        _on_disk(file, watch) as stream,
        zipfile.ZipFile(stream) as archive,
        archive.open(member) as packed,
        _unpacked(cast("BinaryIO", packed), member) as unpacked,
    ):
        yield unpacked


def _on_disk(file: Path, watch: Watch | None) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Watched(file, watch)) if watch else file.open("rb"))


def _unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    return cast("BinaryIO", gzip.open(stream, "rb")) if name.lower().endswith(".gz") else stream


def _in_folder(folder: Path, watch: Watch | None) -> list[_Source]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    names = chatgpt_export.files_to_read([file.name for file in files])
    account = _account([(file.name, partial(_opened, file, watch)) for file in files])
    sources = []
    for file in files:
        kind = _kind(file.name)
        if kind is not None and file.name in names:
            sources += (
                _in_archive(file, watch)
                if kind == ".zip"
                else [_Source(file, kind, partial(_opened, file, watch), account)]
            )
    return sources


def _in_archive(file: Path, watch: Watch | None) -> list[_Source]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(name for name in archive.namelist() if not name.endswith("/"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}. Give the path of a log.") from error
    except zipfile.BadZipFile as error:
        raise ConfigError(f"cannot read {file}: {error}. Fetch the archive again.") from error
    names = chatgpt_export.files_to_read([Path(member).name for member in members])
    openers = {member: partial(_opened_member, file, member, watch) for member in members}
    account = _account([(Path(member).name, openers[member]) for member in members])
    return [
        _Source(file / member, kind, openers[member], account)
        for member in members
        if Path(member).name in names and (kind := _kind(member)) not in {None, ".zip"} and kind is not None
    ]


def _account(files: list[tuple[str, Opened]]) -> str | None:
    """Whose log it is, where one of the files says so."""
    for name, opened in files:
        if name == chatgpt_export.ACCOUNT_FILE:
            try:
                with opened() as stream:
                    return chatgpt_export.account_in(json.loads(stream.read(1 << 20)))
            except _DAMAGE:
                return None
    return None


def _rows(source: _Source, unread: Unread) -> Iterator[Row | RecordError]:
    number = 0
    unit: Literal["line", "record"] = "line" if source.kind in {".jsonl", ".csv"} else "record"
    where = partial(RecordError, path=source.path, unit=unit)
    try:
        with source.open() as stream:
            read = _READERS.get(source.kind)
            for number, value in read(stream) if read else _numbered_parquet(stream, unread):
                if isinstance(value, ValueError):
                    yield where(str(value), line=number)
                elif not isinstance(value, dict):
                    yield where("not a JSON object", line=number)
                else:
                    yield Row(value, source.path, number, unit, source.account)
    except RecordError:
        raise
    except _DAMAGE as error:
        yield where(f"the file is damaged from here on: {str(error).rstrip('.')}. Fetch it again.", line=number + 1)


def _numbered_parquet(stream: BinaryIO, unread: Unread) -> Iterator[tuple[int, Any]]:
    yield from enumerate(parquet_rows(stream, unread), start=1)


def _jsonl(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := stream.readline(LIMIT + 1):
        number += 1
        if len(line) > LIMIT:
            yield number, ValueError(f"a line of more than {LIMIT >> 20} MiB")
            while line and not line.endswith(b"\n"):
                line = stream.readline(LIMIT)
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield number, parsed(line)


def _json(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    number = 0
    for text in json_values(stream):
        value = ValueError(f"a value of more than {LIMIT >> 20} MiB") if text is None else parsed(text)
        for item in _unwrapped(value):
            number += 1
            yield number, item


def _unwrapped(value: Any) -> list[Any]:
    """The rows in an answer of a web service: an object that holds a list of them and little else."""
    if isinstance(value, dict) and len(value) <= 3:  # noqa: PLR2004 - the list, a page count, a cursor
        for name in ("data", "runs", "traces", "observations", "scores"):
            rows = value.get(name)
            if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                return rows
    return [value]


def parsed(text: bytes) -> Any:
    """The value that these bytes spell, or the ValueError that says why they spell none."""
    try:
        # Takes no half characters, and a third of the time. What it does not take, the other says why, or takes.
        return from_json(text, cache_strings="keys")
    except ValueError:
        pass
    try:
        # Without its end: what is missing is missing on this line.
        value = json.loads(text.rstrip().decode("utf-8"))
        if _HALF_CHARACTER.search(text):
            # Escapes can spell half a character, which no database and no other reader would take.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 at byte {error.start}")
    except UnicodeEncodeError as error:
        return ValueError(f"half a character (a lone surrogate, {error.object[error.start]!a})")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON: {_said(error)}")
    except (ValueError, RecursionError) as error:
        return ValueError(str(error))
    return value


def _said(error: json.JSONDecodeError) -> str:
    # Some of its messages end with that word themselves.
    said = f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return said if error.lineno == 1 else f"{said} of its line {error.lineno}"


_READERS: dict[str, Callable[[BinaryIO], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": csv_rows,
}
