"""Files that appear whole or not at all: a draft beside the file, which takes its name when it is done.

A process that is killed leaves its drafts. Whoever writes one holds a lock on it, which ends with the process, so that
the drafts of the dead can be told from those of the living.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
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
    stream.flush()
    # mkstemp makes files that only their owner can read; a run directory is shared like any other folder.
    draft.chmod(0o644)
    draft.replace(path)


def clear_drafts(files: Iterable[Path]) -> None:
    """Of these files, delete the drafts that nobody writes any more."""
    for file in files:
        if not _DRAFT.fullmatch(file.name):
            continue
        # Where that cannot be done the file is gone, or somebody writes it, or it is another user's.
        with suppress(OSError), file.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
