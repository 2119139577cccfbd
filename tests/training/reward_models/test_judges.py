"""Judges: both orders, position bias, and what is no verdict."""

from __future__ import annotations

import asyncio
import json

import pytest

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.records import ChatMessage
from rlhi_training.reward_models import LLMJudgeReward, PairwiseJudgeReward, RewardModel, Verdict
from rlhi_training.reward_models.comparing import Comparer, Comparison


def _shown(request) -> tuple[str, str]:
    """The two answers in the order in which a call shows them."""
    text = request.messages[0].content
    first = text.split('Answer A:\n"""\n')[1].split('\n"""')[0]
    second = text.split('Answer B:\n"""\n')[1].split('\n"""')[0]
    return first, second


def _by_length(request) -> str:
    first, second = _shown(request)
    better = "equal" if len(first) == len(second) else "A" if len(first) < len(second) else "B"
    return json.dumps({"better": better})


def _always_first(request) -> str:
    del request
    return '{"better": "A"}'


async def test_each_comparison_is_asked_in_both_orders():
    client = ScriptedClient(_by_length)
    judge = Comparer(client, "judge_not_worse")
    assert await judge.compare("short", "much longer", request="Why?") == Comparison("first")
    assert await judge.compare("much longer", "short", request="Why?") == Comparison("second")
    assert await judge.compare("equal", "alike", request="Why?") == Comparison("equal")
    assert [_shown(request) for request in client.requests[:2]] == [("short", "much longer"), ("much longer", "short")]
    notes = judge.notes(judge.seen)
    assert (notes["comparisons"], notes["failed"], notes["undecided_share"]) == (3, 0, 0.0)
    assert notes["first_position_share"] == 0.5
    assert "judge_not_worse-" in notes["judge"]


async def test_a_judge_that_likes_a_position_decides_nothing_and_is_found_out():
    judge = Comparer(ScriptedClient(_always_first), "judge_not_worse")
    assert await judge.compare("a", "b", request="Why?") == Comparison(None, "judge_undecided")
    assert judge.notes(judge.seen)["undecided_share"] == 1.0
    assert judge.notes(judge.seen)["first_position_share"] == 1.0
    mute = Comparer(ScriptedClient(["no idea"]), "judge_not_worse")
    assert await mute.compare("a", "b", request="Why?") == Comparison(None, "judge_failed")
    assert mute.notes(mute.seen) | {"judge": ""} == {
        "judge": "",
        "comparisons": 0,
        "failed": 1,
        "undecided_share": None,
        "first_position_share": None,
    }


async def test_the_pairwise_reward_ranks_by_wins(turn, candidates, persona):
    client = ScriptedClient(_by_length)
    model = PairwiseJudgeReward(client)
    assert isinstance(model, RewardModel)
    verdicts = await model.score(turn, candidates, persona)
    assert len(client.requests) == len(candidates) * (len(candidates) - 1)
    order = sorted(range(len(candidates)), key=lambda i: len(candidates[i].text))
    assert [verdicts[i].value for i in order] == pytest.approx([1.0, 1 / 3, -1 / 3, -1.0])
    assert all("please keep it shorter" in request.messages[0].content for request in client.requests)
    nobody = ScriptedClient(_by_length)
    await PairwiseJudgeReward(nobody).score(turn, candidates, None)
    assert all("Nothing is known about this user" in request.messages[0].content for request in nobody.requests)
    assert model.unscorable(None) is None


@pytest.mark.parametrize("kind", [PairwiseJudgeReward, LLMJudgeReward])
async def test_a_judge_reads_what_the_request_follows_on(kind, turn, candidates):
    client = ScriptedClient(['{"better": "A", "score": 3}'])
    talk = (
        ChatMessage(role="user", content="How do I keep basil alive?"),
        ChatMessage(role="assistant", content="Give it light."),
        ChatMessage(role="user", content="And in winter?"),
    )
    later = turn.model_copy(update={"context": talk})
    await kind(client).score(later, candidates[:2], None)
    asked = [request.messages[0].content for request in client.requests]
    shown = "User: How do I keep basil alive?\n\nAssistant: Give it light.\n\nUser: And in winter?"
    assert len(asked) == 2
    assert all(shown in text for text in asked)
    await kind(client).score(turn.model_copy(update={"context": talk[:1]}), candidates[:2], None)
    assert '"""\nHow do I keep basil alive?\n"""' in client.requests[-1].messages[0].content


async def test_contradictions_and_silence_are_unscored(turn, candidates):
    undecided = PairwiseJudgeReward(ScriptedClient(_always_first))
    assert await undecided.score(turn, candidates, None) == [Verdict(None, "judge_undecided")] * len(candidates)
    assert undecided.notes(undecided.seen)["position_bias"]["first_position_share"] == 1.0
    silent = PairwiseJudgeReward(ScriptedClient(["?"]))
    assert await silent.score(turn, candidates, None) == [Verdict(None, "judge_failed")] * len(candidates)
    assert await silent.score(turn, candidates[:1], None) == [Verdict(None, "too_few_candidates")]

    def fond_of_one(request) -> str:
        texts = _shown(request)
        return json.dumps({"better": "AB"[texts.index(candidates[0].text)] if candidates[0].text in texts else "A"})

    mixed = await PairwiseJudgeReward(ScriptedClient(fond_of_one)).score(turn, candidates, None)
    assert [verdict.value for verdict in mixed] == [1.0, -1.0, -1.0, -1.0]


class _Slow(ScriptedClient):
    """Answers after a while, so that calls wait for each other."""

    async def complete(self, request):
        await asyncio.sleep(0.001)
        return await super().complete(request)


@pytest.mark.parametrize("make", [LLMJudgeReward, PairwiseJudgeReward])
def test_one_judge_serves_one_event_loop_after_the_other(make, turn, candidates, persona):
    """As in shards, each of which has a loop of its own; more calls wait than may be under way."""
    said = '{"score": 3, "better": "equal"}'
    judge = make(_Slow([said]))
    many = [candidates[0].model_copy(update={"text": f"answer {i}"}) for i in range(12)]

    async def ask() -> None:
        tables = await asyncio.gather(*(judge.score(turn, many, persona) for _ in range(15)))
        assert all(verdict.value is not None for verdicts in tables for verdict in verdicts)

    for _ in range(2):
        asyncio.run(ask())
