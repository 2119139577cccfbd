"""RLHI as a LangChain callback handler: logs the chat model calls of any chain.

chain.invoke(question, config={"callbacks": [RLHICallbackHandler(store="sqlite:///rlhi.db")],
                               "metadata": {"user_id": "u42", "thread_id": "t1"}})

A callback can only watch. It cannot put the persona into the prompt: for that use `RLHIMiddleware`, `with_rlhi` or
`wrap_openai`, or put `rlhi_plugin.persona.render_persona` into a prompt of your own.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Unpack
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.config import ensure_config

from rlhi_plugin.integrations.observer import Exchange, ObservedCall, Observer, ObserverOptions, observer_from
from rlhi_plugin.integrations.speaker import Speaker, current_speaker, speaker_from
from rlhi_plugin.model_call import adapter_in
from rlhi_plugin.partial_answer import PartialAnswer, finish_of

_RUNS_REMEMBERED = 10_000
"""Runs in progress; one that never ends, as when a process is killed, must not stay in memory for ever."""

_V = TypeVar("_V")


@dataclass(slots=True)
class _Started:
    """A chat model call that is in progress; `call` is None for one inside another that is logged already."""

    call: ObservedCall | None
    messages: Sequence[BaseMessage] = ()
    model: str | None = None
    streams: bool = False
    partial: PartialAnswer = field(default_factory=PartialAnswer)


class RLHICallbackHandler(BaseCallbackHandler):
    """Logs every chat model call that it sees: sync and async, streams, batches; nested calls once.

    LangChain runs it in a thread where the chain is async. When the chain's call returns, the turn is on disk; when the
    model fails or its stream is closed, what the user said is. The speaker is what `turn` says, else ``user_id`` and
    ``thread_id`` in the run's metadata, else in the ``configurable`` of the graph or chain around the model. A call
    without a thread belongs to a conversation of its outermost run.

    Every chat model call of a chain is logged, also one that the user never sees the answer of, such as a router's:
    where a chain has several, tag the one that answers and pass `only_tags`.

    Args:
        only_tags: Log only calls with one of these tags; all unless given.
        observer: One that exists already, in place of `options`.
        options: See `ObserverOptions`; ``persona`` is ``off`` in any case.

    Raises:
        ConfigError: an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """

    def __init__(
        self,
        *,
        only_tags: Collection[str] | None = None,
        observer: Observer | None = None,
        **options: Unpack[ObserverOptions],
    ) -> None:
        if options:
            options["persona"] = "off"
        self.observer = observer_from(observer, options)
        self._only_tags = None if only_tags is None else frozenset(only_tags)
        self._roots: _Recent[UUID] = _Recent()
        self._started: _Recent[_Started] = _Recent()

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember to which outermost run this one belongs."""
        del serialized, inputs, kwargs
        self._roots.put(run_id, self._root(run_id, parent_run_id))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        del outputs, kwargs
        self._roots.pop(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        del error, kwargs
        self._roots.pop(run_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is being called; LangChain makes one such event, with one list of messages, for each input."""
        del serialized
        root = self._root(run_id, parent_run_id)
        self._roots.put(run_id, root)
        nested = parent_run_id is not None and self._started.get(parent_run_id) is not None
        unwanted = self._only_tags is not None and self._only_tags.isdisjoint(tags or ())
        if nested or unwanted:
            self._started.put(run_id, _Started(None))
            return
        call = self.observer.begin(functools.partial(_speaker, metadata), fallback_thread=f"run-{root}")
        name = (metadata or {}).get("ls_model_name") or (kwargs.get("invocation_params") or {}).get("model")
        self._started.put(run_id, _Started(call, messages[0] if messages else (), name))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A stream has begun, and may be left without a further event: what the user said is logged now."""
        started = self.opened(run_id, token, kwargs.get("chunk"))
        if started is not None:
            self.record(started, None)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """The model has answered."""
        del kwargs
        self.record(self.finished(run_id), response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """The model has failed, or its stream was closed; what had come of the answer is logged as a part of one."""
        del kwargs
        self.record(self.finished(run_id, error), None)

    def opened(self, run_id: UUID, token: Any, chunk: Any) -> _Started | None:
        """The call of this run, at the first token of its stream only; every token is kept."""
        started = self._started.get(run_id)
        if started is None:
            return None
        started.partial.on_llm_new_token(token, chunk=chunk)
        if started.streams:
            return None
        started.streams = True
        return started

    def finished(self, run_id: UUID, error: BaseException | None = None) -> _Started | None:
        """The call of this run, which is forgotten here."""
        self._roots.pop(run_id)
        started = self._started.pop(run_id)
        if started is not None:
            started.partial.finish = finish_of(error)
        return started

    def record(self, started: _Started | None, response: LLMResult | None) -> None:
        """Log what is known of a call. Never raises."""
        if started is not None and started.call is not None:
            self.observer.record(started.call, functools.partial(_exchange, started, response))

    def _root(self, run_id: UUID, parent_run_id: UUID | None) -> UUID:
        return run_id if parent_run_id is None else self._roots.get(parent_run_id) or parent_run_id


class AsyncRLHICallbackHandler(AsyncCallbackHandler):
    """The same for async chains with long streams: LangChain starts no thread for each of their tokens.

    Args:
        only_tags: See `RLHICallbackHandler`.
        observer: One that exists already, in place of `options`.
        options: See `ObserverOptions`; ``persona`` is ``off`` in any case.

    Raises:
        ConfigError: an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """

    def __init__(
        self,
        *,
        only_tags: Collection[str] | None = None,
        observer: Observer | None = None,
        **options: Unpack[ObserverOptions],
    ) -> None:
        self._handler = RLHICallbackHandler(only_tags=only_tags, observer=observer, **options)
        self.observer = self._handler.observer

    async def on_chain_start(self, *arguments: Any, **named: Any) -> None:
        """Remember to which outermost run this one belongs."""
        self._handler.on_chain_start(*arguments, **named)

    async def on_chain_end(self, outputs: Any, **named: Any) -> None:
        """Forget the run."""
        self._handler.on_chain_end(outputs, **named)

    async def on_chain_error(self, error: BaseException, **named: Any) -> None:
        """Forget the run."""
        self._handler.on_chain_error(error, **named)

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **named: Any
    ) -> None:
        """A chat model is being called."""
        self._handler.on_chat_model_start(serialized, messages, **named)

    async def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A stream has begun."""
        started = self._handler.opened(run_id, token, kwargs.get("chunk"))
        if started is not None:
            await self._record(started, None)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """The model has answered."""
        del kwargs
        await self._record(self._handler.finished(run_id), response)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """The model has failed, or its stream was closed."""
        del kwargs
        await self._record(self._handler.finished(run_id, error), None)

    async def _record(self, started: _Started | None, response: LLMResult | None) -> None:
        loop = asyncio.get_running_loop()
        # A cancelled run must not cancel the writing of what was said before.
        await asyncio.shield(loop.run_in_executor(None, self._handler.record, started, response))


def _speaker(metadata: Mapping[str, Any] | None) -> Speaker:
    configurable = ensure_config().get("configurable")
    return current_speaker().otherwise(speaker_from(metadata, configurable))


def _exchange(started: _Started, response: LLMResult | None) -> Exchange:
    if started.partial.finish is not None:
        return Exchange(
            history=started.messages,
            reply=started.partial.messages(),
            model=started.model,
            finish=started.partial.finish,
        )
    generations = [generation for several in (response.generations if response else []) for generation in several]
    reply = [g.message for g in generations if isinstance(g, ChatGeneration) and _says_something(g.message)]
    names = [message.response_metadata.get("model_name") or message.response_metadata.get("model") for message in reply]
    return Exchange(
        history=started.messages,
        reply=reply,
        model=next((str(name) for name in names if name), started.model),
        adapter=adapter_in(reply),
    )


def _says_something(message: BaseMessage) -> bool:
    return bool(message.content or getattr(message, "tool_calls", None))


class _Recent(Generic[_V]):
    """Values by run, the newest of them; thread-safe."""

    def __init__(self) -> None:
        self._entries: OrderedDict[UUID, _V] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, run_id: UUID, value: _V) -> None:
        with self._lock:
            self._entries[run_id] = value
            if len(self._entries) > _RUNS_REMEMBERED:
                self._entries.popitem(last=False)

    def get(self, run_id: UUID) -> _V | None:
        with self._lock:
            return self._entries.get(run_id)

    def pop(self, run_id: UUID) -> _V | None:
        with self._lock:
            return self._entries.pop(run_id, None)
