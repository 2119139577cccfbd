"""What is left after an outage: how long an app takes to start on a long journal, and how fast the store gets it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhi_plugin import open_store, terminal
from rlhi_plugin.durability import DurableWriter, WriterOptions
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.turn_file import Write
from rlhi_plugin.records import Message
from rlhi_plugin.stores import SQLStore

_CONVERSATIONS = 64
"""They talk at the same time, each with a user of its own."""

TurnOf = Callable[[int, int], list[Message]]
"""Messages of a turn: the conversation's number, and the turn's."""


def replays(turns: int, turn_of: TurnOf) -> dict[str, float]:
    """Times of so many turns on SQLite: into a journal, from there into a store, and into another store one by one.

    Returns:
        Seconds until a writer is made, and until it knows what waits; turns per second by the clock, and microseconds
        of the processor for each.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writes = [_write(number, turn_of) for number in range(turns)]
        journal = Journal(folder / "journal")
        figures = _rates("journalled", turns, lambda: [journal.append(one) for one in writes])
        journal.close()
        with open_store(f"sqlite:///{folder}/alone.db") as store:
            figures |= _rates("one_by_one", turns, lambda: [_append(store, one) for one in writes])
            _check(store, turns)
        with open_store(f"sqlite:///{folder}/replayed.db") as store:
            figures |= _rates("replayed", turns, lambda: figures.update(_replay(store, folder / "journal")))
            _check(store, turns)
    figures["replayed_over_one_by_one"] = figures["replayed_turns_per_s"] / figures["one_by_one_turns_per_s"]
    return figures


def catching_up(figures: dict[str, float]) -> Any:
    """The figures of `replays`, for people."""
    rows = [
        (shown, f"{figures[f'{key}_turns_per_s']:.0f}", f"{figures[f'{key}_cpu_us_per_turn']:.0f}")
        for key, shown in (
            ("journalled", "into a journal"),
            ("replayed", "from there into a store, start included"),
            ("one_by_one", "into a store, one by one"),
        )
    ]
    title = f"start: {figures['replay_start_s']:.3f} s; what waits is known: {figures['replay_read_s']:.2f} s"
    return terminal.table(title, ("", "turns per second", "microseconds of the processor"), rows)


def _write(number: int, turn_of: TurnOf) -> Write:
    conversation = number % _CONVERSATIONS
    return Write(f"c{conversation}", f"u_{conversation}", turn_of(conversation, number))


def _append(store: SQLStore, one: Write) -> int:
    return store.append(one.conversation_id, user_id=one.user_id, messages=one.messages)


def _replay(store: SQLStore, journal: Path) -> dict[str, float]:
    started = time.perf_counter()
    writer = DurableWriter(store, WriterOptions(journal=journal))
    made = time.perf_counter()
    while writer.status().reading:
        time.sleep(0.001)
    read = time.perf_counter()
    while writer.status().waiting:
        time.sleep(0.01)
    writer.close()
    return {"replay_start_s": made - started, "replay_read_s": read - started}


def _rates(key: str, turns: int, work: Callable[[], object]) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    work()
    clock, processor = time.perf_counter() - started, time.process_time() - used
    return {f"{key}_turns_per_s": turns / clock, f"{key}_cpu_us_per_turn": 1e6 * processor / turns}


def _check(store: SQLStore, turns: int) -> None:
    """Nothing of what was measured may be missing."""
    if (found := store.counts().messages) != 2 * turns:
        raise SystemExit(f"the store holds {found} messages, {2 * turns} were written: the figures mean nothing")
