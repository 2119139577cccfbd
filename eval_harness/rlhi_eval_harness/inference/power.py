"""How small a difference could this evaluation have seen? Without it, "no difference found" says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rlhi_eval_harness.inference.comparisons import paired
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ConfigError, MissingExtraError


@dataclass(frozen=True)
class DetectableEffect:
    """The smallest true difference that would be found with the power asked for.

    Attributes:
        difference: In the unit of the values, above 0; 0 where the paired differences do not vary at all.
        standard_error: Of the mean paired difference, clustered by user.
        design_effect: Its variance over what as many independent answers would give; above 1 where the answers of a
            user resemble one another.
        clusters: Users.
        power: Asked for.
        level: Of the two-sided test.
    """

    difference: float
    standard_error: float
    design_effect: float
    clusters: int
    power: float
    level: float


def minimum_detectable_effect(
    values: Iterable[Value], baseline: Iterable[Value], *, power: float = 0.8, level: float = 0.05
) -> DetectableEffect | None:
    """Minimum detectable mean paired difference, clustered by user.

    The mean over all pairs is a ratio of per-user sums and counts; linearised (Cochran, Sampling Techniques, 1977,
    section 6.5), each user contributes one number, whose spread and count go into the power of a one-sample t-test
    (``statsmodels.stats.power.TTestPower``).

    Args:
        values: Of one subject.
        baseline: Of the other, paired by key.
        power: Chance to find a difference of that size, above `level` and below 1.
        level: Of the two-sided test, above 0 and below 1.

    Returns:
        None where fewer than two users have a pair.

    Raises:
        ConfigError: an argument is out of range.
        MissingExtraError: statsmodels is not installed.
    """
    if not 0 < level < power < 1:
        raise ConfigError(f"power={power}, level={level}: give 0 < level < power < 1.")
    pairs, _ = paired(values, baseline)
    users = sorted({pair.user for pair in pairs})
    if len(users) < 2:  # noqa: PLR2004 - one user has no spread
        return None
    differences = np.array([pair.first - pair.second for pair in pairs])
    owner = np.searchsorted(users, [pair.user for pair in pairs])
    counts = np.bincount(owner, minlength=len(users))
    residuals = np.bincount(owner, weights=differences - differences.mean(), minlength=len(users))
    contributions = residuals / counts.mean()
    spread = float(contributions.std(ddof=1))
    if spread == 0:
        return DetectableEffect(0.0, 0.0, 1.0, len(users), power, level)
    try:
        from statsmodels.stats.power import TTestPower
    except ImportError as error:
        raise MissingExtraError("statsmodels", "eval") from error
    # Where its first way of solving fails, it takes another, and returns an array of one number.
    standardised = float(np.ravel(TTestPower().solve_power(nobs=len(users), alpha=level, power=power))[0])
    variance = spread**2 / len(users)
    independent = float(differences.var(ddof=1)) / len(differences)
    return DetectableEffect(
        difference=standardised * spread,
        standard_error=float(np.sqrt(variance)),
        design_effect=variance / independent if independent else 1.0,
        clusters=len(users),
        power=power,
        level=level,
    )
