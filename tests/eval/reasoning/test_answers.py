"""Answers checked by our own task files, and by lm_eval's through them."""

import pytest

from rlhi_eval_harness.reasoning import answers
from rlhi_eval_harness.reasoning.checking import TIMED_OUT, Checker
from rlhi_eval_harness.reasoning.kind import Reasoning


@pytest.mark.parametrize(
    ("gold", "text", "same"),
    [
        ("4.5e33", "It is $4.5 \\times 10^{33}$.", True),
        ("4.5e33", "\\boxed{4.5e33}", True),
        ("4.5e33", "\\boxed{4.4e33}", False),
        ("-1,2", "\\boxed{2, -1}", True),
        ("-1,2", "\\boxed{2}", False),
        ("\\frac{1}{2}", "so \\boxed{0.5}", True),
        ("90^{\\circ}", "\\boxed{90}", True),
    ],
)
def test_equal_objects_are_equal_however_they_are_written(gold, text, same):
    assert answers.same(gold, text) is same


def test_numbers_near_one_another():
    assert answers.near("4.5e3", "\\boxed{4532}", relative=0.01)
    assert not answers.near("4.5e3", "\\boxed{4600}", relative=0.01)
    assert not answers.near("x", "\\boxed{x}", relative=0.01)


def _results(suite, name, texts):
    bench = Reasoning(suite(name))._benchmark
    (task,) = bench.tasks.values()
    items = next(iter(bench.items.values()))[: len(texts)]
    return Checker(task, bench.metric).check(items, texts, [False] * len(texts))


def test_olympiad_answers_may_be_several_an_expression_or_nearly_right(suite):
    verdicts = _results(suite, "olympiadbench", ["\\boxed{2,-1}", "\\boxed{x+22}", "\\boxed{4.25}"])
    assert [verdict.correct for verdict in verdicts] == [1.0, 1.0, 1.0]
    verdicts = _results(suite, "olympiadbench", ["\\boxed{2}", "\\boxed{x+21}", "\\boxed{4.5}"])
    assert [verdict.correct for verdict in verdicts] == [0.0, 0.0, 0.0]


def test_a_course_answer_has_three_verdicts(suite):
    texts = ["Final Answer: The final answer is $0.5e3$. I hope it is correct.", "\\boxed{1507}", "\\boxed{9}"]
    found = [verdict.metrics for verdict in _results(suite, "minerva_math", texts)]
    assert [each["math_verify,none"] for each in found] == [1.0, 0.0, 0.0]
    assert [each["within_1_percent,none"] for each in found] == [1.0, 1.0, 0.0]
    assert found[0]["exact_match,none"] == 1.0


def test_a_check_that_does_not_come_back_is_no_wrong_answer(suite, monkeypatch):
    from rlhi_eval_harness.reasoning import checking

    monkeypatch.setattr(checking, "CHECK_SECONDS", 0.0)
    verdicts = _results(suite, "amc23", ["\\boxed{0}", "\\boxed{3}"])
    assert [(each.correct, each.unscored) for each in verdicts] == [(1.0, None), (None, TIMED_OUT)]


@pytest.mark.slow
def test_a_tower_of_powers_ends_after_the_time_limit(suite):
    (verdict,) = _results(suite, "amc23", ["\\boxed{9^{9^{9^{9}}}}"])
    assert verdict.unscored == TIMED_OUT
