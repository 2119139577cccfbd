"""Runs in shards: the same pairs as in one process, whatever the shards, and what happens when things go wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invented_logs import invented
from scale_fakes import Inline, fakes

from rlhi_plugin.errors import UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import STAGES, Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.run_directory import RunDirectory
from rlhi_training.scale.pipeline import ShardedPipeline, Sharding

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
    from rlhi_training.scale.engine import LocalEngine

    in_shards(log, tmp_path, shards=5, engine=LocalEngine(2), pairs_in_workers=True)
    same(reference, tmp_path)
