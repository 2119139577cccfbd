"""Scores by hand, against the logistic fit that upstream runs, and intervals against the truth."""

import numpy as np
import pytest

from rlhi_eval_harness.arena_hard.scores import arena_score, battles, bradley_terry, scored_games
from rlhi_eval_harness.arena_hard.verdicts import LABELS
from rlhi_plugin.errors import ConfigError

FIVE = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]


def test_a_score_by_hand(judgment):
    # Seen from the model: lost clearly (3 x 0), won (1), tie (0.5), won clearly (3 x 1): 4.5 of 8.
    rows = [judgment("a", "A>>B", "A>B"), judgment("b", "A=B", "A>>B")]
    found = arena_score(rows, "v0.1")
    assert found.score == pytest.approx(100 * 4.5 / 8)
    assert found.verdicts == {"lost clearly": 1, "won": 1, "tie": 1, "won clearly": 1}
    assert (found.coverage.scored, found.coverage.unscored) == (4, 0)


def test_versions_treat_half_judged_questions_apart(judgment):
    rows = [judgment("a", "B>A", "A>B"), judgment("b", None, "B>A")]
    assert arena_score(rows, "v0.1").score == pytest.approx(100 * 2 / 3)
    assert arena_score(rows, "v2.0").score == pytest.approx(100)
    assert not arena_score(rows, "v0.1").coverage.usable


def test_the_share_of_wins_is_the_bradley_terry_fit(judgment):
    rng = np.random.default_rng(0)
    models = {
        m: [judgment(f"q{i}", *rng.choice(FIVE, 2, p=p)) for i in range(60)]
        for m, p in {"one": [0.3, 0.2, 0.1, 0.2, 0.2], "two": [0.1, 0.1, 0.2, 0.3, 0.3]}.items()
    }
    games = [(i, game) for i, rows in enumerate(models.values()) for game in scored_games(rows, "v0.1")]
    design = np.zeros((len(games), 3))
    design[np.arange(len(games)), [i for i, _ in games]] = 1
    design[:, 2] = -1
    wins = np.array([game.win for _, game in games])
    weights = np.array([float(game.weight) for _, game in games])
    strengths = bradley_terry(design, wins, weights)
    fitted = 100 / (1 + np.exp(-(strengths[:2] - strengths[2])))
    shares = [arena_score(rows, "v0.1").score for rows in models.values()]
    assert fitted == pytest.approx(shares, abs=1e-3)


def test_a_ridge_pulls_towards_even():
    design = np.array([[1.0, -1.0]] * 10)
    wins = np.array([1.0] * 9 + [0.0])
    free = bradley_terry(design, wins, np.ones(10))
    held = bradley_terry(design, wins, np.ones(10), ridge=1.0)
    assert free[0] - free[1] == pytest.approx(np.log(9), abs=1e-4)
    assert 0 < held[0] - held[1] < np.log(9)


def test_an_interval_over_battles_takes_copies_for_evidence(judgment):
    rng = np.random.default_rng(1)
    # Both games of a question, and the three copies of a verdict, always agree.
    rows = [judgment(f"q{i}", *(("B>>A", "A>>B") if rng.uniform() < 0.4 else ("A>>B", "B>>A"))) for i in range(80)]
    found = arena_score(rows, "v0.1", resamples=2000)
    by_question, by_battle = found.high - found.low, found.upstream_high - found.upstream_low
    assert by_question / by_battle == pytest.approx(np.sqrt(6), rel=0.15)


def test_intervals_over_questions_cover_the_truth_and_those_over_battles_do_not(judgment):
    rng = np.random.default_rng(7)
    inside = upstream = 0
    trials = 120
    for _ in range(trials):
        hard = rng.uniform(size=60) < 0.5
        rows = [judgment(f"q{i}", *(("B>>A", "A>>B") if won else ("A>>B", "B>>A"))) for i, won in enumerate(hard)]
        found = arena_score(rows, "v0.1", resamples=200)
        inside += found.low <= 50 <= found.high
        upstream += found.upstream_low <= 50 <= found.upstream_high
    assert inside / trials > 0.88
    assert upstream / trials < 0.75


def test_position_bias_is_measured(judgment):
    found = arena_score([judgment(f"q{i}", "A>B", "A>B") for i in range(20)], "v2.0")
    assert found.score == 50
    assert found.position_bias.first_wins.value == 1.0
    assert found.position_bias.p_value < 1e-4


def test_nothing_scored_is_no_score(judgment):
    with pytest.raises(ConfigError, match=r"2 x no verdict.*not to be used"):
        arena_score([judgment("a", None, None)], "v2.0")


def test_battles_repeat_what_weighs_more(judgment):
    wins, owners = battles(scored_games([judgment("a", "B>>A", "A=B")], "v0.1"))
    assert (wins.tolist(), owners) == ([1.0, 1.0, 1.0, 0.5], ["a"] * 4)
    assert {weight for _, weight in LABELS.values()} == {1, 3}
