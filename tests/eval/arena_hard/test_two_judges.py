"""Agreement of two judges, game by game."""

import pytest

from rlhi_eval_harness.arena_hard.two_judges import judges_agree

ROWS = [("A>>B", "B>A"), ("B>A", "A>B"), ("A=B", "A>>B"), ("A>B", "B>>A")]


def test_a_judge_agrees_with_itself_whatever_the_strength_of_its_verdicts(judgment):
    first = [judgment(f"q{i}", *labels) for i, labels in enumerate(ROWS)]
    milder = [judgment(f"q{i}", *(each.replace(">>", ">") for each in labels)) for i, labels in enumerate(ROWS)]
    found = judges_agree(first, milder)
    assert (found.items, found.observed) == (8, 1.0)
    assert found.kappa == pytest.approx(1.0)


def test_opposite_judges_disagree_and_unscored_games_are_counted(judgment):
    first = [judgment(f"q{i}", "A>B", "A>B") for i in range(4)]
    opposite = [judgment(f"q{i}", "B>A", "B>A") for i in range(3)] + [judgment("q3", None, "B>A")]
    found = judges_agree(first, opposite)
    assert (found.items, found.unpaired, found.observed) == (7, 1, 0.0)
    assert found.kappa < -0.9
