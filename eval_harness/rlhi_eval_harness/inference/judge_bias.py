"""What a judge prefers apart from quality: the answer it reads first, and the longer one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhi_eval_harness.inference.agreement import Agreement, cohens_kappa
from rlhi_eval_harness.statistics import Interval, Value, mean


@dataclass(frozen=True)
class SeenBothWays:
    """One comparison, judged in both orders.

    Attributes:
        key: Of the comparison.
        user: Its cluster; the key itself where comparisons are independent.
        shown_first: Verdict for our answer where it stood first: 1 it won, 0 it lost, 0.5 tie, None unscored.
        shown_second: The same where it stood second.
    """

    key: str
    user: str
    shown_first: float | None
    shown_second: float | None


@dataclass(frozen=True)
class PositionBias:
    """How far the order decides.

    Attributes:
        first_wins: Share of verdicts for whichever answer stood first, ties half, with its interval over users; 0.5 is
            no bias.
        p_value: Exact binomial test of the comparisons whose winner changed with the order: first twice against second
            twice; None where there is none.
        flipped: Share of comparisons whose verdict changed with the order.
        between_orders: Agreement of the two orders, quadratically weighted.
    """

    first_wins: Interval
    p_value: float | None
    flipped: Interval
    between_orders: Agreement


@dataclass(frozen=True)
class LengthBias:
    """How far length goes along with winning. It is no proof of cause: longer answers may be better.

    Attributes:
        longer_wins: Share of verdicts for the longer answer, ties half, with its interval over users; 0.5 is none.
        correlation: Spearman's rank correlation of the relative length difference with the verdict, -1 to 1; None
            where one of the two does not vary.
        p_value: Of the correlation.
        median_ratio: Median of our length over the other's.
    """

    longer_wins: Interval
    correlation: float | None
    p_value: float | None
    median_ratio: float | None


def position_bias(comparisons: Iterable[SeenBothWays], *, seed: int = 0) -> PositionBias:
    """Measure position bias from comparisons that were judged in both orders; one with a single verdict is unscored."""
    from scipy.stats import binomtest

    items = list(comparisons)
    first_wins, flipped = [], []
    twice_first = twice_second = 0
    for each in items:
        one, other = each.shown_first, each.shown_second
        if one is None or other is None:
            first_wins.append(Value(each.user, each.key, None))
            flipped.append(Value(each.user, each.key, None))
            continue
        first_wins.append(Value(each.user, each.key, (one + 1 - other) / 2))
        flipped.append(Value(each.user, each.key, float(one != other)))
        twice_first += one > other
        twice_second += one < other
    decided = twice_first + twice_second
    return PositionBias(
        first_wins=mean(first_wins, share=True, seed=seed),
        p_value=float(binomtest(twice_first, decided).pvalue) if decided else None,
        flipped=mean(flipped, share=True, seed=seed),
        between_orders=cohens_kappa(
            {each.key: each.shown_first for each in items},
            {each.key: each.shown_second for each in items},
            weights="quadratic",
        ),
    )


def length_bias(verdicts: Sequence[Value], lengths: Sequence[tuple[float, float]], *, seed: int = 0) -> LengthBias:
    """Measure how far the longer answer wins.

    Args:
        verdicts: 1 our answer won, 0 it lost, between them in part, None unscored.
        lengths: For each verdict, the length of our answer and of the other one, in any unit, 0 or more.
        seed: Of the interval.
    """
    import numpy as np
    from scipy.stats import spearmanr

    wins, relative, won, ratios = [], [], [], []
    for verdict, (ours, theirs) in zip(verdicts, lengths, strict=True):
        if verdict.value is None:
            wins.append(verdict)
            continue
        if theirs > 0:
            ratios.append(ours / theirs)
        relative.append((ours - theirs) / max(ours + theirs, 1))
        won.append(verdict.value)
        if ours != theirs:
            longer = verdict.value if ours > theirs else 1 - verdict.value
            wins.append(Value(verdict.user, verdict.key, longer))
    varies = len(won) > 2 and np.ptp(relative) > 0 and np.ptp(won) > 0  # noqa: PLR2004 - two points always correlate
    test = spearmanr(relative, won) if varies else None
    return LengthBias(
        longer_wins=mean(wins, share=True, seed=seed),
        correlation=None if test is None else float(test.statistic),
        p_value=None if test is None else float(test.pvalue),
        median_ratio=float(np.median(ratios)) if ratios else None,
    )
