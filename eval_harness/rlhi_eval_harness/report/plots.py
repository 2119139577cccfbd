"""The report's plots, as SVG text to be placed inline: no file, no request, and sharp at any size.

A subject has the same colour (Okabe and Ito's, told apart with any colour vision) and the same marker everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.numbers import ALL, unscored_share
from rlhi_eval_harness.records import Estimate, EvalReport, Metric
from rlhi_eval_harness.report.tables import number, shown_metrics, subjects_of
from rlhi_eval_harness.scoring import FINISHED, REPETITION, WORDS
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
"""Colour and marker of each usual subject."""
_MORE = ("#8a6d00", "#5b21b6", "#0e7490", "#9f1239", "#3f6212", "#7c3aed")
_MARKERS = "vP*Xhd"


def style_of(subjects: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each subject; the usual ones look the same in every report."""
    others = [name for name in subjects if name not in STYLE]
    found = dict(STYLE)
    found |= {name: (_MORE[i % len(_MORE)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(others)}
    return {name: found[name] for name in subjects}


GROUP_LABELS = {ALL: "all users", "seen": "wordings as in training", "new": "new wordings"}


def headline_plot(report: EvalReport) -> str:
    """The first metric of each subject: overall, and in each group."""
    return metric_plot(report, report.metrics[0])


def metric_plot(report: EvalReport, metric: Metric) -> str:
    """One metric of each subject that has it: overall as a thick line, each group as a thin one."""
    found = by_key(report.estimates)
    mine = [each for each in report.estimates if each.metric == metric.name]
    subjects = list(dict.fromkeys(each.subject for each in mine))
    named = dict.fromkeys(each.group for each in mine)
    groups = [*(group for group in GROUP_LABELS if group in named), *(g for g in named if g not in GROUP_LABELS)]
    style, scale = style_of(subjects_of(report)), 1 if metric.unit == "count" else 100
    with inline_figure(7.6, 0.9 + (0.16 + 0.155 * max(len(groups), 3)) * len(subjects)) as (figure, out):
        axes = figure.subplots()
        for row, subject in enumerate(subjects):
            for place, group in enumerate(groups):
                if (each := found.get((metric.name, subject, group, None))) is not None:
                    y = row + 0.69 / max(len(groups), 3) * (place - (len(groups) - 1) / 2)
                    _labelled(axes, each, y, metric, style=style[subject])
        _subject_axis(axes, subjects)
        if metric.unit == "share":
            axes.set_xlim(0, 100)
        if metric.neutral:
            axes.axvline(scale * metric.neutral, color="#9ca3af", linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        axes.set_xlabel(f"{metric.label[:1].lower()}{metric.label[1:]}{', per cent' if scale != 1 else ''}")
    return out[0]


def _labelled(axes: Axes, each: Estimate, y: float, metric: Metric, *, style: tuple[str, str]) -> None:
    """A mean with its interval and its number; groups are thinner and named."""
    whole, scale = each.group == ALL, 1 if metric.unit == "count" else 100
    _dot(axes, each, y, style[0], style[1] if whole else "|", strong=whole, scale=scale)
    if each.value is None:
        return
    value = number(metric, each.value)
    right = each.high if each.high is not None else each.value
    axes.annotate(
        value if whole else f"{value}  {GROUP_LABELS.get(each.group, each.group)}",
        (scale * right, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=INK if whole else QUIET,
        fontsize=9.5 if whole else 7.5,
        fontweight="bold" if whole else "normal",
    )


def preference_plot(report: EvalReport) -> str:
    """Each single preference: how often each subject keeps it for the users who have it; empty where there is none."""
    found = by_key(report.estimates)
    subjects = subjects_of(report)
    style = style_of(subjects)
    metrics = [metric for metric in report.metrics if metric.role == "detail"]
    if not metrics:
        return ""
    with inline_figure(7.6, 1.2 + 0.72 * len(metrics)) as (figure, out):
        axes = figure.subplots()
        step = 0.72 / max(len(subjects), 1)
        for row, metric in enumerate(metrics):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", zorder=0, linewidth=0)
            for place, subject in enumerate(subjects):
                colour, marker = style[subject]
                y = row + step * (place - (len(subjects) - 1) / 2)
                if (each := found.get((metric.name, subject, ALL, None))) is not None:
                    _dot(axes, each, y, colour, marker, label=subject if row == 0 else None)
        axes.set_yticks(range(len(metrics)), [metric.label for metric in metrics])
        axes.set_ylim(len(metrics) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("kept, per cent of answers to users who want it")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, fontsize=8.5)
    return out[0]


def health_plot(report: EvalReport) -> str:
    """Length, repetition and finished answers of every subject: what a gain may have cost; nothing where unmeasured."""
    found = by_key(report.estimates)
    subjects = subjects_of(report)
    style = style_of(subjects)
    titles = {WORDS: "Words per answer", REPETITION: "Repeated runs, %", FINISHED: "Ended before the cap, %"}
    if not {metric.name for metric in shown_metrics(report)} >= titles.keys():
        return ""
    with inline_figure(7.6, 0.9 + 0.36 * len(subjects)) as (figure, out):
        for axes, metric in zip(figure.subplots(1, len(titles), sharey=True), titles, strict=True):
            scale = 1 if metric == WORDS else 100
            drawn = [found.get((metric, subject, ALL, None)) for subject in subjects]
            for row, (subject, each) in enumerate(zip(subjects, drawn, strict=True)):
                if each is not None:
                    _dot(axes, each, row, *style[subject], scale=scale)
            _subject_axis(axes, subjects)
            reach = max((scale * (each.high or each.value or 0.0) for each in drawn if each), default=0.0)
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
        # Hollow: not to be used.
        markerfacecolor="white" if unscored_share(each) > UNSCORED_LIMIT else colour,
        markersize=6.5 if strong else 4.5,
        linestyle="none",
        label=label,
        markeredgecolor=colour if marker == "|" or unscored_share(each) > UNSCORED_LIMIT else "white",
        markeredgewidth=1.6 if marker == "|" else 0.7,
        clip_on=False,
        zorder=3,
    )


def _subject_axis(axes: Axes, subjects: Sequence[str]) -> None:
    axes.set_yticks(range(len(subjects)), subjects)
    axes.set_ylim(len(subjects) - 0.45, -0.55)
