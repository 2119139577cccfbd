"""The thread that works a journal off: it finds out what waits, and offers it to the store until nothing is left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from rlhi_plugin.durability.breaker import FIRST_RETRY_S, LAST_RETRY_S, Breaker
from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.readmission import Readmission, Withheld
from rlhi_plugin.durability.replay import Round, replay
from rlhi_plugin.durability.turn_file import JournalledTurn

_T = TypeVar("_T")

_log = logging.getLogger("rlhi.middleware")

REPLAY_TIMEOUT_S = 60.0
"""Seconds for what a replay offers at once: nobody waits for it."""
SURVEYED_AT_ONCE = 4 << 20
"""Bytes of dead processes' files that are looked over before the app goes on: that takes some 10 ms (ours). Larger ones
are looked over in the thread."""
_PROBES_AT_MOST = 4


class BackgroundReplay:
    """Replays one journal. Its thread runs while something waits.

    Args:
        journal: What is replayed.
        readmission: Puts turns into the store.
        breaker: Learns what the store takes.
        store_timeout_s: Seconds for which a user's turn waits for the store.

    Attributes:
        found: Turns that were found in the journal.
        torn: See `DurabilityStatus`.
        replayed: See `DurabilityStatus`.
        refused: See `DurabilityStatus`.
        withheld: See `DurabilityStatus`.
    """

    def __init__(self, journal: Journal, readmission: Readmission, breaker: Breaker, store_timeout_s: float) -> None:
        self.found = self.torn = self.replayed = self.refused = self.withheld = 0
        self._journal = journal
        self._readmission = readmission
        self._store_timeout_s = store_timeout_s
        self.start_anew(breaker)

    def start_anew(self, breaker: Breaker) -> None:
        """Everything that a forked child needs anew."""
        self._breaker = breaker
        self._lock = threading.Lock()
        self._probes = DeadlineThreads("rlhi-probe")
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether it will find out that the store is back."""
        return self._thread is not None

    def take_over(self) -> None:
        """Become the owner of what dead processes left, and have it replayed."""
        try:
            self._journal.adopt()
        except OSError as error:
            self._cannot_read(error)
        if self._journal.unsurveyed <= SURVEYED_AT_ONCE:
            self._survey()
        if self._journal:
            self.soon(pause_s=0)

    def soon(self, *, pause_s: float = FIRST_RETRY_S) -> None:
        """Have the journal replayed, now that something waits in it."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                work = threading.Thread(target=self._until_empty, args=(pause_s,), name="rlhi-replay", daemon=True)
                try:
                    work.start()
                except RuntimeError:  # the interpreter is shutting down; the next process replays
                    return
                self._thread = work

    def close(self, timeout_s: float) -> None:
        """Stop, and wait so many seconds for that."""
        self._stop.set()
        if (thread := self._thread) is not None:
            thread.join(timeout_s)
        self._probes.close()

    def _survey(self) -> None:
        found = self._journal.survey(self._stop.is_set)
        with self._lock:
            self.found += found.turns
            self.torn += found.torn
            self.refused += found.refused
        if found.turns or found.torn or found.refused:
            _log.warning(
                "the journal in %s holds %d turn(s) of processes that ended, %d cut short by a crash, %d damaged",
                self._journal.folder, found.turns, found.torn, found.refused,
            )  # fmt: skip
        if found.problem is not None:
            self._cannot_read(found.problem)

    def _cannot_read(self, error: OSError) -> None:
        self._breaker.last_error = f"the journal cannot be read: {error}"
        _log.error("the journal in %s cannot be read", self._journal.folder, exc_info=error)

    def _until_empty(self, pause_s: float) -> None:
        if self._journal.reading:
            self._survey()
        while not self._stop.wait(pause_s):
            done = self._once()
            progress = bool(done.replayed or done.withheld)
            if progress:
                # Where all went well there is no reason to wait with what was not read yet.
                pause_s = 0.0 if done.error is None and self._journal.unread else FIRST_RETRY_S
            else:
                pause_s = min(max(2 * pause_s, FIRST_RETRY_S), LAST_RETRY_S)
            with self._lock:
                if not self._journal:
                    self._thread = None
                    return
        with self._lock:
            self._thread = None

    def _once(self) -> Round:
        if self._probes.busy >= _PROBES_AT_MOST:
            return Round()
        together = self._put_together if self._readmission.together else None
        done = replay(self._journal, self._put, together, alive=self._breaker.took_since())
        with self._lock:
            self.refused += done.refused
        if done.error is not None:
            self._breaker.note(done.error)
        return done

    def _put(self, turn: JournalledTurn) -> Withheld | None:
        withheld = self._within_limit(lambda: self._readmission.put(turn))
        self._count([withheld])
        return withheld

    def _put_together(self, turns: Sequence[JournalledTurn]) -> list[Withheld | Exception | None]:
        outcomes = self._within_limit(lambda: self._readmission.put_together(turns))
        self._count(outcomes)
        return outcomes

    def _within_limit(self, work: Callable[[], _T]) -> _T:
        limit = max(REPLAY_TIMEOUT_S, self._store_timeout_s)
        # A store that hangs is found out at the pace of a user's turn, not of a replay's.
        if self._breaker.is_open:
            limit = self._store_timeout_s * 5
        return self._probes.call(work, limit)

    def _count(self, outcomes: Sequence[Withheld | Exception | None]) -> None:
        if not all(isinstance(outcome, Exception) for outcome in outcomes):
            self._breaker.succeeded()
        with self._lock:
            self.replayed += sum(outcome is None for outcome in outcomes)
            self.withheld += sum(isinstance(outcome, str) for outcome in outcomes)
