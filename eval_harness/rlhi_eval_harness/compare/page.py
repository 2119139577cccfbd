"""A comparison as one HTML file that opens offline: the sentence, a plot of all changes, the table, what to know."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from rlhi_eval_harness.compare import item_by_item, texts
from rlhi_eval_harness.compare.records import Change, ComparisonReport, Verdict
from rlhi_eval_harness.records import Metric
from rlhi_eval_harness.report.tables import text_rows
from rlhi_plugin import page
from rlhi_plugin.page.figures import QUIET, inline_figure

COLOURS: Mapping[Verdict, str] = {"regression": "#b42318", "less scored": "#b42318", "improvement": "#00795c"}
"""The others are grey: nothing was shown."""
CLASSES: Mapping[Verdict, str] = {"regression": "bad", "less scored": "bad", "improvement": "good"}


def render(found: ComparisonReport) -> str:
    """The whole page. The same comparison gives the same bytes.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    by_item = item_by_item.grid(found)
    better = any(each.verdict == "improvement" for each in found.changes)
    return page.render_page(
        files("rlhi_eval_harness.compare") / "page_files",
        found=found,
        mood="bad" if found.regressions else "good" if better else "even",
        headline=texts.headline(found),
        how=texts.how(found),
        columns=texts.COLUMNS,
        rows=[
            (CLASSES.get(each.verdict, ""), row)
            for each, row in zip(texts.ordered(found), texts.table_rows(found), strict=True)
        ],
        by_item=(by_item.columns, text_rows(by_item)),
        about_items=item_by_item.note(found),
        plot=changes_plot(found),
    )


def changes_plot(found: ComparisonReport) -> str:
    """Every change of a share with its interval, in points, the worst first; empty where there is none."""
    metrics = {metric.name: metric for metric in found.metrics}
    shown = [each for each in texts.ordered(found) if each.change is not None and metrics[each.metric].unit == "share"]
    if not shown:
        return ""
    with inline_figure(7.6, 0.8 + 0.3 * len(shown)) as (figure, out):
        axes = figure.subplots()
        axes.axvline(0, color="#9ca3af", linewidth=1)
        for row, each in enumerate(shown):
            colour = COLOURS.get(each.verdict, QUIET)
            if each.low is not None and each.high is not None:
                ends = [100 * each.low, 100 * each.high]
                axes.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([100 * (each.change or 0.0)], [row], "o", color=colour, markersize=6, clip_on=False, zorder=3)
            if each.margin:
                worse = 100 * each.margin * (1 if metrics[each.metric].better == "lower" else -1)
                axes.plot([worse], [row], "|", color="#b42318", markersize=11)
        axes.set_yticks(range(len(shown)), [_name(each, metrics[each.metric]) for each in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("change, points")
    return out[0]


def _name(each: Change, metric: Metric) -> str:
    arrow = {"higher": "", "lower": " (less is better)", "neither": ""}[metric.better]
    group = "" if each.group == "all" else f", {each.group}"
    return f"{each.subject}: {metric.label}{group}{arrow}"
