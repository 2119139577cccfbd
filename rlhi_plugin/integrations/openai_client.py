"""RLHI for an `openai` client: the user's persona in, every turn out.

client = wrap_openai(OpenAI(), store="sqlite:///rlhi.db")
with turn(user_id="u42", thread_id="t1"):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.integrations.observer import Exchange, ObservedCall, Observer, ObserverOptions, observer_from
from rlhi_plugin.integrations.openai_streams import chat_from_chunks, follow, response_from_events
from rlhi_plugin.integrations.provider_messages import (
    ResponsesCall,
    chat_reply,
    chat_to_langchain,
    with_persona_message,
)
from rlhi_plugin.integrations.speaker import Speaker, current_speaker, speaker_from
from rlhi_plugin.persona.render import with_persona
from rlhi_plugin.records import Finish

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_C = TypeVar("_C", bound="OpenAI | AsyncOpenAI")
_Arguments = dict[str, Any]

USER_HEADER, THREAD_HEADER = "x-rlhi-user-id", "x-rlhi-thread-id"
"""Names in ``extra_headers`` that say who is speaking. They are read here and not sent."""

_RAW_HEADER = "x-stainless-raw-response"
"""How the client's own ``with_raw_response`` and ``with_streaming_response`` mark a call."""
_RESPONSES_REMEMBERED = 10_000
"""Responses whose conversation is known, so that ``previous_response_id`` continues it."""

_log = logging.getLogger("rlhi.middleware")


def wrap_openai(client: _C, *, observer: Observer | None = None, **options: Unpack[ObserverOptions]) -> _C:
    """The same client, whose chat completions and responses are logged and personalised. `client` stays as it is.

    The wrapped client shares the connections of `client` and is of the same type; ``with_options`` keeps the wrapping.
    Logged are ``chat.completions.create``, ``.parse`` and ``.stream``, and ``responses.create``, ``.parse`` and
    ``.stream``. What is asked through ``with_raw_response`` and ``with_streaming_response`` is let through as it is,
    neither logged nor personalised, and so is everything else.

    The speaker is what `turn` says, else `USER_HEADER` and `THREAD_HEADER` in ``extra_headers``, else ``user_id`` and
    ``thread_id`` in ``metadata``, else the user in ``user`` or ``safety_identifier``. The conversation of a response is
    also known from ``conversation`` and ``previous_response_id``. A call without a thread is one of its own.

    When a call returns, it is on disk. When a stream is opened, what the user said is on disk; the answer follows when
    the stream ends, fails, is closed or is thrown away, as far as it came.

    Args:
        client: An `OpenAI` or `AsyncOpenAI` client, or one of a class derived from them.
        observer: One that exists already, in place of `options`.
        options: See `ObserverOptions`.

    Raises:
        ConfigError: `client` is no such client, or an option cannot work.
        MissingExtraError: `openai` is not installed.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """
    try:
        from openai import AsyncOpenAI, OpenAI
    except ImportError as error:
        raise MissingExtraError("openai", "llm") from error
    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise ConfigError(f"{client!r} is no client. Pass an OpenAI or AsyncOpenAI object, such as OpenAI().")
    if hasattr(client, "rlhi_observer"):
        raise ConfigError("this client is wrapped already. Wrap the original, once.")
    wrapped: Any = object.__new__(_observed_class(type(client), observer_from(observer, options)))
    wrapped.__dict__.update(client.__dict__)
    for name in _cached_properties(type(client)):
        wrapped.__dict__.pop(name, None)  # they hold the original client
    return wrapped  # type: ignore[no-any-return] # of a class derived from the client's own


def _cached_properties(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name, v in vars(base).items() if isinstance(v, functools.cached_property)}


def _observed_class(kind: type, observer: Observer) -> type:
    """A class derived from the client's, so that copies of the client which its own methods make are wrapped too."""
    chat, responses = _Chat(observer), _Responses(observer)

    class Observed(kind):  # type: ignore[misc] # the class is known at run time only
        rlhi_observer = observer

        @functools.cached_property
        def chat(self) -> Any:
            return _observe_chat(super().chat, chat)

        @functools.cached_property
        def responses(self) -> Any:
            return _observe(super().responses, responses, ("create", "parse"))

        @functools.cached_property
        def beta(self) -> Any:
            beta = super().beta
            if hasattr(beta, "chat"):
                _observe_chat(beta.chat, chat)
            return beta

    Observed.__name__, Observed.__qualname__ = kind.__name__, kind.__qualname__
    return Observed


def _observe_chat(resource: Any, endpoint: _Chat) -> Any:
    _observe(resource.completions, endpoint, ("create", "parse"))
    return resource


def _observe(resource: Any, endpoint: _Chat | _Responses, names: tuple[str, ...]) -> Any:
    """Replace these methods of one resource object; its ``stream`` calls ``create``."""
    from openai import AsyncOpenAI

    wrap = _async_method if isinstance(resource._client, AsyncOpenAI) else _sync_method  # noqa: SLF001 - no public way
    for name in names:
        setattr(resource, name, wrap(getattr(resource, name), endpoint))
    return resource


def _sync_method(method: Callable[..., Any], endpoint: _Chat | _Responses) -> Callable[..., Any]:
    @functools.wraps(method)
    def observed(*positional: Any, **arguments: Any) -> Any:
        if positional or _is_raw(arguments):
            return method(*positional, **arguments)
        call = endpoint.observed(arguments)
        call.begin()
        try:
            response = method(**call.sent)
        except BaseException as error:
            call.record(getattr(error, "completion", None))
            raise
        call.record(None if _is_stream(response) else response)
        return follow(response, call, endpoint.collect) if _is_stream(response) else response

    return observed


def _async_method(method: Callable[..., Any], endpoint: _Chat | _Responses) -> Callable[..., Any]:
    @functools.wraps(method)
    async def observed(*positional: Any, **arguments: Any) -> Any:
        if positional or _is_raw(arguments):
            return await method(*positional, **arguments)
        call = endpoint.observed(arguments)
        await call.abegin()
        try:
            response = await method(**call.sent)
        except BaseException as error:
            await call.arecord(getattr(error, "completion", None))
            raise
        await call.arecord(None if _is_stream(response) else response)
        return follow(response, call, endpoint.collect) if _is_stream(response) else response

    return observed


def _is_stream(response: Any) -> bool:
    from openai import AsyncStream, Stream

    return isinstance(response, Stream | AsyncStream)


def _is_raw(arguments: _Arguments) -> bool:
    headers = arguments.get("extra_headers")
    return isinstance(headers, Mapping) and any(str(name).lower() == _RAW_HEADER for name in headers)


def _given(arguments: _Arguments, name: str) -> Any:
    """An argument's value; None also for the client's own marks of what was left out."""
    value = arguments.get(name)
    return None if type(value).__name__ in ("NotGiven", "Omit") else value


def _speaker(arguments: _Arguments) -> Speaker:
    headers = {str(name).lower(): value for name, value in (_given(arguments, "extra_headers") or {}).items()}
    user = _given(arguments, "user") or _given(arguments, "safety_identifier")
    by_headers = Speaker(headers.get(USER_HEADER), headers.get(THREAD_HEADER))
    carried = by_headers.otherwise(speaker_from(_given(arguments, "metadata"))).otherwise(Speaker(user))
    return current_speaker().otherwise(carried)


def _sent(arguments: _Arguments) -> _Arguments:
    """The arguments without our headers: who a user is, is no business of the provider's."""
    headers = _given(arguments, "extra_headers")
    if not isinstance(headers, Mapping):
        return arguments
    kept = {name: value for name, value in headers.items() if str(name).lower() not in (USER_HEADER, THREAD_HEADER)}
    return {**arguments, "extra_headers": kept}


@dataclass(slots=True)
class Observed:
    """One call of an endpoint while it lasts. Nothing here raises."""

    endpoint: _Chat | _Responses
    arguments: _Arguments
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Of this call alone."""
    sent: _Arguments = field(default_factory=dict)
    call: ObservedCall | None = None

    def begin(self) -> None:
        """Look up the persona, and prepare `sent`."""
        observer = self.endpoint.observer
        self._prepare(observer.begin(self._speaker))

    async def abegin(self) -> None:
        """The same in an event loop."""
        observer = self.endpoint.observer
        self._prepare(await observer.abegin(self._speaker))

    def record(self, response: Any, finish: Finish | None = None) -> None:
        """Log what is known: what was said and, unless `response` is None, what was answered."""
        if self.call is not None:
            self.endpoint.observer.record(self.call, lambda: self._exchange(response, finish))

    async def arecord(self, response: Any, finish: Finish | None = None) -> None:
        """The same in an event loop."""
        if self.call is not None:
            await self.endpoint.observer.arecord(self.call, lambda: self._exchange(response, finish))

    def _exchange(self, response: Any, finish: Finish | None) -> Exchange:
        return replace(self.endpoint.exchange(self, response), finish=finish)

    def _speaker(self) -> Speaker:
        return _speaker(self.arguments).otherwise(Speaker(thread_id=self.endpoint.thread(self.arguments)))

    def _prepare(self, call: ObservedCall) -> None:
        self.call, self.sent = call, self.arguments
        try:
            self.sent = _sent(self.arguments)
            if call.persona is not None:
                self.sent = self.endpoint.personalised(self.sent, call.persona.text)
        except Exception:  # noqa: BLE001 - the client, not we, says what is wrong with its arguments
            _log.exception("the persona could not be put into this call; it goes without")


class _Chat:
    """What is particular to chat completions."""

    collect = staticmethod(chat_from_chunks)

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def observed(self, arguments: _Arguments) -> Observed:
        """A call with these arguments; messages that can be read only once are read here."""
        messages = _given(arguments, "messages")
        if messages is not None and not isinstance(messages, list | tuple | str):
            arguments = {**arguments, "messages": list(messages)}
        return Observed(self, arguments)

    def thread(self, arguments: _Arguments) -> str | None:
        """The thread that the arguments imply: none, every call carries all that was said."""
        del arguments
        return None

    def personalised(self, arguments: _Arguments, persona_text: str) -> _Arguments:
        """The arguments with the persona in the system message."""
        return {**arguments, "messages": with_persona_message(arguments["messages"], persona_text)}

    def exchange(self, observed: Observed, response: Any) -> Exchange:
        """What was said and answered."""
        return Exchange(
            history=chat_to_langchain(observed.arguments["messages"]),
            reply=chat_reply(response),
            model=getattr(response, "model", None) or _given(observed.arguments, "model"),
        )


class _Responses:
    """What is particular to responses: the provider keeps the thread, and a request may hold only what is new."""

    collect = staticmethod(response_from_events)

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._conversations: OrderedDict[str, str] = OrderedDict()

    def observed(self, arguments: _Arguments) -> Observed:
        """A call with these arguments."""
        return Observed(self, arguments)

    def thread(self, arguments: _Arguments) -> str | None:
        """The thread that ``conversation`` or ``previous_response_id`` implies."""
        conversation = _given(arguments, "conversation")
        if conversation is not None:
            return str(conversation["id"] if isinstance(conversation, Mapping) else conversation)
        previous = _given(arguments, "previous_response_id")
        return None if previous is None else self._conversations.get(previous, str(previous))

    def personalised(self, arguments: _Arguments, persona_text: str) -> _Arguments:
        """The arguments with the persona in the instructions, which each request must carry anew."""
        return {**arguments, "instructions": with_persona(_given(arguments, "instructions"), persona_text)}

    def exchange(self, observed: Observed, response: Any) -> Exchange:
        """What was said and answered."""
        arguments = observed.arguments
        previous, conversation = _given(arguments, "previous_response_id"), _given(arguments, "conversation")
        turn = ResponsesCall(
            input=_given(arguments, "input"),
            response=response,
            continues=previous or (observed.key if conversation is not None else None),
            key=previous or observed.key,
        )
        if (answered := getattr(response, "id", None)) and observed.call is not None:
            self._remember(answered, observed.call.conversation_id)
        return Exchange(
            history=turn.history,
            reply=turn.reply,
            model=getattr(response, "model", None) or _given(arguments, "model"),
            system=_given(arguments, "instructions"),
            stable_ids=turn.continues is not None,
        )

    def _remember(self, response_id: str, conversation_id: str) -> None:
        self._conversations[response_id] = conversation_id
        # One at a time: another thread may be doing the same.
        while len(self._conversations) > _RESPONSES_REMEMBERED:
            self._conversations.popitem(last=False)
