"""Turns scores into estimates: every metric of every subject, and the paired differences that answer a question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from rlhi_eval_harness.answering import PlannedSample
from rlhi_eval_harness.records import Estimate, Score
from rlhi_eval_harness.scoring import KEPT_PREFIX, METRICS, SHARES, WORDS
from rlhi_eval_harness.simulation import SimulatedUser
from rlhi_eval_harness.statistics import RESAMPLES, Value, estimate, mean, paired_difference

ALL = "all"
NO_LENGTH_WISH = "no wish about length"
"""Users who want neither short nor detailed answers: for them a change of length is a side effect."""
LENGTH_PREFERENCES = frozenset({"short", "detailed"})

BASELINE = "base"
PERSONA_ONLY = "base+persona"
ADAPTED = "adapter+persona"
SHUFFLED = "adapter+shuffled-persona"
NO_PERSONA = "adapter"

COMPARISONS = (
    (ADAPTED, PERSONA_ONLY),
    (ADAPTED, BASELINE),
    (ADAPTED, SHUFFLED),
    (SHUFFLED, PERSONA_ONLY),
    (PERSONA_ONLY, BASELINE),
    (NO_PERSONA, BASELINE),
)
"""Paired differences, first minus second: what training adds, what all of it adds, whether it is the persona that does
it, what any persona does, what a prompt alone does, and what happens to users without history."""

Pick = Callable[[PlannedSample], bool]


class Table:
    """Scores with what is needed to select, cluster and pair them."""

    def __init__(self, plan: Sequence[PlannedSample], scores: Iterable[Score], users: Sequence[SimulatedUser]) -> None:
        self.plan = plan
        self.users = users
        self.subjects = tuple(dict.fromkeys(sample.subject for sample in plan))
        self.preferences = tuple(sorted({name for user in users for name in user.preferences}))
        self._scores = {(score.sample_id, score.metric): score for score in scores}
        self._wishes = {user.name: bool(LENGTH_PREFERENCES & set(user.preferences)) for user in users}

    def groups(self, metric: str) -> dict[str, Pick]:
        """What is reported apart for a metric, by name."""
        everything: dict[str, Pick] = {ALL: lambda _: True}
        if metric.startswith(KEPT_PREFIX):
            return everything
        wordings = sorted({sample.group for sample in self.plan}, reverse=True)
        if len(wordings) > 1:
            for wording in wordings:
                everything[wording] = lambda sample, wording=wording: sample.group == wording  # type: ignore[misc]
        if metric == WORDS and any(self._wishes.values()) and not all(self._wishes.values()):
            everything[NO_LENGTH_WISH] = lambda sample: not self._wishes[sample.user]
        return everything

    def values(self, metric: str, subject: str, pick: Pick) -> list[Value]:
        """One value per sample of `subject` that has the metric at all."""
        return [
            Value(user=sample.user, key=sample.pair_key, value=self._scores[sample.sample_id, metric].value)
            for sample in self.plan
            if sample.subject == subject and pick(sample) and (sample.sample_id, metric) in self._scores
        ]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What every answer is scored on, and each single preference."""
        return (*METRICS, *(f"{KEPT_PREFIX}{preference}" for preference in self.preferences))


def estimates(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, ...]:
    """Every metric of every subject, overall and in each group."""
    result = []
    for metric, subject in product(table.metrics, table.subjects):
        share = metric in SHARES or metric.startswith(KEPT_PREFIX)
        for group, pick in table.groups(metric).items():
            interval = mean(table.values(metric, subject, pick), share=share, seed=seed, resamples=resamples)
            result.append(estimate(interval, metric=metric, subject=subject, group=group))
    return tuple(result)


def differences(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, ...]:
    """Every comparison whose two subjects were evaluated, for every metric, overall and in each group."""
    result = []
    asked = [pair for pair in COMPARISONS if set(pair) <= set(table.subjects)]
    for metric, (subject, versus) in product(table.metrics, asked):
        for group, pick in table.groups(metric).items():
            interval = paired_difference(
                table.values(metric, subject, pick),
                table.values(metric, versus, pick),
                seed=seed,
                resamples=resamples,
            )
            result.append(estimate(interval, metric=metric, subject=subject, group=group, versus=versus))
    return tuple(result)
