"""The report's plots: follow-ups by place, lengths and rewards of chosen and rejected answers."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.checks import word_count
from rlhi_plugin.page.figures import QUIET, inline_figure
from rlhi_training.follow_up_table import KINDS, PAPER_LATE_WITH_FEEDBACK, FollowUpTable
from rlhi_training.records import PreferencePair
from rlhi_training.report.facts import curve_rows

CHOSEN, REJECTED = "#00795c", "#c2410c"
"""The same two colours everywhere; the texts say which is which as well."""
_KINDS = {
    "new_request": ("#0072b2", "s", "new request"),
    "reattempt_with_feedback": ("#c2410c", "o", "re-attempt with feedback"),
    "reattempt_without_feedback": ("#6b7280", "D", "re-attempt without"),
    "positive_feedback": ("#00795c", "^", "positive feedback"),
}
_BINS = 40
_OUTLIERS = 0.98
"""Share of values that a histogram shows; the others are in its last bin."""


def curve_plot(table: FollowUpTable) -> str:
    """Share of each kind of follow-up by its place in the conversation, with the paper's number after the fifth."""
    rows = curve_rows(table)
    with inline_figure(7.6, 3.0) as (figure, out):
        axes = figure.subplots()
        for column, kind in enumerate(kind for kind in KINDS if kind != "initial"):
            colour, marker, label = _KINDS[kind]
            shares = [100 * shares[column] for _, _, shares in rows]
            axes.plot(range(len(rows)), shares, color=colour, marker=marker, label=label, markersize=6, clip_on=False)
        if rows and rows[-1][0] == ">5":
            paper = 100 * PAPER_LATE_WITH_FEEDBACK
            axes.plot([len(rows) - 1], [paper], "o", markerfacecolor="none", color=_KINDS["reattempt_with_feedback"][0])
            axes.annotate(
                "paper", (len(rows) - 1, paper), xytext=(-8, 0), textcoords="offset points", ha="right", va="center"
            )
        axes.set_xticks(range(len(rows)), [f"#{place}\n{count}" for place, count, _ in rows])
        axes.set_ylim(0, 100)
        axes.set_ylabel("per cent of follow-ups")
        axes.set_xlabel("place of the message in its conversation, and how many there are")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=8.5)
    return out[0]


def length_plot(pairs: Sequence[PreferencePair]) -> str:
    """Words of chosen and rejected answers, and how many more the chosen one has."""
    chosen = [word_count(pair.chosen) for pair in pairs]
    rejected = [word_count(pair.rejected) for pair in pairs]
    gain = [c - r for c, r in zip(chosen, rejected, strict=True)]
    with inline_figure(7.6, 2.7) as (figure, out):
        left, right = figure.subplots(1, 2)
        top = _reach([*chosen, *rejected])
        for counts, colour, label in ((chosen, CHOSEN, "chosen"), (rejected, REJECTED, "rejected")):
            shown = [min(count, top) for count in counts]
            left.hist(shown, bins=_BINS, range=(0, top), histtype="step", linewidth=1.8, color=colour, label=label)
        left.set_title("Words per answer", fontsize=9.5, loc="left")
        left.legend(frameon=False, fontsize=8.5)
        far = _reach([abs(words) for words in gain])
        right.hist([max(-far, min(words, far)) for words in gain], bins=_BINS, range=(-far, far), color=QUIET)
        right.axvline(0, color=REJECTED, linewidth=1)
        right.set_title("Words of chosen minus rejected", fontsize=9.5, loc="left")
        left.set_ylabel("pairs")
    return out[0]


def margin_plot(pairs: Sequence[PreferencePair]) -> str:
    """Margins by source, and against the difference in length; empty where nothing was scored."""
    scored = [pair for pair in pairs if pair.margin]
    if not scored:
        return ""
    colours = ("#0072b2", "#c2410c", "#00795c")
    sources = sorted({pair.source for pair in scored})
    with inline_figure(7.6, 2.7) as (figure, out):
        left, right = figure.subplots(1, 2)
        margins = [pair.margin for pair in scored]
        low, high = min(margins), max(margins)
        high = high if high > low else low + 1
        for source, colour in zip(sources, colours, strict=False):
            theirs = [pair for pair in scored if pair.source == source]
            left.hist(
                [p.margin for p in theirs], bins=_BINS, range=(low, high), histtype="step", color=colour, label=source
            )
            words = [word_count(p.chosen) - word_count(p.rejected) for p in theirs]
            right.plot([p.margin for p in theirs], words, ".", color=colour, markersize=3.5, alpha=0.6)
        left.set_title("Margin of chosen over rejected", fontsize=9.5, loc="left")
        left.legend(frameon=False, fontsize=8.5)
        left.set_ylabel("pairs")
        right.axhline(0, color="#9ca3af", linewidth=0.8)
        right.set_title("Words chosen minus rejected, by margin", fontsize=9.5, loc="left")
    return out[0]


def _reach(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return max(1.0, ordered[min(len(ordered) - 1, int(_OUTLIERS * len(ordered)))]) if ordered else 1.0
