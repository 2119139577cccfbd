"""Group commit: who writes at the same time shares one transaction, and so one wait for the disk.

One thread writes. It takes everything that waits and writes it in one go; who comes meanwhile is in the next group.
There is no delay to let a group form: a caller alone is written at once. Callers only wait, so they may stop waiting:
what they gave is written all the same. The thread starts with the first part, ends when nothing has come for a while,
and does not keep the interpreter from ending.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from rlhi_plugin.errors import StoreTimeoutError

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_GROUP = 256
"""Parts that one transaction takes at most, so that nobody waits for too large a one."""
LONGEST_QUEUE = 10_000
"""Parts that wait at most (ours): where a database hangs, further ones are refused at once."""
IDLE_S = 5.0
"""Seconds after which a thread with nothing to do ends (ours)."""


class Pending(Generic[Item, Result]):
    """One caller's part, and how it went."""

    __slots__ = ("_done", "item", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | BaseException | None = None
        # A lock is the cheapest thing to wait for: an Event makes one of its own for each wait.
        self._done = threading.Lock()
        self._done.acquire()

    def settle(self, outcome: Result | BaseException) -> None:
        """Say how it went; called once, by the thread that writes."""
        self.outcome = outcome
        self._done.release()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait until this part is durable.

        Args:
            timeout_s: Seconds after which to stop waiting; None waits as long as it takes.

        Raises:
            StoreTimeoutError: it took longer. It may still be written.
            Exception: what the write gave for this part, or raised for its group.
        """
        if not self._done.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise StoreTimeoutError(f"the store did not answer within {timeout_s:g} s. See whether it is overloaded.")
        self._done.release()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return cast("Result", self.outcome)


class GroupCommit(Generic[Item, Result]):
    """Gathers what threads submit at the same time into groups, and writes one group after the other.

    Args:
        write: Makes a group durable; it is called from one thread at a time. Returns for each part, in order, its
            result or the error that only that part gets. What it raises goes to every caller of the group.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result | Exception]]) -> None:
        self._write = write
        self._start_anew()
        _all.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Pending[Item, Result]] = queue.SimpleQueue()
        self._runs = False

    def submit(self, item: Item) -> Pending[Item, Result]:
        """Have one part written, together with what others submit now.

        Raises:
            StoreTimeoutError: too many parts wait already.
        """
        pending: Pending[Item, Result] = Pending(item)
        with self._lock:
            if self._queue.qsize() >= LONGEST_QUEUE:
                raise StoreTimeoutError(f"{LONGEST_QUEUE} writes wait for the store. See what it waits for.")
            if self._runs or self._started():
                self._queue.put(pending)
                return pending
        # While the interpreter shuts down no thread can start; then the caller writes.
        self._settle([pending])
        return pending

    def _started(self) -> bool:
        try:
            threading.Thread(target=self._run, name="rlhi-commit", daemon=True).start()
        except RuntimeError:
            return False
        self._runs = True
        return True

    def _run(self) -> None:
        while True:
            try:
                group = [self._queue.get(timeout=IDLE_S)]
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._runs = False
                        return
                continue
            try:
                while len(group) < LARGEST_GROUP:
                    group.append(self._queue.get_nowait())
            except queue.Empty:
                pass
            self._settle(group)
            # What was written must not live until the next part comes.
            del group

    def _settle(self, group: Sequence[Pending[Item, Result]]) -> None:
        settled: list[tuple[Pending[Item, Result], Result | BaseException]]
        try:
            settled = list(zip(group, self._write([pending.item for pending in group]), strict=True))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is every caller's
            settled = [(pending, error) for pending in group]
        for pending, outcome in settled:
            pending.settle(outcome)


_all: weakref.WeakSet[GroupCommit[Any, Any]] = weakref.WeakSet()


def _in_child() -> None:
    # The thread stays in the parent, which also writes what waits.
    for commit in list(_all):
        commit._start_anew()  # noqa: SLF001 - of this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
