"""A run in shards says of itself what a run in one process says: every figure of the manifest and of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invented_logs import invented
from provider_script import Provider
from scale_fakes import Cues, Inline, Words, fakes
from test_scale import OPTIONS, PowerCut, in_memory, in_shards

from rlhi_plugin.fake_provider import ByContent, FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import STAGES, Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import LabelledTurn, PreferencePair
from rlhi_training.report import facts
from rlhi_training.resources import Resources
from rlhi_training.reward_models.length_bias import length_bias, length_bias_of, length_counts
from rlhi_training.run_directory import RunDirectory
from rlhi_training.scale.pipeline import ShardedPipeline
from rlhi_training.scale.sharded_run import Sharding


def figures(folder: Path) -> dict[str, object]:
    """What manifest and report say of a run, but for how long it took and how it was divided."""
    directory = RunDirectory(folder)
    manifest = directory.manifest()
    assert manifest is not None
    notes = {stage: {**entry.notes, "shards": None} for stage, entry in manifest.stages.items()}
    pairs = directory.read("pairs.jsonl", PreferencePair)
    turns = {turn.key: turn for turn in directory.read("turns.jsonl", LabelledTurn)}
    rows = facts.funnel_rows(manifest, folder, turns)
    shown = [(row.stage, row.reasons, row.marked, row.entry.inputs, row.entry.passed) for row in rows]
    return {
        "notes": notes,
        "findings": facts.findings(manifest, pairs, None),
        "lengths": facts.length_bias(pairs),
        "funnel": [(*row[:1], [(r.name, r.count, r.share) for r in row[1]], *row[3:]) for row in shown],
        "samples": facts.sample_pairs(pairs, turns, most=20),
    }


def agree(one: Path, other: Path) -> None:
    first, second = figures(one), figures(other)
    for stage in STAGES[:-1]:
        assert first["notes"][stage] == second["notes"][stage], stage
    assert first == second


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "logs.jsonl"
    write_conversations(path, invented(9, 4, seed=3))
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("rewrite.max_turns=5", "reward.max_turns=4", "filter.max_pairs=12"),
        ("contrast.neutral_share=0.6", "reward.enabled=false", "personas.enabled=false"),
    ],
)
def test_shards_note_what_one_process_notes(log, tmp_path, options):
    in_memory(log, tmp_path / "memory", *options)
    in_shards(log, tmp_path / "shards", *options)
    agree(tmp_path / "memory", tmp_path / "shards")


def test_the_figures_are_not_empty(log, tmp_path):
    in_shards(log, tmp_path)
    notes = json.loads((tmp_path / "manifest.json").read_text())["stages"]["reward"]["notes"]
    assert notes["length_bias"]["comparisons"] > 10
    assert notes["length_bias"]["correlation"] is not None
    assert any("scores the longer of two answers higher" in line for line in figures(tmp_path)["findings"])


def test_a_run_that_was_interrupted_notes_the_whole(log, tmp_path):
    in_memory(log, tmp_path / "memory")
    with pytest.raises(KeyboardInterrupt):
        in_shards(log, tmp_path / "shards", engine=PowerCut(9), pairs_in_workers=True)
    in_shards(log, tmp_path / "shards", pairs_in_workers=True)
    agree(tmp_path / "memory", tmp_path / "shards")


def test_judges_of_all_shards_are_counted_together(log, tmp_path):
    """Also where the run was stopped between two shards: their judges lived in another process."""
    with FakeProvider(ByContent(Provider())) as provider:
        model = f"openai:fake-1@{provider.base_url}"
        judged = ["reward.llm=" + model, "reward.model=judge_pairs", "filter.not_worse=judge", "reward.max_turns=6"]
        judged += ["rewrite.max_turns=8", "contrast.max_requests=4", "filter.addresses_feedback=judge"]
        recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [*OPTIONS, *judged])

        def resources() -> Resources:
            return Resources(recipe, policy=fakes(recipe).client(), labeller=Cues(), encoder=Words())

        def quiet(line: object) -> None:
            """Say nothing."""

        whole = Pipeline(log, recipe, RunDirectory(tmp_path / "memory"), resources=resources(), say=quiet)
        whole.run(until="pairs")

        def in_parts() -> ShardedPipeline:
            sharding = Sharding(shards=3, make=fakes)
            directory = RunDirectory(tmp_path / "shards")
            given = {"resources": resources(), "say": quiet, "sharding": sharding, "engine": Inline()}
            return ShardedPipeline(log, recipe, directory, **given)

        stopped = in_parts()
        worked: list[str] = []

        def each(description, work, *, here=False):
            if description == "make pairs":
                work(0)
                worked.append(description)
                raise KeyboardInterrupt
            return ShardedPipeline._each(stopped, description, work, here=here)

        stopped._each = each
        with pytest.raises(KeyboardInterrupt):
            stopped.run(until="pairs")
        assert worked
        in_parts().run(until="pairs")
    agree(tmp_path / "memory", tmp_path / "shards")
    notes = figures(tmp_path / "shards")["notes"]
    assert notes["reward"]["position_bias"]["comparisons"] > 0
    assert notes["filter"]["not_worse"]["comparisons"] > 0


def test_counts_of_parts_add_up_in_any_order():
    requests = [[(0.1 * i * j % 0.7, 3 + 5 * i % 11) for i in range(5)] for j in range(1, 30)]
    parts = [length_counts(requests[start : start + 7]) for start in range(0, len(requests), 7)]
    for ordered in (parts, parts[::-1]):
        added = ordered[0].copy()
        for part in ordered[1:]:
            added.update(part)
        assert length_bias_of(added) == length_bias(requests)
