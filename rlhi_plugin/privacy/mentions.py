"""Whether a file holds some bytes at all, which most do not: reading its lines takes ten times as long."""

from __future__ import annotations

from pathlib import Path

_CHUNK = 1 << 20


def mentions(file: Path, mark: bytes) -> bool:
    """Whether `mark` stands anywhere in the file as it is on disk.

    Raises:
        OSError: it cannot be read.
    """
    kept = b""
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            read = kept + chunk
            if mark in read:
                return True
            # The mark may lie across the border of two chunks.
            kept = read[-len(mark) + 1 :]
    return False
