"""Turns scores into estimates: every metric of every subject, and the paired differences that answer a question."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from rlhi_eval_harness.numbers import Pick
from rlhi_eval_harness.records import Estimate, Score
from rlhi_eval_harness.statistics import RESAMPLES, Value, estimate, mean, paired_difference
from rlhi_eval_harness.suites.kind import Stored, SuiteKind


class Table:
    """Scores with what is needed to select, cluster and pair them."""

    def __init__(self, stored: Stored, scores: Iterable[Score], kind: SuiteKind) -> None:
        self.plan = stored.plan
        self.metrics = kind.metrics(stored)
        self.subjects = tuple(dict.fromkeys(sample.subject for sample in stored.plan))
        self.comparisons = tuple(kind.comparisons(self.subjects))
        self._groups = {metric.name: kind.groups(metric.name, stored) for metric in self.metrics}
        self._scores = {(score.sample_id, score.metric): score for score in scores}

    def groups(self, metric: str) -> dict[str, Pick]:
        """What is reported apart for a metric, by name."""
        return dict(self._groups[metric])

    def values(self, metric: str, subject: str, pick: Pick) -> list[Value]:
        """One value per sample of `subject` that has the metric at all."""
        return [
            Value(user=sample.user, key=sample.pair_key, value=self._scores[sample.sample_id, metric].value)
            for sample in self.plan
            if sample.subject == subject and pick(sample) and (sample.sample_id, metric) in self._scores
        ]


def estimates(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, ...]:
    """Every metric of every subject that it applies to, overall and in each group."""
    result = []
    for metric, subject in product(table.metrics, table.subjects):
        share = metric.unit == "share" and metric.throughout
        for group, pick in table.groups(metric.name).items():
            if values := table.values(metric.name, subject, pick):
                interval = mean(values, share=share, seed=seed, resamples=resamples)
                result.append(estimate(interval, metric=metric.name, subject=subject, group=group))
    return tuple(result)


def differences(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, ...]:
    """Every comparison whose two subjects have the metric, overall and in each group."""
    result = []
    for metric, (subject, versus) in product(table.metrics, table.comparisons):
        for group, pick in table.groups(metric.name).items():
            values, baseline = (table.values(metric.name, name, pick) for name in (subject, versus))
            if values and baseline:
                interval = paired_difference(values, baseline, seed=seed, resamples=resamples)
                result.append(estimate(interval, metric=metric.name, subject=subject, group=group, versus=versus))
    return tuple(result)
