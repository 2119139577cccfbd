"""What a comparison is, as it is printed and as ``--json`` writes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlhi_eval_harness.records import Metric
from rlhi_plugin.records import Record

COMPARISON_SCHEMA_VERSION = 1

Verdict = Literal[
    "regression",
    "less scored",
    "improvement",
    "no difference shown",
    "not to be used",
    "too few users",
    "no better or worse",
]
"""Worse than the margin beyond noise; more than 5 % unscored, which was not so before; better beyond noise; neither;
more than 5 % unscored in both; so few users that no difference could be significant; a metric that has no good side."""

BAD: tuple[Verdict, ...] = ("regression", "less scored")
"""What ``--fail-on-regression`` fails on."""


class Change(Record):
    """One metric of one subject in both reports."""

    subject: str
    """As the first report calls it."""
    subject_after: str
    """As the second one does."""
    metric: str
    group: str = "all"
    before: float | None
    """Mean over the items that both scored; None where there is none. In the metric's unit."""
    after: float | None
    change: float | None
    """Second minus first, on the items that both scored."""
    low: float | None
    """Of the change's 95 % interval, clustered by user; None for fewer than two users."""
    high: float | None
    n: int = Field(ge=0)
    """Items that both scored."""
    clusters: int = Field(ge=0)
    """Users among them."""
    unscored_before: float = Field(ge=0, le=1)
    unscored_after: float = Field(ge=0, le=1)
    margin: float = Field(default=0.0, ge=0)
    """How much worse is still no regression."""
    p_value: float | None = None
    """Two-sided, of the change being no worse than the margin allows: by `test`."""
    adjusted: float | None = None
    """The same, corrected for all comparisons (Holm)."""
    detectable: float | None = None
    """The smallest true change that would have been found four times in five, after the correction."""
    test: str | None = None
    """What `p_value` is of: ``McNemar`` where outcomes are a yes or a no, each user has one and there is no margin."""
    binary: dict[str, Any] | None = None
    """Item by item, the second report first, where outcomes are a yes or a no: the fields are those of
    `rlhi_eval_harness.report.binary_outcomes.outcome`."""
    verdict: Verdict


class ComparisonReport(Record):
    """Two reports compared."""

    schema_version: int = COMPARISON_SCHEMA_VERSION
    before: str
    after: str
    suite: str
    judge: str | None
    """Whose judgments both reports' numbers rest on."""
    level: float
    """Chance of any false regression, over all comparisons together."""
    clusters: str = "users"
    """What intervals and tests resample, in the plural."""
    comparisons: int
    """How many were corrected for."""
    metrics: tuple[Metric, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    """What a reader has to know: what differs, what could not be told."""

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What ``--fail-on-regression`` fails on."""
        return tuple(each for each in self.changes if each.verdict in BAD)
