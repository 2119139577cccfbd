"""The resampled coefficients are the libraries' own, and their intervals count users and not answers."""

import numpy as np
import pytest

from rlhi_eval_harness.inference import RatedTwice, clustered_alpha, clustered_kappa, cohens_kappa, krippendorff_alpha
from rlhi_eval_harness.inference.clustered_agreement import alphas, kappas, resampled


def _raters(rng, n, agree):
    one = rng.integers(0, 3, n)
    other = np.where(rng.uniform(size=n) < agree, one, rng.integers(0, 3, n))
    return one, other


@pytest.mark.parametrize("weights", [None, "quadratic"])
def test_kappa_of_a_table_is_statsmodels(weights):
    one, other = _raters(np.random.default_rng(0), 150, 0.6)
    table = np.zeros((1, 3, 3))
    np.add.at(table[0], (one, other), 1)
    distance = np.abs(np.arange(3)[:, None] - np.arange(3)[None, :]).astype(float)
    apart = (distance > 0).astype(float) if weights is None else distance**2
    theirs = cohens_kappa(
        {str(i): float(v) for i, v in enumerate(one)}, {str(i): float(v) for i, v in enumerate(other)}, weights=weights
    )
    assert kappas(table, apart)[0] == pytest.approx(theirs.kappa)
    ours = clustered_kappa(
        [RatedTwice(f"u{i}", int(a), int(b)) for i, (a, b) in enumerate(zip(one, other, strict=True))], weights=weights
    )
    assert ours.value == pytest.approx(theirs.kappa)
    # With one answer a user, the bootstrap and the large-sample variance say the same.
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.03), pytest.approx(theirs.high, abs=0.03))


def test_alpha_of_coincidences_is_krippendorffs_own_example():
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C: four observers, twelve units.
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    table = np.zeros((1, 5, 5))
    for unit in zip(*observers, strict=True):
        said = [value for value in unit if value is not None]
        counts = np.bincount(np.array(said) - 1, minlength=5).astype(float)
        if len(said) > 1:
            table[0] += (np.outer(counts, counts) - np.diag(counts)) / (len(said) - 1)
    assert alphas(table)[0] == pytest.approx(0.743, abs=6e-4)
    ratings = [{f"i{i}": float(v) for i, v in enumerate(row) if v is not None} for row in observers]
    found = clustered_alpha(ratings, {f"i{i}": f"u{i}" for i in range(12)})
    assert found.value == pytest.approx(krippendorff_alpha(ratings))
    assert (found.n, found.clusters) == (11, 11)
    assert found.low < 0.743 < found.high


def test_repeated_answers_of_the_same_users_do_not_narrow_the_interval():
    one, other = _raters(np.random.default_rng(1), 40, 0.6)
    once = [RatedTwice(f"u{i}", int(a), int(b)) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    found, again = clustered_kappa(once), clustered_kappa(once * 9)
    assert (again.value, again.low, again.high) == pytest.approx((found.value, found.low, found.high))
    independent = [RatedTwice(f"{pair.user}/{n}", pair.first, pair.second) for n in range(9) for pair in once]
    narrow = clustered_kappa(independent)
    assert narrow.high - narrow.low < 0.5 * (found.high - found.low)


def test_the_interval_of_alpha_covers_the_truth_as_often_as_it_says():
    # Two raters say the same with chance a, else each draws anew: alpha is a, up to the small-sample term.
    covered = 0
    for seed in range(100):
        one, other = _raters(np.random.default_rng(seed), 120, 0.5)
        ratings = [{f"i{i}": float(v) for i, v in enumerate(said)} for said in (one, other)]
        found = clustered_alpha(ratings, {f"i{i}": f"u{i // 2}" for i in range(120)}, resamples=400)
        covered += found.low <= 0.5 <= found.high
    assert 88 <= covered <= 100


def test_where_there_is_nothing_to_tell_there_is_no_number():
    assert clustered_kappa([]).value is None
    one_user = clustered_kappa([RatedTwice("u", 0, 0), RatedTwice("u", 1, 1), RatedTwice("u", 0, 1)])
    assert (one_user.low, one_user.clusters, one_user.n) == (None, 1, 3)
    always = clustered_kappa([RatedTwice("u", 0, 0), RatedTwice("v", 0, 0)])
    assert (always.value, always.low) == (None, None)
    alone = clustered_alpha([{"a": 1.0}, {"b": 1.0}], {"a": "u", "b": "v"})
    assert (alone.value, alone.n) == (None, 0)
    # Four users, of whom one alone makes the statistic exist: most resamples lack it.
    exists = lambda sums: np.where(sums[:, 0] > 0, sums[:, 0], np.nan)  # noqa: E731 - read where it is used
    assert resampled(np.array([[1.0], [0], [0], [0]]), exists) == (None, None)
