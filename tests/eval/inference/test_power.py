"""The minimum detectable effect: statsmodels' where it applies, and true to its name in a simulation."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from rlhi_eval_harness.inference import minimum_detectable_effect, paired_p_value
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ConfigError


def _values(table: np.ndarray, shift: float = 0.0) -> list[Value]:
    return [
        Value(f"u{i:03d}", f"{i:03d}/{j}", float(x) + shift) for i, row in enumerate(table) for j, x in enumerate(row)
    ]


def _zeros(table: np.ndarray) -> list[Value]:
    return _values(np.zeros_like(table))


def test_one_answer_per_user_is_the_paired_t_test():
    table = np.random.default_rng(0).normal(0.0, 2.0, (30, 1))
    found = minimum_detectable_effect(_values(table), _zeros(table))
    standardised = TTestPower().solve_power(nobs=30, alpha=0.05, power=0.8)
    assert found.difference == pytest.approx(standardised * table.std(ddof=1))
    assert found.standard_error == pytest.approx(table.std(ddof=1) / np.sqrt(30))
    assert found.design_effect == pytest.approx(1.0)


def test_answers_that_resemble_one_another_count_as_one():
    once = np.random.default_rng(1).normal(0.0, 1.0, (20, 1))
    often = np.repeat(once, 10, axis=1)
    single = minimum_detectable_effect(_values(once), _zeros(once))
    many = minimum_detectable_effect(_values(often), _zeros(often))
    assert many.difference == pytest.approx(single.difference)
    assert many.design_effect == pytest.approx(10, rel=0.06)


def test_a_difference_of_that_size_is_found_about_as_often_as_asked_for():
    rng = np.random.default_rng(4)
    users = 24

    def draw() -> np.ndarray:
        return rng.normal(0.0, 1.0, (users, 1)) + rng.normal(0.0, 1.0, (users, 4))

    expected = np.mean(
        [minimum_detectable_effect(_values(t), _zeros(t)).difference for t in (draw() for _ in range(40))]
    )
    found = 0
    for _ in range(150):
        table = draw()
        found += paired_p_value(_values(table, expected), _zeros(table), resamples=400) <= 0.05
    assert 0.7 <= found / 150 <= 0.9


def test_edges():
    table = np.ones((1, 3))
    assert minimum_detectable_effect(_values(table), _zeros(table)) is None
    constant = np.ones((5, 2))
    assert minimum_detectable_effect(_values(constant), _zeros(constant)).difference == 0.0
    with pytest.raises(ConfigError, match="power"):
        minimum_detectable_effect(_values(constant), _zeros(constant), power=0.01)


def test_every_number_of_users_has_an_answer():
    """Of 120 at this level statsmodels returns an array of one number, of the others a number."""
    found = {}
    for users in (119, 120, 121):
        ours = [Value(f"u{u}", f"{u}", float(u % 2)) for u in range(users)]
        base = [Value(f"u{u}", f"{u}", 0.0) for u in range(users)]
        found[users] = minimum_detectable_effect(ours, base, power=0.8, level=0.05).difference
    assert 0.99 < found[120] / found[119] < 1.0
    assert 0.99 < found[121] / found[120] < 1.0
