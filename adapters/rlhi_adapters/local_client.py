"""A `ChatClient` over a model in this process: requests that arrive together are answered as one batch."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from rlhi_adapters.batching import Batcher
from rlhi_adapters.sampling import derive_seed
from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import FREE, Capabilities, ChatReply, ChatRequest, require

if TYPE_CHECKING:
    from rlhi_adapters.local_model import GenerationJob, LocalModel

_Replies = tuple[ChatReply, ...]


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
        self._batches = Batcher[list["GenerationJob"], _Replies](self.model, self._answer, most=batch_size)

    @property
    def model(self) -> str:
        """``base`` or ``base+adapter``."""
        return self._model.base.name + (f"+{self._adapter}" if self._adapter else "")

    @property
    def adapter(self) -> str | None:
        """The adapter that answers, by its name in the model; None is the base alone."""
        return self._adapter

    @property
    def capabilities(self) -> Capabilities:
        """All there is; a schema that llguidance does not know is an error."""
        return Capabilities(json_schema="constrained", logprobs=True, seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """Answer a request; concurrent ones share a batch.

        Raises:
            ConfigError: answers cannot be held to the schema.
            InvalidReplyError: the JSON was cut at `max_tokens`.
            ModelCallError: the prompt does not fit, the client is closed, or the model failed.
        """
        future = await asyncio.to_thread(self._submit, request)
        replies = await asyncio.wrap_future(future)
        return check_replies(self.model, request, replies)

    def complete_sync(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """As `complete`, for code without an event loop."""
        return check_replies(self.model, request, self._submit(request).result())

    def close(self) -> None:
        """Finish what was asked for and stop the worker. Later requests raise."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, request: ChatRequest) -> Future[_Replies]:
        require(self, request)
        jobs = self._jobs(request)
        # A prompt that cannot be answered fails here, alone, and not with the whole batch it would have joined.
        self._model.plan(jobs[0])
        return self._batches.submit(jobs, weight=len(jobs))

    def _jobs(self, request: ChatRequest) -> list[GenerationJob]:
        from rlhi_adapters.local_model import GenerationJob

        seed = secrets.randbits(63) if request.seed is None else request.seed
        return [
            GenerationJob(
                request.messages,
                request.max_tokens,
                request.temperature,
                derive_seed(seed, index),
                json_schema=request.json_schema,
                logprobs=request.logprobs,
            )
            for index in range(request.n)
        ]

    def _answer(self, batch: Sequence[list[GenerationJob]]) -> list[_Replies]:
        jobs = [job for several in batch for job in several]
        replies = iter(self._model.run_jobs(jobs, adapter=self._adapter, batch_size=self._batch_size))
        return [tuple(next(replies) for _ in several) for several in batch]
