"""The two clients around a journal: one that answers from it, one that writes into it.

They are two because what stands between them (budget, rate limit) concerns calls that are made, not answers that exist.
The journal is the cache, too: give two runs one file, and what one has paid for the other has.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.calls.journal import CallJournal, call_digest
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest, require
from rlhi_plugin.errors import InvalidReplyError, RLHIError, TransientCallError


class CachedClient(AroundClient):
    """Answers from the journal what the journal holds; equal calls at one moment become one call.

    A request that is asked twice gets one answer, also where it samples: ask with another seed for another answer.

    Args:
        client: Answers the others. A `JournalledClient` on the same journal stands somewhere inside.
        journal: Holds the answers.
    """

    def __init__(self, client: ChatClient, journal: CallJournal) -> None:
        super().__init__(client)
        self._journal = journal
        self._locks = PerLoop[WeakValueDictionary[str, asyncio.Lock]](WeakValueDictionary)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. An answer that was wrong when it came is wrong again, and not asked for again."""
        require(self, request)
        digest = call_digest(self.model, request)
        known = self._journal.replies(digest)
        if known is None:
            async with self._locks.get().setdefault(digest, asyncio.Lock()):
                known = self._journal.replies(digest)
                if known is None:
                    return await self._client.complete(request)
        return check_replies(self.model, request, known)


class JournalledClient(AroundClient):
    """Writes into the journal that a call begins, and how it ended.

    Whoever waits for a call may be cancelled; a call that left the process goes on, and its answer is kept.

    Args:
        client: A vendor's client.
        journal: Where to.
    """

    def __init__(self, client: ChatClient, journal: CallJournal) -> None:
        super().__init__(client)
        self._journal = journal

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        task = asyncio.ensure_future(self._call(request))
        if not self.capabilities.remote:
            return await task
        self._journal.fly(task)
        return await asyncio.shield(task)

    async def _call(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        digest = call_digest(self.model, request)
        attempt = await self._journal.begin(digest, self.model, remote=self.capabilities.remote)
        try:
            replies = await self._client.complete(request)
        except InvalidReplyError as error:
            await self._journal.answered(attempt, digest, self.model, error.replies)
            raise
        except RLHIError as error:
            unsure = isinstance(error, TransientCallError) and error.maybe_paid
            await self._journal.failed(attempt, "unknown" if unsure else "refused", str(error))
            raise
        await self._journal.answered(attempt, digest, self.model, replies)
        return replies
