"""Judging with any chat client: both orders, resumable, nothing lost; and over HTTP with a real client."""

import json

import pytest

from rlhi_eval_harness.arena_hard.files import ModelAnswer, Question, read_judgments
from rlhi_eval_harness.arena_hard.judging import Contest, JudgeOptions, identity_in, judge
from rlhi_eval_harness.arena_hard.prompts import load_prompts
from rlhi_eval_harness.arena_hard.scores import arena_score
from rlhi_plugin.chat import ChatReply, ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError

QUESTIONS = [Question(f"q{i}", "hard_prompt", f"Do {i} {{with braces}}.") for i in range(4)]
CONTEST = Contest(
    QUESTIONS,
    {q.uid: ModelAnswer(q.uid, "ours", "GOOD {answer}") for q in QUESTIONS},
    {q.uid: ModelAnswer(q.uid, "theirs", "poor answer") for q in QUESTIONS},
)


def fair(request):
    text = request.messages[-1].content
    return "I prefer it. [[A>>B]]" if "A: GOOD" in text else "I prefer it. [[B>>A]]"


async def test_a_fair_judge_sees_the_better_answer_in_both_orders(tmp_path, prompt_folder):
    client = ScriptedClient(fair, model="judge-1")
    out = tmp_path / "judgments" / "ours.jsonl"
    assert await judge(CONTEST, client, load_prompts(prompt_folder, "v2.0"), out) == 4
    score = arena_score(read_judgments(out, QUESTIONS), "v2.0")
    assert (score.score, score.position_bias.first_wins.value) == (100.0, 0.5)
    assert len(client.requests) == 8
    assert "{with braces}" in client.requests[0].messages[1].content
    row = json.loads(out.read_text("utf-8").splitlines()[0])
    assert (row["judge"], row["model"], row["baseline"], row["published_prompt"]) == (
        "judge-1",
        "ours",
        "theirs",
        False,
    )
    assert len(row["prompt_digest"]) == 16


async def test_a_second_run_asks_only_what_is_left_even_after_a_kill(tmp_path, prompt_folder):
    out, prompts = tmp_path / "j.jsonl", load_prompts(prompt_folder, "v2.0")
    await judge(Contest(QUESTIONS[:2], CONTEST.answers, CONTEST.baseline), ScriptedClient(fair), prompts, out)
    with out.open("a") as file:
        file.write('{"uid": "q2", "half')
    client = ScriptedClient(fair)
    assert await judge(CONTEST, client, prompts, out) == 2
    assert len(client.requests) == 4
    assert {each.uid for each in read_judgments(out, QUESTIONS)} == {q.uid for q in QUESTIONS}
    assert await judge(CONTEST, client, prompts, out) == 0


class Moody(ScriptedClient):
    """Answers prose, refuses, is cut off, or fails, question by question."""

    async def complete(self, request):
        text = request.messages[-1].content
        if "Do 0" in text:
            return (ChatReply(text="Both are quite good."),)
        if "Do 1" in text:
            return (ChatReply(text="", finish_reason="refused"),)
        if "Do 2" in text:
            return (ChatReply(text="Let me think about", finish_reason="length"),)
        raise ModelCallError("judge: RateLimitError. Wait.")


async def test_what_a_moody_judge_leaves_unscored_has_a_reason(tmp_path, prompt_folder):
    out, prompts = tmp_path / "j.jsonl", load_prompts(prompt_folder, "v2.0")
    with pytest.raises(ModelCallError, match=r"1 of 4 questions could not be judged: .*RateLimitError.*run the same"):
        await judge(CONTEST, Moody("", model="scripted"), prompts, out)
    reasons = {each.uid: each.games[0].unscored for each in read_judgments(out, QUESTIONS)}
    assert reasons == {
        "q0": "no verdict in the judge's text",
        "q1": "the judge refused",
        "q2": "no verdict in the judge's text: it was cut off",
        "q3": "not judged",
    }
    await judge(CONTEST, ScriptedClient(fair), prompts, out)
    assert arena_score(read_judgments(out, QUESTIONS), "v2.0").coverage.share == pytest.approx(6 / 8)


async def test_a_file_of_another_judge_or_prompt_is_not_mixed_in(tmp_path, prompt_folder):
    out = tmp_path / "j.jsonl"
    await judge(CONTEST, ScriptedClient(fair, model="one"), load_prompts(prompt_folder, "v2.0"), out)
    with pytest.raises(ConfigError, match="judged by one"):
        await judge(CONTEST, ScriptedClient(fair, model="two"), load_prompts(prompt_folder, "v2.0"), out)
    (prompt_folder / "hard_prompt.md").write_text("Another prompt.")
    with pytest.raises(ConfigError, match="another prompt"):
        await judge(CONTEST, ScriptedClient(fair, model="one"), load_prompts(prompt_folder, "v2.0"), out)
    out.write_text('{"other": "file"}\n')
    with pytest.raises(ConfigError, match="no judgment of ours"):
        await judge(CONTEST, ScriptedClient(fair), load_prompts(prompt_folder, "v2.0"), out)


async def test_missing_answers_stop_it_before_the_first_call(tmp_path, prompt_folder):
    client = ScriptedClient(fair)
    contest = Contest(QUESTIONS, {k: v for k, v in CONTEST.answers.items() if k != "q1"}, CONTEST.baseline)
    with pytest.raises(ConfigError, match="1 questions lack an answer"):
        await judge(contest, client, load_prompts(prompt_folder, "v2.0"), tmp_path / "j.jsonl")
    assert client.requests == []
    with pytest.raises(ConfigError, match="concurrency=0"):
        JudgeOptions(concurrency=0)


class Served(ScriptedClient):
    """An alias behind which one model after the other answers."""

    def __init__(self, *models):
        super().__init__(fair, model="gpt-4.1")
        self.models = models

    async def complete(self, request):
        (reply,) = await super().complete(request)
        named = self.models[min(len(self.requests), len(self.models)) - 1]
        return (reply.model_copy(update={"text": reply.text + "\u2028Done.", "served_by": named}),)


async def test_every_game_carries_the_model_that_answered_and_a_change_is_told_at_once(tmp_path, prompt_folder, capsys):
    out, prompts = tmp_path / "j.jsonl", load_prompts(prompt_folder, "v2.0")
    first = Contest(QUESTIONS[:2], CONTEST.answers, CONTEST.baseline)
    await judge(first, Served("gpt-4.1-2025-04-14"), prompts, out)
    assert "has changed" not in capsys.readouterr().err
    assert identity_in(out).answered_by == {"gpt-4.1-2025-04-14": 4}
    await judge(CONTEST, Served("gpt-4.1-2026-01-01"), prompts, out)
    warned = capsys.readouterr().err.replace("\n", " ")
    assert warned.count("has changed") == 1
    assert "gpt-4.1-2026-01-01 answers now, and gpt-4.1-2025-04-14 did before" in warned
    found = identity_in(out)
    assert (found.judge, found.pin.kind, found.changed) == ("gpt-4.1", "alias", True)
    assert found.answered_by == {"gpt-4.1-2025-04-14": 4, "gpt-4.1-2026-01-01": 4}
    rows = [json.loads(line) for line in out.read_text("utf-8").split("\n") if line]
    assert {game["answered_by"] for game in rows[0]["games"]} == {"gpt-4.1-2025-04-14"}
    assert arena_score(read_judgments(out, QUESTIONS), "v2.0").score == 100.0


async def test_judgments_from_before_models_were_on_record_count_as_unnamed(tmp_path, prompt_folder):
    out, prompts = tmp_path / "j.jsonl", load_prompts(prompt_folder, "v2.0")
    await judge(CONTEST, Served("gpt-4.1-2025-04-14"), prompts, out)
    rows = [json.loads(line) for line in out.read_text("utf-8").split("\n") if line]
    for row in rows[:1]:
        for game in row["games"]:
            del game["answered_by"]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert await judge(CONTEST, Served("gpt-4.1-2025-04-14"), prompts, out) == 0
    assert (identity_in(out).answered_by, identity_in(out).unnamed) == ({"gpt-4.1-2025-04-14": 6}, 2)
