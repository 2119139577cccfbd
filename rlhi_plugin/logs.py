"""Conversation logs in files: our own export, written and read, and logs that were made elsewhere, read.

What a file holds is told from its fields. A row that cannot be used is given back as a `RecordError` in its place; it
stops nothing.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.importers import read_log
from rlhi_plugin.importers.rlhi_export import VERSION_FIELD
from rlhi_plugin.privacy.tombstones import tombstone_line
from rlhi_plugin.records import SCHEMA_VERSION, Conversation, FeedbackEvent, Tombstone

__all__ = ["VERSION_FIELD", "read_conversations", "read_feedback", "read_log", "write_conversations"]


def read_conversations(path: str | Path, log_format: str | None = None) -> Iterator[Conversation | RecordError]:
    """Read the conversations of a log: our export or any of `rlhi_plugin.importers.FORMATS`.

    Args:
        path: A file (``.jsonl``, ``.json``, ``.csv``, also with ``.gz``; ``.parquet``; ``.zip``), or a folder of them.
        log_format: Name of the format, where its fields do not tell it.

    Returns:
        Each conversation, and for each row that cannot be used the error that says why. Tombstones are passed over.

    Raises:
        ConfigError: there is no such file or format, or the file cannot be opened.
    """
    return (record for record in read_log(path, log_format) if not isinstance(record, FeedbackEvent))


def read_feedback(path: str | Path, log_format: str | None = None) -> Iterator[FeedbackEvent | RecordError]:
    """Read the feedback events of a log; arguments and errors as in `read_conversations`."""
    return (record for record in read_log(path, log_format) if not isinstance(record, Conversation))


def write_conversations(
    path: str | Path, conversations: Iterable[Conversation | FeedbackEvent], tombstones: Iterable[Tombstone] = ()
) -> int:
    """Write an export; gzipped when the name ends in ``.gz``. The file appears whole or not at all.

    Feedback events may stand between the conversations. Tombstones go along with them, so that whoever reads the file
    knows who was forgotten.

    Returns:
        How many records were written.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
    """
    file = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {file.parent}: {error.strerror}. Create the folder, or name another."
        ) from error
    draft, count = Path(name), 0
    try:
        with os.fdopen(descriptor, "wb") as raw:
            # mtime=0: the same conversations give the same bytes.
            stream = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if file.suffix == ".gz" else raw
            for tombstone in tombstones:
                stream.write(tombstone_line(tombstone))
            for conversation in conversations:
                stream.write(_line(conversation))
                count += 1
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        # mkstemp makes a private file; an export is as readable as any other file of this user.
        draft.chmod(0o666 & ~_umask())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return count


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _line(conversation: Conversation | FeedbackEvent) -> bytes:
    return f'{{"{VERSION_FIELD}":{SCHEMA_VERSION},{conversation.to_json()[1:]}\n'.encode()
