"""Several replies from a provider that gives one a call: each call for itself, so that none is paid for again."""

from __future__ import annotations

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.chat import ChatReply, ChatRequest

_SEEDS = 2**31


class SinglesClient(AroundClient):
    """Asks for `n` replies one by one where a call yields one (`Capabilities.many`).

    So each is journalled, limited, budgeted and tried again on its own: a run that is killed between two of them has
    the first, and one that fails does not cost the others again. The seeds count up from the request's.
    """

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        if request.n == 1 or self.capabilities.many:
            return await self._client.complete(request)
        first = request.seed or 0
        singles = [request.model_copy(update={"n": 1, "seed": (first + place) % _SEEDS}) for place in range(request.n)]
        found = await each(singles, self._client.complete, at_once=request.n)
        return tuple(reply for replies in found for reply in replies)
