"""Files of both layouts: read whole, or refused with what is wrong."""

import json

import pytest

from rlhi_eval_harness.arena_hard.files import Question, read_answers, read_judgments, read_questions
from rlhi_eval_harness.arena_hard.style import Style
from rlhi_plugin.errors import ConfigError, RecordError

QUESTIONS = [Question(f"q{i}", "hard_prompt", f"Do {i}.") for i in range(3)]


def _lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_questions_of_both_layouts(tmp_path):
    new = {"uid": "a", "category": "hard_prompt", "prompt": "Do it."}
    old = {"question_id": "b", "turns": [{"content": "Do that."}]}
    found = read_questions(_lines(tmp_path / "q.jsonl", [new, old]))
    assert found == (Question("a", "hard_prompt", "Do it."), Question("b", "arena-hard-v0.1", "Do that."))
    with pytest.raises(RecordError, match=r"q\.jsonl:2: question a occurs twice"):
        read_questions(_lines(tmp_path / "q.jsonl", [new, new]))


def test_answers_of_both_layouts(tmp_path):
    metadata = {"token_len": 5, "header_count": {"h1": 1, "h2": 2}, "list_count": {"ordered": 4}, "bold_count": {}}
    rows = [
        {
            "uid": "q0",
            "model": "m",
            "messages": [{"role": "assistant", "content": {"answer": "x"}}],
            "metadata": metadata,
        },
        {"uid": "q1", "model": "m", "messages": [{"role": "assistant", "content": "y"}]},
        {"question_id": "q2", "model_id": "m", "choices": [{"turns": [{"content": "z"}]}]},
    ]
    found = read_answers(_lines(tmp_path / "m.jsonl", rows), QUESTIONS)
    assert [(found[q.uid].model, found[q.uid].text) for q in QUESTIONS] == [("m", "x"), ("m", "y"), ("m", "z")]
    assert (found["q0"].style, found["q1"].style) == (Style(5, 3, 4, 0), None)


def test_bad_answers_are_named(tmp_path):
    def answer(uid, text="x"):
        return {"uid": uid, "model": "m", "messages": [{"content": text}]}

    path = tmp_path / "m.jsonl"
    with pytest.raises(ConfigError, match=r"1 of 3 questions have no answer .such as q2"):
        read_answers(_lines(path, [answer("q0"), answer("q1")]), QUESTIONS)
    with pytest.raises(RecordError, match=r"m\.jsonl:2: q0 is answered twice"):
        read_answers(_lines(path, [answer("q0"), answer("q0")]), QUESTIONS)
    with pytest.raises(RecordError, match="x9 is no question of the set"):
        read_answers(_lines(path, [answer("x9")]), QUESTIONS)
    with pytest.raises(RecordError, match="has no text"):
        read_answers(_lines(path, [answer("q0", None)]), QUESTIONS)
    with pytest.raises(RecordError, match="no uid"):
        read_answers(_lines(path, [{"model": "m"}]), QUESTIONS)
    path.write_text("{half")
    with pytest.raises(RecordError, match=r"m\.jsonl:1: no JSON"):
        read_answers(path, QUESTIONS)
    with pytest.raises(ConfigError, match="arena-hard-auto"):
        read_answers(tmp_path / "nowhere.jsonl", QUESTIONS)


def test_judgments_with_holes(tmp_path):
    rows = [
        {"uid": "q0", "games": [{"score": "A>B"}, None]},
        {"question_id": "q1", "games": [{"score": "nonsense"}, {"score": None, "unscored": "the judge refused"}]},
    ]
    found = read_judgments(_lines(tmp_path / "j.jsonl", rows), QUESTIONS)
    reasons = {each.uid: [game.unscored for game in each.games] for each in found}
    assert reasons["q0"] == [None, "no verdict was stored"]
    assert "none of the five" in reasons["q1"][0]
    assert reasons["q1"][1] == "the judge refused"
    assert reasons["q2"] == ["not judged", "not judged"]
    assert {each.category for each in found} == {"hard_prompt"}
    with pytest.raises(RecordError, match="judged twice"):
        read_judgments(_lines(tmp_path / "j.jsonl", [rows[0], rows[0]]))
    with pytest.raises(RecordError, match="no question of the set"):
        read_judgments(_lines(tmp_path / "j.jsonl", [{"uid": "z", "games": []}]), QUESTIONS)
