"""As many calls as a provider allows, and no more: limits of requests and tokens a minute, and of calls in flight.

Providers refuse what goes over R in a window. A bucket of size b that drains at (R - b) a window lets at most R through
in any window, and (R - b) in the long run: with b at 2 % nothing is refused, and 98 % of the limit is used. The buckets
are aiolimiter's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.size import likely_prompt_tokens
from rlhi_plugin.chat import Capabilities, ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

WINDOW_S = 60.0
_BURST = 0.02
"""Share of the limit that may come at once: enough to make up for timers that fire late (ours)."""
_TOKEN_BURST = 0.05
"""As `_BURST`, for tokens: the size of a call is known only afterwards (ours)."""
_LEARNING = 0.1
"""Weight of the newest call in the ratio of real to expected tokens (ours)."""


def bucket(limit: float, window_s: float, burst: float) -> AsyncLimiter:
    """A leaky bucket that lets at most about `limit` through in any window of `window_s` seconds."""
    try:
        from aiolimiter import AsyncLimiter
    except ImportError as error:
        raise MissingExtraError("aiolimiter", "llm") from error
    size = max(1.0, burst * limit)
    drain = 0.995 * (limit - size + 1) / window_s
    return AsyncLimiter(size, size / drain)


@dataclass(slots=True)
class _Limits:
    slots: asyncio.Semaphore
    requests: AsyncLimiter | None
    tokens: AsyncLimiter | None
    turn: asyncio.Lock


class RateLimitedClient(AroundClient):
    """Spreads calls over time.

    Args:
        client: What is asked.
        options: `requests_per_minute`, `tokens_per_minute`, `max_concurrency`.
        window_s: Seconds that the limits are for: a minute, with real providers.
    """

    def __init__(self, client: ChatClient, options: CallOptions, *, window_s: float = WINDOW_S) -> None:
        super().__init__(client)
        self._options = options
        self._window_s = window_s
        self._limits = PerLoop(self._make)
        self._ratio = 1.0
        self._learnt = 0

    def _make(self) -> _Limits:
        options, window_s = self._options, self._window_s
        requests, tokens = options.requests_per_minute, options.tokens_per_minute
        return _Limits(
            asyncio.Semaphore(options.max_concurrency),
            None if requests is None else bucket(requests, window_s, _BURST),
            None if tokens is None else bucket(tokens, window_s, _TOKEN_BURST),
            asyncio.Lock(),
        )

    @property
    def capabilities(self) -> Capabilities:
        """Those of the client inside, and how many calls this one lets through."""
        return super().capabilities.model_copy(update={"at_once": self._options.max_concurrency})

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        limits = self._limits.get()
        async with limits.slots:
            if limits.requests is not None:
                await limits.requests.acquire()
            if limits.tokens is None:
                return await self._client.complete(request)
            expected = likely_prompt_tokens(request) + request.n * request.max_tokens
            async with limits.turn:
                # One after the other, so that each is sized by what was learnt until its turn.
                await _take(limits.tokens, self._ratio * expected)
            replies = await self._client.complete(request)
            self._learn(sum(reply.prompt_tokens + reply.completion_tokens for reply in replies), expected)
            return replies

    def _learn(self, used: int, expected: int) -> None:
        """Answers rarely use all of `max_tokens`: what they do use is learnt from those that came."""
        if used:
            self._learnt += 1
            self._ratio += max(_LEARNING, 1 / self._learnt) * (used / expected - self._ratio)


async def _take(limiter: AsyncLimiter, amount: float) -> None:
    """Take more than the bucket holds, part by part."""
    while amount > 0:
        part = min(amount, limiter.max_rate)
        await limiter.acquire(part)
        amount -= part
