"""The turns that the store has not taken: on disk in order, and which conversations have to wait for them.

Every process has its own file (see `turn_file`), made when it first needs one and removed when the store has taken
every line of it. Lines are never changed; how far the store has them is noted beside the file now and then. What was
taken since the last note is offered again after a crash, which does nothing since a store keeps each message id once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhi_plugin.durability.readmission import Withheld
from rlhi_plugin.durability.turn_file import (
    PROGRESS,
    REFUSED,
    JournalledTurn,
    Line,
    Write,
    adopt_file,
    create_file,
    decode,
    encode,
    files_in,
    progress_of,
    read_lines,
    sync_folder,
)
from rlhi_plugin.durability.withheld import blank_line, note_withheld

_NOTED_EVERY = 50

Key = tuple[str, str | None]
"""Conversation and user: what has to stay in order."""


@dataclass(eq=False, slots=True)
class _File:
    path: Path
    descriptor: int
    size: int = 0
    synced: int = 0
    waiting: int = 0
    """Lines that are still to be taken."""
    order: deque[Entry] = field(default_factory=deque)
    """Its lines from the first one that waits."""
    unnoted: int = 0
    """Lines that were taken since the last note."""
    refused: set[bytes] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Entry:
    """One line that waits for the store.

    Attributes:
        key: Its conversation and user.
        file: The file that holds it.
        offset: Its first byte.
        length: Its bytes.
        taken: Whether it waits no longer.
        failures: How often it could not be stored, whatever the reason.
        strikes: How often that happened while the store took other lines.
        first_strike_s: When that happened first, by the monotonic clock.
    """

    key: Key
    file: _File
    offset: int
    length: int
    taken: bool = False
    failures: int = 0
    strikes: int = 0
    first_strike_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What the files of dead processes held.

    Attributes:
        turns: Lines that wait for the store now.
        torn: Last lines that a crash had cut short. They were never acknowledged.
        refused: Damaged lines, set aside.
    """

    turns: int = 0
    torn: int = 0
    refused: int = 0


class Journal:
    """The journal of one store in one folder. Usable from any thread of one process.

    Args:
        folder: Where the files are; made at the first append.
        inherits: Other folders, whose files are only taken over from processes that ended.
    """

    def __init__(self, folder: Path, inherits: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._inherits = inherits
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._active: _File | None = None
        self._files: list[_File] = []
        self._entries: dict[Entry, None] = {}
        self._held: Counter[Key] = Counter()

    def __len__(self) -> int:
        """Turns that wait for the store."""
        return self._held.total()

    def holds(self, key: Key) -> bool:
        """Whether turns of this conversation wait, which later ones must not overtake."""
        # A counter asked for what it lacks calls a method to say 0.
        return self._held.get(key, 0) > 0

    def append(self, turn: JournalledTurn | Write) -> Entry:
        """Write one turn. On return it is on disk, and waits.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        raw = encode(turn)
        with self._lock:
            file = self._active or self._create()
            self._write(file, raw)
            entry = Entry((turn.conversation_id, turn.user_id), file, file.size, len(raw))
            file.size = end = file.size + len(raw)
            file.waiting += 1
            file.order.append(entry)
            self._entries[entry] = None
            self._held[entry.key] += 1
        try:
            self._sync(file, end)
        except OSError:
            # The kernel may have thrown the pages away: nothing written later to this file could be trusted.
            with self._lock:
                self._active = None if self._active is file else self._active
            self.done(entry)
            raise
        return entry

    def entries(self) -> list[Entry]:
        """What waits, in the order in which it is to be stored."""
        with self._lock:
            # A line that is still being written may yet fail, and its writer says so.
            return [entry for entry in self._entries if entry.offset + entry.length <= entry.file.synced]

    def read(self, entry: Entry) -> Line:
        """The line of an entry, read again from its file.

        Raises:
            OSError: the file cannot be read.
        """
        return decode(self._raw(entry), entry.offset)

    def done(self, *entries: Entry) -> None:
        """The store has these, or they were set aside: they wait no longer."""
        with self._lock:
            for entry in entries:
                if entry not in self._entries:  # the journal was closed while it was being replayed
                    continue
                del self._entries[entry]
                self._held[entry.key] -= 1
                if not self._held[entry.key]:
                    del self._held[entry.key]
                entry.taken = True
                entry.file.waiting -= 1
                if entry.file.waiting:
                    _note_progress(entry.file)
                else:
                    self._remove(entry.file)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Set a line aside in the file of the same name that ends in ``.refused``, and go on without it.

        Raises:
            OSError: it cannot be written; then the line stays where it is.
        """
        self._set_aside(entry.file, self._raw(entry), reason)
        self.done(entry)

    def erase(self, entry: Entry, reason: Withheld, size: int) -> None:
        """Overwrite the words of a line that must not be stored any more, count it, and go on without it.

        Args:
            entry: The line.
            reason: Why.
            size: How many messages and events it holds.

        Raises:
            OSError: it cannot be written; then the line stays where it is, and is offered again.
        """
        note_withheld(entry.file.path.parent, reason, size)
        blank_line(entry.file.path, entry.offset, entry.length)
        self.done(entry)

    def _raw(self, entry: Entry) -> bytes:
        with self._lock:
            # A replay may go on while the journal is closed; the descriptor's number may be another file's by then.
            if entry not in self._entries:
                raise OSError(f"the journal file {entry.file.path} is closed")
            return os.pread(entry.file.descriptor, entry.length, entry.offset)

    def take_over(self) -> TakenOver:
        """Become the owner of the files that dead processes left, oldest first.

        Raises:
            OSError: a file cannot be read.
        """
        turns = torn = refused = 0
        for path in [path for folder in (self.folder, *self._inherits) for path in files_in(folder)]:
            if any(file.path == path for file in self._files) or (descriptor := adopt_file(path)) is None:
                continue
            file = _File(path, descriptor, size=os.fstat(descriptor).st_size)
            file.synced = file.size
            with self._lock:
                self._files.append(file)
            found, bad, cut = _survey(file)
            for line in bad:
                self._set_aside(file, os.pread(descriptor, line.length, line.offset), line.problem or "damaged")
            with self._lock:
                self._entries |= dict.fromkeys(found)
                self._held.update(entry.key for entry in found)
                file.waiting = len(found)
                file.order.extend(found)
                if not found:
                    self._remove(file)
            turns, torn, refused = turns + len(found), torn + cut, refused + len(bad)
        return TakenOver(turns, torn, refused)

    def close(self) -> None:
        """Give up the files; what waits in them is taken over by whoever comes next."""
        with self._lock:
            for file in self._files:
                os.close(file.descriptor)
            self._files, self._entries, self._active = [], {}, None
            self._held.clear()

    def after_fork(self) -> None:
        """In a child process: start empty. The parent still owns its files, and replays them."""
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        # Were they left open, the child would keep the parent's files locked beyond the parent's death.
        self.close()

    def _create(self) -> _File:
        path, descriptor = create_file(self.folder)
        self._active = _File(path, descriptor)
        self._files.append(self._active)
        return self._active

    def _write(self, file: _File, raw: bytes) -> None:
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(file.descriptor, view) :]
        except OSError:
            try:
                # Half a line would spoil the next one.
                os.ftruncate(file.descriptor, file.size)
            except OSError:
                self._active = None
            if not file.waiting:
                self._remove(file)
            raise

    def _sync(self, file: _File, end: int) -> None:
        # One fsync for all who wait for one.
        with self._sync_lock:
            if file.synced < end:
                target = file.size
                os.fsync(file.descriptor)
                file.synced = target

    def _remove(self, file: _File) -> None:
        file.path.unlink(missing_ok=True)
        file.path.with_suffix(PROGRESS).unlink(missing_ok=True)
        os.close(file.descriptor)
        self._files.remove(file)
        if self._active is file:
            self._active = None

    def _set_aside(self, file: _File, raw: bytes, reason: str) -> None:
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


def _note_progress(file: _File) -> None:
    while file.order[0].taken:
        file.order.popleft()
        file.unnoted += 1
    if file.unnoted < _NOTED_EVERY:
        return
    file.unnoted = 0
    # A note that is lost or cut short costs a second replay, so it need not be waited for.
    with contextlib.suppress(OSError):
        file.path.with_suffix(PROGRESS).write_text(f"{file.order[0].offset}")


def _survey(file: _File) -> tuple[list[Entry], list[Line], int]:
    """Usable lines, damaged lines, and the number of last lines that were cut short."""
    found: list[Entry] = []
    bad: list[Line] = []
    torn = 0
    for line in read_lines(file.path, progress_of(file.path)):
        if line.turn is not None:
            key = (line.turn.conversation_id, line.turn.user_id)
            found.append(Entry(key, file, line.offset, line.length))
        elif line.torn:
            torn += 1
        else:
            bad.append(line)
    return found, bad, torn
