"""Each ablation and control, end to end on scripted models: it is one difference, and that difference shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe_files import load_recipe, override_recipe, shipped_recipes
from rlhi_training.records import UNGUIDED, PreferencePair, ProposedPair
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

README = Path(__file__).parents[2] / "training" / "README.md"
BASE = "rlhi_llama31_8b"
PLAIN = (
    "Plants like light and water, and most people give them too much of one of them and too little of the other, so"
    " look at the soil before you water and at the sky before you move the pot."
)
TEST_SIZE = ("filter.max_pairs_per_user_share=1.0", "reward.samples=3", "reward.model=judge", "reward.llm=policy")


def write(request: ChatRequest) -> str:
    """Follows instructions about bullets, length and figures; as a judge, likes bullets if the persona does."""
    said = request.messages[-1].content
    if "Reply with JSON" in said:
        bullets = "ullet" in said.split("The user's request")[0]
        answer = said.split("The answer:")[-1]
        fits = bullets == answer.lstrip('\n"').startswith("-")
        return json.dumps({"score": (6 if fits else 2) + ("talk to it" in answer)})
    system = request.messages[0].content if request.messages[0].role == "system" else ""
    wish = f"{said} {system}".lower()
    mood = request.seed % 2 if request.seed is not None else 0
    figures = " Give it 6 hours of light and 2 cups of water." if "number" in wish or "figure" in wish else ""
    if "bullet" in wish and (mood or "bullet" in said.lower()):
        return f"- {PLAIN}\n- Turn the pot.{figures}"
    if any(word in said.lower() for word in ("brief", "shorter")):
        return f"Give it light and water in turn.{figures}"
    return PLAIN + figures + (" And talk to it." if mood else "")


class _Varied(ScriptedClient):
    """Asks the function once per sample, each with a seed of its own."""

    async def complete(self, request: ChatRequest):
        replies = []
        for index in range(request.n):
            one = request.model_copy(update={"n": 1, "seed": (request.seed or 0) + index})
            replies += await super().complete(one)
        return tuple(replies)


@pytest.fixture
def run(tmp_path: Path, four_users, conversation, cue_labeller, word_encoder):
    """Runs a recipe on four users who complain, and on threads of theirs without complaint; returns what came of it."""
    more = [
        conversation(f"{user}9", [f"{user}: How do I mend a bike?", PLAIN], user=user, day=9)
        for user in ("ann", "bob", "cyd", "dan")
    ]
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, [*four_users, *more])

    def start(name: str, *overrides: str, until: str = "pairs", registry: Path | None = None):
        recipe = load_recipe(name, overrides=[*TEST_SIZE, *overrides], environ={})
        client = _Varied(write)
        resources = Resources(recipe, policy=client, labeller=cue_labeller, encoder=word_encoder)
        directory = RunDirectory(tmp_path / f"run-{name}")
        pipeline = Pipeline(logs, recipe, directory, resources=resources, registry=registry, say=lambda _: None)
        manifest = pipeline.run(until=until)
        return manifest, directory, client

    return start


def _pairs(directory: RunDirectory) -> list[PreferencePair]:
    return directory.read("pairs.jsonl", PreferencePair)


def test_the_readme_lists_every_ablation_with_the_option_that_makes_it():
    rows = dict(re.findall(r"^\| `((?:ablation|control)_\w+)` \| `(--set [^|]+)` \|", README.read_text(), re.MULTILINE))
    recipes = shipped_recipes()
    assert set(rows) == {name for name in recipes if name.startswith(("ablation", "control"))}
    for name, sets in rows.items():
        by_hand = override_recipe(recipes[BASE].model_dump(mode="json"), re.findall(r"--set (\S+)", sets))
        labels = {"name": "-", "summary": "-"}
        assert by_hand.model_copy(update=labels) == recipes[name].model_copy(update=labels), name


def test_the_recipe_that_they_extend_uses_both_sources(run):
    manifest, directory, client = run(BASE)
    assert {pair.source for pair in _pairs(directory)} == {"rewrite", "reward"}
    assert manifest.stages["rewrite"].notes["originals"] == "scripted"
    rejected = {p.rejected.origin for p in directory.read("rewrites.jsonl", ProposedPair)}
    assert rejected == {"sample"}
    notes = manifest.stages["reward"].notes
    assert notes["reward_model"].startswith("judge/scripted/judge_persona-")
    assert notes["length_bias"]["requests"] > 0
    assert all(pair.persona_digest for pair in _pairs(directory) if pair.source == "reward")
    judged = [r for r in client.requests if "Reply with JSON" in r.messages[-1].content]
    assert any("ullet" in r.messages[-1].content for r in judged)


def test_no_guidance_shows_no_word_of_the_feedback_to_anybody(run):
    manifest, directory, client = run("ablation_no_guidance", "personas.enabled=false", "reward.enabled=false")
    assert manifest.stages["rewrite"].notes["guidance"] == "none"
    proposed = directory.read("rewrites.jsonl", ProposedPair)
    assert proposed
    assert all(p.asked == () and p.chosen.guidance == UNGUIDED for p in proposed)
    wishes = ("shorter", "brief", "bullet", "figures", "numbers")
    assert not [r for r in client.requests if any(w in m.content.lower() for m in r.messages for w in wishes)]
    assert "feedback_not_addressed" not in manifest.stages["filter"].reasons
    assert all(pair.provenance.follow_up_id is None for pair in _pairs(directory))


def test_a_user_agnostic_reward_scores_without_and_trains_with_the_persona(run):
    _, directory, client = run("ablation_user_agnostic_reward")
    rewards = [pair for pair in _pairs(directory) if pair.source == "reward"]
    assert rewards
    assert all(pair.persona_digest for pair in rewards)
    judged = [r.messages[-1].content for r in client.requests if "Reply with JSON" in r.messages[-1].content]
    assert judged
    assert all("Nothing is known about this user." in text for text in judged)


def test_shuffled_personas_are_other_peoples(run):
    _, own, _ = run(BASE)
    manifest, shuffled, _ = run("control_shuffled_persona")
    true = {pair.provenance: pair.user_id for pair in _pairs(own)}
    moved = [pair for pair in _pairs(shuffled) if pair.user_id]
    assert len(moved) >= 3
    by_candidates = {
        (p.provenance.chosen_candidate, p.provenance.rejected_candidate): true[p.provenance] for p in _pairs(own)
    }
    for pair in moved:
        key = (pair.provenance.chosen_candidate, pair.provenance.rejected_candidate)
        assert by_candidates[key] != pair.user_id
    targets: dict[str, set[str]] = {}
    for pair in moved:
        key = (pair.provenance.chosen_candidate, pair.provenance.rejected_candidate)
        targets.setdefault(by_candidates[key], set()).add(pair.user_id)
    assert all(len(others) == 1 for others in targets.values()), "one user's pairs go under one other persona"
    assert manifest.stages["pairs"].passed + manifest.stages["pairs"].dropped == manifest.stages["pairs"].inputs
    with pytest.raises(ConfigError, match="cross_user"):
        run("control_shuffled_persona", "contrast.cross_user=false")


def test_fewer_users_are_part_of_more(run):
    two, directory, _ = run("ablation_fewer_users", "users.max_users=2")
    assert two.stages["ingest"].notes["users_drawn"] == 2
    assert two.stages["ingest"].reasons["user_not_drawn"] == 8
    few = {c["user_id"] for c in map(json.loads, (directory.path / "conversations.jsonl").read_text().splitlines())}
    three, directory, _ = run("ablation_fewer_users", "users.max_users=3")
    more = {c["user_id"] for c in map(json.loads, (directory.path / "conversations.jsonl").read_text().splitlines())}
    assert (len(few), len(more)) == (2, 3)
    assert few < more
    assert three.stages["pairs"].notes["users"] <= 3


def test_without_filter_only_what_is_no_preference_goes(run):
    strict, _, _ = run(BASE, "filter.min_chosen_words=500")
    assert any(reason.startswith("chosen_") for reason in strict.stages["filter"].reasons)
    manifest, _, _ = run("ablation_no_filter", "filter.min_chosen_words=500")
    assert set(manifest.stages["filter"].reasons) <= {"duplicate", "identical", "user_cap", "over_limit"}
    assert manifest.stages["filter"].passed > strict.stages["filter"].passed


def test_a_control_without_users_knows_nobody(run):
    _, directory, client = run("control_no_users")
    pairs = _pairs(directory)
    assert pairs
    assert {pair.source for pair in pairs} == {"reward"}
    assert all(pair.persona_digest is None and pair.user_id is None for pair in pairs)
    head = "What this user asked for in earlier conversations"
    assert not [r for r in client.requests if any(head in m.content for m in r.messages)]


@pytest.mark.slow
def test_sft_trains_an_adapter_on_the_chosen_answers_alone(run, tmp_path, tiny_model_dir):
    manifest, directory, _ = run(
        "ablation_sft",
        f"model.base='{tiny_model_dir}'",
        "model.dtype=float32",
        "train.batch_size=4",
        "train.micro_batch_size=4",
        "train.warmup_steps=0",
        until="train",
        registry=tmp_path / "registry",
    )
    assert manifest.stages["train"].passed > 0
    assert (directory.path / "adapter" / "adapter_model.safetensors").is_file()
    assert manifest.recipe["train"]["method"] == "sft"
