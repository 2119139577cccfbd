"""Self-training: follow-ups that nobody labelled, with what a fitted model is surest of (Yarowsky, 1995).

A teacher that learned from labelled rows labels the others; of what it puts into each class, its surest share is
learned from beside the labelled rows, with less weight. Shares are taken class by class: a bound on the probability
alone would give new requests and next to nothing else (Zou et al., arXiv 1810.07911). What it gained is in the README.

The pool never holds what is measured on: conversations of the label set are left out whole, and so is every follow-up
that stands word for word in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Exchange, exchanges
from rlhi_plugin.records import Conversation
from rlhi_training.labelling.calibration import choose_decision
from rlhi_training.labelling.decision import CLASSES, Decision
from rlhi_training.labelling.fit_fast import FitRow, Looked, fit_linear, look
from rlhi_training.labelling.label_set import Label
from rlhi_training.labelling.label_set.reading import digest_of_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhi_training.labelling.linear import LinearModel

_GROUP = "unlabelled:"
"""What the groups of pseudo-labelled rows begin with: they are neither invented nor in the label set."""


@dataclass(frozen=True)
class SelfTraining:
    """What is learned from without labels, and how.

    Attributes:
        pool: Exchanges that nobody labelled.
        share: Of the exchanges that the teacher puts into a class, the surest so many are learned from, in (0, 1].
        confidence: Least probability of the class of those, in [0, 1].
        weight: What such a row counts beside a labelled one, > 0.
    """

    pool: tuple[Exchange, ...]
    share: float = 0.3
    confidence: float = 0.6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not (0.0 < self.share <= 1.0 and 0.0 <= self.confidence <= 1.0 and self.weight > 0.0):
            raise ConfigError(
                f"self-training with a share of {self.share:g}, a confidence of {self.confidence:g} and a weight of"
                f" {self.weight:g} is not possible. Give a share above 0 and up to 1, a confidence from 0 to 1 and a"
                " weight above 0."
            )


def unlabelled(conversations: Iterable[Conversation], labels: Sequence[Label]) -> tuple[Exchange, ...]:
    """The exchanges of a log that are in no part of the label set, each once.

    Left out: conversations of the label set; follow-ups of the same words as one of it, under whatever id; follow-ups
    without a reply before them; and repetitions of the same request and follow-up.
    """
    names = {label.conversation_id for label in labels}
    told = {label.digest for label in labels}
    seen: set[tuple[str, str]] = set()
    found = []
    for conversation in conversations:
        if conversation.conversation_id in names:
            continue
        for exchange in exchanges(conversation):
            pair = (exchange.request, exchange.follow_up)
            if pair not in seen and digest_of_text(exchange.follow_up) not in told:
                seen.add(pair)
                found.append(exchange)
    return tuple(found)


def pseudo_labelled(scores: NDArray[np.float32], decision: Decision, training: SelfTraining) -> list[FitRow]:
    """The part of the pool that is learned from, with the teacher's labels and without sub-types.

    Args:
        scores: Of the pool by the teacher, shape (pool, at least 4).
        decision: The teacher's: how its scores become probabilities and labels.
        training: The pool, and how much of it.
    """
    import numpy as np

    probabilities = decision.probabilities(scores)
    labels = np.array([CLASSES.index(one) for one in decision.labels(probabilities)], dtype=np.int64)
    rows = []
    for k, label in enumerate(CLASSES):
        places = np.flatnonzero(labels == k)
        surest = places[np.argsort(-probabilities[places, k], kind="stable")]
        kept = surest[: int(np.ceil(training.share * len(places)))]
        for i in sorted(int(i) for i in kept if probabilities[i, k] >= training.confidence):
            exchange = training.pool[i]
            rows.append(FitRow(exchange, label, None, f"{_GROUP}{exchange.conversation_id}", training.weight))
    return rows


def teach(looked: Looked, training: SelfTraining) -> list[FitRow]:
    """What the fast tier, fitted on these rows, makes of the pool."""
    return pseudo_labelled(*_opinion(looked, training), training)


def fit_self_trained(looked: Looked, training: SelfTraining | None) -> LinearModel:
    """The fast tier fitted on labelled rows and on what it is surest of itself; without a pool, on the rows alone."""
    if training is None or not training.pool:
        return fit_linear(looked)
    return fit_linear(joined(looked, look(teach(looked, training))))


def joined(first: Looked, second: Looked) -> Looked:
    """The rows of both."""
    import numpy as np

    if not second.rows:
        return first
    facts = np.concatenate([first.facts, second.facts])
    return Looked([*first.rows, *second.rows], facts, [*first.terms, *second.terms])


def _opinion(looked: Looked, training: SelfTraining) -> tuple[NDArray[np.float32], Decision]:
    """Scores of the pool, and a decision chosen on rows that the model of this choice had not learned from."""
    import numpy as np
    from sklearn.model_selection import GroupKFold

    real = np.array([i for i, row in enumerate(looked.rows) if row.group])
    invented = [i for i, row in enumerate(looked.rows) if not row.group]
    groups = [looked.rows[i].group for i in real]
    train, held = next(GroupKFold(3, shuffle=True, random_state=1).split(real, groups=groups))
    tried = fit_linear(looked.part([*real[train].tolist(), *invented]))
    chosen = [looked.rows[i] for i in real[held]]
    truth = np.array([CLASSES.index(row.label) for row in chosen])
    decision = choose_decision(tried.scores([row.exchange for row in chosen]), truth)
    return fit_linear(looked).scores(list(training.pool)), decision
