"""The one seam to a language model: the `ChatClient` protocol, and the client that stands in for a provider in tests.

Every model call of every package goes through a `ChatClient`. Vendors live in files of their own: LiteLLM in
`rlhi_plugin.litellm_client`, any OpenAI-compatible address in `rlhi_plugin.calls.openai_client`, transformers in this
process in `rlhi_adapters.local_client`, vLLM in `rlhi_adapters.vllm_client`. Retries, limits, budget and journal are
clients around a client: see `rlhi_plugin.calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.errors import ConfigError
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
    """Ask for a JSON object of this schema; the reply's text is then JSON that keeps to it."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """Ask for the log-probability of each token, and of so many of the likeliest tokens in its place."""


class TokenLogprob(Record):
    """One token of a reply, with its natural log-probability and those of the likeliest tokens in its place."""

    token: str
    logprob: float = Field(le=0.0)
    top: tuple[tuple[str, float], ...] = ()
    """Likeliest first."""


class ChatReply(Record):
    """One reply, and what it cost."""

    text: str
    finish_reason: FinishReason = "stop"
    """``length`` means that the answer was cut at `max_tokens` and is incomplete."""
    prompt_tokens: int = Field(default=0, ge=0)
    """Counted on the first reply of a call, so that sums over replies are right."""
    completion_tokens: int = Field(default=0, ge=0)
    """As `prompt_tokens`; the in-process client counts each reply on its own."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    cost_usd: float | None = Field(default=None, ge=0.0)
    """US dollars that the call cost, on its first reply; None where the price is not known."""
    served_by: str | None = None
    """The model that says it answered, which an alias hides: ``gpt-4o-2024-08-06`` where ``gpt-4o`` was asked for; of
    weights in this process their digest. None where nobody said."""


class Price(Record):
    """What a model's tokens cost, in US dollars each."""

    prompt_token: float = Field(ge=0.0)
    completion_token: float = Field(ge=0.0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens."""
        return self.prompt_token * prompt_tokens + self.completion_token * completion_tokens


FREE = Price(prompt_token=0.0, completion_token=0.0)


class Capabilities(Record):
    """What a client offers beyond text."""

    json_schema: Literal["no", "asked", "constrained"] = "no"
    """``asked``: the provider is given the schema and the reply is checked; ``constrained``: no other text can be
    written, unless it is cut at `max_tokens`."""
    logprobs: bool = False
    seed: bool = False
    """Whether a seed makes replies repeatable; where it does not, it is passed over."""
    many: bool = False
    """Whether one call yields `n` replies; otherwise it takes `n` calls, and the prompt is paid for `n` times."""
    remote: bool = True
    """Whether calls leave the process. They may cost money, and one that was begun is worth waiting for."""
    price: Price | None = None
    """None where it is not known."""
    at_once: int | None = Field(default=None, ge=1)
    """How many calls are let through at once; None where nothing limits them."""


@runtime_checkable
class ChatClient(Protocol):
    """Anything that answers chat requests. Implementations may batch concurrent calls."""

    @property
    def model(self) -> str:
        """Identifies what answers, adapter included; recorded beside every text it writes."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked of it; `require` checks a request against it."""
        ...

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """Answer `request` with exactly `request.n` replies.

        Raises:
            ConfigError: the request asks for what `capabilities` does not offer; nothing was sent.
            InvalidReplyError: a reply is not the JSON that was asked for; the replies are in it.
            TransientCallError: it failed in a way that passes.
            ProviderUnavailableError: no call can succeed as things are.
            ModelCallError: the call failed for good.
        """
        ...


def require(client: ChatClient, request: ChatRequest) -> None:
    """Refuse a request that asks for more than a client offers, before anything is spent.

    Raises:
        ConfigError: it asks for JSON or log-probabilities, and the client has none.
    """
    offered = client.capabilities
    if request.json_schema is not None and offered.json_schema == "no":
        raise ConfigError(
            f"{client.model} cannot answer in JSON of a given schema. Use another client, or ask for text."
        )
    if request.logprobs is not None and not offered.logprobs:
        raise ConfigError(f"{client.model} gives no log-probabilities. Use another client, or do without them.")


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

    @property
    def capabilities(self) -> Capabilities:
        """JSON as far as the script holds it; no log-probabilities."""
        return Capabilities(json_schema="asked", seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """A list is consumed cyclically, one entry per reply; a function is called once per request."""
        require(self, request)
        first = sum(earlier.n for earlier in self.requests)
        self.requests.append(request)
        if callable(self._answers):
            texts = [self._answers(request)] * request.n
        else:
            texts = [self._answers[(first + i) % len(self._answers)] for i in range(request.n)]
        prompt_tokens = sum(len(m.content.split()) for m in request.messages)
        replies = (
            ChatReply(text=text, prompt_tokens=prompt_tokens, completion_tokens=len(text.split())) for text in texts
        )
        return check_replies(self.model, request, replies)
