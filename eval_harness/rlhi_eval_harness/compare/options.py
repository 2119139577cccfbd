"""How two reports are compared, and how much worse is still no regression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhi_eval_harness.records import Metric
from rlhi_plugin.errors import ConfigError

LEVEL = 0.05


@dataclass(frozen=True)
class Options:
    """How to compare.

    Attributes:
        subjects: ``NAME`` or ``NAME=NAME IN THE SECOND``; all that both have, where there are none.
        metrics: Names; all but single parts (`Metric.role` "detail"), where there are none.
        by_group: Whether to compare each group of items as well.
        margins: How much worse is still no regression: a number for every metric, or ``METRIC=NUMBER``.
        allowed: Aspects in which the reports may differ (`rlhi_eval_harness.compare.sameness.ASPECTS`).
        level: Chance of any false regression, over all comparisons together; above 0 and below 1.
        seed: Of the intervals and tests.
    """

    subjects: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    by_group: bool = False
    margins: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    level: float = LEVEL
    seed: int = 0


def margins_of(texts: Iterable[str], metrics: Sequence[Metric]) -> dict[str, float]:
    """A margin for every metric; the last word counts.

    Raises:
        ConfigError: a text is neither a number from 0 nor `METRIC=NUMBER`.
    """
    margins = dict.fromkeys((metric.name for metric in metrics), 0.0)
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf") or (name and name not in margins):
            raise ConfigError(
                f"--margin {text}: write a number from 0 in the metric's unit (0.02 is 2 points of a share), or "
                f"METRIC=NUMBER with one of: {', '.join(margins)}."
            )
        margins |= {name: value} if name else dict.fromkeys(margins, value)
    return margins
