"""How much time does the middleware add to a turn? The same agent without it, and with a middleware that does nothing.

A scripted model waits as long as keeps the offered load the same for every number of threads, 250 turns a second; its
waiting is not counted. It waits between half and one and a half times that long, drawn at random: people do not all
speak at once, and threads that pause equally long would. The variants take turns, block by block, in one run, each on
an SQLite file of its own on the same disk. Added times are differences of percentiles. Peers write the same turns where
they are installed (dependency group `bench`).

    python benchmarks/middleware.py --quick --json middleware.json
    python benchmarks/middleware.py --memory-turns 1000000
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from rlhi_plugin import RLHIMiddleware, open_store, terminal
from rlhi_plugin.durability import WriterOptions
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona.cache import PersonaCache
from rlhi_plugin.recorder import Recorder, Reply, Turn
from rlhi_plugin.records import Evidence, Persona, PersonaStatement

TARGETS = {
    "added_p50_ms_1": 1.0,
    "added_p99_ms_1": 5.0,
    "added_p50_ms_16": 1.0,
    "added_p99_ms_16": 5.0,
    "added_p50_ms_64": 1.0,
    "added_p99_ms_64": 5.0,
    "added_over_bare_append_1": 2.0,
    "record_over_bare_append_64": 1.0,
    "persona_read_ms": 0.2,
    "memory_bytes_per_turn": 50.0,
}
"""Upper bounds (ours). `record_over_bare_append_64`: seconds per turn with 64 threads that write at the same time, over
the seconds of one bare append. A million turns at the bound of memory are 50 MB."""
_REQUEST = "Could you explain how plants turn light into sugar? " * 4
_ANSWER = "Chlorophyll takes up light, water is split, and carbon dioxide becomes sugar. " * 12


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    turns: int
    """Per variant, block and number of threads."""
    blocks: int
    appends: int
    memory_turns: int


FULL, QUICK = (
    Size(turns=640, blocks=9, appends=500, memory_turns=50_000),
    Size(turns=64, blocks=3, appends=64, memory_turns=1_000),
)
_PAUSE_PER_THREAD_S = 0.004
_THREADS = (1, 16, 64)
_MEMORY_WARM_UP = 4_200
"""Threads of conversation after which every cache is full."""
_LONG_RUN_THREADS = 16


_pauses = random.Random(0)
_paused = threading.local()


class Waiting(BaseChatModel):
    """Answers the same after a pause."""

    pause_s: float
    """On average."""

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        _paused.s = self.pause_s * _pauses.uniform(0.5, 1.5)
        time.sleep(_paused.s)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(_ANSWER))])

    @property
    def _llm_type(self) -> str:
        return "waiting"


class NoOp(AgentMiddleware[Any, Any, Any]):
    """A middleware that passes the call on."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Pass it on."""
        return handler(request)


def _agents(pause_s: float, folder: Path, stack: ExitStack) -> dict[str, Any]:
    model = Waiting(pause_s=pause_s)
    ours = RLHIMiddleware(store=f"sqlite:///{folder}/rlhi.db")
    stack.callback(ours.store.close)
    stack.callback(ours.close)
    agents = {
        "bare": create_agent(model, middleware=[]),
        "no-op": create_agent(model, middleware=[NoOp()]),
        "rlhi": create_agent(model, middleware=[ours]),
    }
    if importlib.util.find_spec("langgraph.checkpoint.sqlite"):
        from langgraph.checkpoint.sqlite import SqliteSaver

        saver = stack.enter_context(SqliteSaver.from_conn_string(str(folder / "checkpoints.db")))
        agents["SqliteSaver"] = create_agent(model, middleware=[], checkpointer=saver)
    return agents


def _block(agent: Any, name: str, threads: int, turns: int) -> list[float]:
    """Seconds of each turn, without the model's pause."""

    def user(number: int) -> list[float]:
        seconds = []
        for turn in range(turns // threads):
            # A conversation of its own for each turn: checkpointers then do not pay for a growing thread.
            config = {"configurable": {"thread_id": f"{name}-{number}-{turn}", "user_id": f"user-{number}"}}
            started = time.perf_counter()
            agent.invoke({"messages": [("user", f"{number} {turn} {_REQUEST}")]}, config=config)
            seconds.append(time.perf_counter() - started - _paused.s)
        return seconds

    with ThreadPoolExecutor(threads) as pool:
        return [value for values in pool.map(user, range(threads)) for value in values]


def added_times(size: Size) -> tuple[dict[str, float], dict[str, dict[str, list[float]]]]:
    """Percentiles of each variant in milliseconds, and what ours adds; medians over blocks with their range."""
    figures: dict[str, float] = {}
    tables: dict[str, dict[str, list[float]]] = {}
    for threads in _THREADS:
        pause_s = _PAUSE_PER_THREAD_S * threads
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            agents = _agents(pause_s, Path(folder), stack)
            p50: dict[str, list[float]] = {name: [] for name in agents}
            p99: dict[str, list[float]] = {name: [] for name in agents}
            for block in range(size.blocks + 1):
                for name, agent in agents.items():
                    seconds = sorted(_block(agent, f"{block}", threads, size.turns))
                    # The first block warms up caches and connections.
                    if block:
                        p50[name].append(1000 * statistics.median(seconds))
                        p99[name].append(1000 * seconds[int(0.99 * (len(seconds) - 1))])
        for label, values in (("p50", p50), ("p99", p99)):
            for other in ("bare", "no-op"):
                added = [ours - theirs for ours, theirs in zip(values["rlhi"], values[other], strict=True)]
                key = f"added_{label}_ms_{threads}" + ("" if other == "bare" else "_over_noop")
                figures |= _spread(key, added)
            for name, measured in values.items():
                figures |= _spread(f"{name.replace('-', '')}_{label}_ms_{threads}", measured)
        tables[str(threads)] = {name: [statistics.median(p50[name]), statistics.median(p99[name])] for name in agents}
    return figures, tables


def _spread(key: str, values: list[float]) -> dict[str, float]:
    return {key: statistics.median(values), f"{key}_min": min(values), f"{key}_max": max(values)}


def _writers(folder: Path, stack: ExitStack) -> dict[str, Callable[[int], None]]:
    """What writes one turn to disk, by name."""
    file = stack.enter_context((folder / "bare").open("ab", buffering=0))
    page = b"x" * 4096

    def bare(_: int) -> None:
        file.write(page)
        os.fsync(file.fileno())

    store = stack.enter_context(open_store(f"sqlite:///{folder}/direct.db"))
    recorder = Recorder(store, WriterOptions(journal=folder / "journal"))
    stack.callback(recorder.close)
    writers: dict[str, Callable[[int], None]] = {
        "bare 4 KiB append": bare,
        "sqlite3 itself": _sqlite_itself(folder, stack),
        "rlhi record": lambda number: recorder.record(lambda: _turn(number, f"t{number}")),
    }
    if importlib.util.find_spec("langchain_community") and importlib.util.find_spec("greenlet"):
        from langchain_community.chat_message_histories import SQLChatMessageHistory
        from sqlalchemy import create_engine

        engine = create_engine(f"sqlite:///{folder}/history.db")
        stack.callback(engine.dispose)
        history = SQLChatMessageHistory(session_id="s", connection=engine)
        writers["SQLChatMessageHistory"] = lambda number: history.add_messages(
            [HumanMessage(f"{number} {_REQUEST}"), AIMessage(_ANSWER)]
        )
    return writers


def _sqlite_itself(folder: Path, stack: ExitStack) -> Callable[[int], None]:
    """The same rows in the same tables by the driver alone: what no store on SQLite can be faster than."""
    file = folder / "itself.db"
    open_store(f"sqlite:///{file}").close()
    driver = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        driver.execute(f"PRAGMA {pragma}")
    head = "INSERT INTO rlhi_conversations (conversation_id, user_id, source) VALUES (?, ?, 'rlhi')"
    said = "INSERT INTO rlhi_messages (conversation, sequence, message_id, role, content) VALUES (?, ?, ?, ?, ?)"

    def write(number: int) -> None:
        driver.execute("BEGIN IMMEDIATE")
        conversation = driver.execute(head, (f"t{number}", "u_1")).lastrowid
        driver.execute(said, (conversation, 0, f"u{number}", "user", f"{number} {_REQUEST}"))
        driver.execute(said, (conversation, 1, f"a{number}", "assistant", _ANSWER))
        driver.execute("COMMIT")

    return write


def _turn(number: int, thread: str = "t") -> Turn:
    reply = Reply(messages=(AIMessage(_ANSWER, id=f"a{number}"),), model="m")
    asked = HumanMessage(f"{number} {_REQUEST}", id=f"u{number}")
    return Turn(thread, pseudonym("u"), None, [asked], reply, stable_ids=True, started_at=datetime.now(UTC))


def write_times(size: Size) -> dict[str, float]:
    """Milliseconds to write one turn, one thread and 64, without an agent around it."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        writers = _writers(Path(name), stack)
        blocks: dict[str, list[float]] = {label: [] for label in writers}
        crowd: dict[str, list[float]] = {label: [] for label in ("bare 4 KiB append", "rlhi record")}
        for block in range(size.blocks + 1):
            for label, write in writers.items():
                numbers = range(block * size.appends, (block + 1) * size.appends)
                seconds = [_timed(write, number) for number in numbers]
                if block:
                    blocks[label].append(1000 * statistics.median(seconds))
        store = stack.enter_context(open_store(f"sqlite:///{name}/crowd.db"))
        recorder = Recorder(store, WriterOptions(journal=Path(name, "crowd-journal"), store_timeout_s=30))
        stack.callback(recorder.close)
        for block in range(size.blocks):
            crowd["rlhi record"].append(1000 * _crowd(recorder, block, size.appends * 4))
    for label, values in blocks.items():
        figures |= _spread(f"{label.replace(' ', '_').lower()}_ms", values)
    figures |= _spread("record_64_threads_ms", crowd["rlhi record"])
    figures["record_over_bare_append_64"] = figures["record_64_threads_ms"] / figures["bare_4_kib_append_ms"]
    return figures


def _crowd(recorder: Recorder, block: int, turns: int) -> float:
    """Seconds per turn while 64 threads write at the same time."""
    start = threading.Barrier(65)

    def user(number: int) -> None:
        start.wait()
        for turn in range(turns // 64):
            recorder.record(lambda turn=turn: _turn(turn, f"{block}-{number}"))

    with ThreadPoolExecutor(64) as pool:
        done = [pool.submit(user, number) for number in range(64)]
        start.wait()
        started = time.perf_counter()
        for future in done:
            future.result()
        return (time.perf_counter() - started) / (64 * (turns // 64))


def _timed(work: Callable[[int], None], number: int) -> float:
    started = time.perf_counter()
    work(number)
    return time.perf_counter() - started


def persona_read() -> dict[str, float]:
    """Milliseconds to read a persona of ten statements from the cache."""
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/p.db") as store:
        evidence = (Evidence(conversation_id="c", message_id="m", quote="shorter"),)
        statements = tuple(PersonaStatement(text=f"Shorter, please {n}.", evidence=evidence) for n in range(10))
        store.put_persona(Persona(user_id="u_1", statements=statements, builder="bench"))
        cache = PersonaCache(store)
        cache.get("t", "u_1")
        return _spread("persona_read_ms", [1000 * _timed(lambda _: cache.get("t", "u_1"), 0) for _ in range(2_000)])


def memory(size: Size) -> dict[str, float]:
    """Bytes that the process grows by per turn, once its caches are full; a conversation of its own for each turn."""
    with tempfile.TemporaryDirectory() as name, open_store(f"sqlite:///{name}/m.db") as store:
        recorder = Recorder(store, WriterOptions(journal=Path(name, "journal")))
        points: list[tuple[int, int]] = []
        for number in range(_MEMORY_WARM_UP + size.memory_turns):
            recorder.record(lambda number=number: _turn(number, f"t{number}"))
            if number >= _MEMORY_WARM_UP and number % 200 == 0:
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
                recorder.record(lambda number=number: _turn(number, f"t{number}"))
                count = next(done)
                if count % 1_000 == 0:
                    points.append((count, _resident()))
                if count % (max(turns // 10, 1)) == 0:
                    terminal.stdout.print(f"{count} turns: {_resident() / 1e6:.1f} MB resident")

        started = time.perf_counter()
        with ThreadPoolExecutor(_LONG_RUN_THREADS) as pool:
            warm = min(2 * _MEMORY_WARM_UP, turns // 2)
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


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    packages = {name: version(name) for name in ("langchain", "langgraph", "sqlalchemy")}
    peers = {
        name: version(name) if importlib.util.find_spec(module) else "not installed"
        for name, module in (
            ("langgraph-checkpoint-sqlite", "langgraph.checkpoint.sqlite"),
            ("langchain-community", "langchain_community"),
        )
    }
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "load": f"{os.getloadavg()[0]:.1f}",
        "disk": tempfile.gettempdir(),
        **packages,
        **peers,
    }


def _lines(figures: dict[str, float], tables: dict[str, dict[str, list[float]]]) -> Iterator[Any]:
    rows = [
        (name, *(f"{value:.2f}" for threads in tables for value in tables[threads].get(name, ())))
        for name in tables["1"]
    ]
    columns = ("agent with", *(f"{threads} thr. {label}" for threads in tables for label in ("p50", "p99")))
    yield terminal.table("milliseconds per turn, without the model", columns, rows)
    writes = [(key, f"{figures[key]:.3f}") for key in figures if key.endswith("_ms") and f"{key}_min" in figures]
    yield terminal.table(
        "milliseconds to write one turn", ("", "median"), [row for row in writes if "_p" not in row[0]]
    )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
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
    figures, tables = added_times(size)
    figures |= write_times(size) | persona_read() | memory(size)
    figures["added_over_bare_append_1"] = figures["added_p50_ms_1"] / figures["bare_4_kib_append_ms"]
    met = {name: figures[name] <= bound for name, bound in TARGETS.items()}
    for line in _lines(figures, tables):
        terminal.stdout.print(line)
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.3f}, target {TARGETS[name]}: {'met' if reached else 'missed'}")
    about = machine()
    absent = [name for name, found in about.items() if found == "not installed"]
    if absent:
        terminal.stdout.print(f"peers not installed: {', '.join(absent)} (pip install --group bench)")
    _write_json(json_file, figures, TARGETS, met)


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
