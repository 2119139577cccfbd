"""What a fake provider can do with one request: answer it, or fail in one of the ways that real ones do."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rlhi_plugin.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for.

    Attributes:
        name: Of the tool.
        arguments: JSON text, as providers send it; need not be valid.
        id: Of the call; made up when empty.
    """

    name: str
    arguments: str = "{}"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, streamed or whole as the request asks.

    Attributes:
        text: What the model says; empty is what some providers really send.
        tool_calls: Tools it asks for.
        finish_reason: ``stop`` or ``tool_calls`` unless given; ``length``, ``content_filter``, ...
        refusal: What the model says instead of an answer when it declines.
        alternatives: Texts of the further choices where a request asks for ``n`` of them; else all say `text`.
        prompt_tokens: Reported usage; the words of the prompt unless given.
        completion_tokens: Reported usage; the words of the answer unless given.
        delay_s: Seconds before the first byte.
        chunk_delay_s: Seconds before each further chunk of a stream.
        model: Reported model; the requested one unless given.
        top_logprobs: Log-probabilities of the tokens that could have come first, the likeliest first. Sent with whole
            chat completions that ask for ``logprobs``.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    refusal: str | None = None
    alternatives: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    model: str | None = None
    top_logprobs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class HTTPFault:
    """An error response in OpenAI's form.

    Attributes:
        status: HTTP status, 400 to 599.
        message: Of the error.
        code: Of the error, such as ``context_length_exceeded``.
        retry_after_s: Seconds in a ``Retry-After`` header; no header when None.
    """

    status: int = 500
    message: str = "the server had an error"
    code: str | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing for `seconds`, then close the connection: what a client's timeout is for."""

    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection without a byte."""


@dataclass(frozen=True, slots=True)
class CutStream:
    """Send the first `chunks` chunks of `answer`, then close the connection. A request for a whole answer gets half."""

    answer: Answer = field(default_factory=lambda: Answer("this answer will be cut off"))
    chunks: int = 2


@dataclass(frozen=True, slots=True)
class InvalidBody:
    """Status 200 with a body that is no completion: broken JSON, or the web page of a gateway."""

    body: str = '{"choices": ['
    content_type: str = "application/json"


Behaviour: TypeAlias = Answer | HTTPFault | Hang | Disconnect | CutStream | InvalidBody


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One request as it arrived.

    Attributes:
        number: 0 for the first request to this provider.
        path: ``/v1/chat/completions`` or ``/v1/responses``.
        headers: With lower-case names.
        body: The JSON object that was sent.
        received_at: `time.monotonic` when it had been read.
        in_flight: Requests being answered at that moment, this one included.
    """

    number: int
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    received_at: float
    in_flight: int

    @property
    def stream(self) -> bool:
        """Whether it asks for a stream."""
        return bool(self.body.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What is said, as role and content; of a responses request its instructions and input."""
        if "messages" in self.body:
            return list(self.body["messages"])
        said = self.body.get("input", [])
        items = [{"role": "user", "content": said}] if isinstance(said, str) else list(said)
        instructions = self.body.get("instructions")
        return [{"role": "system", "content": instructions}, *items] if instructions else items

    @property
    def last_user_text(self) -> str:
        """The text of the last user message; empty where there is none."""
        users = [message for message in self.messages if message.get("role") == "user"]
        return text_of(users[-1].get("content")) if users else ""

    @property
    def system_text(self) -> str:
        """The system and developer messages, one after the other on lines of their own."""
        return "\n".join(text_of(m.get("content")) for m in self.messages if m.get("role") in ("system", "developer"))


def text_of(content: Any) -> str:
    """The text in a message's content, be it a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [] if isinstance(part, Mapping))


Script: TypeAlias = "Callable[[ProviderRequest], Behaviour | str] | Iterable[Behaviour | str]"
"""What to do with each request: a function of it, or one behaviour after the other. A text is an `Answer`."""


def echo(request: ProviderRequest) -> Answer:
    """Answers with the last user message: what a provider without a script does."""
    return Answer(f"You said: {request.last_user_text}")


class ByContent:
    """A script whose answer depends on what is asked and on nothing else: not on the order, and not on the process.

    Some requests fail a few times first, in ways drawn from `faults`; which and how often is their content's, too. So a
    run that is killed and resumed gets the answers that an undisturbed one gets.

    Args:
        write: Answers a request.
        faults: What a request may be met with before it is answered.
        share: Share of requests, in [0, 1], that are met with faults.
        most: The most faults before an answer.
    """

    def __init__(
        self,
        write: Callable[[ProviderRequest], Behaviour | str],
        *,
        faults: Sequence[Behaviour] = (),
        share: float = 0.3,
        most: int = 2,
    ) -> None:
        self._write = write
        self._faults = tuple(faults)
        self._share = share if faults else 0.0
        self._most = most
        self._lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        """Times that a request came in, by `digest_of_body`."""
        self.answered: Counter[str] = Counter()
        """Times that it was answered and not met with a fault."""

    def __call__(self, request: ProviderRequest) -> Behaviour | str:
        """What to do with this request."""
        digest = digest_of_body(request.body)
        draw = random.Random(digest)
        count = draw.randint(1, self._most) if draw.random() < self._share else 0
        met_with = [draw.choice(self._faults) for _ in range(count)]
        with self._lock:
            number = self.asked[digest]
            self.asked[digest] += 1
            if number < count:
                return met_with[number]
            self.answered[digest] += 1
        return self._write(request)


def digest_of_body(body: Mapping[str, Any]) -> str:
    """SHA-256 of a request's JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def rate_limited(retry_after_s: float = 0.05) -> HTTPFault:
    """The answer of a provider that is asked too often."""
    return HTTPFault(429, "rate limit reached", code="rate_limit_exceeded", retry_after_s=retry_after_s)


class ScriptReader:
    """Reads a script request by request; thread-safe."""

    def __init__(self, script: Script | None, then: Callable[[ProviderRequest], Behaviour | str]) -> None:
        if isinstance(script, str):
            raise ConfigError(f"a script of {script!r} would answer letter by letter. Pass a list: [{script!r}].")
        self._function = script if callable(script) else None
        self._rest = iter(() if script is None or callable(script) else script)
        self._then = then
        self._lock = threading.Lock()

    def behaviour(self, request: ProviderRequest) -> Behaviour:
        """What to do with this request."""
        if self._function is not None:
            chosen = self._function(request)
        else:
            with self._lock:
                following = next(self._rest, None)
            chosen = self._then(request) if following is None else following
        return Answer(chosen) if isinstance(chosen, str) else chosen


class RateLimit:
    """At most `requests` in any window of `per_s` seconds; the others are answered 429 and get no turn of the script.

    The ``Retry-After`` of a refusal says when the next request will be let in.
    """

    def __init__(self, *, requests: int, per_s: float) -> None:
        if requests < 1 or per_s <= 0:
            raise ConfigError(
                f"requests={requests}, per_s={per_s} lets nothing in. Give at least 1 request, above 0 s."
            )
        self.requests = requests
        self.per_s = per_s
        self._admitted: deque[float] = deque()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """0 when a request may come in now, and then it is counted; else seconds until one may."""
        with self._lock:
            now = time.monotonic()
            while self._admitted and now - self._admitted[0] >= self.per_s:
                self._admitted.popleft()
            if len(self._admitted) < self.requests:
                self._admitted.append(now)
                return 0.0
            return self._admitted[0] + self.per_s - now
