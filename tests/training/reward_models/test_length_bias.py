"""The measure of length bias: known cases, and invariance to what scores do not mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.reward_models.length_bias import length_bias


def test_known_cases():
    longer_is_better = [[(1.0, 10), (2.0, 20), (3.0, 30)], [(-5.0, 1), (5.0, 2)]]
    assert length_bias(longer_is_better) == {
        "requests": 2,
        "answers": 5,
        "correlation": 1.0,
        "comparisons": 4,
        "longer_wins": 1.0,
    }
    against = [[(score, -length + 100) for score, length in answers] for answers in longer_is_better]
    assert length_bias(against)["correlation"] == -1.0
    assert length_bias(against)["longer_wins"] == 0.0
    level = length_bias([[(1.0, 10), (2.0, 10)], [(1.0, 5), (1.0, 9)], [(3.0, 3)], []])
    assert level == {"requests": 2, "answers": 4, "correlation": None, "comparisons": 0, "longer_wins": None}


_ANSWERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 200)), min_size=2, max_size=6)


@given(requests=st.lists(_ANSWERS, min_size=1, max_size=6), scale=st.integers(1, 9), shift=st.integers(-99, 99))
def test_scores_are_compared_within_a_request_only(requests, scale, shift):
    measured = length_bias(requests)
    moved = [[(score * scale + shift, n) for score, n in requests[0]], *requests[1:]]
    again = length_bias(moved)
    assert again["longer_wins"] == measured["longer_wins"]
    assert again["correlation"] == pytest.approx(measured["correlation"], abs=1e-3)
    if measured["correlation"] is not None:
        assert -1.0001 <= measured["correlation"] <= 1.0001
