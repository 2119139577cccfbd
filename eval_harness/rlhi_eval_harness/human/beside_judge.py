"""People beside the judge, pair by pair, and the judge corrected by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rlhi_eval_harness.human.planning import Pair
from rlhi_eval_harness.human.records import HumanVerdict, Study
from rlhi_eval_harness.human.results import Corrected, Measured, WithJudge
from rlhi_eval_harness.human.verdict_values import Numbers, by_item, measured, win
from rlhi_eval_harness.inference.clustered_agreement import RatedTwice, clustered_kappa
from rlhi_eval_harness.inference.prediction_powered import JudgedItem, prediction_powered_mean
from rlhi_eval_harness.records import Score
from rlhi_eval_harness.statistics import Value, paired_difference

LOSS, TIE, WIN = 0, 1, 2


@dataclass(frozen=True)
class JudgeScores:
    """The judge's win rates of a study's subject against the suite's first one.

    Attributes:
        by_dimension: Value by item, None where unscored; only dimensions in which the judge scored anything.
    """

    by_dimension: Mapping[str, Mapping[str, float | None]]

    @classmethod
    def of(cls, scores: Sequence[Score], study: Study) -> Self:
        """Take them from the suite's scores."""
        ending = f"/{study.subject}"
        found: dict[str, dict[str, float | None]] = {}
        for score in scores:
            if score.metric in study.dimensions and score.sample_id.endswith(ending):
                found.setdefault(score.metric, {})[score.sample_id.removesuffix(ending)] = score.value
        return cls({name: said for name, said in found.items() if any(each is not None for each in said.values())})


def beside_judge(
    study: Study,
    dimension: str,
    given: Sequence[HumanVerdict],
    pairs: Mapping[str, Pair],
    judged: JudgeScores | None,
    *,
    numbers: Numbers,
) -> WithJudge | None:
    """One dimension; None where the judge said nothing of it.

    Args:
        study: What was asked.
        dimension: Which of its questions.
        given: Verdicts of people, without skips and checks.
        pairs: All that could have been shown, by item.
        judged: The judge's.
        numbers: How intervals are made.
    """
    if judged is None or (said := judged.by_dimension.get(dimension)) is None:
        return None
    items = by_item(given)
    people = {item: sum(win(study, each, dimension) for each in items[item]) / len(items[item]) for item in items}
    theirs = [Value(pairs[item].user, item, said.get(item)) for item in items]
    ours = [Value(pairs[item].user, item, people[item]) for item in items]
    both = [(each, judge) for each in given if (judge := said.get(each.item_id)) is not None]
    same = [
        Value(pairs[each.item_id].user, f"{each.rater}/{each.item_id}", _same(win(study, each, dimension), judge))
        for each, judge in both
    ]
    twice = [
        RatedTwice(pairs[each.item_id].user, category(win(study, each, dimension)), category(judge))
        for each, judge in both
    ]
    seed, resamples = numbers.seed, numbers.resamples
    corrected = prediction_powered_mean(
        [
            JudgedItem(pair.user, judge, people.get(item))
            for item, pair in pairs.items()
            if (judge := said.get(item)) is not None
        ],
        seed=seed,
        resamples=resamples,
    )
    return WithJudge(
        judge=numbers.mean(theirs),
        difference=measured(paired_difference(ours, theirs, seed=seed, resamples=resamples)),
        agreement=numbers.mean(same),
        kappa=measured(clustered_kappa(twice, seed=seed, resamples=resamples)),
        corrected=Corrected(
            win_rate=None
            if corrected.value is None
            else Measured(
                value=corrected.value,
                low=corrected.low,
                high=corrected.high,
                n=corrected.labelled + corrected.unlabelled,
                clusters=len({pair.user for item, pair in pairs.items() if said.get(item) is not None}),
            ),
            weight=corrected.weight,
            labelled=corrected.labelled,
            unlabelled=corrected.unlabelled,
            why_not=corrected.why_not,
        ),
    )


def category(value: float) -> int:
    """Loss, tie or win; a judge whose two orders contradict each other has not told the two apart."""
    return WIN if value > 0.5 else LOSS if value < 0.5 else TIE  # noqa: PLR2004 - a tie


def _same(people: float, judge: float) -> float:
    return float(category(people) == category(judge))
