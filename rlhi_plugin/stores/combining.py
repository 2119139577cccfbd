"""Combining: of the threads that write at the same time, one writes for all, and none is kept for it.

Whoever waits for a result writes what waits, unless another thread is writing; then its part is in the next group. So a
caller alone hands nothing to another thread, which would cost it two waits for the interpreter, and callers together
share one transaction, and one wait for the disk (flat combining: Hendler, Incze, Shavit and Tzafrir, SPAA 2010).

This is for writes that end: what hangs keeps the caller that does it. See `rlhi_plugin.stores.group_commit` for others.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

from rlhi_plugin.errors import StoreError, StoreTimeoutError
from rlhi_plugin.stores.group_commit import LARGEST_GROUP, LONGEST_QUEUE

Item = TypeVar("Item")
Result = TypeVar("Result")

_item_of = attrgetter("item")


class Combined(Generic[Item, Result]):
    """One caller's part, and how it went."""

    __slots__ = ("_commit", "_woken", "item", "outcome", "settled", "waits")

    def __init__(self, item: Item, commit: CombiningCommit[Item, Result]) -> None:
        self.item = item
        self.outcome: Any = None
        self.settled = False
        self.waits = False
        """Whether its caller sleeps, and may be woken to write."""
        self._commit = commit
        self._woken: threading.Lock | None = None

    def result(self, timeout_s: float | None = None) -> Result:
        """Write this part, or wait until somebody has.

        Args:
            timeout_s: Seconds after which to give up; None waits as long as it takes.

        Raises:
            StoreTimeoutError: it took longer. It may still be written.
            Exception: what the write gave for this part, or raised for its group.
        """
        if not self.settled:
            self._commit.settle(self, timeout_s)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome  # type: ignore[no-any-return] # what is no error is a result

    def will_sleep(self) -> None:
        """Say that its caller is about to, so that it can be woken."""
        self._woken = threading.Lock()
        self._woken.acquire()
        self.waits = True

    def wake(self) -> None:
        """Let its caller go on; at most once for each `sleep`."""
        assert self._woken is not None  # noqa: S101 - see `will_sleep`
        self._woken.release()

    def sleep(self, timeout_s: float | None) -> bool:
        """Wait for `wake`; False when it did not come in time."""
        assert self._woken is not None  # noqa: S101 - see `will_sleep`
        return self._woken.acquire(timeout=-1 if timeout_s is None else timeout_s)


class CombiningCommit(Generic[Item, Result]):
    """Gathers what threads submit at the same time into groups, which one of them writes.

    Args:
        write: Makes a group durable, within so many seconds where that is not None; it is called by one thread at a
            time. Returns for each part, in order, its result or the error that only that part gets. What it raises goes
            to every caller of the group.
    """

    def __init__(self, write: Callable[[Sequence[Item], float | None], Sequence[Result | Exception]]) -> None:
        self._write = write
        self.start_anew()
        _all.add(self)

    def start_anew(self) -> None:
        """In a child process: what waits is the parent's."""
        self._lock = threading.Lock()
        self._queue: deque[Combined[Item, Result]] = deque()
        self._writing = False

    def submit(self, item: Item) -> Combined[Item, Result]:
        """Put one part into the queue. It is written when its result is asked for, or with somebody else's.

        Raises:
            StoreTimeoutError: too many parts wait already.
        """
        if len(self._queue) >= LONGEST_QUEUE:
            raise StoreTimeoutError(f"{LONGEST_QUEUE} writes wait for the store. See what it waits for.")
        part = Combined(item, self)
        self._queue.append(part)
        return part

    def settle(self, part: Combined[Item, Result], timeout_s: float | None) -> None:
        """Have the part written, by this thread or by another.

        Raises:
            StoreTimeoutError: another thread took longer.
        """
        began, writes = time.monotonic(), False
        try:
            with self._lock:
                if part.settled:
                    return
                if not self._writing:
                    self._writing = writes = True
                else:
                    part.will_sleep()
            waited = not writes
            if waited:
                writes = self._waited(part, timeout_s)
            while writes and not part.settled:
                self._write_group(_left(timeout_s, began) if waited else timeout_s)
                waited = True
        finally:
            if writes:
                self._hand_over()

    def _waited(self, part: Combined[Item, Result], timeout_s: float | None) -> bool:
        """Sleep until the part is settled (False), or this thread is to write (True)."""
        try:
            in_time = part.sleep(timeout_s)
        except BaseException:
            if self._is_woken(part) and not part.settled:
                self._hand_over()
            raise
        if not in_time and not self._is_woken(part):
            raise StoreTimeoutError(f"the store did not answer within {timeout_s:g} s. See whether it is overloaded.")
        return not part.settled

    def _is_woken(self, part: Combined[Item, Result]) -> bool:
        """Whether a sleeper that woke by itself was being woken, too; nobody wakes it afterwards."""
        with self._lock:
            woken, part.waits = not part.waits, False
        return woken

    def _write_group(self, limit_s: float | None) -> None:
        group: list[Combined[Item, Result]] = []
        # Ctrl-C is for the thread that it came to; the others only learn that nothing may have been written for them.
        outcomes: Sequence[Result | BaseException] | None = None
        try:
            while self._queue and len(group) < LARGEST_GROUP:
                group.append(self._queue.popleft())
            outcomes = self._write(list(map(_item_of, group)), limit_s)
            if len(outcomes) != len(group):
                raise RuntimeError(f"{len(outcomes)} results for {len(group)} parts")  # noqa: TRY301 - goes to every caller, as any other failure
        except Exception as error:  # noqa: BLE001 - whatever it is, it is every caller's
            outcomes = [error] * len(group)
        finally:
            self._settle(group, outcomes or [StoreError("the write was interrupted. Write it again.")] * len(group))

    def _settle(self, group: Sequence[Combined[Item, Result]], outcomes: Sequence[Result | BaseException]) -> None:
        with self._lock:
            for part, outcome in zip(group, outcomes, strict=True):
                part.outcome = outcome
                part.settled = True
                if part.waits:
                    part.waits = False
                    part.wake()

    def _hand_over(self) -> None:
        """Let a caller who waits write what came meanwhile; without one, whoever comes next will."""
        with self._lock:
            heir = next((part for part in self._queue if part.waits), None) if self._queue else None
            if heir is None:
                self._writing = False
            else:
                heir.waits = False
                heir.wake()


def _left(timeout_s: float | None, began: float) -> float | None:
    return None if timeout_s is None else max(began + timeout_s - time.monotonic(), 0.0)


_all: weakref.WeakSet[CombiningCommit[Any, Any]] = weakref.WeakSet()


def _in_child() -> None:
    for commit in list(_all):
        commit.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
