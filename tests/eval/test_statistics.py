"""Intervals against scipy, against arithmetic, and against the truth in a simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, t

from rlhi_eval_harness.statistics import Value, mean, nominal_level, paired_difference


def _values(per_user: dict[str, list[float | None]]) -> list[Value]:
    return [Value(user, f"{user}/{i}", value) for user, values in per_user.items() for i, value in enumerate(values)]


def test_one_answer_per_user_is_scipys_bootstrap_of_the_mean():
    data = np.random.default_rng(1).normal(3.0, 2.0, 20)
    ours = mean(_values({f"u{i:02d}": [x] for i, x in enumerate(data)}), seed=5, resamples=999)
    theirs = bootstrap(
        (data,),
        np.mean,
        n_resamples=999,
        confidence_level=nominal_level(20),
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.value == pytest.approx(data.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_the_level_is_widened_as_hesterberg_gives_it():
    level = nominal_level(10)
    assert norm.ppf((1 + level) / 2) == pytest.approx(np.sqrt(10 / 9) * t.ppf(0.975, 9))
    assert nominal_level(1000) == pytest.approx(0.95, abs=1e-3)


def test_the_mean_is_over_answers_and_the_spread_over_users():
    values = _values({"a": [1.0] * 9, "b": [0.0]})
    result = mean(values, resamples=500)
    assert result.value == pytest.approx(0.9)
    assert (result.n, result.clusters) == (10, 2)
    # Ten answers, but only two users: the data cannot rule out either extreme.
    assert (result.low, result.high) == (0.0, 1.0)


def test_repeating_each_users_answers_adds_no_evidence():
    rng = np.random.default_rng(0)
    once = {f"u{i:02d}": [float(rng.normal())] for i in range(12)}
    many = {user: values * 50 for user, values in once.items()}
    assert mean(_values(many)).low == pytest.approx(mean(_values(once)).low)


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.lists(st.none() | st.floats(-10, 10), min_size=1, max_size=4),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_unscored_is_counted_and_never_enters_the_mean(per_user):
    result = mean(_values(per_user), resamples=100)
    scored = [value for values in per_user.values() for value in values if value is not None]
    assert result.n == len(scored)
    assert result.n + result.unscored == sum(map(len, per_user.values()))
    if scored:
        assert result.value == pytest.approx(np.mean(scored))
    else:
        assert (result.value, result.low, result.high) == (None, None, None)
    if result.low is not None:
        assert min(scored) - 1e-9 <= result.low <= result.high <= max(scored) + 1e-9


def test_one_user_has_a_mean_and_no_interval():
    result = mean(_values({"a": [0.0, 1.0]}))
    assert (result.value, result.low, result.high, result.clusters) == (0.5, None, None, 1)


def test_a_share_that_is_zero_everywhere_still_has_an_upper_end():
    nothing = mean(_values({f"u{i}": [0.0, 0.0] for i in range(16)}), share=True)
    assert nothing.low == 0.0
    assert nothing.high == pytest.approx(1 - 0.025 ** (1 / 16))
    everything = mean(_values({f"u{i}": [1.0] for i in range(16)}), share=True)
    assert (everything.low, everything.high) == (pytest.approx(0.025 ** (1 / 16)), 1.0)


def test_paired_differences_pair_by_key_and_count_what_has_no_partner():
    first = [Value("a", "a/1", 1.0), Value("a", "a/2", None), Value("b", "b/1", 3.0), Value("c", "c/1", 9.0)]
    second = [Value("b", "b/1", 1.0), Value("a", "a/1", 0.0), Value("a", "a/2", 5.0)]
    result = paired_difference(first, second, resamples=200)
    assert result.value == pytest.approx(1.5)
    assert (result.n, result.clusters, result.unscored) == (2, 2, 2)
    reversed_ = paired_difference(second, first, resamples=200)
    assert reversed_.value == pytest.approx(-1.5)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Twelve users with effects of their own, five answers each; single answers would give far less."""
    rng = np.random.default_rng(42)
    hits = naive = 0
    trials = 300
    for _ in range(trials):
        users = rng.normal(0.0, 1.0, 12)
        data = users[:, None] + rng.normal(0.0, 0.5, (12, 5))
        result = mean(_values({f"u{i:02d}": list(row) for i, row in enumerate(data)}), resamples=300)
        hits += result.low <= 0.0 <= result.high
        reach = 1.96 * data.std(ddof=1) / np.sqrt(data.size)
        naive += abs(data.mean()) <= reach
    assert 0.92 <= hits / trials <= 0.985
    assert naive / trials < 0.75
