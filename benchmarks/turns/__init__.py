"""What the benchmark of the middleware writes: turns of a question and its answer, and how it sums up its times."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from langchain_core.messages import AIMessage, HumanMessage

from rlhi_plugin.identity import pseudonym
from rlhi_plugin.recorder import Reply, Turn

REQUEST = "Could you explain how plants turn light into sugar? " * 4
_PAGE = b"x" * 4096
ANSWER = "Chlorophyll takes up light, water is split, and carbon dioxide becomes sugar. " * 12


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    turns: int
    """Per variant, block and number of threads."""
    blocks: int
    appends: int
    memory_turns: int
    rate: float = 64.0
    """Turns a second that all threads of agents together ask for: 64 threads whose model answers within a second."""


def turn_of(number: int, thread: str = "t") -> Turn:
    """One turn as the middleware describes it."""
    reply = Reply(messages=(AIMessage(ANSWER, id=f"a{number}"),), model="m")
    asked = HumanMessage(f"{number} {REQUEST}", id=f"u{number}")
    return Turn(thread, pseudonym("u"), None, [asked], reply, stable_ids=True, started_at=datetime.now(UTC))


def append_page(file: BinaryIO) -> None:
    """Append 4 KiB to an unbuffered file; they are on disk on return."""
    file.write(_PAGE)
    os.fsync(file.fileno())


def spread(key: str, values: list[float]) -> dict[str, float]:
    """The median, and the range."""
    return {key: statistics.median(values), f"{key}_min": min(values), f"{key}_max": max(values)}


def timed(work: Callable[[int], None], number: int) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work(number)
    return time.perf_counter() - started
