"""The tables that the terminal, the Markdown and the HTML report share: one row per subject, ready to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.numbers import ALL, unscored_share
from rlhi_eval_harness.records import Estimate, EvalReport, Metric
from rlhi_eval_harness.statistics import by_key


@dataclass(frozen=True)
class Cell:
    """A number as text, its interval as text, whether it may be used, and how much of it is unscored."""

    value: str
    interval: str = ""
    usable: bool = True
    unscored: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: its heads, and rows of a name with one cell per further head."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


NOTHING = Cell("–")  # noqa: RUF001 - a dash where a metric does not apply


def shown_metrics(report: EvalReport) -> tuple[Metric, ...]:
    """All but the single parts, which have a table of their own."""
    return tuple(metric for metric in report.metrics if metric.role != "detail")


def ordered_subjects(report: EvalReport) -> list[str]:
    """Best first by the first metric; who has no value comes last."""
    first = report.metrics[0]
    found = by_key(report.estimates)
    sign = -1 if first.better == "lower" else 1

    def value(name: str) -> float:
        each = found.get((first.name, name, ALL, None))
        return float("-inf") if each is None or each.value is None else sign * each.value

    return sorted(subjects_of(report), key=lambda name: -value(name))


def subjects_of(report: EvalReport) -> list[str]:
    """In the order in which they were given."""
    return list(dict.fromkeys(each.subject for each in report.estimates))


def ranking(report: EvalReport) -> Grid:
    """Subjects, best first, with every metric and the counts behind the first."""
    found = by_key(report.estimates)
    metrics = shown_metrics(report)
    clusters = str(report.config.get("clusters", "users")).capitalize()
    rows = []
    for name in ordered_subjects(report):
        cells = [_look(found.get((metric.name, name, ALL, None)), metric) for metric in metrics]
        first = found.get((metrics[0].name, name, ALL, None))
        counts = (first.n, first.clusters, first.unscored) if first else (0, 0, 0)
        rows.append((name, (*cells, *(Cell(str(count)) for count in counts))))
    return Grid(("Subject", *(metric.label for metric in metrics), "Answers", clusters, "Unscored"), tuple(rows))


def comparisons(report: EvalReport) -> Grid:
    """Paired differences, overall."""
    asked = dict.fromkeys((each.subject, each.versus) for each in report.differences)
    found = by_key(report.differences)
    compared = {each.metric for each in report.differences}
    metrics = [metric for metric in shown_metrics(report) if metric.name in compared]
    rows = tuple(
        (
            f"{subject} − {versus}",  # noqa: RUF001 - a minus sign, not a hyphen
            tuple(_look(found.get((metric.name, subject, ALL, versus)), metric, signed=True) for metric in metrics),
        )
        for subject, versus in asked
    )
    return Grid(("Difference", *(metric.label for metric in metrics)), rows)


def preferences(report: EvalReport) -> Grid:
    """Each single part, such as one preference, by the subjects as columns."""
    return _by_subject(report, [(metric, ALL, metric.label) for metric in report.metrics if metric.role == "detail"])


def by_group(report: EvalReport) -> Grid:
    """Every metric in every group (per dimension and per turn), by the subjects as columns."""
    groups = dict.fromkeys((each.metric, each.group) for each in report.estimates)
    described = {metric.name: metric for metric in shown_metrics(report)}
    wanted = [
        (described[name], group, f"{described[name].label}, {group}") for name, group in groups if name in described
    ]
    return _by_subject(report, wanted, head="Metric and group")


def _by_subject(report: EvalReport, wanted: Sequence[tuple[Metric, str, str]], head: str = "Preference") -> Grid:
    found = by_key(report.estimates)
    subjects = subjects_of(report)
    rows = tuple(
        (label, tuple(_look(found.get((metric.name, subject, group, None)), metric) for subject in subjects))
        for metric, group, label in wanted
    )
    return Grid((head, *subjects), rows)


def _look(estimate: Estimate | None, metric: Metric, *, signed: bool = False) -> Cell:
    return NOTHING if estimate is None else cell(estimate, metric, signed=signed)


def cell(estimate: Estimate, metric: Metric, *, signed: bool = False) -> Cell:
    """One estimate as it is printed."""
    share = unscored_share(estimate)
    unscored = f"{100 * share:.0f} % unscored" if share else ""
    if estimate.value is None:
        return Cell("no value", usable=False, unscored=unscored)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        low, high = (number(metric, each, signed=signed).split(" ")[0] for each in (estimate.low, estimate.high))
        interval = f"{low} to {high}"
    return Cell(number(metric, estimate.value, signed=signed), interval, share <= UNSCORED_LIMIT, unscored)


def number(metric: Metric, value: float, *, signed: bool = False) -> str:
    """A value in the unit of its metric: counts as they are, shares in per cent, differences of shares in points."""
    sign, unit = ("+", "pts") if signed else ("", "%")
    count = metric.unit == "count"
    digits = 1 if metric.role == "health" and (count or metric.better == "lower") else 0
    scaled = round(value if count else 100 * value, digits) + 0.0  # turns -0.0 into 0.0
    return f"{scaled:{sign}.{digits}f}" if count else f"{scaled:{sign}.{digits}f} {unit}"


def summary(report: EvalReport) -> Grid:
    """The ranking as a narrow terminal shows it: an interval for what is ranked by, values for the rest."""
    whole = ranking(report)
    metrics = shown_metrics(report)
    # Where single parts have a table of their own, health says more than a second form of the first metric.
    health = any(metric.role == "detail" for metric in report.metrics)
    wanted = [i for i, metric in enumerate(metrics) if i and (metric.role == "health") is health]
    # What it costs goes before further sides of the gain.
    others = sorted(sorted(wanted, key=lambda i: metrics[i].better != "lower")[:3])
    rows = tuple(
        (name, (cells[0], *(Cell(cells[place].value, usable=cells[place].usable) for place in others)))
        for name, cells in whole.rows
    )
    return Grid(("Subject", *(whole.columns[1 + place] for place in (0, *others))), rows)


def text_rows(grid: Grid) -> list[Sequence[str]]:
    """Rows of plain strings: ``62 % (55 % to 69 %)``, the unscored share, and ``!`` on what is not to be used."""
    rows: list[Sequence[str]] = []
    for name, cells in grid.rows:
        texts = []
        for each in cells:
            notes = "; ".join(note for note in (each.interval, each.unscored) if note)
            texts.append(f"{each.value}{f' ({notes})' if notes else ''}{'' if each.usable else ' !'}")
        rows.append([name, *texts])
    return rows
