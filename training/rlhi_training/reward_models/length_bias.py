"""What a reward thinks of length: a preference for long answers shows here before it shows in the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIGITS = 4


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
    import numpy as np

    groups = [np.asarray(answers, dtype=np.float64) for answers in requests if len(answers) > 1]
    standard = [rows for group in groups if (rows := _standardised(group)) is not None]
    pooled = np.concatenate(standard) if standard else np.empty((0, 2))
    wins = comparisons = 0
    for group in groups:
        first, second = np.triu_indices(len(group), k=1)
        score = np.sign(group[first, 0] - group[second, 0])
        length = np.sign(group[first, 1] - group[second, 1])
        both = (score != 0) & (length != 0)
        comparisons += int(both.sum())
        wins += int((score[both] == length[both]).sum())
    return {
        "requests": len(groups),
        "answers": sum(map(len, groups)),
        "correlation": round(float((pooled[:, 0] * pooled[:, 1]).mean()), _DIGITS) if len(pooled) else None,
        "comparisons": comparisons,
        "longer_wins": round(wins / comparisons, _DIGITS) if comparisons else None,
    }


def _standardised(group: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Columns with mean 0 and deviation 1, so that the mean of products is Pearson's r; None where one is constant."""
    deviation = group.std(axis=0)
    if not (deviation > 0).all():
        return None
    rows: NDArray[np.float64] = (group - group.mean(axis=0)) / deviation
    return rows
