"""What a plan says of rounds and of self-distillation is what a run then asks for and trains on."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from invented_logs import invented
from provider_script import SENTENCES, Provider

from rlhi_plugin.calls.journal import CallJournal, call_digest
from rlhi_plugin.chat import ChatReply, ChatRequest, ScriptedClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_training.methods.hindsight import HindsightTurn
from rlhi_training.pipeline import CALLS, Pipeline
from rlhi_training.plan import hardware
from rlhi_training.plan.other_methods import Logged
from rlhi_training.plan.rendering import render
from rlhi_training.plan.report import make_plan
from rlhi_training.plan.tokens import TokenCounter
from rlhi_training.plan.training_work import Sizes, of_logged, of_pairs
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.resources import Resources
from rlhi_training.run_directory import Manifest, RunDirectory
from rlhi_training.train_options import TrainSection

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROUNDS = (
    "rewrite.enabled=false",
    "reward.samples=3",
    "contrast.max_requests=3",
    "filter.quality=false",
    "filter.match_language=false",
)
ALONE = ("rewrite.enabled=false", "reward.enabled=false", "contrast.enabled=false")


class Writer(ScriptedClient):
    """A policy whose answers are some sentences, other ones for every request and for every adapter."""

    def __init__(self, _section: object = None, adapter: tuple[str, Path] | None = None) -> None:
        super().__init__((), model=f"writer+{adapter[0]}" if adapter else "writer")

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        draw = random.Random(call_digest(self.model, request))
        texts = (" ".join(draw.choices(SENTENCES, k=draw.randint(2, 6))) for _ in range(request.n))
        return tuple(ChatReply(text=text, prompt_tokens=1, completion_tokens=len(text.split())) for text in texts)

    def release(self) -> None:
        """Nothing is held."""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    path = tmp_path / "logs.jsonl"
    write_conversations(path, invented(5, 3))
    return path


def run(logs: Path, recipe: Recipe, minilm, **stand_ins) -> tuple[Pipeline, Manifest]:
    resources = Resources(recipe, encoder=minilm, **stand_ins)
    made = Pipeline(
        logs,
        recipe,
        RunDirectory(logs.parent / "run"),
        resources=resources,
        registry=logs.parent / "registry",
        say=lambda _: None,
    )
    return made, made.run()


@pytest.mark.slow
def test_rounds_are_planned_as_they_are_run(logs: Path, tiny_recipe, minilm, monkeypatch) -> None:
    pytest.importorskip("litellm.litellm_core_utils.default_encoding")
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("rlhi_training.methods.sampling_round.PolicyClient", Writer)
    with FakeProvider(Provider(count=lambda text: len(encoding.encode(text)))) as provider:
        judge = f"openai:fake-1@{provider.base_url}"
        bare = tiny_recipe(rounds=3, sync_every=2).model_dump(mode="json")
        recipe = override_recipe(bare, [*ROUNDS, f"reward.llm={judge}"])
        plan = make_plan(logs, recipe, encoder=minilm)
        assert provider.requests == (), "a plan asks nobody"
        pipeline, manifest = run(logs, recipe, minilm, policy=Writer())
    with CallJournal(pipeline.run_dir.path / CALLS) as journal:
        usage = [row for row in journal.usage() if row.answered]
    planned: Counter[tuple[str, bool]] = Counter()
    asked: Counter[tuple[str, bool]] = Counter()
    for row in plan.calls:
        planned[row.stage, row.model == "fake-1"] += row.calls
    for used in usage:
        asked[used.purpose, used.model == "fake-1"] += used.answered
    assert {stage for stage, _ in planned} >= {"reward of round 3", "contrast of round 2"}
    assert planned.keys() == asked.keys()
    for key, calls in planned.items():
        assert abs(calls - asked[key]) <= 0.1 * asked[key], (key, calls, asked[key])
    tokens = sum(row.prompt_tokens + row.completion_tokens for row in plan.calls if row.model == "fake-1")
    spent = sum(used.prompt_tokens + used.completion_tokens for used in usage if used.model == "fake-1")
    assert abs(tokens - spent) <= 0.1 * spent, (tokens, spent)
    trained = manifest.stages["train"]
    assert (plan.training.trainings, plan.training.steps) == (3, trained.notes["steps"])
    assert {row.method for row in plan.pairs} >= {"reward of round 2", "contrast of round 3"}
    shown = [part for part in render(plan) if isinstance(part, str)]
    assert any("6 steps in 3 rounds" in part for part in shown)
    assert any("every round finds pairs" in part for part in shown)


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["base", "current"])
def test_self_distillation_is_planned_as_it_is_run(logs: Path, tiny_recipe, minilm, teacher: str) -> None:
    options = {"method": "self_distillation", "epochs": 2.0, "teacher": teacher}
    recipe = override_recipe(tiny_recipe(**options).model_dump(mode="json"), ALONE)
    plan = make_plan(logs, recipe, encoder=minilm)
    pipeline, manifest = run(logs, recipe, minilm)
    entry = manifest.stages["train"]
    found = plan.pairs[0]
    assert (found.method, found.items, found.low, found.high) == (
        "self_distillation",
        entry.inputs,
        entry.passed,
        entry.passed,
    )
    assert plan.training.steps == entry.notes["steps"]
    assert plan.total_calls == 0
    learnt = pipeline.run_dir.read("hindsight.jsonl", HindsightTurn)
    counter = TokenCounter(recipe.model.base)
    answers = sum(counter.text(turn.answer) for turn in learnt)
    student = answers + sum(counter.prompt(turn.prompt) for turn in learnt)
    shown = answers + sum(counter.prompt(turn.teacher_prompt) for turn in learnt)
    assert plan.training.backward_tokens == 2 * student
    assert plan.training.forward_tokens == 2 * student + (2 if teacher == "current" else 1) * shown
    assert plan.gpu[0].activations_gib > 0


def test_rounds_that_cannot_work_are_no_plan_either(logs: Path, tiny_recipe) -> None:
    recipe = override_recipe(tiny_recipe(rounds=2).model_dump(mode="json"), ALONE)
    with pytest.raises(ConfigError, match="something to sample for"):
        make_plan(logs, recipe)


def test_work_of_pairs_is_that_of_their_method() -> None:
    sizes = Sizes(count=10, prompt=100.0, answer=50.0, longest=400.0)
    train = TrainSection(epochs=3.0, batch_size=4, micro_batch_size=2)
    dpo = of_pairs(train, sizes)
    assert (dpo.trainings, dpo.steps) == (1, 9)
    assert (dpo.forward, dpo.backward) == (300 * 10 * 4, 300 * 10 * 3), "the reference reads each pair once"
    assert (dpo.load.tokens, dpo.load.answer_tokens, dpo.load.smallest) == (900, 200, 450)
    sft = of_pairs(train.model_copy(update={"method": "sft"}), sizes)
    assert sft.forward == sft.backward == 150 * 10 * 3
    assert (sft.load.tokens, sft.load.answer_tokens) == (800, 100)
    rounds = of_pairs(train.model_copy(update={"rounds": 5, "sync_every": 6}), sizes)
    assert (rounds.trainings, rounds.steps, rounds.backward) == (5, 30, 300 * 30 * 4), "whatever the pairs are"


def test_work_of_logged_answers_has_the_longest_in_its_largest_pass() -> None:
    found = Logged(turns=3, prompts=(10, 30), teacher_prompts=(20, 50), answers=(5, 7))
    work = of_logged(TrainSection(method="self_distillation", batch_size=4, micro_batch_size=4, epochs=2.0), found)
    assert (work.steps, work.forward, work.backward) == (2, 2 * 52 + 82, 2 * 52)
    assert (work.load.tokens, work.load.answer_tokens) == (4 * 37, 4 * 7)
    card, shape = hardware.CARDS[-1], hardware.Shape(1e9, 16, 2048, 32_000, 8192, 512, "the test")
    hours = hardware.training_hours(shape, card, forward=work.forward, backward=work.backward)
    assert hours == pytest.approx(2e9 * (186 + 104) / (0.35 * 989e12) / 3600)
    nothing = of_logged(TrainSection(method="self_distillation"), Logged(3, (), (), ()))
    assert (nothing.steps, nothing.forward) == (0, 0.0)
