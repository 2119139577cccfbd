"""Every difference that the report could claim, tested: corrected for how many there are, with what would be missed.

An interval speaks of one comparison. A report with four subjects and five metrics makes many, and some of their
intervals leave out zero by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from rlhi_eval_harness.inference import correct, minimum_detectable_effect
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import EvalReport, Metric
from rlhi_eval_harness.report.analysis import Table
from rlhi_eval_harness.report.binary_outcomes import Sides, binary, chosen_test, independent, p_text, parts_of
from rlhi_eval_harness.report.binary_outcomes import sentences as item_by_item
from rlhi_eval_harness.report.tables import Cell, Grid, number
from rlhi_eval_harness.statistics import Value

LEVEL = 0.05
"""Chance of any false claim, over all comparisons of a report together."""
POWER = 0.8
NAMED = 4
"""Differences that a sentence names."""
_ROLES = frozenset({"headline", "dimension", "harm"})


def tests_of(table: Table, *, seed: int, resamples: int) -> dict[str, Any]:
    """Tests of everything that has a good side, corrected together (Holm).

    McNemar's test where outcomes are binary and independent, sign flips of whole users everywhere else. Where items
    are independent within groups only (one preference asked at several distances), each group is tested as well.

    Returns:
        ``comparisons`` (how many were corrected for), ``level``, ``power``, ``correction``, and ``rows``: metric,
        subject, versus, group, test, ``p_value`` and ``adjusted`` (None where more than 5 % is unscored or fewer than
        two users have a pair), ``detectable`` (the smallest true difference that is found four times in five after the
        correction, in the metric's unit; None where differences do not vary), ``clusters``, and ``binary``
        (`binary_outcomes.outcome`; None where outcomes are not yes or no).
    """
    wanted = [metric for metric in table.metrics if metric.role in _ROLES and metric.better != "neither"]
    rows: list[dict[str, Any]] = []
    every: list[Sides] = []
    for metric, (subject, versus) in product(wanted, table.comparisons):
        for group, sides in _grouped(table, metric, subject, versus).items():
            named = {"metric": metric.name, "subject": subject, "versus": versus, "group": group}
            parts = parts_of(table, metric, subject, versus) if group == ALL else None
            rows.append({**named, **chosen_test(sides, metric, parts, seed=seed, resamples=resamples)})
            every.append(sides)
    found = {str(place): row["p_value"] for place, row in enumerate(rows) if row["p_value"] is not None}
    adjusted = {each.name: each.adjusted for each in correct(found, level=LEVEL)}
    for place, (row, sides) in enumerate(zip(rows, every, strict=True)):
        row["adjusted"] = adjusted.get(str(place))
        row["detectable"] = _detectable(*sides, len(found)) if row["p_value"] is not None else None
    return {"comparisons": len(found), "level": LEVEL, "power": POWER, "correction": "holm", "rows": rows}


def _grouped(table: Table, metric: Metric, subject: str, versus: str) -> dict[str, Sides]:
    """All items; and each group, where outcomes are binary and only within groups independent."""
    found: dict[str, Sides] = {}
    for group, pick in table.groups(metric.name).items():
        one, other = (table.values(metric.name, name, pick) for name in (subject, versus))
        if one and other:
            found[group] = one, other
    groups = {name: sides for name, sides in found.items() if name != ALL}
    alone = all(binary(sides, metric) and independent(sides) for sides in groups.values())
    whole = {ALL: found[ALL]} if ALL in found else {}
    return {**whole, **groups} if whole and alone and not independent(whole[ALL]) else whole


def _detectable(values: Sequence[Value], baseline: Sequence[Value], count: int) -> float | None:
    effect = minimum_detectable_effect(values, baseline, power=POWER, level=LEVEL / count)
    # Differences that do not vary at all say nothing of what could be seen.
    return effect.difference if effect is not None and effect.difference > 0 else None


def sentences(tests: Mapping[str, Any], metrics: Sequence[Metric], clusters: str) -> tuple[str, ...]:
    """Which differences stand once all are counted, and what would have been missed; none where nothing was tested."""
    named = {metric.name: metric for metric in metrics}
    tested = [row for row in tests["rows"] if row["adjusted"] is not None]
    if not tested:
        return ()
    count, stand = tests["comparisons"], [row for row in tested if row["adjusted"] <= tests["level"]]
    counted = f"Corrected for {count} comparison{'s' if count > 1 else ''} (Holm)"
    most = max(row["clusters"] for row in tested)
    if not stand and count * 2.0 ** (1 - most) > tests["level"]:
        said = f"{counted}, no difference could stand with {most} {clusters}, however large: evaluate more."
    elif not stand:
        said = f"{counted}, no difference stands: each could be chance."
    else:
        shown = ", ".join(_difference(row, named) for row in stand[:NAMED])
        more = f" and {len(stand) - NAMED} more" if len(stand) > NAMED else ""
        rest = count - len(stand)
        said = f"{counted}, {len(stand)} stand{'s' if len(stand) == 1 else ''}: {shown}{more}."
        said += f" The other {rest} could be chance." if rest > 1 else " The other one could be chance." if rest else ""
    by_item = item_by_item(tested, metrics[0], most=NAMED)
    return (*by_item, said, *_missed(tested, metrics[0], tests["level"]))


def _difference(row: Mapping[str, Any], named: Mapping[str, Metric]) -> str:
    label = named[row["metric"]].label + _in_group(row)
    return f"{label.lower()} of {row['subject']} against {row['versus']} (p = {p_text(row['adjusted'])})"


def _missed(tested: Sequence[Mapping[str, Any]], first: Metric, level: float) -> tuple[str, ...]:
    """What the ranking's own comparisons could not have seen."""
    open_ones = [row for row in tested if row["metric"] == first.name and row["adjusted"] > level and row["detectable"]]
    if not open_ones:
        return ()
    told = ", ".join(
        f"{row['subject']} against {row['versus']}{_in_group(row)} {_size(first, row['detectable'])}"
        for row in open_ones[:NAMED]
    )
    return (f"{first.label}: true differences below these would mostly have been missed: {told}.",)


def _size(metric: Metric, value: float) -> str:
    return number(metric, value, signed=True).lstrip("+").replace("pts", "points")


def _in_group(row: Mapping[str, Any]) -> str:
    return "" if row["group"] == ALL else f", {row['group']}"


def grid(report: EvalReport) -> Grid:
    """All tests as a table; empty where nothing could be tested."""
    named = {metric.name: metric for metric in report.metrics}
    tests = report.config.get("tests") or {"rows": (), "comparisons": 0}
    if not tests["comparisons"]:
        return Grid((), ())
    rows = []
    for row in tests["rows"]:
        metric = named[row["metric"]]
        texts = (
            row["test"],
            "not to be used" if row["p_value"] is None else p_text(row["p_value"]),
            "–" if row["adjusted"] is None else p_text(row["adjusted"]),  # noqa: RUF001 - a dash where nothing was tested
            "–" if row["detectable"] is None else _size(metric, row["detectable"]),  # noqa: RUF001
        )
        name = f"{metric.label}{_in_group(row)}: {row['subject']} − {row['versus']}"  # noqa: RUF001 - a minus sign
        rows.append((name, tuple(map(Cell, texts))))
    return Grid(("Difference", "Test", "p", "p, corrected", "Would mostly be missed below"), tuple(rows))


def note(report: EvalReport) -> str:
    """How the tests were made."""
    tests = report.config.get("tests") or {}
    clusters = report.config.get("clusters", "users")
    return (
        f"Two-sided tests: McNemar's where outcomes are a yes or a no and each of the {clusters} has one, sign flips "
        f"of whole {clusters} elsewhere; corrected together for {tests.get('comparisons', 0)} comparisons (Holm): the "
        "chance of any false claim is at most 5 %. The last column is the smallest true "
        "difference that such an evaluation finds four times in five, after the correction."
    )
