"""Choosing how scores become labels: temperature, offsets and weights, from scores of rows not learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhi_training.labelling.decision import CLASSES, Decision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_WITH_FEEDBACK = 1
_GRID = 41
_RANGE = (0.25, 4.0)
"""Least and largest weight of a class relative to the first one's (ours)."""
_PULL = 1e-3
"""Penalty on offsets: a class with a dozen rows shall not get a wild one (ours)."""


def choose_decision(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> Decision:
    """Temperature and offsets of the least log loss, then the weights of the best F1.

    First the weight of "with feedback" that gives its best F1, then the others' for the mean F1 of the classes, as long
    as "with feedback" loses nothing worth it.

    Args:
        scores: Shape (rows, at least 4), of rows that the model did not learn from.
        truth: Index of each row's class.
    """
    import numpy as np
    from scipy.optimize import minimize

    rows = scores[:, : len(CLASSES)].astype(np.float64)

    def loss(x: Floats) -> float:
        logits = rows / np.exp(x[0]) + np.append(0.0, x[1:])
        logits -= logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-logs[np.arange(len(truth)), truth].mean() + _PULL * (x**2).sum())

    found = minimize(loss, np.zeros(len(CLASSES)), method="L-BFGS-B").x
    calibrated = Decision(float(np.exp(found[0])), (0.0, *map(float, found[1:])))
    weights = np.ones(len(CLASSES))
    probabilities = calibrated.probabilities(scores)
    for target in (_WITH_FEEDBACK, 2, 3, _WITH_FEEDBACK):
        tried = []
        for value in np.geomspace(*_RANGE, _GRID):
            weights[target] = value
            chosen = (probabilities * weights).argmax(axis=1)
            tried.append((_f1(truth == target, chosen == target), value))
        # The middle of the values that are as good as the best one: a lucky peak does not last.
        best = max(score for score, _ in tried)
        weights[target] = np.median([value for score, value in tried if score >= best - 0.002])
    return Decision(calibrated.temperature, calibrated.offsets, tuple(map(float, weights)))


def _f1(truth: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> float:
    hits = float((truth & chosen).sum())
    return 2 * hits / max(1.0, float(truth.sum() + chosen.sum()))


def expected_calibration_error(probability: Floats, truth: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance between what was promised and what came true, over bins of equal count (Nixon et al., 2019)."""
    import numpy as np

    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(probability[p].mean() - truth[p].mean()) for p in parts) / max(1, len(order)))
