"""Do two judges, two raters or two orders of the same answers say the same?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlhi_plugin.errors import ConfigError, MissingExtraError

Level = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two raters.

    Attributes:
        items: That both rated.
        unpaired: That only one rated, or neither.
        observed: Share of items on which they agree, 0 to 1.
        kappa: Agreement beyond chance, at most 1; None where chance alone would make them agree on everything.
        low: Lower end of its 95 % interval (large-sample variance, Fleiss, Cohen and Everitt 1969).
        high: Upper end.
    """

    items: int
    unpaired: int
    observed: float | None
    kappa: float | None
    low: float | None
    high: float | None


def cohens_kappa(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    *,
    weights: Literal["linear", "quadratic"] | None = None,
) -> Agreement:
    """Agreement of two raters beyond chance (statsmodels).

    Args:
        first: Rating by item; None is unscored.
        second: Likewise.
        weights: For ordered ratings: near misses count in part. The weights are of the ranks of the ratings that occur.

    Raises:
        ConfigError: `weights` is unknown.
        MissingExtraError: statsmodels is not installed.
    """
    if weights not in {None, "linear", "quadratic"}:
        raise ConfigError(f"weights={weights!r}: give None, 'linear' or 'quadratic'.")
    items = first.keys() | second.keys()
    ratings = [
        (one, other)
        for one, other in ((first.get(item), second.get(item)) for item in items)
        if one is not None and other is not None
    ]
    unpaired = len(items) - len(ratings)
    if not ratings:
        return Agreement(0, unpaired, None, None, None, None)
    values = sorted({value for pair in ratings for value in pair})
    observed = sum(one == other for one, other in ratings) / len(ratings)
    if len(values) == 1:
        return Agreement(len(ratings), unpaired, observed, None, None, None)
    table = np.zeros((len(values), len(values)))
    for one, other in ratings:
        table[values.index(one), values.index(other)] += 1
    try:
        from statsmodels.stats.inter_rater import cohens_kappa as estimate
    except ImportError as error:
        raise MissingExtraError("statsmodels", "eval") from error
    # Its z-value, which is not used here, divides by a variance that may be 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        result = estimate(table, wt=weights)
    return Agreement(
        len(ratings), unpaired, observed, float(result.kappa), float(result.kappa_low), float(result.kappa_upp)
    )


def krippendorff_alpha(ratings: Sequence[Mapping[str, float | None]], *, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha of any number of raters; items that a rater left out are allowed.

    Args:
        ratings: For each rater, the rating by item; None is unscored.
        level: What the numbers mean: names, ranks, distances or ratios.

    Returns:
        At most 1; 0 is chance. None where fewer than two ratings can be paired, or all are the same.

    Raises:
        MissingExtraError: the package krippendorff is not installed.
    """
    try:
        import krippendorff
    except ImportError as error:
        raise MissingExtraError("krippendorff", "eval") from error
    items = sorted({item for rater in ratings for item in rater})
    data = [[np.nan if (value := rater.get(item)) is None else value for item in items] for rater in ratings]
    table = np.array(data, dtype=np.float64).reshape(len(ratings), len(items))
    pairable = table[:, (~np.isnan(table)).sum(axis=0) >= 2] if items else table  # noqa: PLR2004 - a pair
    values = pairable[~np.isnan(pairable)]
    if values.size == 0 or np.ptp(values) == 0:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))
