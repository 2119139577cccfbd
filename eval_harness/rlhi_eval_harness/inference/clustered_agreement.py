"""Agreement beyond chance with an interval over users: users are drawn again with all that was said of their answers.

Both coefficients rest on a table that is a sum over users (who said what beside whom), so a resample is a weighted sum
of the users' tables, and thousands of them are one product of matrices. The values themselves come from statsmodels and
krippendorff; the resampled ones from the formulas below, which give the same (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.inference.agreement import cohens_kappa, krippendorff_alpha
from rlhi_eval_harness.statistics import RESAMPLES, nominal_level

Array = npt.NDArray[np.float64]
DEFINED = 0.9
"""Share of resamples that must have a value; else there is no interval."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient with its 95 % interval over users.

    Attributes:
        value: At most 1; 0 is chance. None where chance alone would make everybody agree, or nothing is paired.
        low: Lower end; None for fewer than two users, or where too many resamples have no value.
        high: Upper end.
        n: Pairs of ratings for kappa; items with two ratings or more for alpha.
        clusters: Users among them.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int


@dataclass(frozen=True)
class RatedTwice:
    """Two ratings of one thing, and whose it is; categories are 0, 1, 2, ... in their order."""

    user: str
    first: int
    second: int


def clustered_kappa(
    pairs: Sequence[RatedTwice],
    *,
    weights: Literal["quadratic"] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Coefficient:
    """Cohen's kappa; with quadratic weights a win against a loss is further apart than a tie is from either.

    Args:
        pairs: Both ratings of each thing.
        weights: None takes categories as names.
        seed: Of the resampling.
        resamples: How many.
    """
    users = {user: number for number, user in enumerate(sorted({pair.user for pair in pairs}))}
    if not pairs:
        return Coefficient(None, None, None, 0, 0)
    size = 1 + max(max(pair.first, pair.second) for pair in pairs)
    tables = np.zeros((len(users), size, size))
    for pair in pairs:
        tables[users[pair.user], pair.first, pair.second] += 1
    value = cohens_kappa(
        {str(number): float(pair.first) for number, pair in enumerate(pairs)},
        {str(number): float(pair.second) for number, pair in enumerate(pairs)},
        weights=weights,
    ).kappa
    distance = np.arange(size)[:, None] - np.arange(size)[None, :]
    apart = (distance != 0).astype(float) if weights is None else distance.astype(float) ** 2
    low, high = resampled(tables, lambda sums: kappas(sums, apart), seed=seed, resamples=resamples)
    return Coefficient(value, low, high, len(pairs), len(users))


def clustered_alpha(
    ratings: Sequence[Mapping[str, float | None]],
    user_of: Mapping[str, str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Coefficient:
    """Krippendorff's alpha of names (nominal).

    Args:
        ratings: For each rater, the rating by item; None is unscored.
        user_of: Whose each item is.
        seed: Of the resampling.
        resamples: How many.
    """
    values = sorted({value for rater in ratings for value in rater.values() if value is not None})
    by_item: dict[str, list[float]] = {}
    for rater in ratings:
        for item, value in rater.items():
            if value is not None:
                by_item.setdefault(item, []).append(value)
    paired = {item: said for item, said in by_item.items() if len(said) > 1}
    users = {user: number for number, user in enumerate(sorted({user_of[item] for item in paired}))}
    tables = np.zeros((len(users), len(values), len(values)))
    for item, said in paired.items():
        counts = np.array([said.count(value) for value in values], dtype=np.float64)
        tables[users[user_of[item]]] += (np.outer(counts, counts) - np.diag(counts)) / (len(said) - 1)
    low, high = resampled(tables, alphas, seed=seed, resamples=resamples) if paired else (None, None)
    return Coefficient(krippendorff_alpha(ratings) if paired else None, low, high, len(paired), len(users))


def kappas(tables: Array, apart: Array) -> Array:
    """Weighted kappa of each table (Cohen 1968): one minus observed over expected disagreement.

    Args:
        tables: Counts, of shape ``[tables, categories, categories]``.
        apart: Disagreement of two categories, 0 on the diagonal.
    """
    total = tables.sum(axis=(1, 2))
    expected = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 1 - (tables * apart).sum(axis=(1, 2)) * total / (expected * apart).sum(axis=(1, 2))
    return np.asarray(found)


def alphas(tables: Array) -> Array:
    """Nominal alpha of each table of coincidences (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011)."""
    total = tables.sum(axis=(1, 2))
    marginals = tables.sum(axis=2)
    observed = total - np.trace(tables, axis1=1, axis2=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (total**2 - (marginals**2).sum(axis=1)) / (total - 1)
        return np.asarray(1 - observed / expected)


def resampled(
    tables: Array, statistic: Callable[[Array], Array], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """95 % percentile interval of a statistic of sums over clusters, its level widened for few of them.

    Args:
        tables: One summand a cluster, of shape ``[clusters, ...]``.
        statistic: Of sums of shape ``[resamples, ...]``; NaN where it has no value.
        seed: Of the resampling.
        resamples: How many.
    """
    clusters = len(tables)
    if clusters < 2:  # noqa: PLR2004 - one cluster has no spread
        return None, None
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    found = statistic(np.tensordot(draws.astype(np.float64), tables, axes=1))
    defined = found[np.isfinite(found)]
    if len(defined) < DEFINED * resamples:
        return None, None
    tail = (1 - nominal_level(clusters)) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
