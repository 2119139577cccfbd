"""The pipeline: reuse by digest, resumption, the funnel, and one run from a log to a loaded adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, ScriptedClient
from rlhi_plugin.errors import UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import CALLS, STAGES, STEPS, Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import Dropped, PreferencePair
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

PLAIN = (
    "Plants like light and water, and most people give them too much of one of them and too little of the other, so"
    " look at the soil before you water and at the sky before you move the pot."
)


def write(request: ChatRequest) -> str:
    """A model that follows instructions and feedback about bullets, figures and length."""
    said = request.messages[-1].content.lower()
    figures = " Give it 6 hours of light and 2 cups of water." if any(w in said for w in ("number", "figure")) else ""
    if "bullet" in said:
        return f"- {PLAIN}\n- Turn the pot.{figures}"
    if any(word in said for word in ("short sentence", "brief", "shorter")):
        return f"Give it light and water in turn.{figures}"
    return PLAIN + figures


@pytest.fixture
def logs(tmp_path: Path, four_users) -> Path:
    path = tmp_path / "logs.jsonl"
    write_conversations(path, four_users)
    return path


@pytest.fixture
def run(tmp_path: Path, logs, cue_labeller, word_encoder):
    """Runs stages in one run directory with fakes in place of models; returns what happened."""

    def start(*overrides: str, until: str = "pairs", client=None, registry: Path | None = None):
        recipe = override_recipe(Recipe(name="test", summary="-").model_dump(mode="json"), overrides)
        client = client or ScriptedClient(write)
        resources = Resources(recipe, policy=client, labeller=cue_labeller, encoder=word_encoder)
        said: list[object] = []
        directory = RunDirectory(tmp_path / "run")
        pipeline = Pipeline(logs, recipe, directory, resources=resources, registry=registry, say=said.append)
        manifest = pipeline.run(until=until)
        return pipeline, manifest, client, said

    return start


def test_every_stage_conserves_its_items_and_is_reused_the_second_time(run, tmp_path):
    first, manifest, client, _ = run()
    assert first.reused == []
    assert client.requests
    for name, entry in manifest.stages.items():
        assert entry.inputs == entry.passed + entry.dropped, name
        dropped = first.run_dir.read(f"dropped/{name}.jsonl", Dropped)
        assert len(dropped) == entry.dropped == sum(entry.reasons.values())
    pairs = first.run_dir.read("pairs.jsonl", PreferencePair)
    assert {pair.source for pair in pairs} >= {"rewrite", "contrast"}
    table = json.loads((tmp_path / "run" / "follow_ups.json").read_text())
    assert table == manifest.stages["label"].notes["table"]
    again, same, idle, said = run()
    assert again.reused == list(STAGES[:-1])
    assert idle.requests == []
    assert same.stages == manifest.stages
    assert "label: reused" in said


def test_only_what_a_change_concerns_runs_again(run, tmp_path):
    run()
    stricter, *_ = run("filter.max_pairs=3")
    assert stricter.reused == [s for s in STAGES[:-1] if s not in ("filter", "pairs")]
    assert len(stricter.run_dir.read("pairs.jsonl", PreferencePair)) == 3
    (tmp_path / "run" / "personas.jsonl").write_text("")
    healed, *_ = run("filter.max_pairs=3")
    assert "personas" not in healed.reused
    assert "rewrite" in healed.reused, "the personas came out the same, so what follows is unchanged"


class _PowerCut:
    """Answers a few requests, then everything ends."""

    model = "scripted"
    capabilities = Capabilities(remote=False)

    def __init__(self, lives: int) -> None:
        self.lives = lives

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        if self.lives <= 0:
            raise RuntimeError("power cut")
        self.lives -= 1
        return tuple(ChatReply(text=write(request)) for _ in range(request.n))


def test_a_run_that_was_killed_while_generating_continues(run, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        run(client=_PowerCut(5))
    with CallJournal(tmp_path / "run" / CALLS) as journal:
        (usage,) = journal.usage()
    assert (usage.purpose, usage.answered) == ("rewrite", 5)
    pipeline, manifest, client, _ = run()
    assert pipeline.reused == ["ingest", "label", "personas"]
    assert manifest.stages["rewrite"].notes["drafts"] == 24
    rewrites = [
        r for r in client.requests if "satisfied" in r.messages[-1].content or "mind this" in r.messages[-1].content
    ]
    assert len(rewrites) == 24 - 5


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(run, tmp_path, monkeypatch):
    from rlhi_training import run_directory

    write_lines = run_directory.write_lines

    def full(path: Path, lines) -> None:
        if path.name == "rewrites.jsonl":
            raise OSError(28, "No space left on device")
        write_lines(path, lines)

    monkeypatch.setattr(run_directory, "write_lines", full)
    with pytest.raises(UserError, match=r"No space left on device\. Make room"):
        run()
    monkeypatch.undo()
    pipeline, _, _, _ = run()
    assert pipeline.reused == ["ingest", "label", "personas"]
    assert (tmp_path / "run" / "pairs.jsonl").is_file()


def test_a_folder_that_cannot_be_locked_is_said(run, tmp_path):
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write to .*\.lock.*Make room or rights"):
        run()


def test_without_pairs_the_main_reasons_are_told(run):
    with pytest.raises(UserError, match=r"no usable pairs.*feedback_not_addressed"):
        run("reward.enabled=false", "contrast.enabled=false", client=ScriptedClient(["I will not do that for you."]))
    with pytest.raises(UserError, match="every pair source is off"):
        run("reward.enabled=false", "contrast.enabled=false", "rewrite.enabled=false")


def test_personas_can_be_switched_off(run):
    _, manifest, _, _ = run("personas.enabled=false")
    assert manifest.stages["reward"].reasons["no_persona"] == manifest.stages["reward"].dropped
    assert manifest.stages["pairs"].notes["without_persona"] == manifest.stages["pairs"].passed


def test_each_stage_names_its_place():
    assert set(STEPS) == set(STAGES)
    for number, stage in enumerate(STAGES):
        assert all(earlier in STAGES[:number] for earlier in STEPS[stage].upstream)
        assert all(section in Recipe.model_fields for section in STEPS[stage].sections)


def test_unusable_logs_name_the_remedy(tmp_path, run, logs):
    logs.write_text("")
    with pytest.raises(UserError, match="is empty"):
        run()
    logs.write_text('{"not": "a conversation"}\n[]\n')
    with pytest.raises(UserError, match="malformed 2"):
        run()


@pytest.mark.slow
def test_from_a_log_to_an_adapter_in_the_registry(run, tmp_path, tiny_model_dir):
    import warnings

    import peft
    from transformers import AutoModelForCausalLM

    from rlhi_adapters.registry import AdapterRegistry

    options = (
        f"model.base='{tiny_model_dir}'",
        "model.dtype=float32",
        "train.epochs=1",
        "train.batch_size=4",
        "train.micro_batch_size=4",
        "train.warmup_steps=0",
    )
    registry = tmp_path / "registry"
    first, manifest, _, _ = run(*options, until="train", registry=registry)
    entry = manifest.stages["train"]
    assert entry.passed > 0
    (record,) = AdapterRegistry(registry).list()
    assert record.adapter_id == entry.notes["adapter_id"]
    assert record.user_ids == ("ann", "bob", "cyd", "dan")
    assert record.run_manifest == str((tmp_path / "run" / "manifest.json").resolve())
    AdapterRegistry(registry).verify(record.adapter_id)
    with warnings.catch_warnings():
        # PEFT 0.21 reads an attribute that transformers has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        model = peft.PeftModel.from_pretrained(base, record.path)
    assert any(float(p.detach().abs().sum()) > 0 for name, p in model.named_parameters() if "lora_B" in name)
    again, *_ = run(*options, until="train", registry=registry)
    assert again.reused == list(STAGES)
    assert first.reused == []
    assert len(AdapterRegistry(registry).list()) == 1
