"""Users who were forgotten, in the files that outlive the store.

An export carries its tombstones itself, as lines of their own kind: ``{"tombstone":{"user_id":...}}``. A copy of the
file is then as safe as the file, and whoever trains on it needs no store. A file that was exported before the user was
forgotten gets the line appended (`append_tombstones`), wherever it is. A Parquet file cannot hold such lines: its
tombstones are in a file beside it, with ``.tombstones`` after its name, which is read for every other log as well.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.mentions import mentions
from rlhi_plugin.records import Conversation, Message, Tombstone

TOMBSTONES_SUFFIX = ".tombstones"
"""Of the file beside a log that holds tombstones which the log itself cannot."""

_KEY = "tombstone"
_BEGINS = b'{"tombstone":'


def tombstone_line(tombstone: Tombstone) -> bytes:
    """A tombstone as a line of a log."""
    return f'{{"{_KEY}":{tombstone.to_json()}}}\n'.encode()


def is_tombstone(line: bytes) -> bool:
    """Whether a line of a log is a tombstone, and no conversation."""
    return line.startswith(_BEGINS)


def is_tombstone_row(row: Mapping[str, object]) -> bool:
    """The same of a line that has been parsed."""
    return list(row) == [_KEY]


def read_tombstones(path: str | Path) -> list[Tombstone]:
    """The tombstones of a log: in it, wherever they stand, and in the file beside it.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``; a file of another form is not opened, only the file beside it.

    Raises:
        ConfigError: the log cannot be read, or a tombstone is damaged: to go on without it would bring somebody back.
    """
    log = Path(path)
    beside = log.with_name(log.name + TOMBSTONES_SUFFIX)
    files = [log] if ".jsonl" in log.suffixes and not log.is_dir() else []
    return [stone for file in [*files, *([beside] if beside.exists() else [])] for stone in _stones(file)]


def _stones(file: Path) -> Iterator[Tombstone]:
    number = 0
    try:
        if file.suffix != ".gz" and not mentions(file, _BEGINS):
            return
        with cast("BinaryIO", (gzip.open if file.suffix == ".gz" else open)(file, "rb")) as stream:
            for number, line in enumerate(stream, start=1):  # noqa: B007 - the error below names it
                if is_tombstone(line):
                    yield Tombstone.model_validate(json.loads(line)[_KEY])
    except (ValueError, ValidationError) as error:
        raise ConfigError(f"{file}:{number}: the tombstone is damaged: {error}. Restore the line.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile):
        # Whoever reads the conversations meets the same damage, names it, and gets nothing from behind it either.
        return
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}. Give the path of a log.") from error


def append_tombstones(path: str | Path, tombstones: Iterable[Tombstone]) -> None:
    """Make a log that exists already, or the file beside a Parquet file, honour tombstones; fsynced.

    Raises:
        ConfigError: the file cannot be written.
    """
    log = Path(path)
    file = log if ".jsonl" in log.suffixes else log.with_name(log.name + TOMBSTONES_SUFFIX)
    body = b"".join(tombstone_line(tombstone) for tombstone in tombstones)
    if not body:
        return
    try:
        with file.open("a+b") as stream:
            if file.suffix == ".gz":
                # Members of a gzip file may follow one another (RFC 1952, 2.2). A blank line does no harm.
                body = gzip.compress(b"\n" + body, mtime=0)
            elif stream.seek(0, os.SEEK_END) and _last_byte(stream) != b"\n":
                body = b"\n" + body
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ConfigError(f"cannot write to {file}: {error.strerror}. Check its permissions.") from error


def _last_byte(stream: BinaryIO) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)


def by_user(tombstones: Iterable[Tombstone]) -> Mapping[str, Tombstone]:
    """The latest tombstone of each user."""
    latest: dict[str, Tombstone] = {}
    for tombstone in tombstones:
        known = latest.get(tombstone.user_id)
        if known is None or known.forgotten_at < tombstone.forgotten_at:
            latest[tombstone.user_id] = tombstone
    return latest


def remembered(conversation: Conversation, tombstones: Mapping[str, Tombstone]) -> Conversation | None:
    """What may still be known of a conversation; None when that is nothing, and the very same object when it is all.

    A forgotten user may have come back: what was said after `Tombstone.forgotten_at` stays. A message without a time
    counts with the beginning of its conversation, and is forgotten where that is unknown too.

    Args:
        conversation: Anybody's.
        tombstones: By user (`by_user`).
    """
    tombstone = None if conversation.user_id is None else tombstones.get(conversation.user_id)
    if tombstone is None:
        return conversation

    def is_later(message: Message) -> bool:
        said_at = message.created_at or conversation.started_at
        return said_at is not None and said_at > tombstone.forgotten_at

    kept = [message for message in conversation.messages if is_later(message)]
    if not kept:
        return None
    if len(kept) == len(conversation.messages):
        return conversation
    ids = {message.id for message in kept}
    # A branch must not hang on a message that is gone.
    messages = tuple(
        m if m.parent_id is None or m.parent_id in ids else m.model_copy(update={"parent_id": None}) for m in kept
    )
    return conversation.model_copy(update={"messages": messages, "started_at": kept[0].created_at})


def without_forgotten(conversations: Iterable[Conversation], tombstones: Iterable[Tombstone]) -> Iterator[Conversation]:
    """What may still be known of each conversation (see `remembered`); those of which that is nothing are left out."""
    stones = by_user(tombstones)
    for conversation in conversations:
        kept = remembered(conversation, stones)
        if kept is not None:
            yield kept
