"""Files of lines that have an order: written in any, read in theirs, and merged without being in memory."""

from __future__ import annotations

import heapq
import json
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic_core import PydanticSerializationError, from_json, to_json

from rlhi_training.drafts import about, discard, open_draft, publish

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
        self._stream, self._draft = open_draft(path)
        self.offset = 0

    def write(self, line: bytes) -> tuple[int, int]:
        """Append a line, without its end; returns where it is: offset and length."""
        place = self.offset, len(line)
        try:
            self._stream.write(b"%b\n" % line)
        except OSError as error:
            raise about(self._path, error) from None
        self.offset += len(line) + 1
        return place

    def write_bytes(self, body: bytes) -> None:
        """Append bytes that are no line."""
        try:
            self._stream.write(body)
        except OSError as error:
            raise about(self._path, error) from None
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
            discard(self._stream, self._draft)

    def _finish(self) -> None:
        """Let the file appear."""
        publish(self._stream, self._draft, self._path)


_IN_MEMORY = 8 << 20
"""Bytes of lines that wait in memory to be sorted; beyond that they go into a draft (ours)."""


class OrderedLines(Lines):
    """Lines with keys, written in any order and sorted at the end; a few of them are in memory, else keys and places.

    Each line of the file is its key (each number in 16 hexadecimal digits, so that keys compare as bytes), a tabulator,
    and what was written. Lines of one key stay in their order.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lines: list[tuple[Key, bytes]] = []
        self._waiting = 0
        self._places: list[tuple[Key, int, int]] = []

    def add(self, key: Key, line: bytes) -> None:
        """One line, without its end."""
        self._lines.append((key, line))
        self._waiting += len(line)
        if self._waiting > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        for key, line in self._lines:
            offset, length = self.write(line)
            self._places.append((key, offset, length))
        self._lines, self._waiting = [], 0

    def _finish(self) -> None:
        if not self._places:
            self._lines.sort(key=itemgetter(0))
            for key, line in self._lines:
                self.write(_spelt(key) + line)
            super()._finish()
            return
        self._spill()
        self._places.sort()
        try:
            self._stream.flush()
        except OSError as error:
            raise about(self._path, error) from None
        with Lines(self._path) as ordered, mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ) as draft:
            for key, offset, length in self._places:
                ordered.write(_spelt(key) + draft[offset : offset + length])


def _spelt(key: Key) -> bytes:
    return b"%016x" * len(key) % key + b"\t"


def keyed(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The lines of an ordered file: the key as it is written, with its tabulator, and what comes behind."""
    with path.open("rb") as lines:
        for line in lines:
            end = line.index(b"\t") + 1
            yield line[:end], line[end:-1]


def merged(paths: Iterable[Path]) -> Iterator[bytes]:
    """The lines of many ordered files, in order, without their keys and ends."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        for line in heapq.merge(*files, key=_key_of) if len(files) > 1 else (line for file in files for line in file):
            yield line[line.index(b"\t") + 1 : -1]


def _key_of(line: bytes) -> bytes:
    return line[: line.index(b"\t")]


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
