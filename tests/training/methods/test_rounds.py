"""Semi-online rounds: the adapter that was trained samples; rewards rise; a finished round is not made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
from tiny_reader import TOPICS, WORDINGS

from rlhi_adapters.digests import adapter_digests
from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.logs import write_conversations
from rlhi_training.funnel import render_rounds
from rlhi_training.methods.rounds import RoundRecord
from rlhi_training.pipeline import CALLS, Pipeline
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import PreferencePair, ScoredCandidate
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SAMPLING = (
    "rewrite.enabled=false",
    "contrast.enabled=false",
    "reward.samples=8",
    "filter.quality=false",
    "filter.match_language=false",
    "model.max_new_tokens=16",
    "model.temperature=1.0",
)


@pytest.fixture
def start(tmp_path, four_users, cue_labeller, word_encoder, tiny_recipe):
    """Makes the pipeline of a run: the tiny random model samples, and its answers are scored by the users' wishes."""
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, four_users)

    def make(*overrides: str, folder: str = "run", **train) -> Pipeline:
        settings = {"sync_every": 4, "learning_rate": 1e-2, "loss": ("sigmoid",), "loss_weights": (1.0,), **train}
        recipe = override_recipe(tiny_recipe(**settings).model_dump(mode="json"), (*SAMPLING, *overrides))
        resources = Resources(recipe, labeller=cue_labeller, encoder=word_encoder)
        said: list[object] = []
        made = Pipeline(
            logs,
            recipe,
            RunDirectory(tmp_path / folder),
            resources=resources,
            registry=tmp_path / "registry",
            say=said.append,
        )
        made.said = said
        return made

    return make


def records(pipeline: Pipeline) -> list[RoundRecord]:
    paths = sorted((pipeline.run_dir.path / "rounds").glob("*/round.json"))
    return [RoundRecord.model_validate_json(path.read_text("utf-8")) for path in paths]


def test_rounds_sample_with_the_adapter_so_far_and_are_recorded(start) -> None:
    pipeline = start(rounds=3)
    manifest = pipeline.run()
    made = records(pipeline)
    assert [record.number for record in made] == [1, 2, 3]
    assert [record.steps for record in made] == [4, 8, 12]
    assert [record.sampled_with for record in made] == ["base", made[0].adapter, made[1].adapter]
    assert len({record.adapter for record in made}) == 3
    run = pipeline.run_dir.path
    for number in (2, 3):
        folder = run / "rounds" / f"{number:02d}"
        own = RunDirectory(folder)
        stages = own.manifest().stages
        assert all(stages[name].inputs == stages[name].passed + stages[name].dropped for name in ("reward", "filter"))
        assert len(own.read("pairs.jsonl", PreferencePair)) == made[number - 1].pairs
        writers = {
            row.candidate.model.rpartition("+")[2] for row in own.read("scored_candidates.jsonl", ScoredCandidate)
        }
        assert writers == {f"round-{number}-{made[number - 2].adapter[:12]}"}
    assert adapter_digests(run / "adapter").weights == made[-1].adapter
    entry = manifest.stages["train"]
    assert entry.inputs == entry.passed + entry.dropped == sum(record.pairs for record in made)
    assert [row["number"] for row in entry.notes["rounds"]] == [1, 2, 3]
    assert entry.notes["steps"] == 12
    logged = [json.loads(line) for line in (run / "training_log.jsonl").read_text("utf-8").splitlines()]
    assert max(row["step"] for row in logged) == 12
    assert sum(str(line).startswith("round ") for line in pipeline.said) == 3
    table = render_rounds(manifest)
    assert table is not None
    assert list(table.columns[0].cells) == ["1", "2", "3"]
    assert made[2].funnel["reward"]["in"] == manifest.stages["reward"].inputs
    with CallJournal(run / CALLS) as journal:
        purposes = {usage.purpose for usage in journal.usage()}
    assert purposes >= {"reward", "reward of round 2", "reward of round 3"}
    again = start(rounds=3)
    again.run()
    assert "train" in again.reused


class KilledError(Exception):
    """Stands in for a kill."""


@pytest.mark.parametrize("place", ["sampling", "training"])
def test_a_killed_round_goes_on_and_finished_ones_are_not_made_again(start, monkeypatch, place) -> None:
    from rlhi_adapters.local_model import LocalModel
    from rlhi_training.watch import Watch

    whole = start(rounds=3, folder="whole")
    whole.run()
    sampled = []
    answer, step = LocalModel.run_jobs, Watch.on_step_end

    def noted(self, jobs, *, adapter=None, **rest):
        sampled.append(adapter)
        if place == "sampling" and adapter and adapter.startswith("round-3"):
            raise KilledError
        return answer(self, jobs, adapter=adapter, **rest)

    def killed(self, args, state, control, **rest):
        step(self, args, state, control, **rest)
        if place == "training" and state.global_step == 10:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(LocalModel, "run_jobs", noted)
        patch.setattr(Watch, "on_step_end", killed)
        # In the thread that answers, a kill is the failure of every call.
        with pytest.raises((KilledError, ModelCallError)):
            start(rounds=3).run()
    assert len(records(start(rounds=3))) == 2
    sampled.clear()
    with monkeypatch.context() as patch:
        patch.setattr(LocalModel, "run_jobs", lambda *a, **k: (sampled.append(k.get("adapter")), answer(*a, **k))[1])
        pipeline = start(rounds=3)
        pipeline.run()
    expected = {"round-3"} if place == "sampling" else set()
    assert {name[:7] for name in sampled if name} == expected
    assert [record.adapter for record in records(pipeline)] == [record.adapter for record in records(whole)]


def test_the_reference_may_be_the_adapter_that_began_the_round(start) -> None:
    base, moved = (start(rounds=2, reference=name, folder=name) for name in ("base", "round"))
    for pipeline in (base, moved):
        pipeline.run()
    of_base, of_round = records(base), records(moved)
    assert of_base[0].adapter == of_round[0].adapter, "in the first round the reference is the base either way"
    assert of_base[1].adapter != of_round[1].adapter
    first = next(
        row
        for row in map(json.loads, (moved.run_dir.path / "training_log.jsonl").read_text("utf-8").splitlines())
        if row["step"] > 4
    )
    margin = [
        row["rewards/margins"]
        for row in map(json.loads, (base.run_dir.path / "training_log.jsonl").read_text("utf-8").splitlines())
        if row["step"] == first["step"]
    ]
    assert abs(first["rewards/margins"]) < abs(margin[0])


def test_persona_contrast_takes_part_in_a_round(start) -> None:
    pipeline = start("contrast.enabled=true", "contrast.max_requests=4", rounds=2)
    pipeline.run()
    entry = RunDirectory(pipeline.run_dir.path / "rounds" / "02").manifest().stages["contrast"]
    assert entry.notes["drafts"] > 0
    assert "+round-2-" in entry.notes["client"]


def test_a_round_without_pairs_ends_the_training_and_says_so(start, monkeypatch) -> None:
    pipeline = start("reward.min_margin=0.05", rounds=3)
    from rlhi_training.methods import rounds as module

    gather = module._gather

    def nothing_in_round_two(outer, folder, number, came_from, runner):
        material = gather(outer, folder, number, came_from, runner)
        return material if number == 1 else type(material)(**{**_fields(material), "pairs": []})

    monkeypatch.setattr(module, "_gather", nothing_in_round_two)
    manifest = pipeline.run()
    entry = manifest.stages["train"]
    assert entry.notes["steps"] == 4
    assert any("round 2 found no pair" in line for line in entry.notes["warnings"])


def _fields(material):
    return {name: getattr(material, name) for name in material.__dataclass_fields__}


@pytest.mark.parametrize(
    ("overrides", "train", "message"),
    [
        (("reward.enabled=false",), {}, "something to sample for"),
        (("model.served=openai:m@http://127.0.0.1:9/v1",), {}, "in this process"),
        ((), {"method": "self_distillation"}, "self-distillation has none"),
    ],
)
def test_rounds_that_cannot_work_are_refused_before_anything_is_done(start, overrides, train, message) -> None:
    pipeline = start(*overrides, rounds=2, **train)
    with pytest.raises(ConfigError, match=message):
        pipeline.run()
    assert pipeline.manifest.stages == {}


def earned(pipeline: Pipeline, weights) -> float:
    """Mean score of fresh samples of a run's final adapter, drawn as a further round would."""
    import asyncio

    from rlhi_training.methods.sampling_round import RoundPipeline

    folder = pipeline.run_dir.path / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    with pipeline.resources.calling(pipeline.run_dir.path / CALLS), asyncio.Runner() as runner:
        probe = RoundPipeline(pipeline, folder, 98, pipeline.run_dir.path / "adapter", weights)
        probe.sample(runner)
    return fmean(row.score for row in probe.run_dir.read("scored_candidates.jsonl", ScoredCandidate))


@pytest.fixture
def figures_wanted(start, conversation, reader, tmp_path, monkeypatch) -> Path:
    """Logs of twelve users who all want figures; returns a base, one of whose four answers has some."""
    reply = "Plants like light and water, and most people give them too much of one of them."
    talks = [
        conversation(f"u{user}-{day}", [request.format(topic), reply, wish, reply], user=f"u{user}", day=day)
        for day, request in enumerate(WORDINGS[:2])
        for user in range(12)
        for topic in [TOPICS[user % len(TOPICS)]]
        for wish in ["Please give me some numbers."]
    ]
    write_conversations(tmp_path / "logs.jsonl", talks)
    # Seeds derive from the model's name too, so that it must not be a folder of this run alone.
    monkeypatch.chdir(reader.parent)
    return Path(reader.name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_reward_of_samples_rises_from_round_to_round(start, figures_wanted, seed) -> None:
    """Beside it, offline: the same steps, batch and rate on the base's pairs alone; ahead in two of three seeds."""
    same = {"batch_size": 4, "learning_rate": 2e-3, "base": figures_wanted}
    same |= {"loss": ("sigmoid", "sft"), "loss_weights": (1, 0.2)}
    options = ("reward.samples=12", f"seed={seed}", f"train.seed={seed}")
    online = start(*options, rounds=4, sync_every=6, folder="online", **same)
    online.run()
    scores = [record.mean_score for record in records(online)]
    pairs = [record.pairs for record in records(online)]
    offline = start(*options, folder="offline", epochs=24 / -(-pairs[0] // 4), **same)
    assert offline.run().stages["train"].notes["steps"] == 24
    after, beside = earned(online, "online"), earned(offline, "offline")
    shown = " ".join(f"{score:.3f}" for score in scores)
    print(f"seed {seed}: before each round {shown}, after the last {after:.3f}, offline {beside:.3f}; pairs {pairs}")
    assert scores == sorted(scores)
    assert after > scores[0] + 0.1
