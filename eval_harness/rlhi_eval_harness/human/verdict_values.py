"""A verdict as a number, verdicts by item, and means of them: what all that is said of a study rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_eval_harness.human.records import HumanVerdict, Study
from rlhi_eval_harness.human.results import Measured
from rlhi_eval_harness.inference.clustered_agreement import Coefficient
from rlhi_eval_harness.statistics import Interval, Value, mean


@dataclass(frozen=True)
class Numbers:
    """How intervals are made: the suite's seed and resamples."""

    seed: int
    resamples: int

    def mean(self, values: Sequence[Value]) -> Measured:
        """A mean of shares, clustered by `Value.user`."""
        return measured(mean(values, share=True, seed=self.seed, resamples=self.resamples))


def win(study: Study, verdict: HumanVerdict, dimension: str) -> float:
    """1 where the study's subject won, 0 where it lost, 0.5 for a tie."""
    side = verdict.answers[dimension]
    return 0.5 if side == "tie" else float((side == "left") == (verdict.left == study.subject))


def by_item(verdicts: Sequence[HumanVerdict]) -> dict[str, list[HumanVerdict]]:
    """Verdicts of each item, items in the order in which they were first judged."""
    found: dict[str, list[HumanVerdict]] = {}
    for each in verdicts:
        found.setdefault(each.item_id, []).append(each)
    return found


def measured(found: Interval | Coefficient) -> Measured:
    """As it stands in the report."""
    unscored = found.unscored if isinstance(found, Interval) else 0
    return Measured(
        value=found.value, low=found.low, high=found.high, n=found.n, clusters=found.clusters, unscored=unscored
    )
