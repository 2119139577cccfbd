"""What a reward thinks of length: a preference for long answers shows here before it shows in the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIGITS = 4
_UNIT = 1 << 40
"""Parts of 1 in which products are counted: sums of whole numbers do not depend on their order."""


def length_bias(requests: Sequence[Sequence[tuple[float, int]]]) -> dict[str, Any]:
    """How scores and lengths of answers to the same request go together.

    Scores are comparable within a request only. So each request's scores and lengths are centred and scaled by its own
    mean and deviation before they are correlated (Pearson over all answers), and longer answers are compared with
    shorter ones of the same request only.

    Args:
        requests: For each request, score and length (words) of each answer.

    Returns:
        ``requests`` and ``answers`` that were counted; ``correlation`` in [-1, 1]; ``comparisons`` of two answers with
        different lengths and scores; ``longer_wins``, the share of them in which the longer answer scores higher (0.5:
        no bias). The last and the correlation are None where there is nothing to compare.
    """
    return length_bias_of(length_counts(requests))


def length_counts(requests: Sequence[Sequence[tuple[float, int]]]) -> Counter[str]:
    """What `length_bias` counts, in whole numbers: those of parts add up to those of all, in any order."""
    import numpy as np

    groups = [np.asarray(answers, dtype=np.float64) for answers in requests if len(answers) > 1]
    counts = Counter({"requests": len(groups), "answers": sum(map(len, groups))})
    for group in groups:
        rows = _standardised(group)
        if rows is not None:
            counts["scaled"] += len(rows)
            counts["products"] += round(float((rows[:, 0] * rows[:, 1]).sum()) * _UNIT)
        first, second = np.triu_indices(len(group), k=1)
        score = np.sign(group[first, 0] - group[second, 0])
        length = np.sign(group[first, 1] - group[second, 1])
        both = (score != 0) & (length != 0)
        counts["comparisons"] += int(both.sum())
        counts["wins"] += int((score[both] == length[both]).sum())
    return counts


def length_bias_of(counts: Mapping[str, int]) -> dict[str, Any]:
    """What counts of `length_counts` say; see `length_bias`."""
    scaled, comparisons = counts.get("scaled", 0), counts.get("comparisons", 0)
    return {
        "requests": counts.get("requests", 0),
        "answers": counts.get("answers", 0),
        "correlation": round(counts["products"] / _UNIT / scaled, _DIGITS) if scaled else None,
        "comparisons": comparisons,
        "longer_wins": round(counts["wins"] / comparisons, _DIGITS) if comparisons else None,
    }


def _standardised(group: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Columns with mean 0 and deviation 1, so that the mean of products is Pearson's r; None where one is constant."""
    deviation = group.std(axis=0)
    if not (deviation > 0).all():
        return None
    rows: NDArray[np.float64] = (group - group.mean(axis=0)) / deviation
    return rows
