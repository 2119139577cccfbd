"""The report's plots, as SVG text to be placed inline: no file, no request, and sharp at any size.

A subject has the same colour (Okabe and Ito's, told apart with any colour vision) and the same marker everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhi_eval_harness.records import Estimate, EvalReport
from rlhi_eval_harness.report.analysis import ALL
from rlhi_eval_harness.report.findings import preference_label
from rlhi_eval_harness.report.tables import number
from rlhi_eval_harness.scoring import FINISHED, KEPT, KEPT_PREFIX, REPETITION, WORDS
from rlhi_eval_harness.statistics import by_key
from rlhi_plugin.page.figures import INK, QUIET, inline_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE: Mapping[str, tuple[str, str]] = {
    "base": ("#6b7280", "o"),
    "base+persona": ("#0072b2", "s"),
    "adapter": ("#b0588b", "D"),
    "adapter+persona": ("#c2410c", "o"),
    "adapter+shuffled-persona": ("#00795c", "^"),
}
"""Colour and marker of each subject."""
GROUP_LABELS = {ALL: "all users", "seen": "wordings as in training", "new": "new wordings"}


def kept_plot(report: EvalReport) -> str:
    """Preferences kept by each subject: overall, and for users with seen and with new wordings."""
    found = by_key(report.estimates)
    subjects = _subjects(report)
    groups = [group for group in GROUP_LABELS if (KEPT, subjects[0], group, None) in found]
    with inline_figure(7.6, 0.9 + 0.62 * len(subjects)) as (figure, out):
        axes = figure.subplots()
        for row, subject in enumerate(subjects):
            colour, marker = STYLE[subject]
            for place, group in enumerate(groups):
                each = found[KEPT, subject, group, None]
                y = row + 0.23 * (place - (len(groups) - 1) / 2)
                whole = group == ALL
                _dot(axes, each, y, colour, marker if whole else "|", strong=whole)
                if each.value is not None:
                    note = number(KEPT, each.value) if whole else f"{number(KEPT, each.value)}  {GROUP_LABELS[group]}"
                    right = each.high if each.high is not None else each.value
                    axes.annotate(
                        note,
                        (100 * right, y),
                        xytext=(6, 0),
                        textcoords="offset points",
                        va="center",
                        color=INK if whole else QUIET,
                        fontsize=9.5 if whole else 7.5,
                        fontweight="bold" if whole else "normal",
                    )
        _subject_axis(axes, subjects)
        axes.set_xlim(0, 100)
        axes.set_xlabel("preferences kept, per cent")
    return out[0]


def preference_plot(report: EvalReport) -> str:
    """Each single preference: how often each subject keeps it for the users who have it."""
    found = by_key(report.estimates)
    subjects = _subjects(report)
    metrics = sorted({each.metric for each in report.estimates if each.metric.startswith(KEPT_PREFIX)})
    with inline_figure(7.6, 1.2 + 0.72 * len(metrics)) as (figure, out):
        axes = figure.subplots()
        step = 0.72 / max(len(subjects), 1)
        for row, metric in enumerate(metrics):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", zorder=0, linewidth=0)
            for place, subject in enumerate(subjects):
                colour, marker = STYLE[subject]
                y = row + step * (place - (len(subjects) - 1) / 2)
                _dot(axes, found[metric, subject, ALL, None], y, colour, marker, label=subject if row == 0 else None)
        axes.set_yticks(range(len(metrics)), [preference_label(metric) for metric in metrics])
        axes.set_ylim(len(metrics) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("kept, per cent of answers to users who want it")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, fontsize=8.5)
    return out[0]


def health_plot(report: EvalReport) -> str:
    """Length, repetition and finished answers of every subject: what a gain may have cost."""
    found = by_key(report.estimates)
    subjects = _subjects(report)
    titles = {WORDS: "Words per answer", REPETITION: "Repeated runs, %", FINISHED: "Ended before the cap, %"}
    with inline_figure(7.6, 0.9 + 0.36 * len(subjects)) as (figure, out):
        for axes, metric in zip(figure.subplots(1, len(titles), sharey=True), titles, strict=True):
            scale = 1 if metric == WORDS else 100
            drawn = [found[metric, subject, ALL, None] for subject in subjects]
            for row, (subject, each) in enumerate(zip(subjects, drawn, strict=True)):
                _dot(axes, each, row, *STYLE[subject], scale=scale)
            _subject_axis(axes, subjects)
            reach = max((scale * (each.high or each.value or 0.0) for each in drawn), default=0.0)
            axes.set_xlim(0, 100 if metric == FINISHED else max(1.15 * reach, 1.0))
            axes.set_title(titles[metric], fontsize=9.5, loc="left")
    return out[0]


def training_plot(curve: Sequence[Mapping[str, float]]) -> str:
    """Loss, reward accuracy and margin over the optimiser steps, as far as they were logged."""
    names = {"loss": "Loss", "rewards/accuracies": "Reward accuracy", "rewards/margins": "Reward margin"}
    shown = [name for name in names if any(name in row for row in curve)]
    with inline_figure(7.6, 2.3) as (figure, out):
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            rows = [row for row in curve if name in row]
            axes.plot([row["step"] for row in rows], [row[name] for row in rows], color="#c2410c", linewidth=1.6)
            axes.set_title(names[name], fontsize=9.5, loc="left")
            axes.set_xlabel("step")
            axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    return out[0]


def _subjects(report: EvalReport) -> list[str]:
    return list(dict.fromkeys(each.subject for each in report.estimates))


def _dot(
    axes: Axes,
    each: Estimate,
    y: float,
    colour: str,
    marker: str,
    *,
    strong: bool = True,
    scale: float = 100,
    label: str | None = None,
) -> None:
    """A mean with its interval as a line."""
    if each.value is None:
        return
    if each.low is not None and each.high is not None:
        ends = [scale * each.low, scale * each.high]
        axes.plot(ends, [y, y], color=colour, linewidth=2.2 if strong else 1.1, alpha=0.9, solid_capstyle="round")
    axes.plot(
        [scale * each.value],
        [y],
        marker=marker,
        color=colour,
        markersize=6.5 if strong else 4.5,
        linestyle="none",
        label=label,
        markeredgecolor=colour if marker == "|" else "white",
        markeredgewidth=1.6 if marker == "|" else 0.7,
        clip_on=False,
        zorder=3,
    )


def _subject_axis(axes: Axes, subjects: Sequence[str]) -> None:
    axes.set_yticks(range(len(subjects)), subjects)
    axes.set_ylim(len(subjects) - 0.45, -0.55)
