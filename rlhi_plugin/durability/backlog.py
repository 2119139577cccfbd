"""What ended processes left in a journal: looked over once, then read again a window at a time as it is replayed.

After a long outage that may be millions of lines. Of each only its conversation is remembered, as a number, and how
many lines of it wait; entries are made of those that are next.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from rlhi_plugin.durability.entries import Entry, JournalFile, set_aside
from rlhi_plugin.durability.turn_file import Key, decode, key_of

_log = logging.getLogger("rlhi.middleware")

WINDOW = 512
"""Lines that have entries, and may be offered in one round (ours): some milliseconds of reading, under the journal's
lock. Those of conversations that failed before are not counted, so that they keep nobody from being read."""
_BREATH = 100
"""Lines of the survey between two moments at which another thread may have the interpreter (ours)."""
_DAMAGED: Key = ("", None)
"""Stands for the conversation of a line that cannot be read; no conversation has this name."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What the files of dead processes held.

    Attributes:
        turns: Lines that wait for the store now.
        torn: Last lines that a crash had cut short. They were never acknowledged.
        refused: Damaged lines, set aside.
        problem: Why a file could not be read, or None. It was given up, to be adopted by whoever comes next.
    """

    turns: int = 0
    torn: int = 0
    refused: int = 0
    problem: OSError | None = None


@dataclass(slots=True)
class Survey:
    """What a look at all files has found.

    Attributes:
        held: Lines that wait, by the hash of their key.
        waiting: Lines that wait, by file.
        torn: See `TakenOver`.
        refused: See `TakenOver`.
        unreadable: Files that could not be read, and why.
    """

    held: Counter[int] = field(default_factory=Counter)
    waiting: dict[JournalFile, int] = field(default_factory=dict)
    torn: int = 0
    refused: int = 0
    unreadable: dict[JournalFile, OSError] = field(default_factory=dict)


class Backlog:
    """The lines of one journal's inherited files, in order. All but `survey` is called under the journal's lock.

    Attributes:
        reading: Whether files are still to be surveyed: until then nobody knows which conversations wait.
        seen: Lines that a survey in progress has found so far.
        entries: The window, in order.
        problem: Why the next lines cannot be read, or None.
    """

    def __init__(self) -> None:
        self.reading = False
        self.seen = 0
        self.entries: dict[Entry, None] = {}
        self.problem: OSError | None = None
        self._found: list[JournalFile] = []
        self._unread: deque[JournalFile] = deque()
        # Of millions of names, which take ten times as much; two of one hash wait for each other, which is no harm.
        self._held: Counter[int] = Counter()

    def holds(self, key: Key) -> bool:
        """Whether a conversation may have lines here that wait."""
        return self.reading or hash(key) in self._held

    @property
    def unsurveyed(self) -> int:
        """Bytes of files that are still to be surveyed."""
        return sum(file.size - file.read_to for file in self._found)

    @property
    def unread(self) -> bool:
        """Whether there are lines beyond the window."""
        return bool(self._unread)

    def adopt(self, files: Iterable[JournalFile]) -> None:
        """Add files that are ours now, to be surveyed."""
        self._found += files
        self.reading = bool(self._found)

    def survey(self, stopped: Callable[[], bool]) -> Survey | None:
        """Look at every line of the files that were adopted. Needs no lock: nothing here is used before `surveyed`.

        Args:
            stopped: Whether to give up.

        Returns:
            None where it was given up.
        """
        found = Survey()
        for file in self._found:
            held: Counter[int] = Counter()
            try:
                for key in _survey(file, found):
                    held[hash(key)] += 1
                    self.seen += 1
                    if self.seen % _BREATH == 0:
                        time.sleep(0)
                        if stopped():
                            return None
            except OSError as error:
                found.unreadable[file] = error
                continue
            found.waiting[file] = held.total()
            found.held.update(held)
        return found

    def surveyed(self, found: Survey) -> list[JournalFile]:
        """Let the lines be read and replayed.

        Returns:
            The files that could be read.
        """
        for file, waiting in found.waiting.items():
            file.waiting, file.unread = waiting, waiting > 0
        self._unread += [file for file in found.waiting if file.unread]
        self._held.update(found.held)
        self._found, self.seen, self.reading = [], 0, False
        return list(found.waiting)

    def load(self) -> list[JournalFile]:
        """Read on until the window is full.

        Returns:
            Files that were read to their end.
        """
        suspects = {entry.key for entry in self.entries if entry.failures}
        missing = WINDOW - sum(entry.key not in suspects for entry in self.entries)
        ended = []
        self.problem = None
        while self._unread and missing > 0:
            file = self._unread[0]
            try:
                found = _next_entries(file, missing)
            except OSError as error:
                self.problem = error
                break
            self.entries |= dict.fromkeys(found)
            file.order.extend(found)
            missing -= sum(entry.key not in suspects for entry in found)
            if not file.unread:
                _settle_for_what_is_there(file)
                ended.append(self._unread.popleft())
        if ended and not self._unread:
            self._held = Counter(hash(entry.key) for entry in self.entries)
        return ended

    def done(self, entry: Entry) -> None:
        """An entry of the window waits no longer."""
        del self.entries[entry]
        number = hash(entry.key)
        self._held[number] -= 1
        if self._held[number] <= 0:
            del self._held[number]


def _survey(file: JournalFile, found: Survey) -> Iterator[Key]:
    """The keys of the lines that wait."""
    with file.path.open("rb") as stream:
        offset = stream.seek(file.read_to)
        while raw := stream.readline():
            key = key_of(raw) or _key_after_a_closer_look(file, raw, offset, found)
            offset += len(raw)
            if key is not None:
                yield key


def _key_after_a_closer_look(file: JournalFile, raw: bytes, offset: int, found: Survey) -> Key | None:
    line = decode(raw, offset)
    if line.turn is not None:
        return line.turn.conversation_id, line.turn.user_id
    if line.torn:
        found.torn += 1
        return None
    # Where there is no room to set it aside now, the replay does that later.
    with suppress(OSError):
        set_aside(file, raw, line.problem or "damaged")
        file.set_aside.add(offset)
        found.refused += 1
        return None
    return _DAMAGED


def _settle_for_what_is_there(file: JournalFile) -> None:
    """A file that was read to its end waits for what was found in it, whatever was done to it since the survey."""
    waiting = sum(not entry.taken for entry in file.order)
    if waiting != file.waiting:
        _log.error("the journal file %s held %d turn(s) at first, and %d later", file.path, file.waiting, waiting)
    file.waiting = waiting


def _next_entries(file: JournalFile, at_most: int) -> list[Entry]:
    """Entries of the next lines of a file, and how far it was read."""
    found: list[Entry] = []
    offset = file.read_to
    with file.path.open("rb") as stream:
        stream.seek(offset)
        while len(found) < at_most:
            raw = stream.readline()
            # Without its end it was never acknowledged, and nothing follows.
            if not raw.endswith(b"\n"):
                file.unread = False
                break
            if offset not in file.set_aside:
                found.append(Entry(key_of(raw) or _key_of_unusual(raw), file, offset, len(raw)))
            offset += len(raw)
    file.read_to = offset
    return found


def _key_of_unusual(raw: bytes) -> Key:
    turn = decode(raw, 0).turn
    return _DAMAGED if turn is None else (turn.conversation_id, turn.user_id)
