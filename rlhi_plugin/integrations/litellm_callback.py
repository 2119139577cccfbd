"""RLHI as a LiteLLM callback, in the SDK and in the LiteLLM proxy, which assistants in any language can call.

In the SDK it logs:

    litellm.callbacks = [RLHILogger(store="sqlite:///rlhi.db")]
    litellm.completion(..., metadata={"user_id": "u42", "thread_id": "t1"})

In the proxy it also puts the persona in. Beside the proxy's config file, a module `rlhi_handler.py` with the line
``handler = RLHILogger(store="sqlite:///rlhi.db")``, and in the config:

    litellm_settings:
      callbacks: rlhi_handler.handler
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack, cast

from rlhi_plugin.errors import MissingExtraError
from rlhi_plugin.integrations.observer import Exchange, ObservedCall, Observer, ObserverOptions, observer_from
from rlhi_plugin.integrations.openai_streams import response_from_events
from rlhi_plugin.integrations.provider_messages import (
    ResponsesCall,
    chat_reply,
    chat_to_langchain,
    with_persona_message,
    without_command_messages,
)
from rlhi_plugin.integrations.speaker import Speaker, current_speaker, speaker_from
from rlhi_plugin.partial_answer import finish_of
from rlhi_plugin.persona.render import with_persona
from rlhi_plugin.records import Finish

# Without it, importing LiteLLM fetches a price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
try:
    from litellm.integrations.custom_logger import CustomLogger
except ImportError as error:
    raise MissingExtraError("litellm", "llm") from error

_CHAT = ("completion", "acompletion")
_RESPONSES = ("responses", "aresponses")
_WHOLE = ("response.completed", "response.incomplete")
"""Events after which LiteLLM itself logs a response."""
_ADMIN = "default_user_id"
"""Whom LiteLLM names as the user of the proxy's master key: nobody in particular."""

_log = logging.getLogger("rlhi.middleware")


class RLHILogger(CustomLogger):  # type: ignore[misc] # LiteLLM publishes no types
    """Logs chat completions and responses that pass through LiteLLM; in the proxy it also puts the persona in.

    LiteLLM calls it after it has answered, in the background: a turn is on disk a moment after the call returns. A
    stream is logged once, when it is over; of one that a client of the proxy left, what had come, with `finish`
    ``incomplete``. In the SDK LiteLLM tells nobody of a stream that is closed early, and of one that breaks not what
    had come: read it through `watch` or `awatch`. Of a failed call what the user said is logged. Only the conversation
    and the model's name are read: request headers, keys and whatever else LiteLLM puts into its metadata never reach
    the store. Nothing that goes wrong here reaches the caller: it is logged to the logger ``rlhi.middleware`` as an
    error.

    The user is what `turn` says, else ``user_id`` in the call's ``metadata``, else ``user``, else the end user that
    the proxy found, else the user to whom the proxy's key belongs. The thread is what `turn` says, else ``thread_id``
    or ``session_id`` in ``metadata``, else ``litellm_session_id``, which the proxy also takes from the header
    ``x-litellm-session-id``. A call without a thread is a conversation of its own.

    With ``commands=True`` the proxy answers commands in chat completions itself; LiteLLM gives such answers the
    ``finish_reason`` of a guardrail's. In the SDK nothing can be answered in
    the model's place: ask `Observer.answer` before you call it.

    Args:
        user_of_key: Whether the owner of a proxy key is the user of a call that names no other. Switch it off where
            one key serves many people, who would otherwise share one persona.
        observer: One that exists already, in place of `options`.
        options: See `ObserverOptions`.

    Raises:
        ConfigError: an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """

    def __init__(
        self, *, user_of_key: bool = True, observer: Observer | None = None, **options: Unpack[ObserverOptions]
    ) -> None:
        super().__init__()
        self.observer = observer_from(observer, options, answers=True)
        self._user_of_key = user_of_key

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Put the persona into a request to the proxy, before a deployment is chosen; or answer a command."""
        del cache
        answer = None
        try:
            key = {"user_id": user_api_key_dict.user_id, "end_user_id": user_api_key_dict.end_user_id}
            call = await self.observer.abegin(
                lambda: self._speaker(data, _metadata(data), key), fallback_thread=_own_thread(data)
            )
            if self.observer.takes_commands and call_type in _CHAT:
                answer = await self.observer.aanswer(call, chat_to_langchain(data["messages"]))
                data = {**data, "messages": without_command_messages(data["messages"])}
            if answer is None:
                return _personalised(data, call, call_type)
        except Exception:  # noqa: BLE001 - whatever it is, the request goes on as it came
            _log.exception("the persona could not be put into a request to the proxy; it goes without")
            return data
        raise _answered(answer.text, data)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A sync call has answered."""
        self._record(kwargs, response_obj, (start_time, end_time))

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A sync call has failed."""
        del response_obj
        self._record(kwargs, None, (start_time, end_time))

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """An async call has answered."""
        await asyncio.to_thread(self._record, kwargs, response_obj, (start_time, end_time))

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """An async call has failed."""
        del response_obj
        await asyncio.to_thread(self._record, kwargs, None, (start_time, end_time))

    def watch(self, stream: Iterable[Any]) -> Iterator[Any]:
        """A stream of the SDK, of a chat completion or of a response; where it ends early, what had come is logged.

        So it is for one that breaks, that is closed, and of which the provider says that it failed.

            for chunk in logger.watch(litellm.completion(..., stream=True)): ...
            for event in logger.watch(litellm.responses(..., stream=True)): ...

        Args:
            stream: What `litellm.completion` or `litellm.responses` gave.
        """
        passed: list[Any] = []
        try:
            for piece in stream:
                passed.append(piece)
                yield piece
        except BaseException as error:
            self._record_part(stream, passed, finish_of(error))
            raise
        if _has_failed(passed):
            self._record_part(stream, passed, "failed")

    async def awatch(self, stream: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """The same for what ``await litellm.acompletion(...)`` or ``await litellm.aresponses(...)`` gave."""
        passed: list[Any] = []
        try:
            async for piece in stream:
                passed.append(piece)
                yield piece
        except BaseException as error:
            writing = asyncio.to_thread(self._record_part, stream, passed, finish_of(error))
            # A cancelled task must not cancel the writing of what was said before.
            await asyncio.shield(writing)
            raise
        if _has_failed(passed):
            await asyncio.to_thread(self._record_part, stream, passed, "failed")

    def _record_part(self, stream: Any, passed: Sequence[Any], finish: Finish | None) -> None:
        try:
            call = _call_of(stream)
            timing = (call.get("start_time"), datetime.now(UTC))
            if _is_chat(passed) or hasattr(stream, "chunks"):
                from litellm import stream_chunk_builder

                self._record(call, stream_chunk_builder(chunks=list(passed)) if passed else None, timing, finish)
            elif not any(getattr(event, "type", None) in _WHOLE for event in passed):
                part = response_from_events(passed)
                self._record(call, part, timing, "failed" if _has_failed(passed) else finish)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever LiteLLM gave
            _log.exception("the part of a stream that had come could not be read; it is not logged")

    def _record(
        self, kwargs: Mapping[str, Any], response: Any, timing: tuple[Any, Any], finish: Finish | None = None
    ) -> None:
        try:
            if kwargs.get("call_type") in (*_CHAT, *_RESPONSES):
                self._record_chat(kwargs, response, timing, finish)
        except Exception:  # noqa: BLE001 - LiteLLM would only print what is raised here
            _log.exception("an event of LiteLLM could not be read; its turn is not logged")

    def _record_chat(
        self, kwargs: Mapping[str, Any], response: Any, timing: tuple[Any, Any], finish: Finish | None
    ) -> None:
        parameters = kwargs.get("litellm_params") or {}
        metadata = _metadata(parameters)
        # The proxy reports what a client did not wait for as a success, so that it is billed.
        if metadata.get("client_disconnected"):
            finish = "incomplete"
        key = {
            "user_id": metadata.get("user_api_key_user_id"),
            "end_user_id": metadata.get("user_api_key_end_user_id"),
        }
        call = self.observer.begin(
            lambda: self._speaker({**parameters, **kwargs}, metadata, key), fallback_thread=_own_thread(kwargs)
        )
        began, seconds = _measured(*timing)
        # It is over: what is measured from here on is our own time.
        call = dataclasses.replace(_as_it_was(call, kwargs), started_at=began or call.started_at, began=None)
        self.observer.record(
            call, lambda: dataclasses.replace(_exchange(kwargs, response), finish=finish, latency_s=seconds)
        )

    def _speaker(self, call: Mapping[str, Any], metadata: Mapping[str, Any], key: Mapping[str, Any]) -> Speaker:
        by_call = speaker_from(metadata).otherwise(Speaker(call.get("user"), call.get("litellm_session_id")))
        by_proxy = Speaker(key["end_user_id"])
        if self._user_of_key and key["user_id"] != _ADMIN:
            by_proxy = by_proxy.otherwise(Speaker(key["user_id"]))
        return current_speaker().otherwise(by_call).otherwise(by_proxy)


def _call_of(stream: Any) -> Mapping[str, Any]:
    """What LiteLLM knows of the call that a stream answers."""
    # Named otherwise where LiteLLM makes a response from a provider's chat completion.
    logging_object = getattr(stream, "logging_obj", None) or stream.litellm_logging_obj
    return cast("Mapping[str, Any]", logging_object.model_call_details)


def _is_chat(passed: Sequence[Any]) -> bool:
    return any(hasattr(piece, "choices") for piece in passed)


def _has_failed(passed: Sequence[Any]) -> bool:
    return any(getattr(event, "type", None) in ("response.failed", "error") for event in passed)


def _answered(text: str, data: dict[str, Any]) -> Exception:
    """What makes the proxy give a text of ours as the answer, whole or as a stream."""
    from litellm.exceptions import ModifyResponseException

    return cast("Exception", ModifyResponseException(message=text, model=data.get("model", ""), request_data=data))


def _metadata(carrier: Mapping[str, Any]) -> Mapping[str, Any]:
    """The call's metadata; some endpoints of the proxy keep the caller's apart from LiteLLM's own."""
    both = (carrier.get("litellm_metadata"), carrier.get("metadata"))
    return {key: value for several in both if isinstance(several, Mapping) for key, value in several.items()}


def _measured(start: Any, end: Any) -> tuple[datetime | None, float | None]:
    """When a call began, and how many seconds it took, as LiteLLM tells: in local time, without a zone."""
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return None, None
    began = start.astimezone(UTC)
    seconds = (end.astimezone(UTC) - began).total_seconds()
    # The clock was set back meanwhile.
    return began, seconds if seconds >= 0 else None


def _own_thread(call: Mapping[str, Any]) -> str | None:
    call_id = call.get("litellm_call_id")
    return None if call_id is None else f"run-{call_id}"


def _personalised(data: dict[str, Any], call: ObservedCall, call_type: str) -> dict[str, Any]:
    if call.persona is None:
        return data
    if call_type in _CHAT and data.get("messages"):
        return {**data, "messages": with_persona_message(data["messages"], call.persona.text)}
    if call_type in _RESPONSES:
        return {**data, "instructions": with_persona(data.get("instructions"), call.persona.text)}
    return data


def _option(kwargs: Mapping[str, Any], name: str) -> Any:
    return (kwargs.get("optional_params") or {}).get(name) or kwargs.get(name)


def _as_it_was(call: ObservedCall, kwargs: Mapping[str, Any]) -> ObservedCall:
    """The call with the persona only where the model was really given it: in the SDK nobody puts one in."""
    if call.persona is None or call.persona.text in str(_option(kwargs, "instructions")):
        return call
    for message in kwargs.get("messages") or []:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        if any(call.persona.text in str(part.get("text")) for part in parts if isinstance(part, Mapping)):
            return call
    return dataclasses.replace(call, persona=None)


def _exchange(kwargs: Mapping[str, Any], response: Any) -> Exchange:
    model = getattr(response, "model", None) or kwargs.get("model")
    if kwargs.get("call_type") in _CHAT:
        return Exchange(
            history=chat_to_langchain(kwargs.get("messages") or []), reply=chat_reply(response), model=model
        )
    previous = _option(kwargs, "previous_response_id")
    turn = ResponsesCall(
        input=kwargs.get("messages"),
        response=response,
        continues=previous,
        key=str(previous or kwargs.get("litellm_call_id")),
    )
    return Exchange(
        history=turn.history,
        reply=turn.reply,
        model=model,
        system=_option(kwargs, "instructions"),
        stable_ids=previous is not None,
    )
