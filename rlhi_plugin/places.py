"""What this process remembers of threads, so that a turn looks at, and writes, only what is new.

A thread at rest is kept as bytes. Objects that stay make the interpreter look for garbage, which stops all threads: for
some 20 ms with 64 turns in progress. Two objects, a lock and three containers for each new conversation made it do so
every 100 turns. Bytes it does not count.
"""

from __future__ import annotations

import marshal
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rlhi_plugin.thread_path import Thread

THREADS_REMEMBERED = 4096
IDS_REMEMBERED = 200_000
"""Threads, and ids of all of them together, that are kept in memory."""
_PACKED_AT_MOST = 16
"""Ids of a thread that is kept as bytes: packing takes a microsecond or two for so many, and longer for more (ours)."""


@dataclass(slots=True)
class Place:
    """A thread, its turns one at a time, and the time of the latest.

    Attributes:
        thread: What is known of it.
        looked_up: Whether the store was asked what it ends with, or told.
        latest: When its latest turn ended; None before the first.
        lock: Held by whoever has entered it.
    """

    thread: Thread = field(default_factory=Thread)
    looked_up: bool = False
    latest: datetime | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    """Threads that are in it, or wait for it."""

    @property
    def is_known(self) -> bool:
        """Whether turns of it were recorded here."""
        return bool(self.thread.prints)


class Places:
    """The threads of one recorder, the latest used last. Usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use: dict[str, Place] = {}
        # Bytes are a thread that was looked up, of which turns were recorded.
        self._at_rest: OrderedDict[str, Place | bytes] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._ids = 0

    @property
    def ids(self) -> int:
        """Ids that are remembered of threads at rest."""
        return self._ids

    def enter(self, conversation_id: str, user_id: str | None) -> Place:
        """What is known of a thread, for the caller alone until `leave`."""
        key = _key(conversation_id, user_id)
        with self._lock:
            place = self._in_use.get(key)
            if place is None:
                kept = self._at_rest.pop(key, None)
                self._ids -= self._sizes.pop(key, 0)
                place = self._in_use[key] = _unpacked(kept) if isinstance(kept, bytes) else kept or Place()
            place.users += 1
        place.lock.acquire()
        return place

    def leave(self, conversation_id: str, user_id: str | None, place: Place) -> None:
        """Let others enter, and forget the threads that were used longest ago where there are too many."""
        key = _key(conversation_id, user_id)
        place.lock.release()
        with self._lock:
            place.users -= 1
            if place.users:
                return
            del self._in_use[key]
            self._sizes[key] = size = len(place.thread.prints)
            self._ids += size
            self._at_rest[key] = _packed(place) if place.looked_up and 0 < size <= _PACKED_AT_MOST else place
            while len(self._at_rest) > THREADS_REMEMBERED or (self._ids > IDS_REMEMBERED and len(self._at_rest) > 1):
                oldest, _ = self._at_rest.popitem(last=False)
                self._ids -= self._sizes.pop(oldest)

    def knows(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether turns of a thread were recorded here, and are remembered."""
        kept = self._kept(conversation_id, user_id)
        return isinstance(kept, bytes) or (kept is not None and kept.is_known)

    def is_looked_up(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether it is known what the store holds last of a thread."""
        kept = self._kept(conversation_id, user_id)
        return isinstance(kept, bytes) or (kept is not None and kept.looked_up)

    def _kept(self, conversation_id: str, user_id: str | None) -> Place | bytes | None:
        key = _key(conversation_id, user_id)
        with self._lock:
            return self._in_use.get(key) or self._at_rest.get(key)


def _key(conversation_id: str, user_id: str | None) -> str:
    # No pseudonym holds a NUL. The interpreter counts a pair, and no text.
    return f"{user_id or ''}\0{conversation_id}"


def _packed(place: Place) -> bytes:
    thread, latest = place.thread, place.latest
    at = None if latest is None else latest.timestamp()
    return marshal.dumps((thread.tail, thread.told_apart, at, thread.prints))


def _unpacked(raw: bytes) -> Place:
    tail, told_apart, at, prints = marshal.loads(raw)  # noqa: S302 - made in this process
    latest = None if at is None else datetime.fromtimestamp(at, UTC)
    return Place(Thread(tail, prints, told_apart), looked_up=True, latest=latest)
