"""What difference an evaluation could see: statistical power of a win rate over users.

A user's answers are alike, so users and not answers are the sample. With n users, m answers each, a standard deviation
s of one answer's outcome and a correlation r between answers of one user, the variance of the mean is
s**2 (1 + (m - 1) r) / (m n) (the design effect of Kish 1965; Donner and Klar 2000, chapter 5), and a two-sided test at
level a with power p sees a difference of (z(1 - a/2) + z(p)) times its square root. Normal quantiles: below 30 users
the truth is a little worse.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LEVEL = 0.05
POWER = 0.8
DEVIATION = 0.5
"""Of a win (1), tie (1/2) or loss (0): at most this, at a win rate of 50 % without ties."""
CORRELATION = 0.1
"""Between the outcomes of one user's answers (ours; measure it on the first report)."""


def _quantiles(level: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)


def variance_of_a_user(answers: float, deviation: float = DEVIATION, correlation: float = CORRELATION) -> float:
    """Variance of the mean outcome of one user's `answers` (at least 1)."""
    return deviation**2 * (1 + (answers - 1) * correlation) / answers


def detectable(users: int, answers: float, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest difference that is seen, in points of a win rate (0 to 100); None without two users."""
    if users < 2 or answers < 1:  # noqa: PLR2004 - one user has no variance
        return None
    return 100 * _quantiles(level, power) * math.sqrt(variance_of_a_user(answers) / users)


def users_for(points: float, answers: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """Users that it takes to see a difference of so many points."""
    return math.ceil(variance_of_a_user(max(1.0, answers)) * (100 * _quantiles(level, power) / points) ** 2)
