"""Streams of an `openai` client: seen while they pass, and put together to one answer when they are over."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rlhi_plugin.partial_answer import finish_of
from rlhi_plugin.records import Finish

if TYPE_CHECKING:
    from rlhi_plugin.integrations.openai_client import Observed

_log = logging.getLogger("rlhi.middleware")

Collect = Callable[[Sequence[Any]], Any]


class _Passed:
    """What has passed of one stream. When it is over, for whatever reason, that is logged, once."""

    def __init__(self, call: Observed, collect: Collect) -> None:
        self.events: list[Any] = []
        self.reading = False
        self.error: BaseException | None = None
        """What ended the reading; None where nobody read to an end."""
        self._call = call
        self._collect = collect
        self._lock = threading.Lock()
        self._over = False

    def over(self) -> None:
        """Log the answer as far as it came."""
        if self._first_time():
            self._call.record(self._collected(), self._finish())

    async def aover(self) -> None:
        """The same in an event loop."""
        if self._first_time():
            await self._call.arecord(self._collected(), self._finish())

    def thrown_away(self) -> None:
        """The stream was garbage collected, which may happen while locks are held: log in a thread of its own."""
        if not self._over:
            # At the end of the process no thread can be started; what the user said is on disk already.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self.over, name="rlhi-abandoned-stream").start()

    def _first_time(self) -> bool:
        with self._lock:
            first, self._over = not self._over, True
            return first

    def _finish(self) -> Finish | None:
        if any(getattr(event, "type", "") in ("response.failed", "error") for event in self.events):
            return "failed"
        # What closes a stream after its last piece has cut nothing short.
        if isinstance(self.error, StopIteration | StopAsyncIteration) or any(map(_is_last, self.events[-3:])):
            return None
        return "incomplete" if self.error is None else finish_of(self.error)

    def _collected(self) -> Any:
        try:
            return self._collect(self.events) if self.events else None
        except Exception:  # noqa: BLE001 - servers that are almost compatible send almost anything
            _log.exception("a streamed answer could not be put together; only what the user said is logged")
            return None


def follow(stream: Any, call: Observed, collect: Collect) -> Any:
    """The same stream object, observed: of a class derived from its own, so that every way of reading it is seen."""
    passed = _Passed(call, collect)
    try:
        is_async = hasattr(type(stream), "__anext__")
        kind: type = type(stream)
        stream.__class__ = _async_class(kind) if is_async else _sync_class(kind)
        stream.rlhi_passed = passed
        # The helpers of `.stream()` close the HTTP response, not the stream.
        if is_async:
            stream.response.aclose = _aclosing(stream.response.aclose, passed)
        else:
            stream.response.close = _closing(stream.response.close, passed)
        weakref.finalize(stream, passed.thrown_away).atexit = False
    except Exception:  # noqa: BLE001 - the stream is the caller's, whatever we make of it
        _log.exception("a stream could not be observed; only what the user said is logged")
    return stream


@functools.cache
def _sync_class(kind: type) -> type:
    class Followed(kind):  # type: ignore[misc] # the class is known at run time only
        def __next__(self) -> Any:
            passed: _Passed = self.rlhi_passed
            passed.reading = True
            try:
                event = super().__next__()
            except BaseException as error:
                passed.error = error
                passed.over()
                raise
            finally:
                passed.reading = False
            passed.events.append(event)
            return event

        def __iter__(self) -> Any:
            while True:
                try:
                    event = self.__next__()
                except StopIteration:
                    return
                yield event

    Followed.__name__, Followed.__qualname__ = kind.__name__, kind.__qualname__
    return Followed


@functools.cache
def _async_class(kind: type) -> type:
    class Followed(kind):  # type: ignore[misc] # the class is known at run time only
        async def __anext__(self) -> Any:
            passed: _Passed = self.rlhi_passed
            passed.reading = True
            try:
                event = await super().__anext__()
            except BaseException as error:
                passed.error = error
                await passed.aover()
                raise
            finally:
                passed.reading = False
            passed.events.append(event)
            return event

        async def __aiter__(self) -> Any:
            while True:
                try:
                    event = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield event

    Followed.__name__, Followed.__qualname__ = kind.__name__, kind.__qualname__
    return Followed


def _closing(close: Callable[[], None], passed: _Passed) -> Callable[[], None]:
    def closing() -> None:
        try:
            close()
        finally:
            # The end of a stream that is being read closes the response too, before its last event has passed.
            if not passed.reading:
                passed.over()

    return closing


def _aclosing(aclose: Callable[[], Any], passed: _Passed) -> Callable[[], Any]:
    async def closing() -> None:
        try:
            await aclose()
        finally:
            if not passed.reading:
                await passed.aover()

    return closing


def _is_last(event: Any) -> bool:
    """Whether an event says that the answer is whole; a chunk with the usage, or none of its choices, may follow."""
    if getattr(event, "type", "") in ("response.completed", "response.incomplete"):
        return True
    return any(getattr(choice, "finish_reason", None) for choice in getattr(event, "choices", None) or ())


def chat_from_chunks(chunks: Sequence[Any]) -> Any:
    """The chat completion that the chunks make up so far."""
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    return state.current_completion_snapshot


def response_from_events(events: Sequence[Any]) -> Any:
    """The response that the events tell of; one that did not come to its end holds the text that had come."""
    output: dict[int, Any] = {}
    response = None
    for event in events:
        kind = getattr(event, "type", "")
        if kind in ("response.completed", "response.incomplete"):
            return event.response
        if kind in ("response.created", "response.in_progress", "response.failed"):
            response = event.response
        elif kind == "response.output_item.done":
            output[event.output_index] = event.item
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            part = output.setdefault(event.output_index, {"role": "assistant", "content": ""})
            if isinstance(part, dict):
                part["content"] += event.delta
    items = [output[index] for index in sorted(output)]
    return SimpleNamespace(
        id=getattr(response, "id", None), model=getattr(response, "model", None), output=items, usage=None
    )
