"""Runs from a log to an adapter with methods other than DPO."""

from __future__ import annotations

import pytest
from test_pipeline import write

from rlhi_adapters.registry import AdapterRegistry
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.logs import write_conversations
from rlhi_training.methods.hindsight import PROMPT, HindsightTurn
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import Dropped
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def run(tmp_path, four_users, cue_labeller, word_encoder, tiny_recipe):
    """Trains on four users' logs; returns pipeline and manifest."""
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, four_users)

    def start(*overrides: str, **train):
        recipe = override_recipe(tiny_recipe(**train).model_dump(mode="json"), overrides)
        client = ScriptedClient(write)
        resources = Resources(recipe, policy=client, labeller=cue_labeller, encoder=word_encoder)
        directory = RunDirectory(tmp_path / "run")
        pipeline = Pipeline(
            logs, recipe, directory, resources=resources, registry=tmp_path / "registry", say=lambda _: None
        )
        return pipeline, pipeline.run()

    return start


ALONE = ("rewrite.enabled=false", "reward.enabled=false", "contrast.enabled=false")


def test_self_distillation_needs_no_pairs_and_records_what_it_learnt_from(run, tmp_path) -> None:
    pipeline, manifest = run(*ALONE, method="self_distillation", epochs=1.0)
    assert manifest.stages["pairs"].passed == 0
    entry = manifest.stages["train"]
    assert entry.inputs == entry.passed + entry.dropped > 0
    assert entry.notes["method"] == "self_distillation"
    assert entry.notes["prompt"] == PROMPT.version
    learnt = pipeline.run_dir.read("hindsight.jsonl", HindsightTurn)
    assert len(learnt) >= entry.passed
    assert any(item.persona for item in learnt)
    dropped = pipeline.run_dir.read("dropped/train.jsonl", Dropped)
    assert len(dropped) == entry.dropped
    (record,) = AdapterRegistry(tmp_path / "registry").list()
    assert set(record.user_ids) == {item.user_id for item in learnt}
    again, _ = run(*ALONE, method="self_distillation", epochs=1.0)
    assert "train" in again.reused
    other, _ = run(*ALONE, "filter.max_pairs=2", method="self_distillation", epochs=1.0)
    assert "train" not in other.reused, "its inputs are chosen by the filter's caps"
    assert other.manifest.stages["train"].passed == 2


def test_sft_trains_on_the_pairs_of_the_run(run) -> None:
    _, manifest = run(method="sft", epochs=1.0)
    entry = manifest.stages["train"]
    assert entry.passed == manifest.stages["pairs"].passed > 0
    assert "rewards/margins" not in entry.notes["metrics"]
