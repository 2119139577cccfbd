"""The plan: what it forecasts is what a run then asks for, and its formulas are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from invented_logs import invented
from provider_script import Provider
from typer.testing import CliRunner

from rlhi_plugin.errors import UserError
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_training.cli import app
from rlhi_training.pipeline import CALLS, Pipeline
from rlhi_training.plan import hardware, power
from rlhi_training.plan.rendering import render
from rlhi_training.plan.report import Plan, make_plan
from rlhi_training.plan.stand_ins import example_of
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

ALL = ("label.llm", "personas.llm", "rewrite.llm", "reward.llm", "model.served")
CASES = {
    "everything asked of models": (
        {"users": 6, "days": 3, "turns": 3, "sentences": 4},
        ALL,
        ("label.labeller=llm", "personas.builder=llm"),
    ),
    "long answers, few users, embedded labels": (
        {"users": 3, "days": 5, "turns": 2, "sentences": 12, "seed": 1},
        ("rewrite.llm", "reward.llm", "model.served"),
        ("reward.samples=2", "model.max_new_tokens=400"),
    ),
    "many short turns, no judge, demonstrations": (
        {"users": 10, "days": 2, "turns": 5, "sentences": 3, "seed": 2},
        ("personas.llm", "rewrite.llm", "model.served"),
        ("personas.builder=llm", "contrast.guidance=demonstrations", "rewrite.samples_blind=0"),
    ),
    "a judge of rewrites": (
        {"users": 6, "days": 3, "turns": 3, "sentences": 4, "seed": 3},
        ("rewrite.llm", "filter.llm", "model.served"),
        ("filter.addresses_feedback=judge", "reward.enabled=false", "contrast.enabled=false"),
    ),
}


def _tiktoken():
    """OpenAI's tokenizer, which LiteLLM brings along."""
    # Imported for what it does: it points tiktoken at the tables that LiteLLM brings.
    pytest.importorskip("litellm.litellm_core_utils.default_encoding")
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    return lambda text: len(encoding.encode(text))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_forecast_is_within_a_tenth_of_the_run(case: str, tmp_path: Path, minilm, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    log, roles, options = CASES[case]
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, invented(**log))
    with FakeProvider(Provider(sentences=log["sentences"], count=_tiktoken())) as provider:
        model = f"openai:fake-1@{provider.base_url}"
        settings = [*options, *(f"{role}={model}" for role in roles)]
        recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), settings)
        plan = make_plan(logs, recipe, encoder=minilm)
        assert provider.requests == (), "a plan asks nobody"
        resources = Resources(recipe, encoder=minilm)
        Pipeline(logs, recipe, RunDirectory(tmp_path / "run"), resources=resources, say=lambda _: None).run("pairs")
        usage = _usage(tmp_path / "run" / CALLS)
        assert len(provider.requests) == usage["calls"]
    forecast = {
        "calls": plan.total_calls,
        "prompt": plan.total_prompt_tokens,
        "tokens": plan.total_prompt_tokens + plan.total_completion_tokens,
    }
    for name, value in forecast.items():
        assert abs(value - usage[name]) <= 0.1 * usage[name], (name, value, usage[name])


def _usage(path: Path) -> dict[str, int]:
    from rlhi_plugin.calls.journal import CallJournal

    with CallJournal(path) as journal:
        rows = journal.usage()
    prompt = sum(row.prompt_tokens for row in rows)
    return {
        "calls": sum(row.answered for row in rows),
        "prompt": prompt,
        "tokens": prompt + sum(row.completion_tokens for row in rows),
    }


@pytest.mark.slow
def test_the_command_prints_tables_or_json(tmp_path: Path) -> None:
    pytest.importorskip("litellm")
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, invented(4, 2))
    words = [
        "plan",
        str(logs),
        "--recipe",
        "rlhi_llama31_8b",
        "--set",
        "rewrite.llm=openai/gpt-4o",
        "--held-out",
        "0.5",
    ]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    assert "openai/gpt-4o" in shown.output
    assert "H100 80GB" in shown.output
    assert "held-out users" in shown.output
    plan = Plan.model_validate_json(CliRunner().invoke(app, [*words, "--json"]).stdout)
    # The recipe has the policy write the originals anew, in this process and for nothing.
    rewriting = next(row for row in plan.calls if row.stage == "rewrite" and "gpt-4o" in row.model)
    assert rewriting.usd == pytest.approx(rewriting.prompt_tokens * 2.5e-6 + rewriting.completion_tokens * 1e-5)
    assert plan.usd == pytest.approx(rewriting.usd)
    assert plan.elsewhere["openai/gpt-4o"] == pytest.approx(rewriting.usd, abs=1e-4)
    assert plan.evaluation.users == 2
    gpu = {gpu.card: gpu for gpu in plan.gpu}
    assert gpu["H100 80GB"].fits
    assert gpu["H100 80GB"].memory_gib > 16
    assert gpu["H100 80GB"].training_hours < gpu["L4"].training_hours
    assert list(tmp_path.iterdir()) == [logs], "a plan leaves nothing behind"


def _small(logs: Path, *options: str, **more) -> Plan:
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), ["label.labeller=fast", *options])
    return make_plan(logs, recipe, encoder=_Alike(), **more)


class _Alike:
    """An encoder for which all texts are alike."""

    def encode(self, texts):
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.fixture
def small_log(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "small.jsonl", invented(3, 3))
    return tmp_path / "small.jsonl"


@pytest.mark.slow
def test_what_runs_here_is_priced_elsewhere_and_a_model_without_a_price_is_named(small_log) -> None:
    pytest.importorskip("litellm")
    plan = _small(small_log, price_of_others=["nobody/unheard-of"])
    assert plan.usd == 0.0
    prompt, answers = plan.total_prompt_tokens, plan.total_completion_tokens
    assert plan.elsewhere["openai/gpt-4o"] == pytest.approx(prompt * 2.5e-6 + answers * 1e-5, abs=1e-4)
    assert plan.elsewhere["nobody/unheard-of"] is None
    tables = [str(part.title) for part in render(plan) if not isinstance(part, str)]
    assert "All of them, if they were hosted, with" in tables


@pytest.mark.slow
def test_a_trained_reward_model_takes_memory_and_hours_beside_the_policy(small_log) -> None:
    base = "model.base=meta-llama/Llama-3.1-8B-Instruct"
    without = {gpu.card: gpu for gpu in _small(small_log, base).gpu}
    plan = _small(small_log, base, "reward.classifier=Nexusflow/Athene-RM-8B")
    found = {gpu.card: gpu for gpu in plan.gpu}
    assert all((gpu.scoring_gib, gpu.scoring_hours) == (0, 0) for gpu in without.values())
    # Two models of 8B in bfloat16.
    assert all(gpu.scoring_gib == pytest.approx(2 * 16e9 / 2**30, abs=0.1) for gpu in found.values())
    assert not found["RTX 4090"].fits
    assert found["H100 80GB"].fits
    assert found["L4"].scoring_hours > found["H100 80GB"].scoring_hours > 0
    assert plan.total_calls == sum(row.calls for row in plan.calls)
    said = " ".join(part for part in render(plan) if isinstance(part, str))
    assert "While answers are scored: 29.8" in said


@pytest.mark.slow
def test_the_evaluation_that_is_planned_is_the_one_that_the_recipe_holds_out(tmp_path: Path) -> None:
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, invented(30, 4))
    split = "split.held_out_users=0.4"
    plan = _small(logs, split)
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [split])
    manifest = Pipeline(logs, recipe, RunDirectory(tmp_path / "run"), say=lambda _: None).run("ingest")
    entry = manifest.stages["ingest"].notes["split"]["evaluation"]
    assert plan.evaluation.users == entry["users"] > 5
    # Three requests in each of the conversations that are for evaluation.
    assert plan.evaluation.answers_per_user == pytest.approx(3 * entry["conversations"] / entry["users"], abs=0.01)
    assert "split.held_out_users = 0.4" in plan.assumptions[-1]
    assert "20% of the users with a history" in _small(logs, "split.held_out_users=0.0").assumptions[-1]
    assert _small(logs, split, held_out=0.5).evaluation.users == round(0.5 * (30 - entry["users"]))


@pytest.mark.slow
def test_what_is_left_out_and_who_is_nobody_is_said(small_log) -> None:
    talks = invented(2, 1, seed=9)
    nobody = [talk.model_copy(update={"user_id": None, "conversation_id": f"n{i}"}) for i, talk in enumerate(talks)]
    more = small_log.with_name("more.jsonl")
    write_conversations(more, nobody)
    small_log.write_text(small_log.read_text() + more.read_text() + "{ not json\n")
    plan = _small(small_log, "split.held_out_users=0.0")
    assert (plan.rows, plan.anonymous, plan.left_out) == (12, 2, {"malformed": 1})
    said = [part for part in render(plan) if isinstance(part, str)]
    assert "11 usable conversations of 12 rows" in said[0]
    assert said[1] == "Left out: malformed 1."
    assert said[2].startswith("2 carry no user")


@pytest.mark.slow
def test_a_filters_judge_is_counted_and_a_filter_by_code_asks_nobody(small_log) -> None:
    judge = ("filter.llm=policy", "filter.addresses_feedback=judge", "filter.not_worse=judge")
    plan = _small(small_log, *judge)
    calls = {row.stage: row.calls for row in plan.calls}
    rewrites = next(pairs.items for pairs in plan.pairs if pairs.method == "rewrite")
    # Two questions, two orders, and equal ones once.
    assert 0 < calls["filter"] <= 4 * rewrites
    assert calls["filter"] > 2 * rewrites
    assert any("every rewrite without a flaw" in said for said in plan.assumptions)
    assert "filter" not in {row.stage for row in _small(small_log).calls}
    assert "filter" not in {row.stage for row in _small(small_log, *judge, "filter.quality=false").calls}


def test_power_is_that_of_a_simulated_evaluation() -> None:
    users, answers = 380, 10
    points = power.detectable(users, answers)
    assert points is not None
    # A rule of thumb: about 380 users show about three points.
    assert 2.5 < points < 3.5
    assert power.users_for(points, answers) == pytest.approx(users, abs=1)
    draw = np.random.default_rng(0)
    runs, found = 2_000, 0
    # Outcomes of +-1/2 around a mean, of which a user's share a part: variance 1/4, correlation as assumed.
    taste = draw.normal(0, 0.5 * np.sqrt(power.CORRELATION), (runs, users, 1))
    noise = draw.normal(0, 0.5 * np.sqrt(1 - power.CORRELATION), (runs, users, answers))
    means = (points / 100 + taste + noise).mean(axis=2)
    z = means.mean(axis=1) / (means.std(axis=1, ddof=1) / np.sqrt(users))
    found = float((np.abs(z) > 1.96).mean())
    assert found == pytest.approx(power.POWER, abs=0.03)


def test_too_few_users_see_nothing() -> None:
    assert power.detectable(1, 5) is None
    assert power.detectable(100, 1) > power.detectable(100, 5) > power.detectable(400, 5)


def test_sizes_of_models(tmp_path: Path) -> None:
    llama = hardware.shape_of("meta-llama/Llama-3.1-8B-Instruct")
    assert llama is not None
    assert llama.parameters == 8e9
    assert (llama.layers, llama.hidden) == (34, 4352), "the real ones are 32 and 4096"
    assert hardware.shape_of("smollm2-135m-instruct").parameters == pytest.approx(135e6, rel=0.01)
    assert hardware.shape_of("gpt-next") is None
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 400, "dtype": "float32"})
    )
    (tmp_path / "model.safetensors").write_bytes(bytes(4_000))
    assert hardware.shape_of(str(tmp_path)).parameters == 1_000
    text = {"num_hidden_layers": 3, "hidden_size": 64, "vocab_size": 500}
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float32", "text_config": text}))
    assert hardware.shape_of(str(tmp_path)).layers == 3
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 3, "n_embd": 64}))
    assert hardware.shape_of(str(tmp_path)) is None


def test_an_example_keeps_to_its_schema() -> None:
    from jsonschema import validate

    from rlhi_plugin.labelling.llm import _Reply as Label
    from rlhi_plugin.persona.llm import _Reply as Statements

    for kind in (Label, Statements):
        schema = kind.model_json_schema()
        validate(example_of(schema, schema), schema)


def test_a_log_without_a_conversation_is_refused_with_what_is_wrong_and_no_vanished_folder(tmp_path: Path) -> None:
    logs = tmp_path / "broken.jsonl"
    logs.write_text('{"x":\n', "utf-8")
    with pytest.raises(UserError, match=r"broken\.jsonl:1 \(.*not JSON.*and check that it is") as caught:
        CliRunner().invoke(app, ["plan", str(logs)], catch_exceptions=False)
    assert "rlhi-plan-" not in str(caught.value)
