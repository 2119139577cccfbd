"""Estimates and differences, looked up by what they are about, and what a difference lets one say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhi_eval_harness.records import Estimate, PlannedSample
from rlhi_eval_harness.statistics import by_key

ALL = "all"

Pick = Callable[[PlannedSample], bool]
"""Whether a sample belongs to a group."""


@dataclass(frozen=True)
class Numbers:
    """Estimates and differences, looked up by what they are about."""

    estimates: Sequence[Estimate]
    differences: Sequence[Estimate]

    def of(self, metric: str, subject: str, group: str = ALL) -> Estimate | None:
        """The estimate, or None where it was not made or nothing could be scored."""
        found = by_key(self.estimates).get((metric, subject, group, None))
        return found if found is not None and found.value is not None else None

    def difference(self, metric: str, subject: str, versus: str, group: str = ALL) -> Estimate | None:
        """The paired difference, or None where it was not made or has no interval."""
        found = by_key(self.differences).get((metric, subject, group, versus))
        return found if found is not None and found.low is not None else None


def verdict(difference: Estimate, *, neutral: float = 0.0) -> int:
    """+1 clearly above `neutral`, -1 clearly below, 0 cannot be told. The interval must leave it out.

    Raises:
        ValueError: the difference has no interval.
    """
    if difference.low is None or difference.high is None:
        raise ValueError("a difference without an interval has no verdict")
    return (difference.low > neutral) - (difference.high < neutral)


def unscored_share(estimate: Estimate) -> float:
    """Share of answers that could not be scored, in [0, 1]."""
    total = estimate.n + estimate.unscored
    return estimate.unscored / total if total else 0.0
