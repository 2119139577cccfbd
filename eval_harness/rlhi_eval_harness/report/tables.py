"""The tables that the terminal, the Markdown and the HTML report share: one row per subject, ready to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_eval_harness.records import Estimate, EvalReport
from rlhi_eval_harness.report.analysis import ALL
from rlhi_eval_harness.report.findings import UNSCORED_LIMIT, preference_label, unscored_share
from rlhi_eval_harness.scoring import FINISHED, KEPT, KEPT_IF_DECIDED, KEPT_PREFIX, METRICS, REPETITION, WORDS
from rlhi_eval_harness.statistics import by_key

HEADS = {
    KEPT: "Preferences kept",
    KEPT_IF_DECIDED: "… if decided",
    WORDS: "Words",
    REPETITION: "Repeated",
    FINISHED: "Not cut",
}
"""Column heads; `METRIC_LABELS` says it at length."""


@dataclass(frozen=True)
class Cell:
    """A number as text, its interval as text, and whether it may be used."""

    value: str
    interval: str = ""
    usable: bool = True


@dataclass(frozen=True)
class Grid:
    """A table: its heads, and rows of a name with one cell per further head."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def ranking(report: EvalReport) -> Grid:
    """Subjects, best first by preferences kept, with every metric."""
    found = by_key(report.estimates)
    subjects = dict.fromkeys(each.subject for each in report.estimates)
    order = sorted(subjects, key=lambda name: -(found[KEPT, name, ALL, None].value or 0.0))
    rows = []
    for name in order:
        kept = found[KEPT, name, ALL, None]
        cells = [cell(found[metric, name, ALL, None]) for metric in METRICS]
        rows.append((name, (*cells, Cell(str(kept.n)), Cell(str(kept.clusters)), Cell(str(kept.unscored)))))
    return Grid(("Subject", *(HEADS[metric] for metric in METRICS), "Answers", "Users", "Unscored"), tuple(rows))


def comparisons(report: EvalReport) -> Grid:
    """Paired differences, overall."""
    asked = dict.fromkeys((each.subject, each.versus) for each in report.differences)
    found = by_key(report.differences)
    rows = tuple(
        (f"{subject} − {versus}", tuple(cell(found[metric, subject, ALL, versus], signed=True) for metric in METRICS))  # noqa: RUF001 - a minus sign, not a hyphen
        for subject, versus in asked
    )
    return Grid(("Difference", *(HEADS[metric] for metric in METRICS)), rows)


def preferences(report: EvalReport) -> Grid:
    """How often each single preference is kept, by the subjects as columns."""
    found = by_key(report.estimates)
    subjects = tuple(dict.fromkeys(each.subject for each in report.estimates))
    metrics = sorted({each.metric for each in report.estimates if each.metric.startswith(KEPT_PREFIX)})
    rows = tuple(
        (preference_label(metric), tuple(cell(found[metric, subject, ALL, None]) for subject in subjects))
        for metric in metrics
    )
    return Grid(("Preference", *subjects), rows)


def cell(estimate: Estimate, *, signed: bool = False) -> Cell:
    """One estimate as it is printed."""
    if estimate.value is None:
        return Cell("no value", usable=False)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        low, high = (
            number(estimate.metric, each, signed=signed).split(" ")[0] for each in (estimate.low, estimate.high)
        )
        interval = f"{low} to {high}"
    usable = unscored_share(estimate) <= UNSCORED_LIMIT
    return Cell(number(estimate.metric, estimate.value, signed=signed), interval, usable)


def number(metric: str, value: float, *, signed: bool = False) -> str:
    """A value in the unit of its metric: words as they are, shares in per cent, differences of shares in points."""
    sign, unit = ("+", "pts") if signed else ("", "%")
    digits = 1 if metric in {WORDS, REPETITION} else 0
    scaled = round(value if metric == WORDS else 100 * value, digits) + 0.0  # turns -0.0 into 0.0
    return f"{scaled:{sign}.{digits}f}" if metric == WORDS else f"{scaled:{sign}.{digits}f} {unit}"


def summary(report: EvalReport) -> Grid:
    """The ranking as a narrow terminal shows it: an interval for what is ranked by, values for the rest."""
    whole = ranking(report)
    kept, *others = (METRICS.index(metric) for metric in (KEPT, WORDS, REPETITION, FINISHED))
    rows = tuple(
        (name, (cells[kept], *(Cell(cells[place].value, usable=cells[place].usable) for place in others)))
        for name, cells in whole.rows
    )
    return Grid(("Subject", *(whole.columns[1 + place] for place in (kept, *others))), rows)


def text_rows(grid: Grid) -> list[Sequence[str]]:
    """Rows of plain strings: ``62 % (55 % to 69 %)``, with ``!`` on what is not to be used."""
    rows: list[Sequence[str]] = []
    for name, cells in grid.rows:
        texts = [
            f"{each.value}{f' ({each.interval})' if each.interval else ''}{'' if each.usable else ' !'}"
            for each in cells
        ]
        rows.append([name, *texts])
    return rows
