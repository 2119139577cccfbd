"""What changed item by item where every outcome is a yes or a no: the reports' own table, second against first.

McNemar's test decides where each user has one item; where a user has several, whole users are flipped, as everywhere.
"""

from __future__ import annotations

from rlhi_eval_harness.compare.records import Change, ComparisonReport
from rlhi_eval_harness.compare.sides import Side
from rlhi_eval_harness.records import Metric
from rlhi_eval_harness.report import binary_outcomes
from rlhi_eval_harness.report.binary_outcomes import Sides
from rlhi_eval_harness.report.tables import Grid


def parts_of(before: Side, after: Side, pair: tuple[str, str], metric: Metric, group: str | None) -> Sides | None:
    """The yes-or-no parts that the first metric is the mean of, the second report's first; None without any."""
    if group is not None or metric.name != next(iter(before.metrics)):
        return None
    details = [each for name, each in before.metrics.items() if each.role == "detail" and name in after.metrics]
    return binary_outcomes.joined(
        [(each, (after.values(pair[1], each.name), before.values(pair[0], each.name))) for each in details]
    )


def grid(found: ComparisonReport) -> Grid:
    """Binary outcomes that changed for at least one item, as a table; empty where there are none."""
    metrics = {metric.name: metric for metric in found.metrics}
    rows = []
    for each in found.changes:
        if each.binary is not None and _changed(each):
            subject = each.subject if each.subject == each.subject_after else f"{each.subject} → {each.subject_after}"
            named = binary_outcomes.label(metrics[each.metric], each.group, each.binary)
            rows.append((f"{named}: {subject}", metrics[each.metric], each.binary))
    return binary_outcomes.grid_of(rows, found.clusters, names=("after", "before"))


def note(found: ComparisonReport) -> str:
    """What the table counts, and what McNemar's test takes for granted."""
    same = sum(each.binary is not None and not _changed(each) for each in found.changes)
    rest = f" Left out: {same} comparisons in which no item changed." if same else ""
    return binary_outcomes.explained(found.clusters) + rest


def _changed(each: Change) -> bool:
    return each.binary is not None and each.binary["only_first"] + each.binary["only_second"] > 0
