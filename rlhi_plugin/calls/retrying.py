"""Retries: which failures are tried again, how often, and after what wait."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.replies import another_try
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import InvalidReplyError, ProviderUnavailableError, TransientCallError


class RetryingClient(AroundClient):
    """Tries failed calls again.

    Those are rate limits, time-outs, server errors and cut answers; and, with another seed, replies that are not the
    JSON that was asked for. Nothing else: a wrong key, a prompt that is too long or a refusal stays what it is.

    A provider's ``Retry-After`` holds back every call, not only the one that was refused: the others would be too.

    Args:
        client: What is asked.
        options: `attempts`, `invalid_attempts`, `first_wait_s`, `max_wait_s`.
    """

    def __init__(self, client: ChatClient, options: CallOptions) -> None:
        super().__init__(client)
        self._options = options
        self._not_before = 0.0

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`.

        Raises:
            ProviderUnavailableError: nothing answered at the provider's address, however often it was tried.
        """
        last = self._options.invalid_attempts - 1
        for attempt in range(last):
            with suppress(InvalidReplyError):
                return await self._until_answered(another_try(request, attempt))
        return await self._until_answered(another_try(request, last))

    async def _until_answered(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        trying = AsyncRetrying(
            stop=stop_after_attempt(self._options.attempts),
            retry=retry_if_exception_type(TransientCallError),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await trying(self._once, request)
        except TransientCallError as error:
            if error.unreachable:
                raise ProviderUnavailableError(f"{error} What is done is kept; run the same command again.") from error
            raise

    async def _once(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
        try:
            return await self._client.complete(request)
        except TransientCallError as error:
            if error.retry_after_s is not None:
                pause = min(error.retry_after_s, self._options.max_wait_s)
                self._not_before = max(self._not_before, time.monotonic() + pause)
            raise

    def _wait(self, state: RetryCallState) -> float:
        """What the provider asked for, and a random part on top, so that those who waited do not return at once."""
        options = self._options
        error: Any = state.outcome.exception() if state.outcome else None
        if isinstance(error, TransientCallError) and error.retry_after_s is not None:
            return min(error.retry_after_s, options.max_wait_s)
        return wait_random_exponential(multiplier=options.first_wait_s, max=options.max_wait_s)(state)
