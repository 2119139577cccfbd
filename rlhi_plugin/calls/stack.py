"""Everything around a vendor's client, in the one order that works."""

from __future__ import annotations

from rlhi_plugin.calls.budget import Budget, BudgetedClient
from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.calls.journalled import CachedClient, JournalledClient
from rlhi_plugin.calls.options import DEFAULT, CallOptions
from rlhi_plugin.calls.rate_limit import RateLimitedClient
from rlhi_plugin.calls.retrying import RetryingClient
from rlhi_plugin.calls.singles import OneCallClient, SinglesClient
from rlhi_plugin.chat import ChatClient


def equip(
    client: ChatClient,
    options: CallOptions = DEFAULT,
    *,
    journal: CallJournal | None = None,
    budget: Budget | None = None,
) -> ChatClient:
    """Put retries, cache, budget, rate limit and journal around a vendor's client.

    From the outside in: where a provider gives fewer replies a call than are asked for, the others are calls, too; a
    retry may be answered by the cache (a wrong answer was paid for, too), and what the cache does not hold is paid for;
    a call waits for its turn, and counts as begun when it has it. A client in this process gets cache and journal only:
    it costs nothing and refuses nobody.

    Raises:
        ConfigError: the budget limits money, and the model's price is not known.
    """
    if not client.capabilities.remote:
        return client if journal is None else CachedClient(JournalledClient(client, journal), journal)
    inner: ChatClient = OneCallClient(client)
    if journal is not None:
        inner = JournalledClient(inner, journal)
    inner = RateLimitedClient(inner, options)
    if budget is not None:
        inner = BudgetedClient(inner, budget, options.price)
    if journal is not None:
        inner = CachedClient(inner, journal)
    return SinglesClient(RetryingClient(inner, options))
