"""Yes or no, item by item: McNemar's test is statsmodels', and where users have several items the report says so."""

import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.binary_outcomes import grid
from rlhi_eval_harness.report.markdown import render_markdown
from rlhi_eval_harness.report.page import render_page


def coin(share, salt):
    """0 or 1, known for each user and item."""
    return lambda user, item: float(np.random.default_rng([user, item, salt]).random() < share)


def given(worse=0.3, better=0.7):
    return {
        "base": {"gain": coin(worse, 1), "leak": coin(0.1, 2)},
        "base+persona": {"gain": coin(better, 3), "leak": coin(0.4, 4)},
    }


def _row(report: EvalReport, metric="gain", group="all"):
    (row,) = [each for each in report.config["tests"]["rows"] if (each["metric"], each["group"]) == (metric, group)]
    return row


def _cells(metric, users, items):
    one, other = (given()[name][metric] for name in ("base+persona", "base"))
    cells = np.zeros((2, 2), dtype=int)
    for user in range(users):
        for item in range(items):
            cells[1 - int(one(user, item)), 1 - int(other(user, item))] += 1
    return cells


@pytest.mark.parametrize(("users", "exact"), [(20, True), (90, False)])
def test_independent_outcomes_are_tested_as_statsmodels_does_and_corrected(make_report, read, users, exact):
    report = read(make_report("r", given(), users=users, items=1))
    rows = report.config["tests"]["rows"]
    assert {row["test"] for row in rows} == {"McNemar"}
    p_values = []
    for metric in ("gain", "leak"):
        cells = _cells(metric, users, 1)
        found = _row(report, metric)["binary"]
        counts = [[found["both"], found["only_first"]], [found["only_second"], found["neither"]]]
        assert counts == cells.tolist()
        discordant = cells[0, 1] + cells[1, 0]
        assert found["exact"] == (discordant < 25)
        p_values.append(mcnemar(cells, exact=bool(discordant < 25), correction=True).pvalue)
        assert _row(report, metric)["p_value"] == found["p_value"] == pytest.approx(p_values[-1])
        assert found["most"] == 1
        assert "over_users" not in found
    assert _row(report)["binary"]["exact"] == exact
    assert [row["adjusted"] for row in rows] == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    (said,) = [finding for finding in report.findings if finding.startswith("Item by item")]
    assert said.startswith(f"Item by item, base+persona against base: of {users} items")


def test_outcomes_of_one_user_are_not_taken_as_independent(make_report, read):
    folder = make_report("r", given(), users=12, items=4)
    report = read(folder)
    row = _row(report)
    found, over = row["binary"], row["binary"]["over_users"]
    assert row["test"] == "sign flips"
    assert (found["items"], found["clusters"], found["most"]) == (48, 12, 4)
    cells = _cells("gain", 12, 4)
    assert cells[0, 1] + cells[1, 0] >= 25
    assert found["p_value"] == pytest.approx(mcnemar(cells, exact=False, correction=True).pvalue)
    one, other = (given()[name]["gain"] for name in ("base+persona", "base"))
    sums = np.array([sum(one(user, item) - other(user, item) for item in range(4)) for user in range(12)])
    known = permutation_test((sums, np.zeros(12)), lambda a, b: (a - b).mean(), permutation_type="samples")
    assert row["p_value"] == over["p_value"] == pytest.approx(known.pvalue, abs=1e-9)
    (difference,) = [each for each in report.differences if (each.metric, each.group) == ("gain", "all")]
    assert (over["value"], over["low"], over["high"]) == (difference.value, difference.low, difference.high)
    assert not [finding for finding in report.findings if finding.startswith("Item by item")]
    for text in (render_markdown(report), render_page(report)):
        assert "up to 4 items each" in text
        assert "takes items as independent" in text


def test_a_user_that_counts_many_times_fools_mcnemar_and_not_the_test_that_counts(make_report, read):
    same = {
        "base": {"gain": lambda user, item: 0.0, "leak": lambda user, item: 0.0},
        "base+persona": {"gain": lambda user, item: float(user < 3), "leak": lambda user, item: 0.0},
    }
    row = _row(read(make_report("r", same, users=12, items=8)))
    assert row["binary"]["p_value"] < 0.001
    assert row["p_value"] == 0.25


def test_groups_within_which_items_are_independent_are_tested_apart(make_report, read):
    report = read(make_report("r", given(), users=30, items=2))
    rows = [row for row in report.config["tests"]["rows"] if row["metric"] == "gain"]
    assert {row["group"]: row["test"] for row in rows} == {
        "all": "sign flips", "initial": "McNemar", "follow-up": "McNemar"
    }  # fmt: skip
    assert report.config["tests"]["comparisons"] == 6
    assert any("base+persona against base, initial: of 30 items" in each for each in report.findings)
    assert any(name.startswith("Gain, initial: ") for name, _ in grid(report).rows)


def test_shares_and_what_is_not_to_be_used_are_not_yes_or_no(make_report, read):
    half = {**given()["base+persona"], "gain": lambda user, item: 0.5}
    assert _row(read(make_report("half", {**given(), "base+persona": half}, items=1)))["binary"] is None
    holes = {**given()["base+persona"], "gain": lambda user, item: "judge_prose" if user < 3 else 1.0}
    report = read(make_report("holes", {**given(), "base+persona": holes}, items=1))
    assert (_row(report)["binary"], _row(report)["p_value"]) == (None, None)
