"""The turns that the store has not taken: on disk in order, and which conversations have to wait for them.

Every process has its own file (see `turn_file`), made when it first needs one and removed when the store has taken
every line of it. Lines are never changed; how far the store has them is noted beside the file now and then. What was
taken since the last note is offered again after a crash, which does nothing since a store keeps each message id once.

What ended processes left is a `Backlog`, in front of everything else: it is adopted at once, which takes no longer for
many turns than for few, and surveyed afterwards. Until then every conversation waits.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rlhi_plugin.durability.backlog import Backlog, TakenOver
from rlhi_plugin.durability.entries import Entry, JournalFile, set_aside, take
from rlhi_plugin.durability.readmission import Withheld
from rlhi_plugin.durability.turn_file import (
    PROGRESS,
    JournalledTurn,
    Key,
    Line,
    Write,
    adopt_file,
    create_file,
    decode,
    encode,
    files_in,
    progress_of,
)
from rlhi_plugin.durability.withheld import blank_line, note_withheld


class Journal:
    """The journal of one store in one folder. Usable from any thread of one process; one at a time replays it.

    Args:
        folder: Where the files are; made at the first append.
        inherits: Other folders, whose files are only taken over from processes that ended.
    """

    def __init__(self, folder: Path, inherits: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._inherits = inherits
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._active: JournalFile | None = None
        self._files: list[JournalFile] = []
        self._entries: dict[Entry, None] = {}
        self._held: Counter[Key] = Counter()
        self._backlog = Backlog()

    def __len__(self) -> int:
        """Turns that wait for the store; while `reading`, those that were found so far, and at least 1."""
        backlog = self._backlog
        waiting = sum(file.waiting for file in self._files.copy())
        return waiting + max(1, backlog.seen) if backlog.reading else waiting

    @property
    def reading(self) -> bool:
        """Whether files of dead processes are still to be surveyed."""
        return self._backlog.reading

    @property
    def unsurveyed(self) -> int:
        """Their bytes."""
        return self._backlog.unsurveyed

    @property
    def unread(self) -> bool:
        """Whether there is more to replay than `entries` gives at once."""
        return self._backlog.unread

    @property
    def problem(self) -> OSError | None:
        """Why lines of dead processes could not be read just now, or None."""
        return self._backlog.problem

    def holds(self, key: Key) -> bool:
        """Whether turns of this conversation wait, which later ones must not overtake."""
        # A counter asked for what it lacks calls a method to say 0.
        return self._held.get(key, 0) > 0 or self._backlog.holds(key)

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
        """What is to be stored next, in order: some turns of dead processes, all of ours that need not follow them.

        What cannot be read is left out, and `problem` says why.
        """
        with self._lock:
            backlog = self._backlog
            for file in backlog.load():
                if file.is_done:
                    self._remove(file)
            # A line that is still being written may yet fail, and its writer says so.
            own = [
                entry
                for entry in self._entries
                if entry.offset + entry.length <= entry.file.synced and not backlog.holds(entry.key)
            ]
            return [*backlog.entries, *own]

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
                if entry in self._backlog.entries:
                    self._backlog.done(entry)
                elif entry in self._entries:
                    del self._entries[entry]
                    self._held[entry.key] -= 1
                    if not self._held[entry.key]:
                        del self._held[entry.key]
                else:  # the journal was closed while it was being replayed
                    continue
                take(entry)
                if entry.file.is_done:
                    self._remove(entry.file)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Set a line aside in the file of the same name that ends in ``.refused``, and go on without it.

        Raises:
            OSError: it cannot be written; then the line stays where it is.
        """
        set_aside(entry.file, self._raw(entry), reason)
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
            if entry not in self._entries and entry not in self._backlog.entries:
                raise OSError(f"the journal file {entry.file.path} is closed")
            return os.pread(entry.file.descriptor, entry.length, entry.offset)

    def take_over(self) -> TakenOver:
        """Become the owner of the files that dead processes left, oldest first, and survey them.

        Raises:
            OSError: a file cannot be read; what the others hold waits all the same.
        """
        self.adopt()
        found = self.survey()
        if found.problem is not None:
            raise found.problem
        return found

    def adopt(self) -> None:
        """Become the owner of the files that dead processes left. Until they are surveyed, every conversation is held.

        Raises:
            OSError: a file cannot be opened; the others are ours all the same.
        """
        found: list[JournalFile] = []
        problem: OSError | None = None
        known = {file.path for file in self._files}
        for path in [path for folder in (self.folder, *self._inherits) for path in files_in(folder)]:
            try:
                if path in known or (descriptor := adopt_file(path)) is None:
                    continue
            except OSError as error:
                problem = problem or error
                continue
            size = os.fstat(descriptor).st_size
            found.append(JournalFile(path, descriptor, size=size, synced=size, read_to=progress_of(path)))
        with self._lock:
            self._files += found
            self._backlog.adopt(found)
        if problem is not None:
            raise problem

    def survey(self, stopped: Callable[[], bool] = lambda: False) -> TakenOver:
        """Find out which turns wait in the files that were adopted; their conversations alone are held from then on.

        Args:
            stopped: Whether to give up; then every conversation stays held.
        """
        backlog = self._backlog
        found = backlog.survey(stopped)
        with self._lock:
            # What was closed meanwhile belongs to somebody else.
            if found is None or backlog is not self._backlog:
                return TakenOver()
            for file in backlog.surveyed(found):
                if file.is_done:
                    self._remove(file)
            for file in found.unreadable:
                os.close(file.descriptor)
                self._files.remove(file)
        problem = next(iter(found.unreadable.values()), None)
        return TakenOver(found.held.total(), found.torn, found.refused, problem)

    def close(self) -> None:
        """Give up the files; what waits in them is taken over by whoever comes next."""
        with self._lock:
            for file in self._files:
                os.close(file.descriptor)
            self._files, self._entries, self._active = [], {}, None
            self._held.clear()
            self._backlog = Backlog()

    def after_fork(self) -> None:
        """In a child process: start empty. The parent still owns its files, and replays them."""
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        # Were they left open, the child would keep the parent's files locked beyond the parent's death.
        self.close()

    def _create(self) -> JournalFile:
        path, descriptor = create_file(self.folder)
        self._active = JournalFile(path, descriptor)
        self._files.append(self._active)
        return self._active

    def _write(self, file: JournalFile, raw: bytes) -> None:
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
            if file.is_done:
                self._remove(file)
            raise

    def _sync(self, file: JournalFile, end: int) -> None:
        # One fsync for all who wait for one.
        with self._sync_lock:
            if file.synced < end:
                target = file.size
                os.fsync(file.descriptor)
                file.synced = target

    def _remove(self, file: JournalFile) -> None:
        # A file that cannot go is met again by whoever comes next, and the store has what is in it.
        with suppress(OSError):
            file.path.unlink(missing_ok=True)
            file.path.with_suffix(PROGRESS).unlink(missing_ok=True)
        os.close(file.descriptor)
        self._files.remove(file)
        if self._active is file:
            self._active = None
