"""How much of a provider's rate limit is used, and how many calls are refused on the way?

The provider is on loopback, with a known limit in a sliding window and half a second to each answer. Ours knows the
limit (`calls.requests_per_minute`), or only hears of it by refusals; the peer is the ``openai`` library with its own
retries, with as many calls in flight. The limit of tokens is kept by the client alone: its share is by what the
provider counted. The clock starts after a first call, and runs half a second longer, as the last answers take that
long. Last, what retries, limits, cache, budget and journal add to one call.

    python benchmarks/model_calls.py --quick --json model_calls.json
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal
from rlhi_plugin.calls.budget import Budget
from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.calls.journalled import CachedClient, JournalledClient
from rlhi_plugin.calls.openai_client import OpenAIChatClient
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.rate_limit import WINDOW_S, RateLimitedClient
from rlhi_plugin.calls.retrying import RetryingClient
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import ChatRequest
from rlhi_plugin.fake_provider import Answer, FakeProvider, RateLimit
from rlhi_plugin.records import ChatMessage

TARGETS = {
    "known_limit_used": 0.9,
    "known_limit_used_fast": 0.9,
    "token_limit_used": 0.85,
}
"""Lower bounds on shares of the limit. The first two: of requests a window, at two speeds. The last is lower because
the size of a call is learnt from the first answers, which counts in a short measurement."""
LATENCY_S = 0.5
IN_FLIGHT = 128
WORDS = 20
"""Of an answer; the provider counts a word as a token."""

Ask = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Size:
    """How long is measured: `windows` of `window_s` seconds; and how many calls are timed one by one."""

    window_s: float
    windows: int
    timed: int


FULL = Size(10.0, 4, 400)
QUICK = Size(3.0, 2, 60)


@dataclass(frozen=True)
class Row:
    """What was measured in one case: answers, refusals, and the share of the limit that the answers are."""

    case: str
    answered: int
    refused: int
    share: float


def request(number: int, *, max_tokens: int = 64) -> ChatRequest:
    """A call that no other is equal to."""
    message = ChatMessage(role="user", content=f"Question number {number}, of which nobody has heard before.")
    return ChatRequest(messages=(message,), max_tokens=max_tokens)


def deadline(size: Size) -> float:
    """When the measured time is over."""
    return time.monotonic() + size.window_s * size.windows + LATENCY_S


async def until(end: float, ask: Ask) -> int:
    """Ask one thing after the other, `IN_FLIGHT` at once, and count what is answered before the deadline."""
    answered = 0

    async def one(number: int) -> None:
        nonlocal answered
        try:
            await ask(number)
        except Exception:  # noqa: BLE001 - a call that was given up is not answered, which is what is counted
            return
        answered += time.monotonic() <= end

    async def worker(first: int) -> None:
        number = first
        while time.monotonic() < end:
            await one(number)
            number += IN_FLIGHT

    tasks = [asyncio.create_task(worker(first)) for first in range(IN_FLIGHT)]
    await asyncio.wait(tasks, timeout=max(0.0, end - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answered


async def limited(size: Size, per_window: int, *, known: bool, folder: Path) -> Row:
    """Ours against a limit of so many requests a window."""
    with FakeProvider(_answer, rate_limit=RateLimit(requests=per_window, per_s=size.window_s)) as provider:
        options = CallOptions(
            requests_per_minute=per_window if known else None, max_concurrency=IN_FLIGHT, attempts=100, first_wait_s=0.2
        )
        vendor = OpenAIChatClient("fake-1", base_url=provider.base_url)
        with CallJournal(folder / f"{per_window}-{known}.db") as journal:
            inner = RateLimitedClient(JournalledClient(vendor, journal), options, window_s=size.window_s)
            client = RetryingClient(CachedClient(inner, journal), options)
            await vendor.complete(request(-1))
            answered = await until(deadline(size), lambda number: client.complete(request(number)))
            await journal.land()
        await vendor.aclose()
        case = f"ours, limit {'known' if known else 'not known'}, {per_window / size.window_s:.0f} a second"
        return Row(case, answered, provider.refused, answered / (per_window * size.windows))


async def peer(size: Size, per_window: int) -> Row:
    """The openai library's own retries against the same limit."""
    from openai import AsyncOpenAI

    with FakeProvider(_answer, rate_limit=RateLimit(requests=per_window, per_s=size.window_s)) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=100) as client:

            async def ask(number: int) -> object:
                text = f"Question number {number}, of which nobody has heard before."
                return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

            await ask(-1)
            answered = await until(deadline(size), ask)
        case = f"openai library, {per_window / size.window_s:.0f} a second"
        return Row(case, answered, provider.refused, answered / (per_window * size.windows))


async def tokens(size: Size, per_window: int) -> Row:
    """Ours with a limit of so many tokens a window, by what the provider counted."""
    with FakeProvider(_answer) as provider:
        options = CallOptions(tokens_per_minute=per_window, max_concurrency=IN_FLIGHT)
        vendor = OpenAIChatClient("fake-1", base_url=provider.base_url)
        client = RateLimitedClient(vendor, options, window_s=size.window_s)
        await vendor.complete(request(-1))
        used = 0

        async def ask(number: int) -> None:
            nonlocal used
            (reply,) = await client.complete(request(number))
            used += reply.prompt_tokens + reply.completion_tokens

        answered = await until(deadline(size), ask)
        await vendor.aclose()
        return Row(
            f"ours, {per_window / size.window_s:.0f} tokens a second", answered, 0, used / (per_window * size.windows)
        )


async def overhead(size: Size, folder: Path) -> dict[str, float]:
    """Milliseconds a call, one by one and 32 at once, bare and with everything around it."""
    figures = {}
    with FakeProvider(lambda _: Answer("yes")) as provider, CallJournal(folder / "overhead.db") as journal:
        vendor = OpenAIChatClient("fake-1", base_url=provider.base_url)
        full = equip(vendor, CallOptions(max_concurrency=32), journal=journal, budget=Budget(max_calls=10**6))
        for at_once in (1, 32):
            for name, client, first in (("bare", vendor, 0), ("full", full, 10**6 * at_once)):
                started = time.perf_counter()
                ask = client.complete
                await each([request(first + i) for i in range(size.timed)], ask, at_once=at_once)
                figures[f"{name}_ms_a_call_{at_once}"] = 1000 * (time.perf_counter() - started) / size.timed
        await vendor.aclose()
    return figures


def _answer(_: object) -> Answer:
    return Answer(" ".join(["word"] * WORDS), delay_s=LATENCY_S)


async def measure(size: Size, folder: Path) -> tuple[list[Row], dict[str, float]]:
    """All rows, and figures by name."""
    slow, fast = round(20 * size.window_s), round(40 * size.window_s)
    rows = [
        await limited(size, slow, known=True, folder=folder),
        await limited(size, slow, known=False, folder=folder),
        await peer(size, slow),
        await limited(size, fast, known=True, folder=folder),
        await tokens(size, round(600 * size.window_s)),
    ]
    figures = {
        "known_limit_used": rows[0].share,
        "known_limit_refused": rows[0].refused,
        "unknown_limit_used": rows[1].share,
        "unknown_limit_refused": rows[1].refused,
        "peer_used": rows[2].share,
        "peer_refused": rows[2].refused,
        "known_limit_used_fast": rows[3].share,
        "token_limit_used": rows[4].share,
    }
    return rows, figures | await overhead(size, folder)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    packages = {name: version(name) for name in ("openai", "aiolimiter", "tenacity")}
    load = f"{os.getloadavg()[0]:.1f}"
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "load": load,
        **packages,
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure how much of a rate limit is used.

    Example: python benchmarks/model_calls.py --quick
    """
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        rows, figures = asyncio.run(measure(size, Path(folder)))
    title = (
        f"{size.windows} windows of {size.window_s:.0f} s (real ones have {WINDOW_S:.0f}); answers take {LATENCY_S} s"
    )
    shown = [(row.case, row.answered, row.refused, f"{row.share:.1%}") for row in rows]
    terminal.stdout.print(terminal.table(title, ("case", "answered", "refused", "of the limit"), shown))
    for name in ("bare_ms_a_call_1", "full_ms_a_call_1", "bare_ms_a_call_32", "full_ms_a_call_32"):
        terminal.stdout.print(f"{name}: {figures[name]:.2f}")
    met = {name: figures[name] >= bound for name, bound in TARGETS.items()}
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.3f}, target {TARGETS[name]}: {'met' if reached else 'missed'}")
    if json_file is not None:
        body = {"figures": figures, "targets": TARGETS, "met": met, "machine": machine()}
        json_file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
