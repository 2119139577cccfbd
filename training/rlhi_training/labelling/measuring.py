"""How good labels are: F1 per class, AUROC, kappa, calibration; with intervals over conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from rlhi_plugin.records import FollowUpLabel, Record
from rlhi_training.labelling.calibration import expected_calibration_error
from rlhi_training.labelling.decision import CLASSES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WITH = CLASSES.index(FollowUpLabel.WITH_FEEDBACK)
_RESAMPLES = 1000
_LEAST_CLUSTERS = 5


class Figure(Record):
    """A number with its 95 % interval."""

    value: float | None
    """None where it is not defined: one class only."""
    low: float | None = None
    high: float | None = None


class Quality(Record):
    """How good one labeller is on one set of follow-ups."""

    follow_ups: int = Field(ge=0)
    conversations: int = Field(ge=0)
    with_feedback: int = Field(ge=0)
    """Of the follow-ups, by the readers."""
    f1: dict[FollowUpLabel, Figure]
    precision: Figure
    """Of "with feedback"."""
    recall: Figure
    auroc: Figure
    """Of the probability of "with feedback"."""
    kappa: Figure
    """Cohen's, between labeller and reader, over the four classes."""
    accuracy: Figure
    calibration_error: Figure
    """Expected, of the probability of "with feedback", ten bins of equal count."""


@dataclass(frozen=True)
class Said:
    """What readers and a labeller said about the same follow-ups.

    Attributes:
        truth: Index of each class by the readers, shape (rows,).
        labels: By the labeller.
        probabilities: By the labeller, shape (rows, 4).
        conversations: Name of each row's conversation.
    """

    truth: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    conversations: Sequence[str]

    def part(self, places: NDArray[np.int64]) -> Said:
        """Some of the rows, a row several times if asked for."""
        names = [self.conversations[int(i)] for i in places]
        return replace(self.drawn(places), conversations=names)

    def drawn(self, places: NDArray[np.int64]) -> Said:
        """As `part`, without the conversations' names: for resampling, where gathering them would take longest."""
        return Said(self.truth[places], self.labels[places], self.probabilities[places], ())


def measure(said: Said, *, intervals: bool = True, seed: int = 0) -> Quality:
    """Measure a labeller. Intervals come from resampling whole conversations (percentile bootstrap)."""
    groups = _by_conversation(said.conversations)

    def figure(metric: Callable[[Said], float | None]) -> Figure:
        value = metric(said)
        if value is None or not intervals or len(groups) < _LEAST_CLUSTERS:
            return Figure(value=value)
        return _with_interval(lambda places: metric(said.drawn(places)), groups, value, seed)

    return Quality(
        follow_ups=len(said.truth),
        conversations=len(groups),
        with_feedback=int((said.truth == _WITH).sum()),
        f1={name: figure(lambda part, k=k: _f1(part, k)) for k, name in enumerate(CLASSES)},  # type: ignore[misc]  # a default binds k
        precision=figure(_precision),
        recall=figure(_recall),
        auroc=figure(_auroc),
        kappa=figure(_kappa),
        accuracy=figure(lambda part: float((part.truth == part.labels).mean()) if len(part.truth) else None),
        calibration_error=figure(
            lambda part: expected_calibration_error(part.probabilities[:, _WITH], part.truth == _WITH)
        ),
    )


class Difference(Record):
    """How much better one labeller is than another on the same follow-ups; above 0 where the first is."""

    f1: Figure
    """Of "with feedback"."""
    auroc: Figure


def difference(first: Said, second: Said, *, seed: int = 0) -> Difference:
    """Compare two labellers; both are resampled together, by conversation (percentile bootstrap)."""
    groups = _by_conversation(first.conversations)

    def figure(metric: Callable[[Said], float | None]) -> Figure:
        def between(chosen: NDArray[np.int64]) -> float | None:
            values = metric(first.drawn(chosen)), metric(second.drawn(chosen))
            return None if values[0] is None or values[1] is None else values[0] - values[1]

        import numpy as np

        value = between(np.arange(len(first.truth)))
        if value is None or len(groups) < _LEAST_CLUSTERS:
            return Figure(value=value)
        return _with_interval(between, groups, value, seed)

    return Difference(f1=figure(lambda part: _f1(part, _WITH)), auroc=figure(_auroc))


def _with_interval(
    compute: Callable[[NDArray[np.int64]], float | None], groups: Sequence[NDArray[np.int64]], value: float, seed: int
) -> Figure:
    """The interval of what is computed from places of rows."""
    import numpy as np
    from scipy.stats import bootstrap

    def resampled(chosen: NDArray[np.int64]) -> float:
        found = compute(np.concatenate([groups[int(k)] for k in chosen]))
        return value if found is None else found

    found = bootstrap(
        (np.arange(len(groups)),),
        resampled,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Figure(value=value, low=float(found.low), high=float(found.high))


def _by_conversation(names: Sequence[str]) -> list[NDArray[np.int64]]:
    import numpy as np

    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return [np.array(found, dtype=np.int64) for found in places.values()]


def _f1(said: Said, k: int) -> float | None:
    """2 hits / (said + true); None where the class is neither there nor said."""
    total = int((said.truth == k).sum() + (said.labels == k).sum())
    return 2 * float(((said.truth == k) & (said.labels == k)).sum()) / total if total else None


def _precision(said: Said) -> float | None:
    chosen = said.labels == _WITH
    return float((said.truth[chosen] == _WITH).mean()) if chosen.any() else None


def _recall(said: Said) -> float | None:
    there = said.truth == _WITH
    return float((said.labels[there] == _WITH).mean()) if there.any() else None


def _auroc(said: Said) -> float | None:
    """The share of pairs in the right order (Mann and Whitney's U), ties as halves.

    By ranks, since scikit-learn checks its input for longer than it computes, a thousand times for an interval.
    """
    from scipy.stats import rankdata

    there = said.truth == _WITH
    count = int(there.sum())
    if count in {0, len(there)}:
        return None
    ranks = rankdata(said.probabilities[:, _WITH])
    return float((ranks[there].sum() - count * (count + 1) / 2) / (count * (len(there) - count)))


def _kappa(said: Said) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len(set(said.truth.tolist()) | set(said.labels.tolist())) < 2:  # noqa: PLR2004 - agreement on one class is no agreement
        return None
    return float(cohen_kappa_score(said.truth, said.labels))
