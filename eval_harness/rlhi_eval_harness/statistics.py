"""Means and paired differences with 95 % intervals that respect who the answers belong to.

Answers of one user resemble one another, so the unit of evidence is the user: the bootstrap (`scipy.stats.bootstrap`)
resamples users with all their answers, never single answers. An interval from few users would be too narrow; its
nominal level is therefore widened as Hesterberg advises for small samples (The American Statistician 69(4), 2015,
"expanded percentile interval"), which multiplies its width by about ``t(k-1) / z * sqrt(k / (k-1))`` for ``k`` users.

An unscored answer is counted and reported, and never enters a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.records import Estimate

CONFIDENCE = 0.95
RESAMPLES = 4000
"""Bootstrap resamples: the interval's ends then move by about a hundredth of its width from seed to seed."""


@dataclass(frozen=True)
class Value:
    """One scored answer.

    Attributes:
        user: Its cluster.
        key: What the answer is to; equal keys of two subjects are paired.
        value: None is unscored.
    """

    user: str
    key: str
    value: float | None


@dataclass(frozen=True)
class Interval:
    """A mean over all scored answers, with its interval; ``low`` and ``high`` are None for fewer than two users."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    unscored: int


def mean(values: Iterable[Value], *, share: bool = False, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean of the scored values, clustered by user.

    Args:
        values: Of one subject.
        share: The values lie in [0, 1]. Where all are 0 or all are 1 there is nothing to resample; the interval is then
            the exact binomial one (Clopper-Pearson) for as many independent trials as there are users.
        seed: Of the resampling.
        resamples: How many.
    """
    everything = list(values)
    scored = [each for each in everything if each.value is not None]
    unscored = len(everything) - len(scored)
    if not scored:
        return Interval(None, None, None, 0, 0, unscored)
    sums, counts = _per_user(scored)
    value = float(sums.sum() / counts.sum())
    low, high = _interval(sums, counts, seed, resamples)
    if share and low is not None and value in {0.0, 1.0}:
        reach = ((1 - CONFIDENCE) / 2) ** (1 / len(sums))
        low, high = (0.0, 1 - reach) if value == 0 else (reach, 1.0)
    return Interval(value, low, high, len(scored), len(sums), unscored)


def paired_difference(
    values: Iterable[Value], baseline: Iterable[Value], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of ``values - baseline`` over the keys that both scored, clustered by user.

    A key that only one of the two scored counts as unscored, and so does one that only one of them has.
    """
    first = {each.key: each for each in values}
    second = {each.key: each for each in baseline}
    differences = []
    for key in sorted(first.keys() | second.keys()):
        left, right = first.get(key), second.get(key)
        user = (left or second[key]).user
        if left is None or right is None or left.value is None or right.value is None:
            differences.append(Value(user, key, None))
        else:
            differences.append(Value(user, key, left.value - right.value))
    return mean(differences, seed=seed, resamples=resamples)


def estimate(
    interval: Interval, *, metric: str, subject: str, group: str = "all", versus: str | None = None
) -> Estimate:
    """Name an interval: what was measured, of whom, against whom."""
    return Estimate(
        metric=metric,
        subject=subject,
        group=group,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        clusters=interval.clusters,
        unscored=interval.unscored,
        versus=versus,
    )


def nominal_level(clusters: int) -> float:
    """Confidence level to ask of a percentile interval over `clusters` users so that it covers as intended.

    Raises:
        ValueError: fewer than two users.
    """
    from scipy.stats import norm, t

    if clusters < 2:  # noqa: PLR2004 - one user has no spread
        raise ValueError("an interval needs at least two users")
    reach = np.sqrt(clusters / (clusters - 1)) * t.ppf((1 + CONFIDENCE) / 2, clusters - 1)
    return float(2 * norm.cdf(reach) - 1)


def _per_user(scored: Sequence[Value]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum and count of each user's values, users in sorted order: both of shape ``[users]``."""
    by_user: dict[str, list[float]] = {}
    for each in scored:
        assert each.value is not None  # noqa: S101 - the caller passes scored values only
        by_user.setdefault(each.user, []).append(each.value)
    users = sorted(by_user)
    return (
        np.array([np.sum(by_user[user]) for user in users], dtype=np.float64),
        np.array([len(by_user[user]) for user in users], dtype=np.float64),
    )


def _interval(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], seed: int, resamples: int
) -> tuple[float | None, float | None]:
    if len(sums) < 2:  # noqa: PLR2004 - one user has no spread
        return None, None
    if np.ptp(sums / counts) == 0:
        constant = float(sums[0] / counts[0])
        return constant, constant
    from scipy.stats import bootstrap

    result = bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=nominal_level(len(sums)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _ratio(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))


def by_key(estimates: Iterable[Estimate]) -> Mapping[tuple[str, str, str, str | None], Estimate]:
    """Look estimates up by (metric, subject, group, versus)."""
    return {(each.metric, each.subject, each.group, each.versus): each for each in estimates}
