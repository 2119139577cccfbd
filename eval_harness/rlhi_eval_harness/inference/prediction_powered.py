"""A judge's verdicts on everything, corrected by people's verdicts on a part of it: prediction-powered inference.

The judge alone is precise and may be biased; people alone are right by definition and few. The estimate is people's
mean plus the judge's mean over what people have not judged, minus the judge's mean over what they have, the last two
times a weight::

    theta = mean(people) + weight * (mean(judge, not judged by people) - mean(judge, judged by people))

(Angelopoulos, Bates, Fannjiang, Jordan, Zrnic, Prediction-powered inference, Science 382, 2023). Whatever the judge's
bias is, it cancels, provided that people judged a random part. The weight makes the variance smallest: for a mean, with
`n` items judged by people and `N` not, ``cov(people, judge) / ((1 + n / N) * var(judge))`` (Angelopoulos, Duchi, Zrnic,
PPI++, arXiv 2311.01453), here between 0 and 1. A useless judge gets the weight 0, and people's own mean is left. The
interval is a bootstrap over users instead of the papers' normal one, since one user's items are not independent; it
takes the weight as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhi_eval_harness.inference.clustered_agreement import Array, resampled
from rlhi_eval_harness.statistics import RESAMPLES

FEWEST_ITEMS = 30
FEWEST_USERS = 10
"""Below these the bootstrap and the estimated weight are not to be trusted (ours)."""


@dataclass(frozen=True)
class JudgedItem:
    """One item that the judge scored.

    Attributes:
        user: Its cluster.
        judge: The judge's value.
        people: People's, where they judged it.
    """

    user: str
    judge: float
    people: float | None


@dataclass(frozen=True)
class PredictionPowered:
    """The corrected mean.

    Attributes:
        value: In the unit of the verdicts; None where it is not made.
        low: Lower end of its 95 % interval over users.
        high: Upper end.
        weight: Of the judge, 0 to 1.
        labelled: Items that people judged.
        unlabelled: Items that only the judge did.
        why_not: Why there is no value.
    """

    value: float | None
    low: float | None
    high: float | None
    weight: float | None
    labelled: int
    unlabelled: int
    why_not: str | None = None


def prediction_powered_mean(
    items: Sequence[JudgedItem], *, seed: int = 0, resamples: int = RESAMPLES
) -> PredictionPowered:
    """The mean that people would give to all items.

    Args:
        items: All that the judge scored; those that people judged have to be a random part of them.
        seed: Of the resampling.
        resamples: How many.
    """
    labelled = [each for each in items if each.people is not None]
    rest = [each for each in items if each.people is None]
    users = len({each.user for each in labelled})
    why_not = None
    if len(labelled) < FEWEST_ITEMS or users < FEWEST_USERS:
        why_not = (
            f"people and judge share {len(labelled)} pairs of {users} users; it takes {FEWEST_ITEMS} of {FEWEST_USERS}"
        )
    elif not rest:
        why_not = "people judged all that the judge did: their own number needs no judge"
    if why_not is not None:
        return PredictionPowered(None, None, None, None, len(labelled), len(rest), why_not)
    weight = _weight(labelled, rest)
    place = {user: number for number, user in enumerate(sorted({each.user for each in items}))}
    # Of each user: sum of people's values, of the judge's on the same items, their number; the same of the rest.
    sums = np.zeros((len(place), 5))
    for each in items:
        row = sums[place[each.user]]
        if each.people is None:
            row[3:] += each.judge, 1
        else:
            row[:3] += each.people, each.judge, 1

    def theta(totals: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            people, judge, others = (totals[:, a] / totals[:, b] for a, b in ((0, 2), (1, 2), (3, 4)))
        return np.asarray(people + weight * (others - judge))

    low, high = resampled(sums, theta, seed=seed, resamples=resamples)
    value = float(theta(sums.sum(axis=0, keepdims=True))[0])
    return PredictionPowered(value, low, high, weight, len(labelled), len(rest))


def _weight(labelled: Sequence[JudgedItem], rest: Sequence[JudgedItem]) -> float:
    people = np.array([each.people for each in labelled], dtype=np.float64)
    judge = np.array([each.judge for each in labelled], dtype=np.float64)
    spread = float(np.var([each.judge for each in (*labelled, *rest)], ddof=1))
    if spread == 0:
        return 0.0
    together = float(np.cov(people, judge)[0, 1])
    return float(np.clip(together / ((1 + len(labelled) / len(rest)) * spread), 0.0, 1.0))
