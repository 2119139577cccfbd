"""A comparison in words: rows for the terminal, Markdown for a comment on a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rlhi_eval_harness.compare import item_by_item
from rlhi_eval_harness.compare.records import BAD, Change, ComparisonReport, Verdict
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import Metric
from rlhi_eval_harness.report.binary_outcomes import MCNEMAR
from rlhi_eval_harness.report.tables import number, text_rows

COLUMNS = ("Subject", "Metric", "Before", "After", "Change (95 %)", "p, corrected", "Could have seen", "Verdict")
ORDER: tuple[Verdict, ...] = (
    *BAD, "not to be used", "improvement", "no difference shown", "too few users", "no better or worse",
)  # fmt: skip
_MARKS: Mapping[str, str] = {"regression": "❌", "less scored": "❌", "improvement": "✅", "not to be used": "⚠️"}


def headline(found: ComparisonReport) -> str:
    """The result in one sentence."""
    counts = Counter(each.verdict for each in found.changes)
    if bad := found.regressions:
        parts = [f"{counts[verdict]} {_plural(verdict, counts[verdict])}" for verdict in BAD if counts[verdict]]
        first = bad[0]
        named = {metric.name: metric for metric in found.metrics}[first.metric]
        return f"{' and '.join(parts)}; the first is {named.label.lower()} of {first.subject}."
    better = counts["improvement"]
    gains = f"; {better} {_plural('improvement', better)}" if better else ""
    return (
        f"No regression beyond noise in {found.comparisons} comparisons{gains}. What could have been seen stands "
        "beside each number."
    )


def how(found: ComparisonReport) -> str:
    """What the intervals and p-values are."""
    tests = f"of sign flips of whole {found.clusters}"
    if any(each.test == MCNEMAR for each in found.changes):
        tests += f", or McNemar's where outcomes are a yes or a no and each of the {found.clusters} has one"
    return (
        f"Differences are paired by item; intervals are 95 % bootstrap intervals over {found.clusters}; p-values are "
        f"{tests}, corrected for {found.comparisons} comparisons (Holm), so that the chance of any false regression is "
        f"at most {100 * found.level:g} %."
    )


def ordered(found: ComparisonReport) -> list[Change]:
    """The worst first; equals stay in the report's order."""
    return sorted(found.changes, key=lambda each: ORDER.index(each.verdict))


def table_rows(found: ComparisonReport, *, marks: bool = False) -> list[Sequence[str]]:
    """One row a comparison, the worst first."""
    metrics = {metric.name: metric for metric in found.metrics}
    return [_row(each, metrics[each.metric], marks=marks) for each in ordered(found)]


def markdown(found: ComparisonReport) -> str:
    """The whole comparison, for a comment: the sentence, the table, what to know."""
    judge = f", judge `{found.judge}`" if found.judge else ""
    bad = bool(found.regressions)
    lines = [
        f"### {'❌' if bad else '✅'} Evaluation `{found.suite}`: {headline(found)}",
        "",
        f"`{found.before}` → `{found.after}`{judge}. {how(found)}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "|".join([" --- ", " --- ", *[" ---: "] * (len(COLUMNS) - 3), " --- "]) + "|",
        *(_line(row) for row in table_rows(found, marks=True)),
        "",
        *_by_item(found),
        *(f"- {note}" for note in found.notes),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _by_item(found: ComparisonReport) -> list[str]:
    grid = item_by_item.grid(found)
    if not grid.rows:
        return []
    heads = [_line(grid.columns), "|" + "|".join([" --- ", *[" ---: "] * (len(grid.columns) - 1)]) + "|"]
    rows = (_line(row) for row in text_rows(grid))
    return ["#### Yes or no, item by item", "", *heads, *rows, "", item_by_item.note(found), ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _row(each: Change, metric: Metric, *, marks: bool) -> Sequence[str]:
    subject = each.subject if each.subject == each.subject_after else f"{each.subject} → {each.subject_after}"
    label = metric.label if each.group == ALL else f"{metric.label}, {each.group}"
    mark = f"{_MARKS.get(each.verdict, '')} " if marks else ""
    unscored = max(each.unscored_before, each.unscored_after)
    share = f" ({100 * unscored:.0f} % unscored)" if unscored else ""
    return (
        subject,
        label,
        _number(metric, each.before),
        _number(metric, each.after),
        _change(metric, each),
        "–" if each.adjusted is None else _p_value(each.adjusted, each.test),  # noqa: RUF001 - a dash where nothing was tested
        "–" if each.detectable is None else number(metric, each.detectable, signed=True).lstrip("+"),  # noqa: RUF001
        f"{mark}{each.verdict}{share}".strip(),
    )


def _p_value(adjusted: float, test: str | None) -> str:
    return f"{adjusted:.3f}" + (f" ({MCNEMAR})" if test == MCNEMAR else "")


def _change(metric: Metric, each: Change) -> str:
    if each.change is None:
        return "no value"
    value = number(metric, each.change, signed=True)
    if each.low is None or each.high is None:
        return value
    low, high = (number(metric, end, signed=True).split(" ")[0] for end in (each.low, each.high))
    return f"{value} ({low} to {high})"


def _number(metric: Metric, value: float | None) -> str:
    return "no value" if value is None else number(metric, value)


def _plural(word: str, count: int) -> str:
    if word == "less scored":
        return "metric is scored too rarely" if count == 1 else "metrics are scored too rarely"
    return word if count == 1 else f"{word}s"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
