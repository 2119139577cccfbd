"""The share of unscored items, and what is said of it."""

from rlhi_eval_harness.inference import Coverage


def test_everything_scored():
    coverage = Coverage.of([None] * 20)
    assert (coverage.share, coverage.usable) == (0.0, True)
    assert coverage.sentence() == "All 20 scored."


def test_five_percent_is_the_limit():
    at_limit = Coverage.of([None] * 95 + ["the judge refused"] * 5)
    above = Coverage.of([None] * 94 + ["the judge refused"] * 6)
    assert (at_limit.usable, above.usable) == (True, False)
    assert "not to be used" not in at_limit.sentence()
    assert "6 x the judge refused" in above.sentence()
    assert above.sentence().endswith("the number is not to be used.")


def test_nothing_to_score_is_not_usable():
    assert not Coverage.of([]).usable
    assert not Coverage.of(["absent"]).usable
