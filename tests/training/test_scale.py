"""Runs in shards: the same pairs as in one process, whatever the shards, and what happens when things go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invented_logs import invented
from scale_fakes import Cues, Inline, Words, Writer, fakes

from rlhi_plugin.chat import FREE, Capabilities
from rlhi_plugin.errors import BudgetReachedError, UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import STAGES, Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory
from rlhi_training.scale.engine import LocalEngine
from rlhi_training.scale.pipeline import ShardedPipeline
from rlhi_training.scale.sharded_run import Sharding

OPTIONS = ("filter.addresses_feedback=off", "split.held_out_users=0.2", "filter.max_pairs_per_user_share=0.3")


def in_memory(logs: Path, folder: Path, *options: str):
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [*OPTIONS, *options])
    pipeline = Pipeline(logs, recipe, RunDirectory(folder), resources=fakes(recipe), say=lambda _: None)
    return pipeline.run(until="pairs")


def in_shards(logs: Path, folder: Path, *options: str, shards: int = 3, engine=None, **sharding):
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [*OPTIONS, *options])
    pipeline = ShardedPipeline(
        logs,
        recipe,
        RunDirectory(folder),
        resources=fakes(recipe),
        say=lambda _: None,
        sharding=Sharding(shards=shards, make=fakes, **sharding),
        engine=engine or Inline(),
    )
    return pipeline.run(until="pairs")


def same(one: Path, other: Path) -> None:
    """Equal pairs byte for byte, and equal funnels, item by item."""
    for name in ("pairs.jsonl", "pairs.parquet", "filtered.jsonl", "split.jsonl", "held_out.jsonl", "follow_ups.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (json.loads((run / "manifest.json").read_text())["stages"] for run in (one, other))
    for stage in STAGES[:-1]:
        for fact in ("inputs", "passed", "dropped", "outputs", "reasons"):
            if (stage, fact) != ("label", "outputs"):
                assert first[stage][fact] == second[stage][fact], (stage, fact)
        drops = [Counter((run / "dropped" / f"{stage}.jsonl").read_text().splitlines()) for run in (one, other)]
        parsed = [Counter(json.dumps(json.loads(line), sort_keys=True) for line in found.elements()) for found in drops]
        assert parsed[0] == parsed[1], stage
    for note in ("identity", "split", "marked"):
        assert first["ingest"]["notes"][note] == second["ingest"]["notes"][note]


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "logs.jsonl"
    write_conversations(path, invented(9, 4, seed=3))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "{not json", lines[2], *lines[5:], '{"a": 1}']) + "\n")
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("ingest.max_conversations=20",),
        ("users.max_users=4", "contrast.max_requests=6"),
        ("rewrite.max_turns=5", "reward.max_turns=4", "filter.max_pairs=12"),
        ("pairs.persona=shuffled", "contrast.min_users_per_property=1"),
        ("personas.enabled=false", "contrast.enabled=false"),
        ("filter.max_pairs_per_user=2", "contrast.neutral_share=0.6", "contrast.other_personas=latest"),
    ],
)
def test_shards_make_the_pairs_that_one_process_makes(log, tmp_path, options):
    in_memory(log, tmp_path / "memory", *options)
    in_shards(log, tmp_path / "shards", *options)
    same(tmp_path / "memory", tmp_path / "shards")


@pytest.fixture(scope="module")
def reference(log, tmp_path_factory) -> Path:
    """What one process makes of the log."""
    folder = tmp_path_factory.mktemp("memory")
    in_memory(log, folder)
    return folder


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=st.integers(1, 6), days=st.integers(1, 4), seed=st.integers(0, 99), shards=st.integers(1, 9))
def test_small_logs_come_out_the_same(tmp_path_factory, users, days, seed, shards):
    folder = tmp_path_factory.mktemp("small")
    write_conversations(folder / "log.jsonl", invented(users, days, turns=2, seed=seed))
    options = ("split.held_out_users=0.0", "contrast.plain_samples=1", "contrast.guided_samples=1")
    ends = []
    for make in (in_memory, lambda *args: in_shards(*args, shards=shards)):
        try:
            make(folder / "log.jsonl", folder / str(len(ends)), *options)
        except UserError as error:
            ends.append(str(error).partition(" See ")[0])
        else:
            ends.append("")
    assert ends[0] == ends[1]
    if not ends[0]:
        same(folder / "0", folder / "1")


@pytest.mark.slow
def test_processes_do_the_same_work(log, reference, tmp_path):
    in_shards(log, tmp_path, shards=5, engine=LocalEngine(2), pairs_in_workers=True)
    same(reference, tmp_path)


@pytest.mark.slow
def test_a_run_that_is_left_does_not_wait_for_its_workers():
    engine = LocalEngine(2)
    pieces = engine.map(time.sleep, [0.0, 60.0, 60.0])
    next(pieces)
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 10


def test_a_second_start_reuses_everything_and_another_recipe_what_it_can(log, reference, tmp_path):
    in_shards(log, tmp_path)
    engine = Inline()
    marks = sorted((tmp_path / "shards").rglob("*.done"))
    before = {path: path.stat().st_mtime_ns for path in marks}
    in_shards(log, tmp_path, engine=engine)
    assert {path: path.stat().st_mtime_ns for path in marks} == before
    same(reference, tmp_path)
    in_shards(log, tmp_path, "filter.max_pairs=3")
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 3
    learned = [path for path in marks if path.name == "learned.done"]
    assert all(path.stat().st_mtime_ns == before[path] for path in learned)


class PowerCut(Inline):
    """Does so many pieces of work, then everything ends."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def map(self, work, items):
        for number, result in super().map(work, items):
            self.lives -= 1
            if self.lives < 0:
                raise KeyboardInterrupt
            yield number, result


@pytest.mark.parametrize("lives", [0, 2, 5, 9, 12])
def test_an_interrupted_run_goes_on_where_it_stopped(log, reference, tmp_path, lives):
    with pytest.raises(KeyboardInterrupt):
        in_shards(log, tmp_path, engine=PowerCut(lives), pairs_in_workers=True)
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.done")}
    assert left
    in_shards(log, tmp_path, pairs_in_workers=True)
    assert all(path.stat().st_mtime_ns == time for path, time in left.items())
    same(reference, tmp_path)


def test_a_damaged_file_of_a_shard_is_made_again(log, reference, tmp_path):
    in_shards(log, tmp_path)
    (tmp_path / "shards" / "00001" / "learned.jsonl").write_text("")
    (tmp_path / "pairs.jsonl").unlink()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["stages"].pop("rewrite")
    manifest["stages"].pop("ingest")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    in_shards(log, tmp_path)
    same(reference, tmp_path)


def test_a_folder_that_cannot_be_written_is_said(log, tmp_path, monkeypatch):
    from rlhi_training.scale import lines

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lines.Lines, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        in_shards(log, tmp_path)


def test_a_truncated_parquet_gives_its_good_rows_and_an_error(log, tmp_path, four_users):
    from rlhi_plugin.parquet_logs import write_parquet

    whole = tmp_path / "whole.parquet"
    write_parquet(whole, four_users * 1)
    damaged = tmp_path / "logs.parquet"
    body = bytearray(whole.read_bytes())
    body[200:400] = bytes(200)
    damaged.write_bytes(body)
    ends = []
    for make in (in_memory, in_shards):
        with pytest.raises(UserError) as caught:
            make(damaged, tmp_path / f"run{len(ends)}")
        ends.append(str(caught.value).partition(" See ")[0])
    assert ends[0] == ends[1]
    assert "malformed" in ends[0]
    for name, make in (("a", in_memory), ("b", in_shards)):
        make(whole, tmp_path / name)
    same(tmp_path / "a", tmp_path / "b")


def test_a_user_with_very_many_conversations_and_very_long_turns(tmp_path, conversation):
    many = [
        conversation(f"c{n:04d}", [f"Question {n} about tea?", "An answer.", "Shorter please.", "Tea."], day=n % 300)
        for n in range(700)
    ]
    long = conversation("long", ["x" * 1_000_000, "Yes."], user="bob")
    write_conversations(tmp_path / "log.jsonl", [*many, long])
    options = ("screens.max_conversations_per_user=0", "contrast.enabled=false", "split.held_out_users=0.0")
    for name, make in (("a", in_memory), ("b", in_shards)):
        make(tmp_path / "log.jsonl", tmp_path / name, *options)
    same(tmp_path / "a", tmp_path / "b")
    assert "turn_too_long" in (tmp_path / "b" / "dropped" / "ingest.jsonl").read_text()


class SlowWriter(Writer):
    """A provider that takes a while, and remembers what it has answered."""

    capabilities = Capabilities(json_schema="asked", seed=True, many=True, remote=True, price=FREE)

    def __init__(self) -> None:
        self.answered = 0

    async def complete(self, request):
        await asyncio.sleep(0.05)
        replies = await super().complete(request)
        self.answered += 1
        return replies


def test_calls_that_are_on_their_way_when_a_shard_stops_are_kept(log, tmp_path):
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [*OPTIONS, "calls.max_calls=20"])
    writer = SlowWriter()
    resources = Resources(recipe, policy=writer, labeller=Cues(), encoder=Words())
    pipeline = ShardedPipeline(
        log,
        recipe,
        RunDirectory(tmp_path),
        resources=resources,
        say=lambda _: None,
        sharding=Sharding(shards=3, make=fakes),
        engine=Inline(),
    )
    with pytest.raises(BudgetReachedError):
        pipeline.run(until="pairs")
    with closing(sqlite3.connect(tmp_path / "calls.db")) as journal:
        (kept,) = journal.execute("select count(*) from answers").fetchone()
        (unknown,) = journal.execute(
            "select count(*) from attempts where outcome is null or outcome = 'interrupted'"
        ).fetchone()
    assert (kept, unknown) == (20, 0)
    assert writer.answered == 20


@pytest.mark.slow
def test_ray_makes_the_same_pairs_while_its_workers_are_killed(log, reference, tmp_path):
    pytest.importorskip("ray")
    script = tmp_path / "run.py"
    here = Path(__file__).parent
    script.write_text(
        f"import sys; sys.path[:0] = [{str(here)!r}]\n"
        "from pathlib import Path\n"
        "import test_scale\n"
        "from rlhi_training.scale.ray_engine import RayEngine\n"
        f"test_scale.in_shards(Path({str(log)!r}), Path({str(tmp_path / 'run')!r}), shards=12,"
        " engine=RayEngine(2), pairs_in_workers=True)\n"
    )
    paths = os.pathsep.join([str(here), *sys.path])
    # Ray's sockets lie in there, and their names may have 107 bytes.
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_TMPDIR": short}
    said = (tmp_path / "said.txt").open("wb")
    ran = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=said, stdout=said)
    killed: set[int] = set()
    while ran.poll() is None:
        time.sleep(0.1)
        for pid in _below(ran.pid):
            name = _name(pid)
            if len(killed) < 4 and pid not in killed and name.startswith("ray::Map"):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    said.close()
    assert ran.returncode == 0, (tmp_path / "said.txt").read_text()[-2000:]
    assert len(killed) > 1
    same(reference, tmp_path / "run")
    shutil.rmtree(short, ignore_errors=True)
    left = [pid for pid in map(int, (p.name for p in Path("/proc").glob("[0-9]*"))) if short in _name(pid)]
    assert not left, "Ray's processes are to end with the run"


def _below(pid: int) -> list[int]:
    """Processes that a process and those below it started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        found += [*children, *(below for child in children for below in _below(child))]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
