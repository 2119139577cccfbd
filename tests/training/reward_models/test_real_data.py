"""Real preference data through tiny random reward models: forms and lengths nobody invented, no quality claimed."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from rlhi_plugin.records import ChatMessage
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models.classifier import ClassifierOptions, ClassifierReward
from rlhi_training.reward_models.length_bias import length_bias

ROOT = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def _rows(name: str) -> list[dict]:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set RLHI_TEST_DATA to the folder of real data")
    return json.loads(path.read_text("utf-8"))


def _turn(context: list[ChatMessage], texts: list[str]) -> tuple[LabelledTurn, list[Candidate]]:
    where = {"conversation_id": "real", "turn": 0}
    turn = LabelledTurn(context=tuple(context), response="-", request_id="q", response_id="a", **where)
    return turn, [Candidate(text=text, origin="sample", model="m", **where) for text in texts]


def _both(path: Path, requests) -> None:
    """Shared and unshared scores agree wherever both exist."""
    models = [
        ClassifierReward(ClassifierOptions(path=str(path), dtype="float32", max_tokens=2000, share_prefixes=share))
        for share in (True, False)
    ]
    scored = 0
    for turn, candidates in requests:
        shared, alone = (asyncio.run(model.score(turn, candidates, None)) for model in models)
        assert [v.unscored for v in shared] == [v.unscored for v in alone]
        assert {v.unscored for v in shared} <= {None, "too_long"}
        for one, other in zip(shared, alone, strict=True):
            if one.value is not None and other.value is not None:
                assert one.value == pytest.approx(other.value, abs=1e-4)
                scored += 1
    assert scored >= 10
    assert models[0].notes(models[0].seen)["not_shared_because"] is None


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "athene"])
def test_rm_bench_prompts_with_six_answers_each(family, saved_model):
    rows = _rows("judge-checks/rm-bench/chat_filtered.json")
    assert len(rows) > 50
    requests = [
        _turn([ChatMessage(role="user", content=row["prompt"])], [*row["chosen"], *row["rejected"]])
        for row in rows[:12]
    ]
    _both(saved_model(family), requests)


@pytest.mark.slow
def test_preference_pairs_with_several_turns(saved_model):
    rows = [row for row in _rows("preference-pairs/dpo_en_demo.json") if len(row["conversations"]) > 1][:20]
    assert rows
    requests = [
        _turn(
            [ChatMessage(role=ROLES[m["from"]], content=m["value"]) for m in row["conversations"]],
            [row["chosen"]["value"], row["rejected"]["value"]],
        )
        for row in rows
    ]
    _both(saved_model("qwen2"), requests)


def test_the_gold_choices_of_rm_bench_lean_to_the_shorter_a_little():
    rows = _rows("judge-checks/rm-bench/chat_filtered.json")
    gold = [
        [(1.0, len(text.split())) for text in row["chosen"]] + [(0.0, len(text.split())) for text in row["rejected"]]
        for row in rows
    ]
    measured = length_bias(gold)
    assert measured["requests"] == len(rows)
    # Right and wrong answers come in the same three lengths: there is little for a length bias to find.
    assert -0.2 < measured["correlation"] < 0
    assert 0.3 < measured["longer_wins"] < 0.5
