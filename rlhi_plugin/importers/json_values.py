"""The values of a JSON file of any size, one by one, each as the bytes that spell it.

A parser of the whole file stops at the first value that it cannot read, and some replace half characters without a
word. Here only the boundaries are found, so that a bad value is one bad row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from rlhi_plugin.importers.limits import LIMIT

_CHUNK = 1 << 20
_OUTSIDE = re.compile(rb'["{}\[\],]')
# Inside a value only brackets count: whole strings and all else between them is passed over in one match.
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SPACE = b" \t\r\n"


class UnfinishedError(ValueError):
    """The file ends, or stops being JSON, in the middle of a value."""


def json_values(stream: BinaryIO) -> Iterator[bytes | None]:
    """The elements of the array that the file is, or else the objects that follow each other in it.

    Returns:
        Each value's bytes, or None for one that is longer than `LIMIT`, which is passed over.

    Raises:
        UnfinishedError: after the last whole value, where something is missing.
    """
    chunk = stream.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    while not chunk:
        chunk = stream.read(_CHUNK)
        if not chunk:
            return
        chunk = chunk.lstrip(_SPACE)
    is_array = chunk[:1] == b"["
    splitter = _Splitter(chunk[1:] if is_array else chunk, bottom=1 if is_array else 0)
    yield from splitter.values()
    while chunk := stream.read(_CHUNK):
        splitter.feed(chunk)
        yield from splitter.values()
    yield from splitter.rest()


class _Splitter:
    """Follows brackets and strings through the chunks."""

    def __init__(self, chunk: bytes, *, bottom: int) -> None:
        self._buffer = chunk
        self._bottom = self._depth = bottom
        self._at = 0
        self._in_string = False
        self._too_long = False
        self._closed = False

    def feed(self, chunk: bytes) -> None:
        if len(self._buffer) > LIMIT:
            self._too_long = True
            self._buffer, self._at = self._buffer[self._at :], 0
        self._buffer += chunk

    def values(self) -> Iterator[bytes | None]:
        start = 0
        while not self._closed:
            if self._in_string:
                inside = _IN_STRING.match(self._buffer, self._at)
                self._at = inside.end() if inside else self._at
                if self._buffer[self._at : self._at + 1] != b'"':
                    break
                self._at += 1
                self._in_string = False
            if self._depth > self._bottom:
                inside = _INSIDE.match(self._buffer, self._at)
                self._at = inside.end() if inside else self._at
            found = _OUTSIDE.search(self._buffer, self._at)
            if found is None:
                self._at = len(self._buffer)
                break
            self._at = found.end()
            ends_at = self._step(found.group(), found.start())
            if ends_at is not None:
                yield from self._value(start, ends_at)
                start = self._at
        self._buffer, self._at = self._buffer[start:], self._at - start

    def _step(self, mark: bytes, at: int) -> int | None:
        """Take one mark; where it ends a value, the position after the value."""
        if mark == b'"':
            self._in_string = True
        elif mark in b"{[":
            self._depth += 1
        elif mark in b"}]":
            self._depth -= 1
            self._closed = self._depth < self._bottom
            if self._closed:
                return at
            return at + 1 if self._depth == self._bottom == 0 else None
        elif self._depth == self._bottom:
            return at
        return None

    def _value(self, start: int, end: int) -> Iterator[bytes | None]:
        value = self._buffer[start:end].strip(_SPACE)
        if self._too_long:
            self._too_long = False
            yield None
        elif value:
            yield value

    def rest(self) -> Iterator[bytes]:
        left = self._buffer.strip(_SPACE)
        if self._closed:
            if left and self._bottom == 1:
                raise UnfinishedError("there is something after the end of the array")
        elif self._bottom == 1 or left:
            raise UnfinishedError("the file ends in the middle")
        return iter(())
