"""Many pieces of work at once, and never more of them begun than can be under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sized
from typing import TypeVar

from rlhi_plugin.chat import ChatClient

_LEAST = 128
"""Calls under way where nothing is said: several batches of a model in this process, so that it never waits (ours)."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def under_way(client: ChatClient) -> int:
    """How many calls to begin so that a client has always some to make: twice what it lets through, as some wait."""
    return max(_LEAST, 2 * (client.capabilities.at_once or 0))


async def each(items: Iterable[_T], work: Callable[[_T], Awaitable[_R]], *, at_once: int) -> list[_R]:
    """`work` on every item, `at_once` of them at a time; results in the order of `items`.

    The first error ends the rest and comes out bare.
    """
    waiting = enumerate(items)
    results: dict[int, _R] = {}

    async def worker() -> None:
        for place, item in waiting:
            results[place] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            # Of many small batches, most need few workers.
            for _ in range(min(at_once, len(items)) if isinstance(items, Sized) else at_once):
                group.create_task(worker())
    except ExceptionGroup as several:
        # One task's error ended the others; it is the one to report.
        raise several.exceptions[0] from several
    return [results[place] for place in sorted(results)]
