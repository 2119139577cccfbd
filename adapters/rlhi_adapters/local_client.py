"""A `ChatClient` over a model in this process: requests that arrive together are answered as one batch."""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rlhi_adapters.sampling import derive_seed
from rlhi_plugin.chat import ChatReply, ChatRequest
from rlhi_plugin.errors import ModelCallError, RLHIError

if TYPE_CHECKING:
    from rlhi_adapters.local_model import GenerationJob, LocalModel

_WINDOW_S = 0.01
"""After a request, wait so long for the next one before generating; a batch takes seconds, so this costs nothing."""


@dataclass(slots=True)
class _Pending:
    jobs: list[GenerationJob]
    future: Future[tuple[ChatReply, ...]] = field(default_factory=Future)


class LocalClient:
    """Answers chat requests with a `LocalModel`. Safe to use from many threads and event loops at once.

    Args:
        model: The loaded model; several clients may share one.
        adapter: Adapter to answer with; None is the base alone.
        batch_size: Replies generated at once.
    """

    def __init__(self, model: LocalModel, *, adapter: str | None = None, batch_size: int = 32) -> None:
        self._model = model
        self._adapter = adapter
        self._batch_size = batch_size
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._closed = False
        self._guard = threading.Lock()
        self._worker: threading.Thread | None = None

    @property
    def model(self) -> str:
        """``base`` or ``base+adapter``."""
        return self._model.base.name + (f"+{self._adapter}" if self._adapter else "")

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """Answer a request; concurrent ones share a batch.

        Raises:
            ModelCallError: the prompt does not fit, JSON is asked for, the client is closed, or the model failed.
        """
        future = await asyncio.to_thread(self._submit, request)
        return await asyncio.wrap_future(future)

    def complete_sync(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """As `complete`, for code without an event loop."""
        return self._submit(request).result()

    def close(self) -> None:
        """Finish what was asked for and stop the worker. Later requests raise."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if self._worker is not None:
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, request: ChatRequest) -> Future[tuple[ChatReply, ...]]:
        pending = _Pending(self._jobs(request))
        for job in pending.jobs[:1]:
            # A prompt that cannot be answered fails here, alone, and not with the whole batch it would have joined.
            self._model.plan(job)
        with self._guard:
            if self._closed:
                raise ModelCallError(f"the client of {self.model} is closed. Open a new one.")
            if self._worker is None:
                self._worker = threading.Thread(target=self._serve, name=f"rlhi-{self.model}", daemon=True)
                self._worker.start()
            self._queue.put(pending)
        return pending.future

    def _jobs(self, request: ChatRequest) -> list[GenerationJob]:
        from rlhi_adapters.local_model import GenerationJob

        if request.json_schema is not None:
            raise ModelCallError(f"{self.model} cannot promise JSON. Ask a hosted model for structured answers.")
        seed = secrets.randbits(63) if request.seed is None else request.seed
        return [
            GenerationJob(request.messages, request.max_tokens, request.temperature, derive_seed(seed, index))
            for index in range(request.n)
        ]

    def _serve(self) -> None:
        open_for_more = True
        while open_for_more:
            batch, open_for_more = self._collect()
            started = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if started:
                self._answer(started)

    def _collect(self) -> tuple[list[_Pending], bool]:
        """Wait for a request, then take what arrives until nobody has asked for a moment or the batch is full."""
        item = self._queue.get()
        batch: list[_Pending] = []
        deadline = time.monotonic() + 20 * _WINDOW_S
        while item is not None:
            batch.append(item)
            full = sum(len(pending.jobs) for pending in batch) >= self._batch_size
            if full or time.monotonic() > deadline:
                return batch, True
            try:
                item = self._queue.get(timeout=_WINDOW_S)
            except queue.Empty:
                return batch, True
        return batch, False

    def _answer(self, batch: Sequence[_Pending]) -> None:
        jobs = [job for item in batch for job in item.jobs]
        try:
            replies = self._model.run_jobs(jobs, adapter=self._adapter, batch_size=self._batch_size)
        except RLHIError as error:
            _fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who wait for an answer
            _fail(batch, ModelCallError(f"{self.model} failed: {error!r}. Try fewer requests at once, or float32."))
            return
        start = 0
        for item in batch:
            item.future.set_result(tuple(replies[start : start + len(item.jobs)]))
            start += len(item.jobs)


def _fail(batch: Sequence[_Pending], error: RLHIError) -> None:
    for item in batch:
        item.future.set_exception(error)
