"""How many conversations a second go through every stage that needs no language model, and in how much memory?

A log of the shape of WildChat is made up (`made_up/wildchat.py`) and run in shards: ingest with all screens, the fast
labeller, extractive personas, rewrites, rewards and persona contrast with a scripted client in the workers, filter,
pairs. What an encoder would say is a hash of words here: the real one is a neural network, with a speed of its own. The
in-memory pipeline runs a part of the log that it can hold, in the same run. Memory is that of all processes together,
looked at every half second.

    python benchmarks/scale.py --quick --json scale.json
    python benchmarks/scale.py --cpu --conversations 6000
    python benchmarks/scale.py --conversations 1000000
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from made_up.wildchat import Shape, write_log

from rlhi_plugin import terminal
from rlhi_plugin.chat import FREE, Capabilities, ChatReply, ChatRequest
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.resources import Resources
from rlhi_training.run_directory import Manifest, RunDirectory
from rlhi_training.scale.engine import Engine
from rlhi_training.scale.pipeline import ShardedPipeline
from rlhi_training.scale.sharded_run import Sharding

A = TypeVar("A")
R = TypeVar("R")
TARGETS = {"without_near_duplicates": 3000.0, "with_near_duplicates": 1000.0, "peak_gib": 2.0}
"""Conversations a second on two cores, lower bounds; GiB of all processes, an upper one."""
QUICK, FULL, BOTH = 3_000, 1_000_000, 20_000
FEW = 200
_ANSWERS = (
    "Begin with the part that is still open, and look at the rest when that holds.",
    "- Take the first part.\n- Then take the second one.\n- Look at both of them again.",
    "It takes 12 minutes, 3 helpers and one quiet room, and most people need a second try before it works for them.",
)
_REPLIES = [ChatReply(text=text) for text in _ANSWERS]


class Scripted:
    """Answers without thinking; what it says depends on the request alone."""

    model = "scripted"
    capabilities = Capabilities(json_schema="asked", seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """One of a few texts."""
        first = zlib.crc32(str(request.seed).encode())
        return tuple(_REPLIES[(first + n) % len(_REPLIES)] for n in range(request.n))


class Hashed:
    """Vectors of word hashes in place of sentence embeddings."""

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit rows."""
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = np.bincount([hash_of(word) for word in text[:400].split()[:40] or [""]], minlength=64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@lru_cache(maxsize=100_000)
def hash_of(word: str) -> int:
    """In [0, 64), the same in every process."""
    return zlib.crc32(word.encode()) % 64


def resources(recipe: Recipe) -> Resources:
    """What the workers ask."""
    return Resources(recipe, policy=Scripted(), labeller=FastLabeller(), encoder=Hashed())


def recipe_of(conversations: int, *, near_duplicates: bool) -> Recipe:
    """Every stage on; a pool of contrast for one conversation in fifty, since nine answers are written for each."""
    options = [
        "label.labeller=fast",
        f"contrast.max_requests={max(20, conversations // 50)}",
        f"screens.expected_conversations={max(1000, conversations)}",
        f"screens.near_duplicates={0.8 if near_duplicates else 0.0}",
    ]
    return override_recipe(Recipe(name="scale", summary="-").model_dump(mode="json"), options)


@dataclass
class Memory:
    """Resident memory of this process and its children, in GiB, over time."""

    seen: list[tuple[float, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look until told to stop."""
        began = time.monotonic()
        while not self._stop.wait(0.5):
            self.seen.append((time.monotonic() - began, _resident(os.getpid()) / 2**30))

    def stop(self) -> None:
        """Enough."""
        self._stop.set()

    def peaks(self, parts: int = 10) -> list[float]:
        """The highest in each part of the time."""
        size = max(1, -(-len(self.seen) // parts))
        return [max(gib for _, gib in self.seen[i : i + size]) for i in range(0, len(self.seen), size)]


def _resident(pid: int) -> int:
    """Bytes of a process and of those that it started; a process that has just ended has none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except (OSError, IndexError):
        return 0
    threads = Path(f"/proc/{pid}/task")
    if threads.is_dir():
        children = [c for task in threads.iterdir() for c in _children(task)]
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in set(children))


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text("ascii").split()
    except OSError:
        return []


@dataclass
class Measured:
    """One run."""

    seconds: float
    manifest: Manifest
    peaks: list[float]


def _pipeline(
    log: Path, folder: Path, recipe: Recipe, shards: int | None, *, processes: int, engine: Engine | None = None
) -> ShardedPipeline:
    return ShardedPipeline(
        log,
        recipe,
        RunDirectory(folder),
        resources=resources(recipe),
        say=lambda _: None,
        sharding=Sharding(shards=shards, processes=processes, make=resources, pairs_in_workers=True),
        engine=engine,
    )


def sharded(log: Path, folder: Path, recipe: Recipe, processes: int, shards: int | None) -> Measured:
    """Run in shards, and look at the memory."""
    memory = Memory()
    watching = threading.Thread(target=memory.watch)
    began = time.monotonic()
    watching.start()
    try:
        manifest = _pipeline(log, folder, recipe, shards, processes=processes).run(until="pairs")
    finally:
        memory.stop()
        watching.join()
    return Measured(time.monotonic() - began, manifest, memory.peaks() or [0.0])


class InThisProcess:
    """An engine that does everything here, one thing after the other, and adds up processor time by kind of work."""

    name = "local"

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[tuple[int, R]]:
        """See `Engine.map`."""
        for number, item in enumerate(items):
            began = time.process_time()
            done = work(item)
            self.seconds[type(work).__name__] += time.process_time() - began
            yield number, done

    def close(self) -> None:
        """Nothing was started."""


def cpu_of(log: Path, folder: Path, recipe: Recipe, count: int) -> dict[str, float]:
    """Microseconds of processor time a conversation, by kind of work: a figure that holds beside other programs."""
    engine = InThisProcess()
    pipeline = _pipeline(log, folder, recipe, 4, processes=1, engine=engine)
    gc.set_threshold(50_000, 20, 20)  # As workers have it (`rlhi_training.scale.engine`).
    began = time.process_time()
    pipeline.run(until="pairs")
    engine.seconds["the rest, in the first process"] = time.process_time() - began - engine.seconds.total()
    return {name: round(1e6 * seconds / count, 1) for name, seconds in engine.seconds.items()}


def once(log: Path, folder: Path, recipe: Recipe) -> float:
    """Seconds of processor time that go into a log of a few conversations: what a process reads and imports once."""
    began = time.process_time()
    with log.open("rb") as lines:
        folder.mkdir()
        few = folder / "few.jsonl"
        few.write_bytes(b"".join(islice(lines, FEW)))
    _pipeline(few, folder / "run", recipe, 1, processes=1, engine=InThisProcess()).run(until="pairs")
    return time.process_time() - began


def in_memory(log: Path, folder: Path, recipe: Recipe) -> Measured:
    """The pipeline that holds everything in memory, in one process."""
    began = time.monotonic()
    pipeline = Pipeline(log, recipe, RunDirectory(folder), resources=resources(recipe), say=lambda _: None)
    manifest = pipeline.run(until="pairs")
    return Measured(time.monotonic() - began, manifest, [])


def main(  # noqa: PLR0917 - options of a command
    quick: Annotated[bool, typer.Option("--quick", help="A small log.")] = False,
    conversations: Annotated[int | None, typer.Option("--conversations", help="How many.")] = None,
    compared: Annotated[int, typer.Option("--compared", help="How many for the comparison; 0: none.")] = BOTH,
    processes: Annotated[int, typer.Option("--processes", help="Workers.")] = 2,
    shards: Annotated[int | None, typer.Option("--shards", help="Default: by size.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processor time by kind of work, in one process.")] = False,
    near_duplicates: Annotated[str, typer.Option("--near-duplicates", help="off, on, or both.")] = "both",
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to work; needs 25 KB a conversation.")] = None,
    kept: Annotated[Path | None, typer.Option("--log", help="Write the log here, or use the one that is here.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Print the tables."""
    count = conversations or (QUICK if quick else FULL)
    figures: dict[str, Any] = {"conversations": count}
    work = Path(tempfile.mkdtemp(prefix="rlhi-scale-", dir=folder))
    try:
        log = kept or work / "log.jsonl"
        if not log.exists():
            began = time.monotonic()
            write_log(log, Shape(count), processes)
            seconds = time.monotonic() - began
            figures["log_written_per_s"] = count / seconds
            terminal.stdout.print(f"{count:,} conversations made up in {seconds:.1f} s", highlight=False)
        figures["log_bytes"] = log.stat().st_size
        for name, on in (("without_near_duplicates", False), ("with_near_duplicates", True)):
            if near_duplicates not in {"both", "on" if on else "off"}:
                continue
            if cpu:
                with terminal.quietly():
                    if "cpu_s_once" not in figures:
                        figures["cpu_s_once"] = once(log, work / "once", recipe_of(FEW, near_duplicates=True))
                    spent = cpu_of(log, work / name, recipe_of(count, near_duplicates=on), count)
                figures[f"{name}:cpu_us"] = spent
                _show_cpu(name, spent)
                terminal.stdout.print(f"once in a process: {figures['cpu_s_once']:.1f} s", highlight=False)
            else:
                with terminal.quietly():
                    found = sharded(log, work / name, recipe_of(count, near_duplicates=on), processes, shards)
                shutil.rmtree(work / name)
                _show(name, found, count, figures)
        if compared and not cpu:
            _compare(work, min(compared, count), processes, figures)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    met = {name: figures[name] >= TARGETS[name] for name in TARGETS if name in figures and name != "peak_gib"}
    if "peak_gib" in figures:
        met["peak_gib"] = figures["peak_gib"] <= TARGETS["peak_gib"]
    if out is not None:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        report = {"figures": figures, "targets": TARGETS, "met": met, "machine": machine}
        out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _show_cpu(name: str, spent: dict[str, float]) -> None:
    rows: list[tuple[object, ...]] = [(kind, f"{microseconds:,.0f}") for kind, microseconds in spent.items()]
    rows.append(("all", f"{sum(spent.values()):,.0f}"))
    title = f"microseconds of processor time a conversation, {name.replace('_', ' ')}"
    terminal.stdout.print(terminal.table(title, ("work", "microseconds"), rows))


def _show(name: str, found: Measured, count: int, figures: dict[str, Any]) -> None:
    passes = (("ingest", "label", "personas"), ("rewrite", "reward", "contrast", "filter"), ("pairs",))
    rows: list[tuple[object, ...]] = []
    for stages in passes:
        entries = [found.manifest.stages[stage] for stage in stages]
        seconds = sum(entry.seconds for entry in entries)
        passed = ", ".join(f"{entry.passed:,}" for entry in entries)
        rows.append((", ".join(stages), f"{seconds:.1f}", f"{count / max(seconds, 1e-9):,.0f}", passed))
        figures[f"{name}:{stages[0]}"] = count / max(seconds, 1e-9)
    rate = count / found.seconds
    rows.append(("all", f"{found.seconds:.1f}", f"{rate:,.0f}", ""))
    figures[name] = rate
    figures["peak_gib"] = max([figures.get("peak_gib", 0.0), *found.peaks])
    figures[f"{name}:peaks_gib"] = [round(gib, 3) for gib in found.peaks]
    title = f"{count:,} conversations, {name.replace('_', ' ')}"
    terminal.stdout.print(terminal.table(title, ("stages", "seconds", "conversations a second", "passed"), rows))
    shown = " ".join(f"{gib:.2f}" for gib in found.peaks)
    terminal.stdout.print(f"memory of all processes in ten parts of the time, GiB: {shown}", highlight=False)


def _compare(work: Path, count: int, processes: int, figures: dict[str, Any]) -> None:
    log, recipe = work / "part.jsonl", recipe_of(count, near_duplicates=False)
    write_log(log, Shape(count, seed=1), processes)
    with terminal.quietly():
        memory = in_memory(log, work / "memory", recipe)
        shards = sharded(log, work / "shards", recipe, processes, None)
    first, second = ((work / name / "pairs.jsonl").read_bytes() for name in ("memory", "shards"))
    figures["in_memory"] = count / memory.seconds
    figures["in_shards_over_in_memory"] = memory.seconds / shards.seconds
    figures["same_pairs"] = first == second
    terminal.stdout.print(
        f"{count:,} conversations in memory, one process: {count / memory.seconds:,.0f} a second; in shards"
        f" {memory.seconds / shards.seconds:.2f} times as many; same pairs: {first == second}",
        highlight=False,
    )


if __name__ == "__main__":
    typer.run(main)
