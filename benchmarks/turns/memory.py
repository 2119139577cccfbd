"""What stays in memory: the persona that is read from there, and how much a process grows."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhi_plugin import open_store, terminal
from rlhi_plugin.durability import WriterOptions
from rlhi_plugin.persona.cache import PersonaCache
from rlhi_plugin.recorder import Recorder
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from turns import Size, spread, timed, turn_of

_WARM_UP = 4_200
"""Threads of conversation after which every cache is full."""
_LONG_RUN_THREADS = 16


def persona_read() -> dict[str, float]:
    """Milliseconds to read a persona of ten statements from the cache."""
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/p.db") as store:
        evidence = (Evidence(conversation_id="c", message_id="m", quote="shorter"),)
        statements = tuple(PersonaStatement(text=f"Shorter, please {n}.", evidence=evidence) for n in range(10))
        store.put_persona(Persona(user_id="u_1", statements=statements, builder="bench"))
        cache = PersonaCache(store)
        cache.get("t", "u_1")
        return spread("persona_read_ms", [1000 * timed(lambda _: cache.get("t", "u_1"), 0) for _ in range(2_000)])


def memory(size: Size) -> dict[str, float]:
    """Bytes that the process grows by per turn, once its caches are full; a conversation of its own for each turn."""
    with tempfile.TemporaryDirectory() as name, open_store(f"sqlite:///{name}/m.db") as store:
        recorder = Recorder(store, WriterOptions(journal=Path(name, "journal")))
        points: list[tuple[int, int]] = []
        for number in range(_WARM_UP + size.memory_turns):
            recorder.record(lambda number=number: turn_of(number, f"t{number}"))
            if number >= _WARM_UP and number % 200 == 0:
                points.append((number, _resident()))
        recorder.close()
    slope = statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope
    return {"memory_bytes_per_turn": slope, "memory_turns": float(size.memory_turns)}


def long_run(turns: int) -> dict[str, float]:
    """Resident memory in MB over many turns through one recorder, by 16 threads, each turn a conversation of its own.

    The slope is that of the second half, in bytes per turn: what a process that runs on and on would grow by.
    """
    done = itertools.count(1)
    points: list[tuple[int, int]] = []
    figures = {"memory_start_mb": _resident() / 1e6}
    with tempfile.TemporaryDirectory() as name, open_store(f"sqlite:///{name}/m.db") as store:
        recorder = Recorder(store, WriterOptions(journal=Path(name, "journal"), store_timeout_s=60))

        def user(numbers: range) -> None:
            for number in numbers:
                recorder.record(lambda number=number: turn_of(number, f"t{number}"))
                count = next(done)
                if count % 1_000 == 0:
                    points.append((count, _resident()))
                if count % (max(turns // 10, 1)) == 0:
                    terminal.stdout.print(f"{count} turns: {_resident() / 1e6:.1f} MB resident")

        started = time.perf_counter()
        with ThreadPoolExecutor(_LONG_RUN_THREADS) as pool:
            warm = min(2 * _WARM_UP, turns // 2)
            list(pool.map(user, (range(n, warm, _LONG_RUN_THREADS) for n in range(_LONG_RUN_THREADS))))
            figures["memory_warm_mb"] = _resident() / 1e6
            list(pool.map(user, (range(warm + n, turns, _LONG_RUN_THREADS) for n in range(_LONG_RUN_THREADS))))
        figures["memory_end_mb"] = _resident() / 1e6
        figures["long_run_s"] = time.perf_counter() - started
        figures["long_run_dropped"] = float(recorder.dropped)
        recorder.close()
        # Twice: what a user says and what is answered.
        figures["long_run_missing"] = float(2 * turns - store.counts().messages)
    late = sorted(points)[len(points) // 2 :]
    figures["memory_bytes_per_turn"] = statistics.linear_regression([x for x, _ in late], [y for _, y in late]).slope
    return figures | {"memory_turns": float(turns)}


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
