"""How fast are turns written to a store, how fast do they leave it as Parquet, and how fast does it catch up?

A turn is a question and its answer, about 1.1 KB, written durably: SQLite with `synchronous=FULL`, PostgreSQL (where a
server is installed) with fsync. Beside them, in the same run and on the same disk: a bare fsynced append of 4 KiB, and
LangGraph's SQLite checkpointer writing the same turn, where that is installed.

    python benchmarks/store.py --quick --json store.json
    python benchmarks/store.py --only exports
    python benchmarks/store.py --only replay
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from turns.outage import catching_up, replays

from rlhi_plugin import open_store, terminal
from rlhi_plugin.export_job import export_store
from rlhi_plugin.parquet_logs import write_parquet_columns
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores import SQLStore

TARGETS = {"export_us_per_turn": 10.0, "sqlite_over_bare_append_1": 2.0, "sqlite_over_bare_append_64": 1.0}
"""Upper bounds (ours). 10 microseconds a turn are 100,000 turns a second."""
_REQUEST = "Could you explain how plants turn light into sugar? " * 4
_ANSWER = "Chlorophyll takes up light, water is split, and carbon dioxide becomes sugar. " * 12
_THREADS, _PROCESSES = (1, 16, 64), 8
_PATIENCE_S = 600
"""A process that died keeps the others waiting no longer than this."""


class Part(StrEnum):
    """What can be measured by itself."""

    WRITES = "writes"
    EXPORTS = "exports"
    REPLAY = "replay"


Write = Callable[[int, int], object]
"""Writes one turn: the writer's number, and the turn's."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    turns: int
    """Per writer of a kind, number of threads and block."""
    blocks: int
    exported: int
    replayed: int


FULL = Size(turns=1_280, blocks=7, exported=200_000, replayed=20_000)
QUICK = Size(turns=192, blocks=2, exported=20_000, replayed=4_000)


def turn(writer: int, number: int) -> list[Message]:
    """A question and its answer."""
    now, name = datetime.now(UTC), f"{writer}-{number}"
    return [
        Message(id=f"u{name}", role="user", content=f"{name} {_REQUEST}", created_at=now),
        Message(id=f"a{name}", role="assistant", content=f"{name} {_ANSWER}", created_at=now, model="m", latency_s=1.5),
    ]


def _to_store(url: str, stack: ExitStack) -> Write:
    store = stack.enter_context(open_store(url))
    return lambda writer, number: store.append(f"c{writer}", user_id=f"u_{writer}", messages=turn(writer, number))


def _bare(file: Path, stack: ExitStack) -> Write:
    stream, page = stack.enter_context(file.open("ab", buffering=0)), b"x" * 4096

    def write(*_: int) -> None:
        stream.write(page)
        os.fsync(stream.fileno())

    return write


def _saver(file: Path, stack: ExitStack) -> Write | None:
    """LangGraph's checkpointer with a state of these two messages alone: the least that it could have to write."""
    if not importlib.util.find_spec("langgraph.checkpoint.sqlite"):
        return None
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.sqlite import SqliteSaver

    saver = stack.enter_context(SqliteSaver.from_conn_string(str(file)))

    def write(writer: int, number: int) -> None:
        said = [HumanMessage(f"{number} {_REQUEST}"), AIMessage(f"{number} {_ANSWER}")]
        checkpoint = {**empty_checkpoint(), "channel_values": {"messages": said}}
        config = {"configurable": {"thread_id": f"{writer}-{number}", "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {}, {})  # type: ignore[arg-type] # a checkpoint and a config are typed dicts

    return write


def _by_threads(write: Write, threads: int, first: int, turns: int) -> float:
    """Milliseconds per turn while so many threads write at the same time."""
    start = threading.Barrier(threads + 1)

    def work(writer: int) -> None:
        start.wait()
        for number in range(first, first + turns // threads):
            write(writer, number)

    running = [threading.Thread(target=work, args=(writer,)) for writer in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in running:
        thread.join()
    return 1000 * (time.perf_counter() - started) / (threads * (turns // threads))


def _process(url: str, writer: int, blocks: int, turns: int, barrier: Any) -> None:
    with ExitStack() as stack:
        write = _to_store(url, stack)
        for block in range(blocks):
            barrier.wait()
            for number in range(block * turns, (block + 1) * turns):
                write(writer, number)
            barrier.wait()


def _by_processes(url: str, size: Size) -> list[float]:
    """Milliseconds per turn of each block, the first left out, while so many processes write at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, each = context.Barrier(_PROCESSES + 1), size.turns // _PROCESSES
    running = [
        context.Process(target=_process, args=(url, 1000 + number, size.blocks + 1, each, barrier), daemon=True)
        for number in range(_PROCESSES)
    ]
    for process in running:
        process.start()
    took = []
    for _ in range(size.blocks + 1):
        barrier.wait(_PATIENCE_S)
        started = time.perf_counter()
        barrier.wait(_PATIENCE_S)
        took.append(1000 * (time.perf_counter() - started) / (_PROCESSES * each))
    for process in running:
        process.join()
    return took[1:]


def writes(size: Size, postgres_url: str | None) -> dict[str, float]:
    """Milliseconds per turn of every writer, in turns, block by block; medians with their range."""
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        urls = {"sqlite": f"sqlite:///{folder}/rlhi.db"} | ({"postgres": postgres_url} if postgres_url else {})
        writers: dict[str, Write | None] = {label: _to_store(url, stack) for label, url in urls.items()}
        writers["saver"] = _saver(folder / "checkpoints.db", stack)
        bare = _bare(folder / "bare", stack)
        for block in range(size.blocks + 1):
            took: dict[str, float] = {"bare_append_ms": _by_threads(bare, 1, 0, size.turns)}
            for threads in _THREADS:
                for label, write in writers.items():
                    if write is not None:
                        first = 10 * size.turns * block + size.turns * threads
                        took[f"{label}_ms_{threads}_threads"] = _by_threads(write, threads, first, size.turns)
            # The first block warms up caches and connections.
            for key, value in took.items() if block else ():
                measured.setdefault(key, []).append(value)
        for label, url in urls.items():
            measured[f"{label}_ms_{_PROCESSES}_processes"] = _by_processes(url, size)
        _check(urls, size)
    figures: dict[str, float] = {}
    for key, values in measured.items():
        figures |= {key: statistics.median(values), f"{key}_min": min(values), f"{key}_max": max(values)}
    for threads in (1, 64):
        ratio = figures[f"sqlite_ms_{threads}_threads"] / figures["bare_append_ms"]
        figures[f"sqlite_over_bare_append_{threads}"] = ratio
    return figures


def _check(urls: dict[str, str], size: Size) -> None:
    """Nothing of what was measured may be missing."""
    by_threads = sum(threads * (size.turns // threads) for threads in _THREADS)
    expected = 2 * (size.blocks + 1) * (by_threads + _PROCESSES * (size.turns // _PROCESSES))
    for label, url in urls.items():
        with open_store(url) as store:
            found = store.counts().messages
        if found != expected:
            raise SystemExit(f"{label} holds {found} messages, {expected} were written: the figures mean nothing")


def exports(size: Size, postgres_url: str | None) -> dict[str, float]:
    """Microseconds per turn of an export to Parquet: `rlhi export --out logs.parquet`, and by way of rows."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        urls = {"": f"sqlite:///{name}/rlhi.db"} | ({"postgres_": postgres_url} if postgres_url else {})
        for label, url in urls.items():
            with open_store(url) as store:
                before = store.counts().messages // 2
                for number in range(size.exported // 100):
                    said = [message for one in range(100) for message in turn(10_000 + number, one)]
                    store.add(Conversation(conversation_id=f"x{number}", user_id="u_x", messages=tuple(said)))
                turns = before + size.exported // 100 * 100
                for way, (clock, processor) in _fastest(_ways(store, Path(name, "logs.parquet"))).items():
                    figures[f"{label}{way}_us_per_turn"] = 1e6 * clock / turns
                    figures[f"{label}{way}_turns_per_s"] = turns / clock
                    # On a machine that does other things too, this says more: of all threads and processes.
                    figures[f"{label}{way}_cpu_us_per_turn"] = 1e6 * processor / turns
    return figures


def _ways(store: SQLStore, file: Path) -> dict[str, Callable[[], object]]:
    """As `rlhi export` does it, as it does without the Arrow driver or on a server, and the reading of rows alone."""
    return {
        "export": lambda: export_store(store, file),
        "export_by_rows": lambda: write_parquet_columns(file, store.columns()),
        "export_reading_rows": lambda: deque(store.columns(), maxlen=0),
    }


def _arrow_driver() -> bool:
    return importlib.util.find_spec("adbc_driver_sqlite") is not None


def _fastest(ways: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Seconds on the clock, and of the processor, each the least of three times; the ways take turns."""
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(3):
        for way, work in ways.items():
            started, used = time.perf_counter(), _processor_s()
            work()
            taken[way].append((time.perf_counter() - started, _processor_s() - used))
    return {way: (min(clock for clock, _ in times), min(used for _, used in times)) for way, times in taken.items()}


def _processor_s() -> float:
    """Seconds of the processor that this process and those that it waited for have used."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def machine(postgres: str) -> dict[str, str | int]:
    """What the figures were measured on."""
    saver = importlib.util.find_spec("langgraph.checkpoint.sqlite")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "load": f"{os.getloadavg()[0]:.1f}",
        "disk": tempfile.gettempdir(),
        "sqlalchemy": version("sqlalchemy"),
        "pyarrow": version("pyarrow"),
        "adbc-driver-sqlite": version("adbc-driver-sqlite") if _arrow_driver() else "not installed",
        "postgres": postgres,
        "langgraph-checkpoint-sqlite": version("langgraph-checkpoint-sqlite") if saver else "not installed",
    }


def _postgres(stack: ExitStack) -> tuple[str | None, str]:
    """The URL of an empty database on a server of our own, and what to say about it."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "plugin"))
    try:
        from postgres_server import NoServerError, PostgresServer

        server = stack.enter_context(PostgresServer(durable=True))
    except (ImportError, NoServerError) as error:
        return None, f"not measured: {error}"
    return server.new_database(), "a server of our own, fsync on"


def _lines(figures: dict[str, float]) -> Iterator[Any]:
    if "bare_append_ms" in figures:
        yield _writers(figures)
    rows = [(key, f"{figures[key]:.2f}") for key in figures if "export" in key]
    if rows:
        yield terminal.table("export to Parquet", ("", "value"), rows)
    if "replay_start_s" in figures:
        yield catching_up(figures)


def _writers(figures: dict[str, float]) -> Any:
    kinds = [f"{threads}_threads" for threads in _THREADS] + [f"{_PROCESSES}_processes"]
    rows = [
        (shown, *(f"{figures[key]:.3f}" if (key := f"{label}_ms_{kind}") in figures else "" for kind in kinds))
        for label, shown in (("sqlite", "rlhi, SQLite"), ("postgres", "rlhi, PostgreSQL"), ("saver", "SqliteSaver"))
        if f"{label}_ms_1_threads" in figures
    ]
    rows.append(("bare 4 KiB append", f"{figures['bare_append_ms']:.3f}", "", "", ""))
    columns = ("writer", *(kind.replace("_", " ") for kind in kinds))
    return terminal.table("milliseconds per turn, all writers together", columns, rows)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    only: Annotated[Part | None, typer.Option(help="Only this part.")] = None,
) -> None:
    """Measure writes to a store, exports from it, and the replay of a journal into it.

    Example: python benchmarks/store.py --quick
    """
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        postgres_url, about_postgres = _postgres(stack)
        figures = writes(size, postgres_url) if only in (None, Part.WRITES) else {}
        figures |= exports(size, postgres_url) if only in (None, Part.EXPORTS) else {}
        figures |= replays(size.replayed, turn) if only in (None, Part.REPLAY) else {}
    about = machine(about_postgres)
    targets = {name: bound for name, bound in TARGETS.items() if name in figures}
    met = {name: figures[name] <= bound for name, bound in targets.items()}
    for line in _lines(figures):
        terminal.stdout.print(line)
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.3f}, target {TARGETS[name]}: {'met' if reached else 'missed'}")
    for what in ("postgres", "langgraph-checkpoint-sqlite", "adbc-driver-sqlite"):
        terminal.stdout.print(f"{what}: {about[what]}", markup=False, highlight=False)
    if json_file is not None:
        body = {"figures": figures, "targets": targets, "met": met, "machine": about}
        json_file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
