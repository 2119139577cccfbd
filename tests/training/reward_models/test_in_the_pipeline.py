"""A trained reward model in a whole run: it scores, filters and ranks, and its length bias is in the manifest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.errors import UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import Dropped, PreferencePair, ProposedPair, ScoredCandidate
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

PLAIN = "Plants like light and water, and most people give them too much of one of them and too little of the other."


def write(request: ChatRequest) -> str:
    """Grants what the last message asks for."""
    said = request.messages[-1].content.lower()
    figures = " Give it 6 hours of light and 2 cups of water." if any(w in said for w in ("number", "figure")) else ""
    if "bullet" in said:
        return f"- {PLAIN}\n- Turn the pot.{figures}"
    return ("Give it light and water in turn, and leave it alone." if "brief" in said else PLAIN) + figures


class _Numbered(ScriptedClient):
    """Samples of one request differ."""

    async def complete(self, request: ChatRequest):
        replies = await super().complete(request)
        return tuple(
            reply.model_copy(update={"text": f"{reply.text} {'Mind the frost. ' * i}".strip()})
            for i, reply in enumerate(replies)
        )


@pytest.fixture
def logs(tmp_path: Path, four_users, conversation) -> Path:
    """Four users who complain, and threads of three of them without complaint."""
    quiet = [
        conversation(f"{u}9", [f"{u}: How do I mend a bike?", PLAIN], user=u, day=9) for u in ("ann", "bob", "cyd")
    ]
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, [*four_users, *quiet])
    return logs


@pytest.fixture
def run(tmp_path: Path, logs: Path, cue_labeller, word_encoder, saved_model):
    """Runs the stages up to pairs with a tiny Athene."""
    path = saved_model("athene")

    def start(*overrides: str):
        options = [f"reward.classifier='{path}'", "reward.samples=4", "filter.max_pairs_per_user_share=1.0"]
        recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [*options, *overrides])
        client = _Numbered(write)
        resources = Resources(recipe, policy=client, labeller=cue_labeller, encoder=word_encoder)
        directory = RunDirectory(tmp_path / "run")
        manifest = Pipeline(logs, recipe, directory, resources=resources, say=lambda _: None).run(until="pairs")
        return manifest, directory

    return start


def test_it_scores_filters_and_ranks(run):
    manifest, directory = run("filter.not_worse=reward_model", "filter.max_loss=100", "contrast.rank_by=reward_model")
    notes = manifest.stages["reward"].notes
    assert notes["reward_model"].startswith("classifier/")
    assert notes["tokens_shared"] > 0.5
    assert notes["length_bias"]["comparisons"] > 0
    assert -1 <= notes["length_bias"]["correlation"] <= 1
    scored = directory.read("scored_candidates.jsonl", ScoredCandidate)
    rewards = directory.read("rewards.jsonl", ProposedPair)
    assert rewards
    for pair in rewards:
        mine = [
            s.score
            for s in scored
            if (s.candidate.conversation_id, s.candidate.turn) == (pair.conversation_id, pair.turn)
        ]
        assert pair.margin == pytest.approx(max(mine) - min(mine))
    contrasts = directory.read("contrasts.jsonl", ProposedPair)
    assert any(p.persona and p.margin > 0 for p in contrasts)
    assert manifest.stages["contrast"].notes["reward_model"].startswith("classifier/")
    assert {"sample", "guided", "rewrite"} >= {p.chosen.origin for p in contrasts}
    pairs = directory.read("pairs.jsonl", PreferencePair)
    assert {pair.source for pair in pairs} == {"rewrite", "reward", "contrast"}


def test_what_cannot_work_is_said_before_anything_is_spent(run, tmp_path, saved_model):
    refuses = saved_model("llama", refuses_system=True)
    for override, message in (
        ("reward.classifier='/no/such/folder'", "/no/such/folder"),
        (f"reward.classifier='{refuses}'", "no_system_role"),
        ("filter.evaluation_prompts=['/no/such/set']", "/no/such/set"),
    ):
        with pytest.raises(UserError, match=message):
            run(override)
    assert not (tmp_path / "run" / "generated").exists()


def test_evaluation_prompts_are_part_of_what_a_filter_depends_on(run, tmp_path, four_users):
    prompts = tmp_path / "evaluation.txt"
    prompts.write_text("Nobody in any log has ever asked a thing like this one.")
    option = f"filter.evaluation_prompts=['{prompts}']"
    clean, directory = run(option)
    assert "contaminated" not in clean.stages["filter"].reasons
    assert clean.stages["filter"].notes["evaluation_prompts"] == 1
    request = four_users[0].messages[0].content
    prompts.write_text(request)
    found, directory = run(option)
    assert found.stages["filter"].reasons["contaminated"] > 0
    drops = directory.read("dropped/filter.jsonl", Dropped)
    assert {d.detail for d in drops if d.reason == "contaminated"} == {" ".join(re.findall(r"\w+", request.lower()))}
    kept = directory.read("pairs.jsonl", PreferencePair)
    assert not [pair for pair in kept if any(request in message.content for message in pair.prompt)]


def test_a_strict_filter_drops_what_it_scores_lower(run):
    manifest, directory = run("filter.not_worse=reward_model", "reward.enabled=false", "contrast.enabled=false")
    reasons = manifest.stages["filter"].reasons
    proposed = directory.read("rewrites.jsonl", ProposedPair)
    assert reasons.get("worse_in_general", 0) + manifest.stages["filter"].passed <= len(proposed)
    assert reasons.get("worse_in_general", 0) > 0
