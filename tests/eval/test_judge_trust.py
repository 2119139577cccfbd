"""Judges whose agreement and biases are known because we made them, through to what the report prints."""

import json

import pytest

from rlhi_eval_harness.judging import Judgment, Question
from rlhi_eval_harness.pairwise import both_orders
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.report.judge_trust import judge_trust
from rlhi_eval_harness.report.people import trust_grid
from rlhi_plugin.prompt_files import Prompt
from rlhi_plugin.records import ChatMessage

PROMPT = Prompt("compare", "text")
USERS, EACH = 12, 4


def _plan():
    prompt = (ChatMessage(role="user", content="?"),)
    return [
        PlannedSample(
            sample_id=f"u{user:02d}/{number}/ours", suite="s", subject="ours", user=f"u{user:02d}", request="?",
            prompt=prompt, max_tokens=1, temperature=0.0, seed=0,
        )
        for user in range(USERS)
        for number in range(EACH)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return _plan()


@pytest.fixture(scope="module")
def questions(plan):
    found = []
    for place, sample in enumerate(plan):
        ours, theirs = f"ours {'word ' * (5 + place % 7)}", f"theirs {'word ' * (5 + place % 5)}"
        for variant in ("hidden", "shown"):
            found += both_orders(f"{sample.sample_id}/{variant}", PROMPT, {}, (ours, theirs), ("overall",))
        found.append(Question(f"{sample.sample_id}/replay", PROMPT, {}, {"asks_again": ("yes", "no")}))
    return found


def judged(questions, verdict, *, name="j", replay=lambda place: "yes"):
    found = {}
    for place, question in enumerate(questions):
        answers = {"overall": verdict(question)} if "overall" in question.answers else {"asks_again": replay(place)}
        found[question.question_id] = Judgment(
            question_id=question.question_id, judge=name, version=question.version, answers=answers
        )
    return found


def quality(question):
    """Ours is better of even users."""
    ours = int(question.question_id[1:3]) % 2 == 0
    return "A" if ours == question.question_id.endswith("/first") else "B"


def longer(question):
    lengths = [len(question.shown[f"answer_{side}"].split()) for side in "AB"]
    return "tie" if lengths[0] == lengths[1] else "A" if lengths[0] > lengths[1] else "B"


def rows(questions, plan, *verdicts, **more):
    found = judge_trust(
        questions, {f"j{n}": judged(questions, each, **more) for n, each in enumerate(verdicts)}, plan, resamples=200
    )
    json.dumps(found)  # it stands in report.json
    return {(row["judge"], row["what"]): row for row in found}


def test_a_fair_judge(questions, plan):
    found = rows(questions, plan, quality)
    assert set(found) == {("j0", "overall, hidden"), ("j0", "overall, shown"), ("j0", "asks_again")}
    row = found["j0", "overall, hidden"]
    assert row["comparisons"] == USERS * EACH
    assert (row["between_orders"]["observed"], row["between_orders"]["kappa"]) == (1.0, pytest.approx(1.0))
    assert (row["first_wins"]["value"], row["flipped"]["value"], row["first_wins_p"]) == (0.5, 0.0, None)
    assert row["longer_wins"]["low"] < 0.5 < row["longer_wins"]["high"]
    assert row["first_wins"]["clusters"] == USERS
    assert found["j0", "asks_again"] == {"judge": "j0", "what": "asks_again", "pairwise": False}


def test_a_judge_that_takes_the_first(questions, plan):
    row = rows(questions, plan, lambda question: "A")["j0", "overall, shown"]
    assert (row["first_wins"]["value"], row["flipped"]["value"]) == (1.0, 1.0)
    assert row["between_orders"]["observed"] == 0.0
    assert row["first_wins_p"] < 1e-6


def test_a_judge_that_counts_words(questions, plan):
    row = rows(questions, plan, longer)["j0", "overall, hidden"]
    assert row["longer_wins"]["value"] == 1.0
    assert row["length_correlation"] > 0.9
    assert row["first_wins"]["value"] == 0.5


def test_two_judges_agree_or_do_not(questions, plan):
    same = rows(questions, plan, quality, quality)["j1", "overall, hidden"]["with_first_judge"]
    assert (same["observed"], same["value"], same["n"]) == (1.0, pytest.approx(1.0), 2 * USERS * EACH)
    opposite = rows(questions, plan, quality, lambda question: "B" if quality(question) == "A" else "A")
    assert opposite["j1", "overall, hidden"]["with_first_judge"]["value"] == pytest.approx(-1.0)
    unrelated = rows(questions, plan, quality, longer)["j1", "overall, hidden"]["with_first_judge"]
    assert abs(unrelated["value"]) < 0.25
    assert unrelated["low"] < unrelated["value"] < unrelated["high"]
    assert "with_first_judge" not in rows(questions, plan, quality, longer)["j0", "overall, hidden"]


def test_what_a_judge_left_out_is_unpaired_and_unscored(questions, plan):
    first, second = judged(questions, quality), judged(questions, quality, name="k")
    gone = "u00/0/ours/hidden/first"
    second[gone] = Judgment(question_id=gone, judge="k", version="v", unscored="judge_prose")
    del second["u00/1/ours/hidden/second"]
    found = {
        (row["judge"], row["what"]): row
        for row in judge_trust(questions, {"j": first, "k": second}, plan, resamples=50)
    }
    row = found["k", "overall, hidden"]
    assert row["with_first_judge"]["unpaired"] == 2
    assert (row["first_wins"]["unscored"], row["longer_wins"]["unscored"]) == (2, 2)
    assert row["between_orders"]["unpaired"] == 2


def test_the_table_says_what_was_measured(questions, plan):
    found = judge_trust(
        questions, {"a": judged(questions, quality), "b": judged(questions, longer)}, plan, resamples=50
    )
    grid = trust_grid(found)
    names = [name for name, _ in grid.rows]
    assert names == [
        "a: overall, hidden",
        "a: overall, shown",
        "b: overall, hidden",
        "b: overall, shown",
        "b: asks_again",
    ]
    cells = dict(zip(grid.columns[1:], grid.rows[2][1], strict=True))
    assert cells["Longer wins, ties half"].value == "100 %"
    assert cells["First wins, ties half"].value == "50 %"
    assert cells["Kappa with first judge"].interval
    assert trust_grid([]).rows == ()
