"""Tests and corrections against scipy, against arithmetic, and against what they promise in simulations."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, false_discovery_control, ttest_rel

from rlhi_eval_harness.inference import correct, mcnemar, paired_p_value
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ConfigError


def _binary(pairs: list[tuple[float | None, float | None]]) -> tuple[list[Value], list[Value]]:
    first = [Value(f"u{i}", f"k{i}", one) for i, (one, _) in enumerate(pairs)]
    second = [Value(f"u{i}", f"k{i}", other) for i, (_, other) in enumerate(pairs)]
    return first, second


def test_mcnemar_with_few_discordant_pairs_is_the_binomial_test():
    result = mcnemar(*_binary([(1, 1)] * 20 + [(1, 0)] * 9 + [(0, 1)] * 2 + [(0, 0)] * 5 + [(None, 1)] * 3))
    assert (result.both, result.only_first, result.only_second, result.neither, result.unpaired) == (20, 9, 2, 5, 3)
    assert result.exact
    assert result.p_value == pytest.approx(binomtest(2, 11).pvalue)


def test_mcnemar_with_many_is_the_corrected_chi_squared_test():
    result = mcnemar(*_binary([(1, 0)] * 121 + [(0, 1)] * 59 + [(1, 1)] * 101 + [(0, 0)] * 33))
    assert not result.exact
    statistic = (abs(121 - 59) - 1) ** 2 / (121 + 59)
    assert result.p_value == pytest.approx(chi2.sf(statistic, 1))


def test_mcnemar_of_equal_results_finds_nothing():
    assert mcnemar(*_binary([(1, 1), (0, 0)])).p_value == 1.0


def test_mcnemar_refuses_what_is_not_binary():
    with pytest.raises(ConfigError, match="paired_p_value"):
        mcnemar(*_binary([(0.5, 1)]))


def test_the_sign_flip_test_is_exact_for_few_users():
    rng = np.random.default_rng(3)
    difference = rng.normal(0.8, 1.0, 8)
    values = [Value(f"u{i}", f"k{i}", x) for i, x in enumerate(difference)]
    baseline = [Value(f"u{i}", f"k{i}", 0.0) for i in range(8)]
    flips = np.array(list(itertools.product([-1, 1], repeat=8))) * difference
    by_hand = np.mean(np.abs(flips.mean(axis=1)) >= abs(difference.mean()) - 1e-12)
    assert paired_p_value(values, baseline) == pytest.approx(by_hand)


def test_the_sign_flip_test_agrees_with_the_t_test_for_many_users():
    rng = np.random.default_rng(5)
    one, other = rng.normal(0.25, 1.0, 120), rng.normal(0.0, 1.0, 120)
    values = [Value(f"u{i}", f"k{i}", x) for i, x in enumerate(one)]
    baseline = [Value(f"u{i}", f"k{i}", x) for i, x in enumerate(other)]
    assert paired_p_value(values, baseline) == pytest.approx(ttest_rel(one, other).pvalue, abs=0.02)


def test_repeating_each_users_answers_adds_no_evidence():
    rng = np.random.default_rng(1)
    effect = rng.normal(0.4, 1.0, 10)

    def values(copies: int, factor: float) -> list[Value]:
        return [Value(f"u{i}", f"k{i}/{j}", factor * x) for i, x in enumerate(effect) for j in range(copies)]

    assert paired_p_value(values(1, 1.0), values(1, 0.0)) == pytest.approx(
        paired_p_value(values(30, 1.0), values(30, 0.0))
    )


def test_one_user_has_no_p_value():
    assert paired_p_value([Value("u", "a", 1.0)], [Value("u", "a", 0.0)]) is None


def test_holm_is_the_step_down_of_bonferroni():
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    found = {each.name: each for each in correct(p_values)}
    # Sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, never falling.
    assert {name: found[name].adjusted for name in "dacb"} == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert [name for name in "abcd" if found[name].significant] == ["a", "d"]


def test_benjamini_hochberg_is_scipys():
    rng = np.random.default_rng(0)
    p_values = {f"c{i}": float(p) for i, p in enumerate(rng.uniform(0, 1, 40) ** 3)}
    found = correct(p_values, method="benjamini-hochberg")
    theirs = false_discovery_control(list(p_values.values()), method="bh")
    assert [each.adjusted for each in found] == pytest.approx(list(theirs))


def test_holm_keeps_false_findings_under_the_level():
    """Twenty comparisons without any difference: uncorrected, most evaluations would find one."""
    rng = np.random.default_rng(11)
    runs = [{f"c{i}": float(p) for i, p in enumerate(rng.uniform(0, 1, 20))} for _ in range(30)]
    corrected = np.mean([any(each.significant for each in correct(run)) for run in runs])
    naive = np.mean([any(p <= 0.05 for p in run.values()) for run in runs])
    assert corrected <= 0.15
    assert naive > 0.5


def test_corrections_refuse_nonsense_and_take_nothing():
    assert correct({}) == ()
    with pytest.raises(ConfigError, match="holm"):
        correct({"a": 0.1}, method="bonferroni-ish")
    with pytest.raises(ConfigError, match="Leave comparisons"):
        correct({"a": float("nan")})
