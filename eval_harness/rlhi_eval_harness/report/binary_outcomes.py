"""Two subjects item by item where every outcome is a yes or a no: McNemar's test, and what it takes for granted.

The test counts items on which only one of the two succeeded, and takes items as independent. Where each user (or each
item of a benchmark) has one outcome, they are. Where a user has several, they are not: the test then stands beside the
sign flips of whole users and an interval over users, which are the ones to use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlhi_eval_harness.inference import mcnemar, paired_p_value
from rlhi_eval_harness.inference.comparisons import paired
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import EvalReport, Metric
from rlhi_eval_harness.report.analysis import Table
from rlhi_eval_harness.report.tables import NOTHING, Cell, Grid, number
from rlhi_eval_harness.statistics import RESAMPLES, Value, paired_difference

MCNEMAR = "McNemar"
SIGN_FLIPS = "sign flips"
PARTS = "single preferences"
"""What is paired where an answer is scored on several yes-or-no parts: each part of each answer."""

Sides = tuple[Sequence[Value], Sequence[Value]]


def binary(sides: Sides, metric: Metric) -> bool:
    """Whether there are pairs, and each scored value of them is 0 or 1."""
    pairs, _ = paired(*sides)
    return metric.unit == "share" and bool(pairs) and all({pair.first, pair.second} <= {0.0, 1.0} for pair in pairs)


def independent(sides: Sides) -> bool:
    """Whether no user has more than one pair."""
    return _most(sides) <= 1


def _most(sides: Sides) -> int:
    pairs, _ = paired(*sides)
    return max(Counter(pair.user for pair in pairs).values(), default=0)


def outcome(sides: Sides, *, seed: int, unit: str = "items", resamples: int = RESAMPLES) -> dict[str, Any]:
    """McNemar's test of binary outcomes, and where users have several, what holds over users.

    Returns:
        `McNemar`'s fields; ``unit``; ``items``; ``clusters`` (users); ``most`` (items of one user at most); where that
        is above 1 ``over_users``: ``value``, ``low``, ``high`` (bootstrap of whole users) and ``p_value`` (sign flips).
    """
    test, (pairs, _) = mcnemar(*sides), paired(*sides)
    found = {
        **asdict(test),
        "unit": unit,
        "items": len(pairs),
        "clusters": len({pair.user for pair in pairs}),
        "most": _most(sides),
    }
    if independent(sides):
        return found
    interval = paired_difference(*sides, seed=seed, resamples=resamples)
    over = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {**found, "over_users": {**over, "p_value": paired_p_value(*sides, seed=seed)}}


def parts_of(table: Table, metric: Metric, subject: str, versus: str) -> Sides | None:
    """The yes-or-no parts that the first metric is the mean of, each part of each answer an item; None without any."""
    parts = [each for each in table.metrics if each.role == "detail"]
    if metric is not table.metrics[0] or not parts:
        return None
    one, other = (
        [
            Value(each.user, f"{each.key}/{part.name}", each.value)
            for part in parts
            for each in table.values(part.name, name, table.groups(part.name)[ALL])
        ]
        for name in (subject, versus)
    )
    sides = (one, other)
    return sides if binary(sides, parts[0]) else None


def grid(report: EvalReport) -> Grid:
    """Every binary comparison as a table; empty where there is none."""
    named = {metric.name: metric for metric in report.metrics}
    tests = report.config.get("tests") or {"rows": ()}
    rows = [
        (_label(named[row["metric"]], row), tuple(_cells(named[row["metric"]], row["binary"])))
        for row in tests["rows"]
        if row.get("binary")
    ]
    clusters = str(report.config.get("clusters", "users"))
    heads = (
        "Difference", "Items", f"Of {clusters}", "Both", "Only first", "Only second", "Neither", "McNemar p",
        f"Difference over {clusters}", f"p over {clusters}",
    )  # fmt: skip
    return Grid(heads, tuple(rows)) if rows else Grid((), ())


def _label(metric: Metric, row: Mapping[str, Any]) -> str:
    where = [name for name in (row["group"], row["binary"]["unit"]) if name not in {ALL, "items"}]
    return f"{', '.join([metric.label, *where])}: {row['subject']} − {row['versus']}"  # noqa: RUF001 - a minus sign


def _cells(metric: Metric, found: Mapping[str, Any]) -> list[Cell]:
    counts = ("items", "clusters", "both", "only_first", "only_second", "neither")
    over = found.get("over_users")
    notes = ["exact"] if found["exact"] else []
    notes += [f"up to {found['most']} items each"] if found["most"] > 1 else []
    return [
        *(Cell(str(found[name])) for name in counts),
        Cell(p_text(found["p_value"]), ", ".join(notes)),
        NOTHING if over is None or over["value"] is None else _interval(metric, over),
        NOTHING if over is None or over["p_value"] is None else Cell(p_text(over["p_value"])),
    ]


def _interval(metric: Metric, over: Mapping[str, Any]) -> Cell:
    ends = [over["low"], over["high"]]
    texts = [] if None in ends else [number(metric, each, signed=True).split(" ")[0] for each in ends]
    return Cell(number(metric, over["value"], signed=True), " to ".join(texts))


def note(report: EvalReport) -> str:
    """What the table counts, and what McNemar's test takes for granted."""
    clusters = report.config.get("clusters", "users")
    return (
        "Outcomes that are a yes or a no, item by item: on how many both, only one, or neither said yes. McNemar's "
        "test (not corrected here) takes items as independent, as they are where each has one. Where one of the "
        f"{clusters} has several, it may call chance a difference: use the last two columns, which draw and flip whole "
        f"{clusters}."
    )


def sentences(rows: Sequence[Mapping[str, Any]], first: Metric, *, most: int) -> tuple[str, ...]:
    """Of the first metric, the comparisons whose items are independent, in words."""
    told = []
    for row in rows:
        found = row.get("binary")
        if row["metric"] != first.name or found is None or row["test"] != MCNEMAR or row["adjusted"] is None:
            continue
        where = "" if row["group"] == ALL else f", {row['group']}"
        told.append(
            f"Item by item, {row['subject']} against {row['versus']}{where}: of {found['items']} items that both have "
            f"a value for, {found['only_first']} are right only with the first and {found['only_second']} only with "
            f"the second (McNemar p = {p_text(found['p_value'])}, {p_text(row['adjusted'])} corrected)."
        )
    return tuple(told[:most])


def unscored_share(sides: Sides) -> float:
    """The larger of the two sides' shares of values that are not there."""
    return max(sum(each.value is None for each in side) / len(side) for side in sides)


def clusters_of(sides: Sides) -> int:
    """Users whom the first side has a value of."""
    return len({each.user for each in sides[0] if each.value is not None})


def p_text(value: float) -> str:
    """A p-value as it is printed."""
    return f"{value:.3g}" if value >= 0.001 else "<\u00a00.001"  # noqa: PLR2004 - below, digits say nothing
