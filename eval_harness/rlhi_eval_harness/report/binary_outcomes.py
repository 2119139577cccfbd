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

from rlhi_eval_harness.inference import UNSCORED_LIMIT, mcnemar, paired_p_value
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
    """The yes-or-no parts that the first metric is the mean of; None without any."""
    if metric is not table.metrics[0]:
        return None
    parts = [each for each in table.metrics if each.role == "detail"]
    picks = {part.name: table.groups(part.name)[ALL] for part in parts}

    def values(part: Metric, name: str) -> Sequence[Value]:
        return table.values(part.name, name, picks[part.name])

    return joined([(part, (values(part, subject), values(part, versus))) for part in parts])


def joined(parts: Sequence[tuple[Metric, Sides]]) -> Sides | None:
    """Several yes-or-no parts as one comparison, each part of each answer an item; None where there are no such."""
    one, other = (
        [Value(each.user, f"{each.key}/{part.name}", each.value) for part, sides in parts for each in sides[place]]
        for place in (0, 1)
    )
    return (one, other) if parts and binary((one, other), parts[0][0]) else None


def chosen_test(
    sides: Sides, metric: Metric, parts: Sides | None, *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """The test of one comparison, before any correction.

    Args:
        sides: The two results.
        metric: Of what.
        parts: What to pair instead, where the metric is a mean of yes-or-no parts.
        seed: Of intervals and sign flips.
        resamples: Of the interval over users.

    Returns:
        ``clusters``; ``test``, McNemar's where outcomes are binary and independent; ``p_value``, None where more than
        5 % is unscored or fewer than two users have a pair; ``binary``: `outcome`, None unless outcomes are yes or no.
    """
    # A share of several parts can be 0 or 1 of every answer by chance; what is paired are its parts all the same.
    pairs, unit = (sides, "items") if parts is None else (parts, PARTS)
    alone = parts is None and binary(sides, metric) and independent(sides)
    p_value, found = None, None
    if unscored_share(sides) <= UNSCORED_LIMIT:
        if unscored_share(pairs) <= UNSCORED_LIMIT and binary(pairs, metric):
            found = outcome(pairs, seed=seed, unit=unit, resamples=resamples)
        enough = alone and found is not None and found["clusters"] > 1
        p_value = found["p_value"] if enough and found else paired_p_value(*sides, seed=seed)
    test = MCNEMAR if alone else SIGN_FLIPS
    return {"clusters": clusters_of(sides), "test": test, "p_value": p_value, "binary": found}


def grid(report: EvalReport) -> Grid:
    """Every binary comparison of a report as a table; empty where there is none."""
    named = {metric.name: metric for metric in report.metrics}
    tests = report.config.get("tests") or {"rows": ()}
    rows = []
    for row in tests["rows"]:
        if found := row.get("binary"):
            what = label(named[row["metric"]], row["group"], found)
            rows.append((f"{what}: {row['subject']} − {row['versus']}", named[row["metric"]], found))  # noqa: RUF001 - a minus sign
    return grid_of(rows, str(report.config.get("clusters", "users")))


def grid_of(
    rows: Sequence[tuple[str, Metric, Mapping[str, Any]]],
    clusters: str,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Grid:
    """Outcomes as a table; empty where there are none.

    Args:
        rows: Name, metric and `outcome`.
        clusters: What is drawn and flipped whole, in the plural.
        names: What the two sides are called in the heads.
    """
    heads = (
        "Difference", "Items", f"Of {clusters}", "Both", f"Only {names[0]}", f"Only {names[1]}", "Neither",
        "McNemar p", f"Difference over {clusters}", f"p over {clusters}",
    )  # fmt: skip
    found = tuple((name, tuple(_cells(metric, each))) for name, metric, each in rows)
    return Grid(heads, found) if found else Grid((), ())


def label(metric: Metric, group: str, found: Mapping[str, Any]) -> str:
    """What an `outcome` is of: the metric, the group where it is one, and what was paired where that is no item."""
    return ", ".join([metric.label, *(name for name in (group, found["unit"]) if name not in {ALL, "items"})])


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
    """What the table of a report counts."""
    return explained(str(report.config.get("clusters", "users")))


def explained(clusters: str) -> str:
    """What the table counts, and what McNemar's test takes for granted."""
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
