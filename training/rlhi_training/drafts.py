"""Files that appear whole or not at all: a draft beside the file, which takes its name when it is done.

A process that is killed leaves its drafts. Whoever writes one holds a lock on it, which ends with the process, so that
the drafts of the dead can be told from those of the living.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_BUFFER = 1 << 18
_DRAFT = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names that `open_draft` gives; the end is `tempfile`'s."""


def open_draft(path: Path) -> tuple[BinaryIO, Path]:
    """A draft of a file, open for writing and reading, and where it is; `publish` gives it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        stream = os.fdopen(descriptor, "w+b", buffering=_BUFFER)
        with suppress(OSError):  # a file system without locks: its drafts are never taken for those of the dead
            fcntl.flock(stream, fcntl.LOCK_EX)
        # Before it had its lock, another process may have taken it for one of these.
        if os.fstat(descriptor).st_nlink:
            return stream, Path(name)
        stream.close()


def publish(stream: BinaryIO, draft: Path, path: Path) -> None:
    """Let a file appear, in the place of an older one; the draft is still open, and stays so.

    Raises:
        OSError: what was written last does not fit on the disk.
    """
    try:
        stream.flush()
    except OSError as error:
        raise about(path, error) from None
    # mkstemp makes files that only their owner can read; a run directory is shared like any other folder.
    draft.chmod(0o644)
    draft.replace(path)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which appears at the end, and after an error not at all; one of the disk names the file."""
    stream, draft = open_draft(path)
    try:
        yield stream
        publish(stream, draft, path)
    except OSError as error:
        about(path, error)
        raise
    finally:
        discard(stream, draft)


def discard(stream: BinaryIO, draft: Path) -> None:
    """Close a draft, and delete it unless it was published. What it still holds is not wanted: it need have no room."""
    draft.unlink(missing_ok=True)
    with suppress(OSError):
        stream.close()


def about(path: Path, error: OSError) -> OSError:
    """The error, with the name of the file that was written: a full disk does not say."""
    if error.filename is None:
        error.filename = str(path)
    return error


def clear_drafts(files: Iterable[Path]) -> None:
    """Of these files, delete the drafts that nobody writes any more."""
    for file in files:
        if not _DRAFT.fullmatch(file.name):
            continue
        # Where that cannot be done the file is gone, or somebody writes it, or it is another user's.
        with suppress(OSError), file.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
