"""Judges whose biases are known because we made them."""

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr

from rlhi_eval_harness.inference import SeenBothWays, length_bias, position_bias
from rlhi_eval_harness.statistics import Value


def _both(verdicts):
    return [SeenBothWays(f"k{i:03d}", f"k{i:03d}", one, other) for i, (one, other) in enumerate(verdicts)]


def test_a_judge_that_always_takes_the_first():
    found = position_bias(_both([(1.0, 0.0)] * 40))
    assert found.first_wins.value == 1.0
    assert found.flipped.value == 1.0
    assert found.p_value == pytest.approx(binomtest(40, 40).pvalue)
    assert found.between_orders.observed == 0.0


def test_a_fair_judge():
    found = position_bias(_both([(1.0, 1.0), (0.0, 0.0)] * 30))
    assert (found.first_wins.value, found.flipped.value, found.p_value) == (0.5, 0.0, None)
    assert found.between_orders.kappa == pytest.approx(1.0)


def test_a_leaning_judge_lies_inside_its_interval():
    rng = np.random.default_rng(0)
    lean = 0.7  # how often the first answer wins when the two are equally good
    one = (rng.uniform(size=300) < lean).astype(float)
    other = (rng.uniform(size=300) > lean).astype(float)
    found = position_bias(_both(zip(one, other, strict=True)))
    assert found.first_wins.low < lean < found.first_wins.high
    assert found.first_wins.low > 0.5
    assert found.p_value < 0.001


def test_a_comparison_with_one_verdict_is_unscored():
    found = position_bias(_both([(1.0, None), (1.0, 1.0), (0.5, 0.5)]))
    assert (found.first_wins.n, found.first_wins.unscored, found.between_orders.unpaired) == (2, 1, 1)


def test_a_judge_that_counts_words():
    rng = np.random.default_rng(1)
    lengths = [(float(a), float(b)) for a, b in rng.integers(10, 400, (200, 2))]
    verdicts = [Value(f"u{i}", f"k{i}", float(a > b)) for i, (a, b) in enumerate(lengths)]
    found = length_bias(verdicts, lengths)
    assert found.longer_wins.value == 1.0
    relative = [(a - b) / (a + b) for a, b in lengths]
    assert found.correlation == pytest.approx(spearmanr(relative, [each.value for each in verdicts]).statistic)
    assert found.p_value < 1e-6


def test_a_judge_that_does_not_look_at_length():
    rng = np.random.default_rng(2)
    lengths = [(float(a), float(b)) for a, b in rng.integers(10, 400, (300, 2))]
    verdicts = [Value(f"u{i}", f"k{i}", float(v)) for i, v in enumerate(rng.integers(0, 2, 300))]
    found = length_bias(verdicts, lengths)
    assert found.longer_wins.low < 0.5 < found.longer_wins.high
    assert abs(found.correlation) < 0.15


def test_equal_lengths_say_nothing_about_length():
    verdicts = [Value("u", "a", 1.0), Value("v", "b", None)]
    found = length_bias(verdicts, [(5, 5), (9, 1)])
    assert (found.longer_wins.n, found.longer_wins.unscored, found.correlation) == (0, 1, None)
    assert found.median_ratio == 1.0
