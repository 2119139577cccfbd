"""Is a difference more than chance, and is it still when many were looked at?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ConfigError, MissingExtraError

EXACT_BELOW = 25
"""Discordant pairs below which McNemar's test uses the binomial distribution: statsmodels' own advice."""

FLIPS_AT_ONCE = 4_000_000
"""Signs that a permutation test holds in memory at a time: 32 MB in each of its arrays."""

METHODS = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}
"""Our names of the corrections, and those of ``statsmodels.stats.multitest.multipletests``."""

Method = Literal["holm", "benjamini-hochberg"]


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two binary results on the same items.

    Attributes:
        both: Items that both passed.
        only_first: Items that only the first passed.
        only_second: Items that only the second passed.
        neither: Items that both failed.
        unpaired: Items that one of the two has no score for; not in the test.
        p_value: Two-sided.
        exact: Whether it is the binomial test, not the corrected chi-squared one.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    unpaired: int
    p_value: float
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """One of several comparisons, corrected for the others.

    Attributes:
        name: What is compared.
        p_value: As it came.
        adjusted: Corrected, at most 1.
        significant: Whether `adjusted` is at most the level asked for.
    """

    name: str
    p_value: float
    adjusted: float
    significant: bool


def mcnemar(first: Iterable[Value], second: Iterable[Value]) -> McNemar:
    """Compare two binary results item by item.

    The test takes items as independent. Where users have several items each, `paired_p_value` is the one to report.

    Args:
        first: Values 0 or 1, paired with `second` by key.
        second: Likewise.

    Raises:
        ConfigError: a value is neither 0 nor 1.
        MissingExtraError: statsmodels is not installed.
    """
    pairs, unpaired = paired(first, second)
    if any(value not in {0.0, 1.0} for pair in pairs for value in (pair.first, pair.second)):
        raise ConfigError("McNemar's test takes values 0 and 1 only. For other values use paired_p_value.")
    cells = np.zeros((2, 2), dtype=int)
    for pair in pairs:
        cells[1 - int(pair.first), 1 - int(pair.second)] += 1
    try:
        from statsmodels.stats.contingency_tables import mcnemar as test
    except ImportError as error:
        raise MissingExtraError("statsmodels", "eval") from error
    only_first, only_second = int(cells[0, 1]), int(cells[1, 0])
    exact = only_first + only_second < EXACT_BELOW
    p_value = float(test(cells, exact=exact, correction=True).pvalue) if only_first + only_second else 1.0
    return McNemar(int(cells[0, 0]), only_first, only_second, int(cells[1, 1]), unpaired, min(p_value, 1.0), exact)


def paired_p_value(
    values: Iterable[Value], baseline: Iterable[Value], *, seed: int = 0, resamples: int = 9999
) -> float | None:
    """Two-sided p-value of the mean paired difference, clustered by user.

    Sign-flip permutation test (`scipy.stats.permutation_test`): if the two did not differ, a user's differences could
    as well have the other sign, all of them together. Exact where the users are few enough to try every combination.

    Returns:
        None where fewer than two users have a pair.
    """
    from scipy.stats import permutation_test

    pairs, _ = paired(values, baseline)
    sums: dict[str, float] = {}
    for pair in pairs:
        sums[pair.user] = sums.get(pair.user, 0.0) + pair.first - pair.second
    if len(sums) < 2:  # noqa: PLR2004 - one user has no spread
        return None
    difference = np.array([sums[user] for user in sorted(sums)])
    result = permutation_test(
        (difference, np.zeros_like(difference)),
        _mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(FLIPS_AT_ONCE // len(difference), 1),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def correct(p_values: Mapping[str, float], *, method: Method = "holm", level: float = 0.05) -> tuple[Comparison, ...]:
    """Correct the p-values of several comparisons for there being several.

    Args:
        p_values: By name of the comparison.
        method: ``holm`` bounds the chance of any false finding (Holm 1979); ``benjamini-hochberg`` the expected share
            of false ones among the findings (Benjamini and Hochberg 1995).
        level: That chance or share, above 0 and below 1.

    Raises:
        ConfigError: an argument is out of range.
        MissingExtraError: statsmodels is not installed.
    """
    if method not in METHODS or not 0 < level < 1:
        raise ConfigError(f"method={method!r}, level={level}: give one of {sorted(METHODS)}, and a level in (0, 1).")
    if any(not 0 <= value <= 1 for value in p_values.values()):
        raise ConfigError("a p-value lies outside 0 to 1. Leave comparisons without a p-value out.")
    if not p_values:
        return ()
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError as error:
        raise MissingExtraError("statsmodels", "eval") from error
    rejected, adjusted, _, _ = multipletests(list(p_values.values()), alpha=level, method=METHODS[method])
    return tuple(
        Comparison(name, p_values[name], float(after), bool(significant))
        for name, after, significant in zip(p_values, adjusted, rejected, strict=True)
    )


@dataclass(frozen=True)
class Pair:
    """Two values of the same key, both scored."""

    user: str
    first: float
    second: float


def paired(first: Iterable[Value], second: Iterable[Value]) -> tuple[Sequence[Pair], int]:
    """Pair two results by key, in the order of the keys; and how many keys have no complete pair."""
    left, right = {each.key: each for each in first}, {each.key: each for each in second}
    pairs = []
    keys = sorted(left.keys() | right.keys())
    for key in keys:
        one, other = left.get(key), right.get(key)
        if one is not None and other is not None and one.value is not None and other.value is not None:
            pairs.append(Pair(one.user, one.value, other.value))
    return pairs, len(keys) - len(pairs)


def _mean_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], axis: int = -1
) -> npt.NDArray[np.float64]:
    return np.asarray((first - second).mean(axis=axis))
