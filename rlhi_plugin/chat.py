"""The one seam to a language model: the `ChatClient` protocol, and the client that stands in for a provider in tests.

Every model call of every package goes through a `ChatClient`. Vendors live in files of their own: LiteLLM in
`rlhi_plugin.litellm_client`, in-process transformers in `rlhi_adapters.local_client`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from rlhi_plugin.records import ChatMessage, Record

FinishReason = Literal["stop", "length", "refused"]


class ChatRequest(Record):
    """One call: messages in, `n` independent replies out."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=128)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """0 is greedy."""
    max_tokens: int = Field(default=512, ge=1)
    seed: int | None = None
    """The same request with the same seed gives the same replies where the client can promise it."""
    json_schema: dict[str, Any] | None = None
    """Ask for a JSON object of this schema; the reply's text is then JSON."""


class ChatReply(Record):
    """One reply, and what it cost."""

    text: str
    finish_reason: FinishReason = "stop"
    """``length`` means that the answer was cut at `max_tokens` and is incomplete."""
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


@runtime_checkable
class ChatClient(Protocol):
    """Anything that answers chat requests. Implementations may batch concurrent calls."""

    @property
    def model(self) -> str:
        """Identifies what answers, adapter included; recorded beside every text it writes."""
        ...

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """Answer `request` with exactly `request.n` replies.

        Raises:
            ModelCallError: the call failed for good.
        """
        ...


class ScriptedClient:
    """A deterministic `ChatClient` without a model: answers are computed by a function or taken from a list.

    It ships with the library so that examples and unit tests need neither key nor network. Every request is kept in
    `requests`, in the order in which it arrived.
    """

    def __init__(self, answers: Sequence[str] | Callable[[ChatRequest], str], *, model: str = "scripted") -> None:
        self._answers = answers
        self._model = model
        self.requests: list[ChatRequest] = []

    @property
    def model(self) -> str:
        """As given to the constructor."""
        return self._model

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """A list is consumed cyclically, one entry per reply; a function is called once per request."""
        first = sum(earlier.n for earlier in self.requests)
        self.requests.append(request)
        if callable(self._answers):
            texts = [self._answers(request)] * request.n
        else:
            texts = [self._answers[(first + i) % len(self._answers)] for i in range(request.n)]
        return tuple(
            ChatReply(
                text=text,
                prompt_tokens=sum(len(m.content.split()) for m in request.messages),
                completion_tokens=len(text.split()),
            )
            for text in texts
        )
