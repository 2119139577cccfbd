"""One line of a journal that waits for the store, and the file that holds it."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from rlhi_plugin.durability.turn_file import PROGRESS, REFUSED, Key, sync_folder

_NOTED_EVERY = 50


@dataclass(eq=False, slots=True)
class JournalFile:
    """A journal file that this process owns.

    Attributes:
        path: Where it is.
        descriptor: Holds its lock.
        size: Its bytes.
        synced: Bytes of it that are on disk.
        waiting: Lines that are still to be taken.
        unread: Whether some of its lines have no entry yet.
        read_to: The byte up to which they have one; of no matter where none is unread.
        order: Its entries from the first one that waits.
        unnoted: Lines that were taken since the last note.
        refused: What is in the file of set-aside lines beside it, as far as that was read.
        set_aside: First bytes of its own lines that went there before they had an entry.
    """

    path: Path
    descriptor: int
    size: int = 0
    synced: int = 0
    waiting: int = 0
    unread: bool = False
    read_to: int = 0
    order: deque[Entry] = field(default_factory=deque)
    unnoted: int = 0
    refused: set[bytes] = field(default_factory=set)
    set_aside: set[int] = field(default_factory=set)

    @property
    def is_done(self) -> bool:
        """Whether nothing in it waits."""
        return not self.waiting and not self.unread


@dataclass(eq=False, slots=True)
class Entry:
    """One line that waits for the store.

    Attributes:
        key: Its conversation and user.
        file: The file that holds it.
        offset: Its first byte.
        length: Its bytes.
        taken: Whether it waits no longer.
        alone: Whether it is offered by itself, since the store hung when it was offered together with others.
        failures: How often it could not be stored, whatever the reason.
        strikes: How often that happened while the store took other lines.
        first_strike_s: When that happened first, by the monotonic clock.
    """

    key: Key
    file: JournalFile
    offset: int
    length: int
    taken: bool = False
    alone: bool = False
    failures: int = 0
    strikes: int = 0
    first_strike_s: float = 0.0


def take(entry: Entry) -> None:
    """The entry waits no longer; how far its file is done is noted beside it, unless all of it is."""
    file = entry.file
    entry.taken = True
    file.waiting -= 1
    while file.order and file.order[0].taken:
        file.order.popleft()
        file.unnoted += 1
    if file.unnoted < _NOTED_EVERY or file.is_done:
        return
    file.unnoted = 0
    # A note that is lost or cut short costs a second replay, so it need not be waited for.
    with contextlib.suppress(OSError):
        file.path.with_suffix(PROGRESS).write_text(f"{file.order[0].offset if file.order else file.read_to}")


def set_aside(file: JournalFile, raw: bytes, reason: str) -> None:
    """Keep a line in the file of the same name that ends in ``.refused``.

    Raises:
        OSError: it cannot be written.
    """
    path = file.path.with_suffix(REFUSED)
    is_new = not path.exists()
    if not file.refused and not is_new:
        file.refused = set(path.read_bytes().splitlines())
    text = raw.decode("utf-8", "replace").rstrip("\n")
    line = json.dumps({"reason": reason, "line": text}, ensure_ascii=False).encode()
    # A line that was set aside before a crash is met again after it.
    if line in file.refused:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)
    file.refused.add(line)
