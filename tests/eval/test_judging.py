"""Judges that answer, ramble, refuse, are cut, or rate-limited, over HTTP and through the client that users have."""

import json
from collections import Counter

import pytest

from rlhi_eval_harness.judging import Judgment, Question, judge, read_judgments, read_reply
from rlhi_eval_harness.models import open_served
from rlhi_eval_harness.pairwise import both_orders, order_consistency, win
from rlhi_eval_harness.run_folder import read_records
from rlhi_plugin.chat import ChatReply, ScriptedClient
from rlhi_plugin.errors import ArtefactError, ModelCallError
from rlhi_plugin.fake_provider import Answer, FakeProvider, HTTPFault
from rlhi_plugin.prompt_files import Prompt

PROMPT = Prompt("compare", "Compare.")
DIMENSIONS = ("overall",)
SHORT, LONG = "Short.", "A good deal longer than the other."


def _questions(count=4):
    pairs = [(f"q{i}", (SHORT, LONG) if i % 2 == 0 else (LONG, SHORT)) for i in range(count)]
    return [each for name, pair in pairs for each in both_orders(name, PROMPT, {"request": name}, pair, DIMENSIONS)]


def _prefers_short(request):
    shown = json.loads(request.last_user_text)
    return json.dumps({"overall": "A" if len(shown["answer_A"]) < len(shown["answer_B"]) else "B"})


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")


def _client(provider):
    return open_served(f"openai/judge@{provider.base_url}")


def test_both_orders_are_asked_and_a_fair_judge_is_consistent(tmp_path):
    questions, path = _questions(), tmp_path / "judgments.jsonl"
    with FakeProvider(_prefers_short) as provider:
        judge(questions, _client(provider), path)
        assert len(provider.requests) == 8
        judge(questions, _client(provider), path)
        assert len(provider.requests) == 8
        assert provider.requests[0].system_text == "Compare."
    judgments = {each.question_id: each for each in read_judgments(path, "openai/judge", questions)}
    wins = [win(judgments, f"q{i}", (SHORT, LONG) if i % 2 == 0 else (LONG, SHORT), "overall") for i in range(4)]
    assert wins == [1.0, 0.0, 1.0, 0.0]
    assert order_consistency(judgments) == 1.0


def test_a_judge_that_always_takes_the_first_gives_halves_and_is_found_out(tmp_path):
    questions, path = _questions(2), tmp_path / "judgments.jsonl"
    judge(questions, ScriptedClient(['{"overall": "a"}'], model="first"), path)
    judgments = {each.question_id: each for each in read_judgments(path, "first", questions)}
    assert win(judgments, "q0", (SHORT, LONG), "overall") == 0.5
    assert order_consistency(judgments) == 0.0


def test_what_a_judge_does_not_say_is_unscored_with_its_reason(tmp_path):
    questions, path = _questions(3), tmp_path / "judgments.jsonl"
    script = [
        Answer("I would rather have the first one, since it is friendlier."),
        Answer("", finish_reason="content_filter"),
        Answer('{"overall": "A", "reason": "it', finish_reason="length"),
        Answer('Sure:\n```json\n{"overall": "B"}\n```'),
        Answer('{"overall": "both"}'),
        Answer(""),
    ]
    with FakeProvider(script) as provider:
        for question in questions:
            judge([question], _client(provider), path)
    judgments = read_judgments(path, "openai/judge", questions)
    assert Counter(each.unscored for each in judgments) == Counter(
        ["judge_prose", "judge_refused", "judge_cut", None, "judge_unclear_overall", "judge_empty"]
    )
    by_id = {each.question_id: each for each in judgments}
    assert win(by_id, "q0", (SHORT, LONG), "overall") == "judge_prose"
    assert by_id[questions[0].question_id].reply.startswith("I would rather")


def test_a_rate_limited_call_is_unscored_and_asked_again_later(tmp_path, monkeypatch):
    questions, path = _questions(2), tmp_path / "judgments.jsonl"
    limited = {questions[1].question_id}

    class Limited(ScriptedClient):
        async def complete(self, request):
            if limited and json.loads(request.messages[1].content)["answer_A"] == LONG and "q0" in str(request):
                raise ModelCallError("judge: RateLimitError. Wait.")
            return await super().complete(request)

    client = Limited(['{"overall": "tie"}'], model="m")
    judge(questions, client, path)
    first = {each.question_id: each.unscored for each in read_judgments(path, "m", questions)}
    assert first[questions[1].question_id] == "judge_call_failed: judge: RateLimitError. Wait."
    assert sum(reason is None for reason in first.values()) == 3
    limited.clear()
    judge(questions, client, path)
    assert all(each.unscored is None for each in read_judgments(path, "m", questions))
    assert len(read_records(path, Judgment)) == 5


def test_a_judge_that_cannot_be_reached_fails_the_scoring(tmp_path):
    with FakeProvider(lambda request: HTTPFault(401, "no such key")) as provider, pytest.raises(ModelCallError):
        judge(_questions(8), _client(provider), tmp_path / "judgments.jsonl")


def test_a_judgment_counts_for_exactly_its_question_and_once(tmp_path):
    questions, path = _questions(1), tmp_path / "judgments.jsonl"
    judge(questions, ScriptedClient(['{"overall": "A"}'], model="m"), path)
    changed = [Question(each.question_id, Prompt("compare", "Else."), each.shown, each.answers) for each in questions]
    assert read_judgments(path, "m", changed) == []
    other = [Question(each.question_id, each.prompt, {"request": "?"}, each.answers) for each in questions]
    assert read_judgments(path, "m", other) == []
    assert read_judgments(path, "n", questions) == []
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ArtefactError, match="twice"):
        read_judgments(path, "m", questions)


def test_a_torn_judgment_is_asked_again(tmp_path):
    questions, path = _questions(1), tmp_path / "judgments.jsonl"
    client = ScriptedClient(['{"overall": "A"}'], model="m")
    judge(questions, client, path)
    path.write_text(path.read_text()[:-20])
    judge(questions, client, path)
    assert len(read_judgments(path, "m", questions)) == 2
    assert len(client.requests) == 3


def test_equal_answers_tie_without_a_call():
    assert both_orders("q", PROMPT, {}, ("same", "same "), DIMENSIONS) == []
    assert win({}, "q", ("same", "same "), "overall") == 0.5
    assert win({}, "q", ("same", "other"), "overall") == "not_judged"


@pytest.mark.parametrize(
    ("text", "read"),
    [('{"verdict": "Yes"}', {"verdict": "yes"}), ("[]", "judge_prose"), ('{"v": "yes"}', "judge_unclear_verdict")],
)
def test_replies_are_read_with_care(text, read):
    assert read_reply(ChatReply(text=text), {"verdict": ("yes", "no")}) == read
