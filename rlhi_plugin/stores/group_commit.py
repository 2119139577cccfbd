"""Group commit: who writes at the same time shares one transaction, and so one wait for the disk.

The first caller that finds nobody writing becomes the leader: it takes everything that waits, its own part included,
and writes it in one go. Who comes meanwhile waits; when the leader is done, it wakes those it wrote for and makes the
first of the others the next leader. There is no thread of our own, no delay to let a group form, and no queue that
outlives a call: a caller alone writes at once, and returns only when its own part is durable or has failed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_GROUP = 256
"""Parts that one transaction takes at most, so that nobody waits for too large a one."""


class _Waiting(Generic[Item, Result]):
    """One caller's part and how it went. `turn` is held until there is something to do or to return."""

    __slots__ = ("done", "item", "leads", "outcome", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.turn = threading.Lock()
        self.turn.acquire()
        self.leads = False
        self.done = False
        self.outcome: Result | BaseException | None = None


class GroupCommit(Generic[Item, Result]):
    """Gathers what threads give to `submit` at the same time into groups, and writes one group after the other.

    Args:
        write: Makes a group durable. Returns for each part, in order, its result or the error that only that part gets.
            An `Exception` that it raises goes to every caller of the group. It may get a part a second time, when an
            interrupt ended it the first time.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result | Exception]]) -> None:
        self._write = write
        self._mutex = threading.Lock()
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._led = False

    def submit(self, item: Item) -> Result:
        """Write one part, together with what others submit now.

        Returns:
            What `write` returned for it, after the whole group is durable.

        Raises:
            Exception: what `write` gave for this part, or raised for the group.
        """
        mine: _Waiting[Item, Result] = _Waiting(item)
        try:
            with self._mutex:
                self._queue.append(mine)
                if not self._led:
                    mine.leads = self._led = True
            if not mine.leads:
                # Released by a leader: either it wrote this part, or this thread leads now.
                mine.turn.acquire()
        except BaseException:
            self._give_up(mine)
            raise
        if not mine.done:
            self._lead(mine)
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return mine.outcome  # type: ignore[return-value]  # done, and no error: it is the result

    def _lead(self, mine: _Waiting[Item, Result]) -> None:
        group: list[_Waiting[Item, Result]] = []
        outcomes: Sequence[Result | BaseException]
        try:
            with self._mutex:
                group = list(islice(self._queue, LARGEST_GROUP))
                for _ in group:
                    self._queue.popleft()
            outcomes = self._write([waiting.item for waiting in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is every caller's
            outcomes = [error] * len(group)
        except BaseException as error:  # noqa: BLE001 - raised again by the one whom it was meant for
            # An interrupt is this thread's alone: the next leader writes the others' parts.
            with self._mutex:
                self._queue.extendleft(w for w in reversed(group) if w is not mine and w not in self._queue)
                if mine in self._queue:
                    self._queue.remove(mine)
            group, outcomes = [mine], [error]
        for waiting, outcome in zip(group, outcomes, strict=True):
            waiting.outcome, waiting.done = outcome, True
        with self._mutex:
            self._pass_on()
        for waiting in group:
            if waiting.turn.locked():
                waiting.turn.release()

    def _pass_on(self) -> None:
        """Make the first who waits the leader. The mutex is held."""
        self._led = bool(self._queue)
        if self._led:
            self._queue[0].leads = True
            self._queue[0].turn.release()

    def _give_up(self, mine: _Waiting[Item, Result]) -> None:
        """An interrupt ends a wait: what nobody has begun to write is withdrawn, and leads nobody."""
        with self._mutex:
            if mine in self._queue:
                self._queue.remove(mine)
                if mine.leads:
                    self._pass_on()
