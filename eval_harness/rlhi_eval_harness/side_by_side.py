"""Runs many calls at once. After a failure none is begun, and those that had begun are waited for: they may be paid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from rlhi_plugin.chat import ChatClient

T = TypeVar("T")


async def run_all(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do `work` for each item.

    Args:
        items: In the order in which they are begun.
        work: What to do.
        at_once: How many may be under way.

    Raises:
        Exception: the first failure, once everything that had begun has ended.
    """
    slots = asyncio.Semaphore(at_once)
    failures: list[Exception] = []

    async def one(item: T) -> None:
        async with slots:
            if failures:
                return
            try:
                await work(item)
            except Exception as error:  # noqa: BLE001 - raised below, with its own type and remedy
                failures.append(error)

    await asyncio.gather(*(one(item) for item in items))
    if failures:
        raise failures[0]


async def close_connections(client: ChatClient) -> None:
    """Close what a client keeps open in the running loop, before the loop ends."""
    aclose = getattr(client, "aclose", None)
    if aclose is not None:
        await aclose()
