"""How much time does the middleware add to a turn? The same agent without it, and with a middleware that does nothing.

A scripted model waits as long as keeps the offered load the same for every number of threads; its waiting is not
counted. It waits between half and one and a half times that long, drawn at random: people do not all speak at once, and
threads that pause equally long would. By default that is 64 turns a second, what 64 people ask for whose model answers
within a second on average; at one thread the model answers within 16 ms, so that a run ends. All threads share one
interpreter, and the table says how much of it a load asks for: the processor's time of a turn, times the rate. Above
100 percent turns queue, and what is added is that queue: `--rate 250` shows it, where the bare agent alone asks for
about all of it.

The variants take turns, block by block, in one run, each on an SQLite file of its own on the same disk. Added times are
differences of percentiles, over the bare agent, over a middleware that does nothing (the difference between the two is
LangChain's) and over one that only appends 4 KiB to a file and waits for the disk, which no durable log can do without.
Peers write the same turns where they are installed (dependency group `bench`, `turns/peers.py`).

    python benchmarks/middleware.py --quick --json middleware.json
    python benchmarks/middleware.py --only agents-1 --only writers
    python benchmarks/middleware.py --only agents-64 --rate 250
    python benchmarks/middleware.py --memory-turns 1000000
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from turns import Size
from turns.agents import COLUMNS, THREADS, added_times
from turns.calls import python_calls
from turns.memory import long_run, memory, persona_read
from turns.peers import peer_versions
from turns.writers import write_times

from rlhi_plugin import terminal

TARGETS = {
    "added_p50_ms_1": 1.0,
    "added_p99_ms_1": 5.0,
    "added_p50_ms_16": 1.0,
    "added_p99_ms_16": 5.0,
    "added_p50_ms_64": 1.0,
    "added_p99_ms_64": 5.0,
    "added_over_agent_append_1": 2.0,
    "added_over_bare_append_1": 2.0,
    "record_over_bare_append_64": 1.0,
    "persona_read_ms": 0.2,
    "memory_bytes_per_turn": 50.0,
}
"""Upper bounds (ours). `added_over_agent_append_1`: what ours adds to the bare agent, over what a middleware adds that
only appends 4 KiB and waits for the disk. `added_over_bare_append_1`: over such an append in a loop.
`record_over_bare_append_64`: seconds per turn with 64 threads that write at the same time, over the seconds of one
append in a loop. A million turns at the bound of memory are 50 MB."""


_ALSO_PRINTED = ("added_over_", "python_calls_")


class Part(StrEnum):
    """What can be measured by itself."""

    AGENTS_1 = "agents-1"
    AGENTS_16 = "agents-16"
    AGENTS_64 = "agents-64"
    WRITERS = "writers"
    MEMORY = "memory"
    CALLS = "calls"


FULL, QUICK = (
    Size(turns=512, blocks=5, appends=500, memory_turns=50_000),
    Size(turns=64, blocks=2, appends=64, memory_turns=1_000),
)

Tables = dict[int, list[tuple[str, list[float]]]]
"""By threads, what each variant of the agent takes; see `COLUMNS`."""


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    packages = {name: version(name) for name in ("langchain", "langgraph", "sqlalchemy")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "load": f"{os.getloadavg()[0]:.1f}",
        "disk": tempfile.gettempdir(),
        **packages,
        **peer_versions(),
    }


def _lines(figures: dict[str, float], tables: Tables) -> Iterator[Any]:
    for threads, measured in tables.items():
        rows = [(name, *(f"{value:.2f}" for value in values)) for name, values in measured]
        title = f"{threads} thread(s), {figures['rate']:g} turns a second: milliseconds per turn, without the model"
        yield terminal.table(title, ("agent with", *COLUMNS), rows)
    writes = [(key, f"{figures[key]:.3f}") for key in figures if key.endswith("_ms") and f"{key}_min" in figures]
    rows = [row for row in writes if "_p" not in row[0]]
    if rows:
        yield terminal.table("milliseconds to write one turn", ("", "median"), rows)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    only: Annotated[
        list[Part] | None, typer.Option(help="Only this part; may be given several times. All without it.")
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Repeats of every variant.", min=1)] = None,
    turns: Annotated[int | None, typer.Option(help="Turns of every variant and repeat.", min=64)] = None,
    rate: Annotated[
        float, typer.Option(help="Turns a second that all threads of agents together ask for; 250 is too many.", min=1)
    ] = FULL.rate,
    memory_turns: Annotated[
        int | None, typer.Option(help="Only this: really run so many turns, and print the memory.", min=10_000)
    ] = None,
) -> None:
    """Measure what the middleware adds to a turn.

    Example: python benchmarks/middleware.py --quick
    """
    os.environ.setdefault("RLHI_KEY", "benchmark-key-0123456789")
    if memory_turns is not None:
        _long_run(memory_turns, json_file)
        return
    size = QUICK if quick else FULL
    size = replace(size, blocks=blocks or size.blocks, turns=turns or size.turns, rate=rate)
    figures, tables = _measured(size, only or list(Part))
    figures["rate"] = rate
    targets = {name: bound for name, bound in TARGETS.items() if name in figures}
    met = {name: figures[name] <= bound for name, bound in targets.items()}
    for line in _lines(figures, tables):
        terminal.stdout.print(line)
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.3f}, target {TARGETS[name]}: {'met' if reached else 'missed'}")
    for key in figures:
        if key not in TARGETS and key.startswith(_ALSO_PRINTED) and not key.endswith(("_min", "_max")):
            terminal.stdout.print(f"{key}: {figures[key]:.3f}")
    about = machine()
    absent = [name for name, found in about.items() if found == "not installed"]
    if absent:
        terminal.stdout.print(f"peers not installed: {', '.join(absent)} (pip install --group bench)")
    _write_json(json_file, figures, targets, met)


def _measured(size: Size, parts: list[Part]) -> tuple[dict[str, float], Tables]:
    """Figures of some parts, and the tables of those with agents."""
    figures, tables = added_times(size, [threads for threads in THREADS if f"agents-{threads}" in parts])
    if Part.WRITERS in parts:
        figures |= write_times(size) | persona_read()
    if Part.MEMORY in parts:
        figures |= memory(size)
    if Part.CALLS in parts:
        figures |= python_calls(size.turns)
    if {"added_p50_ms_1", "bare_4_kib_append_ms"} <= figures.keys():
        bare_ms = figures["bare_4_kib_append_ms"]
        figures["added_over_bare_append_1"] = figures["added_p50_ms_1"] / bare_ms
        figures["added_over_noop_over_bare_append_1"] = figures["added_p50_ms_1_over_noop"] / bare_ms
    return figures, tables


def _long_run(turns: int, json_file: Path | None) -> None:
    figures = long_run(turns)
    rows = [(name, f"{value:.1f}") for name, value in figures.items()]
    terminal.stdout.print(terminal.table(f"{turns} turns through one recorder", ("", "value"), rows))
    targets = {"memory_bytes_per_turn": TARGETS["memory_bytes_per_turn"], "long_run_dropped": 0, "long_run_missing": 0}
    met = {name: figures[name] <= bound for name, bound in targets.items()}
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.3f}, target {targets[name]}: {'met' if reached else 'missed'}")
    _write_json(json_file, figures, targets, met)


def _write_json(file: Path | None, figures: dict[str, float], targets: dict[str, float], met: dict[str, bool]) -> None:
    if file is not None:
        body = {"figures": figures, "targets": targets, "met": met, "machine": machine()}
        file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
