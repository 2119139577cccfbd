"""Erasing a user from line files: journals of turns that a store could not take, and exported logs."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Container, Iterable
from pathlib import Path
from typing import BinaryIO, cast

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.privacy.tombstones import is_tombstone

JOURNALS = ("*.jsonl", "*.jsonl.gz")


def erase_from_journals(folders: Iterable[Path], user_id: str, *, leave: Container[Path] = ()) -> int:
    """Take a user's lines out of the JSONL files in or below some folders.

    A file that holds none is not touched. One that does is replaced atomically, under an exclusive `flock` where the
    system has one. A writer that keeps a file open without a lock would go on writing to the old one: let such a
    program close its journal first.

    Args:
        folders: They must exist.
        user_id: Pseudonym.
        leave: Files that are not to be touched, nor waited for.

    Returns:
        How many lines were taken out.

    Raises:
        ConfigError: a folder does not exist.
        StoreError: a file cannot be read or replaced; earlier ones were.
    """
    erased = 0
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}. Give the one that holds the journal.")
        for file in sorted(path for pattern in JOURNALS for path in folder.rglob(pattern)):
            erased += 0 if file in leave else erase_lines(file, user_id)
    return erased


def erase_lines(file: Path, user_id: str) -> int:
    """Take the lines that name a user out of one file, tombstones excepted; how many that were.

    Raises:
        StoreError: the file cannot be read or replaced; it is as it was.
    """
    wanted, erased = f'"{user_id}"'.encode(), 0
    draft: Path | None = None
    try:
        with file.open("r+b") as locked:
            _lock(locked)
            descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
            draft = Path(name)
            with os.fdopen(descriptor, "wb") as raw:
                source = cast("BinaryIO", gzip.GzipFile(fileobj=locked) if file.suffix == ".gz" else locked)
                target = cast(
                    "BinaryIO", gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if file.suffix == ".gz" else raw
                )
                for line in source:
                    if wanted in line and not is_tombstone(line):
                        erased += 1
                    else:
                        target.write(line)
                if target is not raw:
                    target.close()
                raw.flush()
                os.fsync(raw.fileno())
            if erased:
                draft.chmod(file.stat().st_mode & 0o777)
                draft.replace(file)
    except (OSError, EOFError) as error:
        raise StoreError(
            f"cannot erase lines from {file}: {error}. Correct that, and forget the user again."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    return erased


def _lock(stream: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where an open file cannot be replaced anyhow
        return
    fcntl.flock(stream, fcntl.LOCK_EX)
