"""Paired differences of two reports, tested together: Holm's correction bounds the chance of any false regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhi_eval_harness.compare.item_by_item import parts_of
from rlhi_eval_harness.compare.options import Options, margins_of
from rlhi_eval_harness.compare.records import Change, ComparisonReport, Verdict
from rlhi_eval_harness.compare.sameness import Matches, matched, other_personas, refuse_unequal
from rlhi_eval_harness.compare.sides import Side
from rlhi_eval_harness.inference import UNSCORED_LIMIT, correct, minimum_detectable_effect, paired_p_value
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import Metric
from rlhi_eval_harness.report.binary_outcomes import SIGN_FLIPS, Sides, chosen_test
from rlhi_eval_harness.statistics import Interval, Value, paired_difference
from rlhi_plugin.errors import ConfigError

POWER = 0.8


@dataclass(frozen=True)
class _Row:
    """One comparison on the way to its verdict."""

    pair: tuple[str, str]
    metric: Metric
    group: str
    before: Sequence[Value]
    after: Sequence[Value]
    change: Interval
    margin: float
    means: tuple[float | None, float | None]
    unscored: tuple[float, float]
    p_values: tuple[float | None, float | None] = (None, None)
    """Of no regression beyond the margin, and of no change at all."""
    adjusted: tuple[float | None, float | None] = (None, None)
    smallest: float = 0.0
    """The smallest p-value that so few users can give, after the correction."""
    test: str | None = None
    """Which test the first of `p_values` is of."""
    binary: Mapping[str, Any] | None = None
    """`rlhi_eval_harness.report.binary_outcomes.outcome` of the second side against the first."""

    @property
    def sign(self) -> int:
        """+1 where more is better, -1 where less is, 0 where neither."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.metric.better]


def compare(before: Side, after: Side, options: Options | None = None) -> ComparisonReport:
    """Compare two reports on the items that both have.

    Args:
        before: What there was.
        after: What there is now.
        options: How.

    Raises:
        ConfigError: the reports do not measure the same thing, or a name or number in `options` is wrong.
        MissingExtraError: statsmodels is not installed.
    """
    options = options or Options()
    if not 0 < options.level < 1:
        raise ConfigError(f"level={options.level}: give a number between 0 and 1, such as 0.05.")
    pairs = matched(before, after, options.subjects)
    notes = refuse_unequal(before, after, pairs, allowed=options.allowed, named=bool(options.subjects))
    chosen = _metrics(before, after, pairs, options.metrics)
    rows = _corrected(_rows(before, after, pairs, chosen, options), options)
    changes = tuple(_finished(row, options, sum(each.p_values[0] is not None for each in rows)) for row in rows)
    judging = before.report.config.get("judging") or [{}]
    return ComparisonReport(
        before=str(before.path),
        after=str(after.path),
        suite=before.report.suite,
        judge=judging[0].get("judge"),
        level=options.level,
        clusters=str(before.report.config.get("clusters", "users")),
        comparisons=sum(row.p_values[0] is not None for row in rows),
        metrics=tuple(chosen),
        changes=changes,
        notes=(*notes, *_notes(before, after, pairs, changes)),
    )


def _metrics(before: Side, after: Side, pairs: Matches, wanted: Sequence[str]) -> list[Metric]:
    """Both sides' metrics, in the report's order."""
    measured = {metric.name for first, _ in pairs for metric in before.measured(first)}
    shared = {name: metric for name, metric in before.metrics.items() if name in after.metrics and name in measured}
    if unknown := [name for name in wanted if name not in shared]:
        raise ConfigError(f"--metric {unknown[0]}: both reports have {', '.join(shared)}. Choose among them.")
    return [
        metric for name, metric in shared.items() if (name in wanted if wanted else metric.role != "detail")
    ]  # fmt: skip


def _rows(before: Side, after: Side, pairs: Matches, metrics: Sequence[Metric], options: Options) -> list[_Row]:
    margins = margins_of(options.margins, metrics)
    groups: list[str | None] = [None, *(before.groups if options.by_group else ())]
    rows = []
    for pair in pairs:
        for metric in metrics:
            for group in groups:
                one, other = (
                    side.values(name, metric.name, group=group)
                    for side, name in zip((before, after), pair, strict=True)
                )
                if one or other:
                    row = _row(pair, metric, group or ALL, (one, other), margin=margins[metric.name], seed=options.seed)
                    rows.append(_tested_row(row, parts_of(before, after, pair, metric, group), seed=options.seed))
    return rows


def _row(
    pair: tuple[str, str],
    metric: Metric,
    group: str,
    sides: tuple[Sequence[Value], Sequence[Value]],
    *,
    margin: float,
    seed: int,
) -> _Row:
    one, other = sides
    scored = [{each.key for each in values if each.value is not None} for values in sides]
    both = scored[0] & scored[1]
    return _Row(
        pair=pair,
        metric=metric,
        group=group,
        before=one,
        after=other,
        change=paired_difference(other, one, seed=seed),
        margin=margin,
        means=(_mean(one, both), _mean(other, both)),
        unscored=(_unscored(one), _unscored(other)),
    )


def _tested_row(row: _Row, parts: Sides | None, *, seed: int) -> _Row:
    """A row with its p-values, where it can have any; McNemar's test where a report would take it."""
    if not row.sign or max(row.unscored) > UNSCORED_LIMIT or row.change.clusters < 2:  # noqa: PLR2004 - no spread
        return row
    found = chosen_test((row.after, row.before), row.metric, parts, seed=seed)
    plain, binary = found["p_value"], found["binary"]
    if not row.margin:
        return replace(row, p_values=(plain, plain), test=found["test"], binary=binary)
    # Shifted by the margin, "no worse than allowed" is "no difference"; yes and no are then no longer 1 and 0.
    shifted = [Value(each.user, each.key, _plus(each.value, row.sign * row.margin)) for each in row.after]
    worse = paired_p_value(shifted, row.before, seed=seed)
    return replace(row, p_values=(worse, plain), test=SIGN_FLIPS, binary=binary)


def _mean(values: Sequence[Value], keys: set[str]) -> float | None:
    found = [each.value for each in values if each.key in keys and each.value is not None]
    return sum(found) / len(found) if found else None


def _unscored(values: Sequence[Value]) -> float:
    return sum(each.value is None for each in values) / len(values) if values else 1.0


def _plus(value: float | None, more: float) -> float | None:
    return None if value is None else value + more


def _corrected(rows: Sequence[_Row], options: Options) -> list[_Row]:
    """Both kinds of p-values, each corrected for as many as there are."""
    families = [
        {str(i): p for i, row in enumerate(rows) if (p := row.p_values[family]) is not None} for family in (0, 1)
    ]
    count = len(families[0])
    first = _adjusted(families[0], options.level)
    # Without a margin the two are one.
    adjusted = first, first if families[1] == families[0] else _adjusted(families[1], options.level)
    return [
        replace(
            row,
            adjusted=(adjusted[0].get(str(i)), adjusted[1].get(str(i))),
            smallest=min(count * 2.0 ** (1 - row.change.clusters), 1.0) if row.p_values[0] is not None else 0.0,
        )
        for i, row in enumerate(rows)
    ]


def _adjusted(p_values: Mapping[str, float], level: float) -> dict[str, float]:
    return {each.name: each.adjusted for each in correct(p_values, level=level)}


def _finished(row: _Row, options: Options, count: int) -> Change:
    detectable = None
    if row.p_values[0] is not None:
        found = minimum_detectable_effect(row.after, row.before, power=POWER, level=options.level / count)
        # Differences that do not vary at all say nothing of what could be seen.
        detectable = found.difference if found is not None and found.difference > 0 else None
    return Change(
        subject=row.pair[0],
        subject_after=row.pair[1],
        metric=row.metric.name,
        group=row.group,
        before=row.means[0],
        after=row.means[1],
        change=row.change.value,
        low=row.change.low,
        high=row.change.high,
        n=row.change.n,
        clusters=row.change.clusters,
        unscored_before=row.unscored[0],
        unscored_after=row.unscored[1],
        margin=row.margin,
        p_value=row.p_values[0],
        adjusted=row.adjusted[0],
        detectable=detectable,
        test=row.test,
        binary=None if row.binary is None else dict(row.binary),
        verdict=_verdict(row, options.level),
    )


def _verdict(row: _Row, level: float) -> Verdict:
    was, now = (share > UNSCORED_LIMIT for share in row.unscored)
    if was or now:
        return "not to be used" if was else "less scored"
    if not row.sign:
        return "no better or worse"
    return _tested(row, level)


def _tested(row: _Row, level: float) -> Verdict:
    worse, other = row.adjusted
    if worse is None or other is None or row.change.value is None:
        return "too few users"
    gain = row.sign * row.change.value
    if gain < -row.margin and worse <= level:
        return "regression"
    if gain > 0 and other <= level:
        return "improvement"
    return "too few users" if row.smallest > level else "no difference shown"


def _notes(before: Side, after: Side, pairs: Matches, changes: Sequence[Change]) -> Iterable[str]:
    if more := [name for name in after.subjects if name not in before.subjects and name not in dict(pairs).values()]:
        yield f"Only {after.path} has {', '.join(more)}: not compared."
    if count := other_personas(before, after, pairs):
        yield f"{count} compared answers had another system prompt, and so perhaps another persona, in {after.path}."
    few = [each for each in changes if each.verdict == "too few users"]
    if few:
        users = max(each.clusters for each in few)
        yield (
            f"{len(few)} of {len(changes)} comparisons have too few users ({users} at most) to show any difference, "
            "however large: they cannot fail. Evaluate more users, or name fewer metrics and subjects."
        )
    if unusable := sum(each.verdict == "not to be used" for each in changes):
        yield f"{unusable} comparisons are not to be used: more than {UNSCORED_LIMIT:.0%} was unscored already before."
