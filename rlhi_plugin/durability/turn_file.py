"""One journal file: checksummed JSON lines, each a turn that the store has not taken yet.

::

    {"crc32":"9f2a01c7","turn":{"conversation_id":"t1","user_id":"u_...","messages":[...]}}

The checksum is CRC-32 (ISO-HDLC, `zlib.crc32`) of the bytes between ``"turn":`` and the last brace. A name is
``turns-NUMBER-PID-RANDOM.jsonl``; numbers grow within a folder, so sorted names are in the order of creation. The
owner of a file holds an exclusive `flock` on it, which the kernel releases when the process dies, however it dies.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from rlhi_plugin.records import FeedbackEvent, Message, Record, UserId

PREFIX, SUFFIX, REFUSED, PROGRESS = "turns-", ".jsonl", ".refused", ".done"
_HEAD = b'{"crc32":"%08x","turn":'
_HEAD_LENGTH = len(_HEAD % 0)
# A field that holds its default is not written.
_BEGINNING = re.compile(
    rb'\{"conversation_id":"((?:[^"\\]|\\.)+)"(?:,"user_id":"([^"\\]+)")?(?:,"(?:messages|feedback)":|\})'
)

Key = tuple[str, str | None]
"""Conversation and user: what has to stay in order."""


class JournalledTurn(Record):
    """One write that is to be made good: messages of a conversation, or what a user did about one."""

    conversation_id: str = Field(min_length=1, max_length=256)
    user_id: UserId | None = None
    messages: tuple[Message, ...] = ()
    feedback: FeedbackEvent | None = None

    @property
    def size(self) -> int:
        """How many messages and events it holds."""
        return len(self.messages) + (self.feedback is not None)


class Write(NamedTuple):
    """The same, of records that are valid already: most never see a journal, and checking takes time."""

    conversation_id: str
    user_id: str | None
    messages: Sequence[Message] = ()
    feedback: FeedbackEvent | None = None

    @property
    def size(self) -> int:
        """How many messages and events it holds."""
        return len(self.messages) + (self.feedback is not None)


@dataclass(frozen=True, slots=True)
class Line:
    """Where one line of a journal file is.

    Attributes:
        offset: First byte.
        length: Bytes, the newline included.
        turn: What it holds, or None.
        problem: Why it holds nothing usable; None where it does.
        torn: Whether it is a last line that a crash cut short: it was never acknowledged.
    """

    offset: int
    length: int
    turn: JournalledTurn | None = None
    problem: str | None = None
    torn: bool = False


def encode(turn: JournalledTurn | Write) -> bytes:
    """The turn as one line."""
    if isinstance(turn, Write):
        turn = JournalledTurn.model_construct(
            conversation_id=turn.conversation_id,
            user_id=turn.user_id,
            messages=tuple(turn.messages),
            feedback=turn.feedback,
        )
    body = turn.to_json().encode()
    return b"".join((_HEAD % zlib.crc32(body), body, b"}\n"))


def blank(length: int) -> bytes:
    """A line of so many bytes that holds no words: a turn of no messages.

    Args:
        length: Bytes of a line that held something, the newline included.
    """
    body = JournalledTurn(conversation_id="-").to_json().encode()
    body += b" " * (length - _HEAD_LENGTH - len(body) - len(b"}\n"))
    return b"".join((_HEAD % zlib.crc32(body), body, b"}\n"))


def decode(raw: bytes, offset: int) -> Line:
    """Read one line; what is wrong with it is said, never raised."""
    length = len(raw)
    if not raw.endswith(b"\n"):
        return Line(offset, length, problem="cut short by a crash", torn=True)
    body = raw[_HEAD_LENGTH:-2]
    if not _fits(raw, body):
        return Line(offset, length, problem="its checksum does not fit")
    try:
        return Line(offset, length, JournalledTurn.model_validate_json(body))
    except ValueError as error:
        return Line(offset, length, problem=f"not a turn: {error}")


def key_of(raw: bytes) -> Key | None:
    """Whose a usable line is, in a tenth of the time of `decode`: what was said is only summed up, not read.

    Returns:
        None where that takes a closer look: the line is damaged or cut short, or was not written by `encode`.
    """
    body = raw[_HEAD_LENGTH:-2]
    if not _fits(raw, body) or (found := _BEGINNING.match(body)) is None:
        return None
    name, user = found.groups()
    try:
        conversation_id = json.loads(b'"%b"' % name) if b"\\" in name else name.decode()
    except ValueError:
        return None
    return conversation_id, None if user is None else user.decode("ascii", "replace")


def _fits(raw: bytes, body: bytes) -> bool:
    return raw.endswith(b"}\n") and raw.startswith(_HEAD % zlib.crc32(body))


def read_lines(file: Path, offset: int = 0) -> Iterator[Line]:
    """Every line from `offset` on, one at a time.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        stream.seek(offset)
        while raw := stream.readline():
            yield decode(raw, offset)
            offset += len(raw)


def progress_of(file: Path) -> int:
    """The byte of a journal file before which the store has everything; 0 where that is not known."""
    try:
        offset = int(file.with_suffix(PROGRESS).read_bytes())
        with file.open("rb") as stream:
            stream.seek(max(0, offset - 1))
            return offset if stream.read(1) == b"\n" else 0
    except (OSError, ValueError):
        return 0


def files_in(folder: Path) -> list[Path]:
    """Journal files of a folder, oldest first; none where there is no folder."""
    return sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))


def refused_in(folder: Path) -> list[Path]:
    """Files of lines that a store refused for good, oldest first."""
    return sorted(folder.glob(f"{PREFIX}*{REFUSED}"))


def sync_folder(folder: Path) -> None:
    """Make a new name in the folder survive a power cut."""
    if sys.platform == "win32":
        return  # a directory cannot be opened there, and NTFS journals names itself
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Become the owner of an open journal file unless a living process is."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(descriptor, 2**40, os.SEEK_SET)  # a byte that no line reaches: locks are mandatory there
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def create_file(folder: Path) -> tuple[Path, int]:
    """Make an empty journal file that this process owns, its name on disk.

    Raises:
        OSError: the folder cannot be made or written.
    """
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
    while True:
        # A clock that went backwards must not put a new file before an old one.
        numbers = [int(path.name.split("-")[1]) for path in files_in(folder)]
        number = max([time.time_ns(), *(n + 1 for n in numbers)])
        file = folder / f"{PREFIX}{number:020d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        # Between the two calls another process may have taken it for an orphan, and removed it.
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            sync_folder(folder)
            return file, descriptor
        os.close(descriptor)


def adopt_file(file: Path) -> int | None:
    """A descriptor of the file of a dead owner, now ours; None where the owner lives or the file is gone."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return None
    if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def owner_pid(file: Path) -> int:
    """The process that made the file, as its name says."""
    return int(file.name.removesuffix(SUFFIX).split("-")[2])


def is_owned(file: Path) -> bool:
    """Whether a living process owns the journal file; False where it is gone."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # Closing the descriptor gives the lock back, should this have taken it.
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
