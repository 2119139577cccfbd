"""What a report says of many comparisons: the corrections are statsmodels', the tests scipy's, the sentences ours."""

import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower


def shifted(share):
    """A gain that differs between users, so that there is a spread to test against."""
    return {"gain": lambda user, item: float((5 * user + 3 * item) % 16 < 16 * share), "leak": lambda user, item: 0.0}


@pytest.fixture
def folder(make_report):
    return make_report("r", {"base": shifted(0.2), "base+persona": shifted(0.3), "adapter+persona": shifted(0.9)})


def _row(report, subject, versus):
    (row,) = [
        row
        for row in report.config["tests"]["rows"]
        if (row["metric"], row["subject"], row["versus"]) == ("gain", subject, versus)
    ]
    return row


def _sums(subject, versus):
    one, other = ({"base": 0.2, "base+persona": 0.3, "adapter+persona": 0.9}[name] for name in (subject, versus))
    return np.array(
        [
            sum(shifted(one)["gain"](user, item) - shifted(other)["gain"](user, item) for item in range(4))
            for user in range(12)
        ]
    )


def test_p_values_and_what_would_be_missed_are_the_libraries(folder, read):
    report = read(folder)
    tests = report.config["tests"]
    rows = [row for row in tests["rows"] if row["p_value"] is not None]
    assert tests["comparisons"] == len(rows) == 6, "three comparisons of gain and of leak; health is not tested"
    adjusted = multipletests([row["p_value"] for row in rows], method="holm")[1]
    assert [row["adjusted"] for row in rows] == pytest.approx(list(adjusted))
    small = _row(report, "base+persona", "base")
    sums = _sums("base+persona", "base")
    known = permutation_test((sums, np.zeros(12)), lambda a, b: (a - b).mean(), permutation_type="samples")
    assert small["p_value"] == pytest.approx(known.pvalue, abs=1e-9)
    spread = (sums / 4).std(ddof=1)
    size = TTestPower().solve_power(nobs=12, alpha=0.05 / 6, power=0.8)
    assert small["detectable"] == pytest.approx(size * spread)


def test_what_stands_is_named_and_what_could_not_be_seen_too(folder, read):
    report = read(folder)
    (said,) = [finding for finding in report.findings if finding.startswith("Corrected for")]
    assert said.startswith("Corrected for 6 comparisons (Holm), 2 stand: gain of adapter+persona against base+persona")
    assert said.endswith("The other 4 could be chance.")
    (missed,) = [finding for finding in report.findings if "would mostly have been missed" in finding]
    size = 100 * _row(report, "base+persona", "base")["detectable"]
    assert missed.endswith(f"base+persona against base {size:.0f} points.")


def test_equal_subjects_and_too_few_users_are_told_as_they_are(make_report, read):
    same = read(make_report("same", {"base": shifted(0.5), "base+persona": shifted(0.5)}))
    assert "Corrected for 2 comparisons (Holm), no difference stands: each could be chance." in same.findings
    few = read(make_report("few", {"base": shifted(0.0), "base+persona": shifted(1.0)}, users=4))
    assert any("no difference could stand with 4 users, however large: evaluate more." in each for each in few.findings)


def test_what_is_not_to_be_used_is_not_tested(make_report, read):
    holes = {**shifted(0.9), "gain": lambda user, item: "judge_prose" if item == 0 else 1.0}
    report = read(make_report("holes", {"base": shifted(0.2), "base+persona": holes}))
    assert _row(report, "base+persona", "base")["p_value"] is None
    assert report.config["tests"]["comparisons"] == 1


def test_the_pages_say_it_too(folder):
    from rlhi_eval_harness.evaluate import EvalReport
    from rlhi_eval_harness.report.markdown import render_markdown
    from rlhi_eval_harness.report.page import render_page

    report = EvalReport.model_validate_json((folder / "report.json").read_text())
    for text in (render_markdown(report), render_page(report)):
        assert "Would mostly be missed below" in text
        assert "corrected together for 6 comparisons (Holm)" in text
