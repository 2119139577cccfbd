"""How well two readers agree: Cohen's kappa over the classes, for each class, and for the sub-types."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rlhi_plugin.records import FollowUpLabel, Record
from rlhi_training.labelling.label_set import Label


class Agreement(Record):
    """Of the follow-ups that two people read."""

    follow_ups: int = Field(ge=0)
    same_label: float = Field(ge=0.0, le=1.0)
    kappa: float
    kappa_of_class: dict[FollowUpLabel, float]
    """Of each class against all others."""
    kappa_of_subtype: float
    disagreements: dict[str, int]
    """How often each pair of labels, as ``first / second``."""


def agreement(first: Sequence[Label], second: Sequence[Label]) -> Agreement:
    """Compare second readings with the first readings of the same follow-ups, by scikit-learn's `cohen_kappa_score`."""
    from collections import Counter

    from sklearn.metrics import cohen_kappa_score

    known = {label.key: label for label in first}
    pairs = [(known[label.key], label) for label in second if label.key in known]
    ones, others = [a.label for a, _ in pairs], [b.label for _, b in pairs]
    differ = Counter(f"{a} / {b}" for a, b in zip(ones, others, strict=True) if a is not b)
    return Agreement(
        follow_ups=len(pairs),
        same_label=sum(a is b for a, b in zip(ones, others, strict=True)) / max(1, len(pairs)),
        kappa=float(cohen_kappa_score(ones, others)),
        kappa_of_class={
            name: float(cohen_kappa_score([a is name for a in ones], [b is name for b in others]))
            for name in FollowUpLabel
        },
        kappa_of_subtype=float(cohen_kappa_score([a.subtype for a, _ in pairs], [b.subtype for _, b in pairs])),
        disagreements=dict(differ.most_common()),
    )
