"""Several replies from a provider that gives fewer a call: each call for itself, so that none is paid for again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.chat import ChatReply, ChatRequest

_SEEDS = 2**31


class OneCallClient(AroundClient):
    """Makes one call where the client inside might make several: its `one_call`, where it has one.

    Servers that speak a protocol with `n` may still give one reply. A client alone asks again until it has all; here it
    is `SinglesClient` that does, outside of journal, limits and budget, which see each call.
    """

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """As `ChatClient.complete`, with at least one reply and at most `n`."""
        one_call = getattr(self._client, "one_call", self._client.complete)
        replies: tuple[ChatReply, ...] = await one_call(request)
        return replies


class SinglesClient(AroundClient):
    """Asks for `n` replies one by one where a call yields one (`Capabilities.many`), and for those that are missing.

    So each is journalled, limited, budgeted and tried again on its own: a run that is killed between two of them has
    the first, and one that fails does not cost the others again. The seeds count up from the request's.
    """

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        if request.n == 1:
            return await self._client.complete(request)
        replies = await self._client.complete(request) if self.capabilities.many else ()
        if len(replies) >= request.n:
            return replies
        # A server that gives k of the replies is asked for k at a time: once for each, where it passes over `n`.
        rest = [self.complete(some) for some in _rest(request, len(replies))]
        # One that fails ends no other: what is on its way is paid for, and the budget has to hear of it.
        found = await asyncio.gather(*rest, return_exceptions=True)
        return (*replies, *(reply for some in found for reply in _or_raise(some)))


def _or_raise(found: tuple[ChatReply, ...] | BaseException) -> tuple[ChatReply, ...]:
    if isinstance(found, BaseException):
        raise found
    return found


def _rest(request: ChatRequest, given: int) -> Iterator[ChatRequest]:
    """Requests for the replies behind the first so many. What they are depends on nothing else: a journal has them."""
    first, step = request.seed or 0, max(1, given)
    for place in range(given, request.n, step):
        n = min(step, request.n - place)
        yield request.model_copy(update={"n": n, "seed": (first + place) % _SEEDS})
