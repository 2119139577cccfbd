"""Gain and harm of every subject in one plot, as SVG text to be placed inline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.numbers import ALL, unscored_share
from rlhi_eval_harness.records import Estimate, EvalReport
from rlhi_eval_harness.report.plots import style_of
from rlhi_eval_harness.report.tables import subjects_of
from rlhi_eval_harness.statistics import by_key
from rlhi_plugin.page.figures import inline_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gain_and_harm_plot(report: EvalReport) -> str:
    """Gain upwards against each kind of harm to the right, both with intervals; nothing where no harm is measured."""
    found = by_key(report.estimates)
    gain, harms = report.metrics[0], [metric for metric in report.metrics if metric.role == "harm"]
    subjects = subjects_of(report)
    style = style_of(subjects)
    if not harms:
        return ""
    columns = min(len(harms), 3)
    rows = -(-len(harms) // columns)
    with inline_figure(7.6, 0.7 + 2.4 * rows) as (figure, out):
        panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for axes, harm in zip(panels, harms, strict=False):
            for subject in subjects:
                across, up = (found.get((metric.name, subject, ALL, None)) for metric in (harm, gain))
                if across and up and across.value is not None and up.value is not None:
                    _cross(axes, across, up, style[subject], subject)
            axes.set_xlim(-3, 103)
            axes.set_ylim(-3, 103)
            axes.set_title(harm.label, fontsize=9.5, loc="left")
            axes.set_xlabel("harm, per cent")
        for axes in panels[len(harms) :]:
            axes.set_visible(False)
        figure.axes[0].set_ylabel(f"{gain.label[:1].lower()}{gain.label[1:]}, per cent")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)
    return out[0]


def _cross(axes: Axes, across: Estimate, up: Estimate, style: tuple[str, str], label: str) -> None:
    """A point with both intervals."""
    colour, marker = style
    x, y = 100 * (across.value or 0.0), 100 * (up.value or 0.0)
    for each, line in ((across, "x"), (up, "y")):
        if each.low is not None and each.high is not None:
            ends = [100 * each.low, 100 * each.high]
            xs, ys = (ends, [y, y]) if line == "x" else ([x, x], ends)
            axes.plot(xs, ys, color=colour, linewidth=1.3, alpha=0.7, solid_capstyle="round")
    unusable = max(unscored_share(across), unscored_share(up)) > UNSCORED_LIMIT
    axes.plot(
        [x],
        [y],
        marker=marker,
        color=colour,
        markerfacecolor="white" if unusable else colour,
        markersize=7,
        linestyle="none",
        label=label,
        zorder=3,
    )
