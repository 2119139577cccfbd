"""A budget of money and calls that is never overdrawn.

Before a call, the most that it can cost is set aside; after it, what it did cost is booked. A call that the rest does
not cover waits for those in flight, whose real cost is mostly less; when none is in flight, the budget is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhi_plugin.calls.around import AroundClient
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.size import most_prompt_tokens
from rlhi_plugin.chat import FREE, ChatClient, ChatReply, ChatRequest, Price
from rlhi_plugin.errors import BudgetReachedError, ConfigError, InvalidReplyError


class Budget:
    """What a run may spend; shared by all its clients.

    Args:
        max_cost_usd: US dollars, above 0; None is no limit.
        max_calls: Calls that are sent, at least 1; None is no limit.
        spent_usd: What earlier starts of the run have spent.
        calls: What earlier starts of the run have sent.

    Raises:
        ConfigError: a limit is out of range.
    """

    def __init__(
        self, max_cost_usd: float | None = None, max_calls: int | None = None, *, spent_usd: float = 0.0, calls: int = 0
    ) -> None:
        if (max_cost_usd is not None and max_cost_usd <= 0) or (max_calls is not None and max_calls < 1):
            raise ConfigError(f"a budget of {max_cost_usd} dollars and {max_calls} calls buys nothing. Give more.")
        self.max_cost_usd = max_cost_usd
        self.max_calls = max_calls
        self.spent_usd = spent_usd
        self.calls = calls
        self._set_aside = 0.0
        self._in_flight = 0
        self._changed = PerLoop(asyncio.Condition)

    async def reserve(self, most_usd: float) -> None:
        """Set money aside for one call.

        Raises:
            BudgetReachedError: it is not there, and nothing in flight can free it.
        """
        changed = self._changed.get()
        async with changed:
            await changed.wait_for(lambda: self._covers(most_usd) or not self._in_flight)
            if not self._covers(most_usd):
                raise BudgetReachedError(self._message(most_usd))
            self._set_aside += most_usd
            self._in_flight += 1
            self.calls += 1

    async def settle(self, most_usd: float, cost_usd: float) -> None:
        """Book what a call did cost, and free what was set aside for it."""
        changed = self._changed.get()
        async with changed:
            self._set_aside -= most_usd
            self._in_flight -= 1
            self.spent_usd += cost_usd
            changed.notify_all()

    def _covers(self, most_usd: float) -> bool:
        if self.max_calls is not None and self.calls >= self.max_calls:
            return False
        return self.max_cost_usd is None or self.spent_usd + self._set_aside + most_usd <= self.max_cost_usd

    def _message(self, most_usd: float) -> str:
        if self.max_calls is not None and self.calls >= self.max_calls:
            return (
                f"the budget of {self.max_calls} calls is used up. Every answer is kept; to go on, run the same "
                "command with a higher calls.max_calls."
            )
        return (
            f"the budget is reached: {self.spent_usd:.4f} of {self.max_cost_usd:.4f} US dollars are spent, and the "
            f"next call may cost {most_usd:.4f}. Every answer is kept; to go on, run the same command with a higher "
            "--max-cost."
        )


class BudgetedClient(AroundClient):
    """Asks only what the budget covers.

    Args:
        client: What is asked.
        budget: What may be spent.
        price: Of the model's tokens; None is what the client knows.

    Raises:
        ConfigError: money is limited, and nobody knows the price.
    """

    def __init__(self, client: ChatClient, budget: Budget, price: Price | None = None) -> None:
        super().__init__(client)
        self._budget = budget
        known = price or client.capabilities.price
        if known is None and budget.max_cost_usd is not None:
            raise ConfigError(
                f"the price of {client.model} is not known, so no budget can be kept. Give it: "
                "--set calls.prompt_usd_per_million=... --set calls.completion_usd_per_million=..., or leave out "
                "--max-cost."
            )
        self._price = known or FREE

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`.

        Raises:
            BudgetReachedError: the call might cost more than is left.
        """
        prompts = 1 if self.capabilities.many else request.n
        most = self._price.of(prompts * most_prompt_tokens(request), request.n * request.max_tokens)
        await self._budget.reserve(most)
        cost = 0.0
        try:
            replies = await self._client.complete(request)
            cost = self._cost(replies)
        except InvalidReplyError as error:
            cost = self._cost(error.replies)
            raise
        finally:
            await self._budget.settle(most, cost)
        return replies

    def _cost(self, replies: Sequence[ChatReply]) -> float:
        known = [reply.cost_usd for reply in replies if reply.cost_usd is not None]
        if known:
            return sum(known)
        return self._price.of(sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies))
