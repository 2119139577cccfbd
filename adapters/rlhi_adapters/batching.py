"""Requests that arrive together become one batch: the queue and the thread of every client that loads weights."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rlhi_plugin.errors import ModelCallError, RLHIError

_T = TypeVar("_T")
_R = TypeVar("_R")

_WINDOW_S = 0.01
"""After a request, wait so long for the next one before generating; a batch takes seconds, so this costs nothing."""


@dataclass(slots=True)
class _Pending(Generic[_T, _R]):
    item: _T
    weight: int
    future: Future[_R] = field(default_factory=Future)


class Batcher(Generic[_T, _R]):
    """Runs what waits as one batch, in a thread of its own. Safe to use from many threads and event loops at once.

    Args:
        name: Of the model, for messages.
        run: Answers a batch: one result an item, in order.
        most: Weight at which a batch is full.
    """

    def __init__(self, name: str, run: Callable[[Sequence[_T]], Sequence[_R]], *, most: int) -> None:
        self._name = name
        self._run = run
        self._most = most
        self._queue: queue.SimpleQueue[_Pending[_T, _R] | None] = queue.SimpleQueue()
        self._closed = False
        self._guard = threading.Lock()
        self._worker: threading.Thread | None = None

    def submit(self, item: _T, *, weight: int = 1) -> Future[_R]:
        """Put an item into the next batch.

        Raises:
            ModelCallError: it is closed.
        """
        pending = _Pending[_T, _R](item, weight)
        with self._guard:
            if self._closed:
                raise ModelCallError(f"the client of {self._name} is closed. Open a new one.")
            if self._worker is None:
                self._worker = threading.Thread(target=self._serve, name=f"rlhi-{self._name}", daemon=True)
                self._worker.start()
            self._queue.put(pending)
        return pending.future

    def close(self) -> None:
        """Finish what was asked for and stop the thread. Later items raise."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if self._worker is not None:
            self._worker.join()

    def _serve(self) -> None:
        open_for_more = True
        while open_for_more:
            batch, open_for_more = self._collect()
            started = [pending for pending in batch if pending.future.set_running_or_notify_cancel()]
            if started:
                self._answer(started)

    def _collect(self) -> tuple[list[_Pending[_T, _R]], bool]:
        """Wait for an item, then take what arrives until nobody has asked for a moment or the batch is full."""
        pending = self._queue.get()
        batch: list[_Pending[_T, _R]] = []
        deadline = time.monotonic() + 20 * _WINDOW_S
        while pending is not None:
            batch.append(pending)
            full = sum(one.weight for one in batch) >= self._most
            if full or time.monotonic() > deadline:
                return batch, True
            try:
                pending = self._queue.get(timeout=_WINDOW_S)
            except queue.Empty:
                return batch, True
        return batch, False

    def _answer(self, batch: Sequence[_Pending[_T, _R]]) -> None:
        try:
            results = self._run([pending.item for pending in batch])
        except RLHIError as error:
            _fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who wait for an answer
            _fail(batch, ModelCallError(f"{self._name} failed: {error!r}. Try fewer requests at once, or float32."))
            return
        for pending, result in zip(batch, results, strict=True):
            pending.future.set_result(result)


def _fail(batch: Sequence[_Pending[_T, _R]], error: RLHIError) -> None:
    for pending in batch:
        pending.future.set_exception(error)
