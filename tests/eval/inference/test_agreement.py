"""Agreement on cases whose answer is published or can be worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rlhi_eval_harness.inference import cohens_kappa, krippendorff_alpha
from rlhi_plugin.errors import ConfigError


def _by_item(ratings):
    return {f"i{i:03d}": value for i, value in enumerate(ratings)}


def test_kappa_by_hand():
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, by chance 0.5, kappa 0.4.
    first = _by_item([1.0] * 25 + [0.0] * 25)
    second = _by_item([1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15)
    found = cohens_kappa(first, second)
    assert (found.items, found.unpaired, found.observed) == (50, 0, pytest.approx(0.7))
    assert found.kappa == pytest.approx(0.4)
    assert found.low < 0.4 < found.high


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_is_scikit_learns(weights):
    rng = np.random.default_rng(2)
    one = rng.choice([0.0, 0.5, 1.0], 200)
    other = np.where(rng.uniform(size=200) < 0.6, one, rng.choice([0.0, 0.5, 1.0], 200))
    found = cohens_kappa(_by_item(one), _by_item(other), weights=weights)
    theirs = cohen_kappa_score((one * 2).astype(int), (other * 2).astype(int), weights=weights)
    assert found.kappa == pytest.approx(theirs)


def test_kappa_leaves_unscored_out_and_says_how_many():
    found = cohens_kappa({"a": 1.0, "b": 0.0, "c": None, "d": 1.0}, {"a": 1.0, "b": 1.0, "c": 0.0})
    assert (found.items, found.unpaired) == (2, 2)
    assert cohens_kappa({"a": None}, {"a": 1.0}).kappa is None
    always = cohens_kappa({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    assert (always.observed, always.kappa) == (1.0, None)
    with pytest.raises(ConfigError, match="quadratic"):
        cohens_kappa({}, {}, weights="cubic")


# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_own_example(level, alpha):
    ratings = [_by_item(None if value is None else float(value) for value in row) for row in OBSERVERS]
    assert krippendorff_alpha(ratings, level=level) == pytest.approx(alpha, abs=6e-4)


def test_alpha_of_nothing_to_pair_is_no_number():
    assert krippendorff_alpha([{"a": 1.0}, {"b": 2.0}]) is None
    assert krippendorff_alpha([{"a": 1.0}, {"a": 1.0}]) is None
    assert krippendorff_alpha([]) is None
