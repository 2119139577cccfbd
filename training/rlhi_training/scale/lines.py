"""Files of lines that have an order: written in any, read in theirs, and merged without being in memory."""

from __future__ import annotations

import heapq
import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic_core import PydanticSerializationError, from_json, to_json

Key = tuple[int, ...]


def packed(value: Any) -> bytes:
    """A line of JSON for `unpacked`."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        # Half a character, in the name of a file.
        return json.dumps(value).encode()


def unpacked(line: bytes | str) -> Any:
    """What `packed` wrote; several times as fast as the standard library."""
    try:
        return from_json(line, cache_strings="keys")
    except ValueError:
        return json.loads(line)


PLAIN = b"="
"""Begins a line that goes into the run's file as it is, without being parsed."""


class Lines:
    """A file that appears whole, or not at all.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self._draft = Path(name)
        self._stream = os.fdopen(descriptor, "w+b", buffering=1 << 18)
        self.offset = 0

    def write(self, line: bytes) -> tuple[int, int]:
        """Append a line, without its end; returns where it is: offset and length."""
        place = self.offset, len(line)
        self._stream.write(b"%b\n" % line)
        self.offset += len(line) + 1
        return place

    def write_bytes(self, body: bytes) -> None:
        """Append bytes that are no line."""
        self._stream.write(body)
        self.offset += len(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._stream.close()
            self._draft.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Let the file appear."""
        self._stream.flush()
        self._draft.chmod(0o644)
        self._draft.replace(self._path)


class OrderedLines(Lines):
    """Lines with keys, written in any order and sorted at the end; only keys and places are in memory.

    Each line of the file is its key (numbers with commas between), a tabulator, and what was written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._places: list[tuple[Key, int, int]] = []

    def add(self, key: Key, line: bytes) -> None:
        """One line, without its end."""
        offset, length = self.write(line)
        self._places.append((key, offset, length))

    def _finish(self) -> None:
        self._places.sort()
        self._stream.flush()
        with Lines(self._path) as ordered:
            if not self._places:
                return
            with mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ) as draft:
                for key, offset, length in self._places:
                    ordered.write(b"%b\t%b" % (repr(key)[1:-1].encode(), draft[offset : offset + length]))


def keyed(path: Path) -> Iterator[tuple[Key, bytes]]:
    """The lines of an ordered file."""
    with path.open("rb") as lines:
        for line in lines:
            key, _, rest = line.partition(b"\t")
            yield tuple(int(part) for part in key.split(b",") if part), rest[:-1]


def merged(paths: Iterable[Path]) -> Iterator[tuple[Key, bytes]]:
    """The lines of many ordered files, in order."""
    return heapq.merge(*map(keyed, paths), key=itemgetter(0))


class Passages:
    """Reads bytes of files; a few files are open at a time.

    Args:
        most: How many.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._open: dict[Path, int] = {}

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """So many bytes from here on."""
        descriptor = self._open.get(path)
        if descriptor is None:
            if len(self._open) >= self._most:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = self._open[path] = os.open(path, os.O_RDONLY)
        return os.pread(descriptor, length, offset)

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
