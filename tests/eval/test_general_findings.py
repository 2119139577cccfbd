"""Sentences of any suite: they claim what the intervals allow, and say first what is not to be used."""

from rlhi_eval_harness.numbers import Numbers
from rlhi_eval_harness.records import Estimate, Metric
from rlhi_eval_harness.report.general_findings import general_findings

GAIN = Metric(name="gain", label="Gain", meaning="m", role="headline")
HARM = Metric(name="harm", label="Harm", meaning="m", role="harm", better="lower")
WINS = Metric(name="wins", label="Wins", meaning="m", neutral=0.5)


def _estimate(metric, subject, value, low, high, **more):
    values = {"n": 40, "clusters": 20, "unscored": 0, **more}
    return Estimate(metric=metric, subject=subject, value=value, low=low, high=high, **values)


def _found(*estimates, differences=(), metrics=(GAIN, HARM, WINS)):
    return general_findings(Numbers(estimates, differences), metrics)


def test_gain_and_harm_are_both_told():
    found = _found(
        _estimate("gain", "a", 0.5, 0.4, 0.6),
        differences=[
            _estimate("gain", "b", 0.2, 0.1, 0.3, versus="a"),
            _estimate("harm", "b", 0.3, 0.2, 0.4, versus="a"),
        ],
    )
    assert found[0].startswith("Gain: a is first with 50 % (95 % interval 40 to 60; 40 answers, 20 users)")
    assert "Gain: b does better than a, +20 points (95 % interval +10 to +30)." in found
    assert "Harm: b does worse than a, +30 points (95 % interval +20 to +40)." in found


def test_intervals_that_include_zero_claim_nothing():
    found = _found(
        _estimate("gain", "a", 0.5, 0.4, 0.6),
        differences=[_estimate(metric, "b", 0.2, -0.1, 0.3, versus="a") for metric in ("gain", "harm")],
    )
    assert found[0].endswith("but all pairwise intervals include zero, so no difference can be claimed.")
    assert "Harm: all pairwise intervals include zero, so no difference can be claimed." in found
    assert not any("does better" in sentence for sentence in found)


def test_pairs_that_nobody_looked_at_are_not_said_to_include_zero():
    three = [_estimate("gain", name, 0.5, 0.4, 0.6) for name in "abc"]
    two = [_estimate("gain", name, 0.1, -0.1, 0.3, versus="a") for name in "bc"]
    said = _found(*three, differences=two)[0]
    assert said.endswith(
        "but all pairwise intervals that were looked at (2 of 3) include zero, so no difference can be claimed."
    )
    third = _estimate("gain", "c", 0.1, -0.1, 0.3, versus="b")
    assert "but all pairwise intervals include zero" in _found(*three, differences=[*two, third])[0]


def test_win_rates_are_held_against_chance():
    found = _found(
        _estimate("wins", "a", 0.7, 0.6, 0.8),
        _estimate("wins", "b", 0.3, 0.2, 0.4),
        _estimate("wins", "c", 0.6, 0.4, 0.8),
    )
    assert "Wins: a wins against the baseline, 70 % (95 % interval 60 to 80)." in found
    assert "Wins: b loses against the baseline, 30 % (95 % interval 20 to 40)." in found
    assert "Wins: not shown to win or lose against the baseline: c 60 % (95 % interval 40 to 80)." in found


def test_too_much_unscored_is_said_before_the_number():
    first, second = _found(_estimate("gain", "a", 0.5, 0.4, 0.6, unscored=3))[:2]
    assert first == "Gain: not to be used, because more than 5 % is unscored (a 7 %)."
    assert second.startswith("Gain: a is first")


def test_there_is_always_something_to_say():
    assert _found() == ("Nothing could be scored on gain: no subject has a value.",)
    nothing = _estimate("gain", "a", None, None, None, n=0, clusters=0, unscored=9)
    assert _found(nothing)[0] == "Gain: not to be used, because more than 5 % is unscored (a 100 %)."
    assert any("Only 3 users" in sentence for sentence in _found(_estimate("gain", "a", 0.5, 0.4, 0.6, clusters=3)))
