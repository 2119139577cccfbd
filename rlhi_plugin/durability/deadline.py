"""Calls with a time limit: the caller stops waiting, the call itself goes on to its end.

A `ThreadPoolExecutor` would make the interpreter wait for a store that hangs before it may exit; these threads are
daemons. Idle ones are used again, so a call costs two thread switches and no thread start.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from rlhi_plugin.errors import StoreTimeoutError

T = TypeVar("T")

THREADS_AT_MOST = 256
"""Calls in progress, those given up included (ours). A further one is refused, as if it had run out of time."""


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._done = threading.Event()
        self._result: T
        self._error: BaseException | None = None

    def run(self, rest: Callable[[], None]) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the caller waits
            self._error = error
        rest()
        self._done.set()

    def result(self, timeout_s: float) -> T:
        if not self._done.wait(timeout_s):
            raise StoreTimeoutError(f"the store did not answer within {timeout_s:g} s. See whether it is overloaded.")
        if self._error is not None:
            raise self._error
        return self._result


class DeadlineThreads:
    """Runs calls in threads of its own; each waits for at most its own time limit. Usable from any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    @property
    def busy(self) -> int:
        """Calls in progress, those given up included."""
        with self._lock:
            return self._threads - self._idle

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """The result of `work`, or what it raised.

        Raises:
            StoreTimeoutError: it was not done after `timeout_s` seconds, or too many calls hang already.
        """
        call = _Call(work)
        with self._lock:
            if self._idle:
                self._idle -= 1
                start = False
            elif self._threads < THREADS_AT_MOST:
                self._threads += 1
                start = True
            else:
                raise StoreTimeoutError(f"{self._threads} calls of the store hang. See what it waits for.")
        if start and not self._started():
            # While the interpreter shuts down no thread can start; then the caller waits.
            call.run(lambda: None)
        else:
            self._calls.put(partial(call.run, self._rest))
        return call.result(timeout_s)

    def close(self) -> None:
        """Let idle threads end. Calls in progress go on."""
        with self._lock:
            idle = self._idle
            self._idle = 0
        for _ in range(idle):
            self._calls.put(None)

    def _started(self) -> bool:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
            return False
        return True

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        with self._lock:
            self._threads -= 1

    def _rest(self) -> None:
        # Before the caller wakes, so that its next call finds this thread.
        with self._lock:
            self._idle += 1
