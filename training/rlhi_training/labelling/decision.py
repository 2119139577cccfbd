"""From scores to labels: calibrated probabilities, the decision, and the records.

Probabilities are a softmax of scores over a temperature, so that of the follow-ups that get 0.7 about 70 % have the
label. The decision is not the likeliest class: classes are rare to very rare, and the label that finds most of a rare
one at a fair precision has the largest product of probability and weight. Temperature and weights were chosen by
cross-validation (``README.md``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp, FollowUpLabel, FollowUpSubtype
from rlhi_training.asked_for import AskedFor
from rlhi_training.labelling.features import follow_up_cues

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CLASSES = tuple(FollowUpLabel)
SUBTYPES = tuple(FollowUpSubtype)
N_OUTPUTS = len(CLASSES) + len(SUBTYPES)
GOES_WITH: dict[FollowUpLabel, frozenset[FollowUpSubtype]] = {
    FollowUpLabel.NEW_REQUEST: frozenset(
        {
            FollowUpSubtype.NEXT_STEP,
            FollowUpSubtype.NEW_TOPIC,
            FollowUpSubtype.QUESTION_ABOUT_ANSWER,
            FollowUpSubtype.CONTINUE,
            FollowUpSubtype.ROLEPLAY_TURN,
            FollowUpSubtype.OTHER,
        }
    ),
    FollowUpLabel.WITH_FEEDBACK: frozenset(
        {
            FollowUpSubtype.CORRECTION,
            FollowUpSubtype.POINTS_OUT_ERROR,
            FollowUpSubtype.CONSTRAINT_ADDED,
            FollowUpSubtype.STYLE_OR_FORMAT,
            FollowUpSubtype.MORE_DETAIL,
            FollowUpSubtype.SHORTER,
            FollowUpSubtype.CLARIFIES_INTENT,
            FollowUpSubtype.FRUSTRATION,
        }
    ),
    FollowUpLabel.WITHOUT_FEEDBACK: frozenset({FollowUpSubtype.REPEAT}),
    FollowUpLabel.POSITIVE_FEEDBACK: frozenset({FollowUpSubtype.THANKS}),
}
"""Sub-types that a follow-up of each label can have."""
_SPACE = re.compile(r"\W+")
_WITH = CLASSES.index(FollowUpLabel.WITH_FEEDBACK)
_OUTRIGHT = 0.5
"""Share with feedback among the 24 follow-ups of train and development for which `asks_outright` holds."""
_REPEATED = 0.85
"""Share without feedback among those that repeat a request of `_LEAST_REPEATED` words or more; shorter ones ("go on",
"ok") are mostly new requests, and the models decide them."""
_LEAST_REPEATED = 4
_SHORT_WORDS, _SHORT_CHARS = 12, 120


@dataclass(frozen=True)
class Decision:
    """How scores become labels.

    Attributes:
        temperature: What scores are divided by, > 0.
        offsets: What is then added to the score of each class.
        weights: What the probability of each class is multiplied with before the largest is taken.
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] = (0.0,) * len(CLASSES)
    weights: tuple[float, ...] = (1.0,) * len(CLASSES)

    def probabilities(self, scores: Floats) -> Floats:
        """Of the classes: shape (rows, 4), rows sum to 1."""
        import numpy as np

        scaled = scores[:, : len(CLASSES)].astype(np.float64) / self.temperature + np.array(self.offsets)
        grown = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        rows: Floats = (grown / grown.sum(axis=1, keepdims=True)).astype(np.float64)
        return rows

    def labels(self, probabilities: Floats) -> list[FollowUpLabel]:
        """The class of the largest weighted probability."""
        import numpy as np

        return [CLASSES[int(k)] for k in (probabilities * np.array(self.weights)).argmax(axis=1)]

    def to_json(self) -> str:
        """For the metadata of a weights file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Decision:
        """What `to_json` wrote."""
        value = json.loads(text)
        return cls(float(value["temperature"]), tuple(value["offsets"]), tuple(value["weights"]))


@dataclass(frozen=True)
class Verdicts:
    """What a tier says of a batch.

    Attributes:
        labels: One per exchange.
        probabilities: Shape (exchanges, 4).
        subtypes: One per exchange.
    """

    labels: list[FollowUpLabel]
    probabilities: Floats
    subtypes: list[FollowUpSubtype]


def verdicts(exchanges: Sequence[Exchange], scores: Floats, decision: Decision) -> Verdicts:
    """Decide a batch.

    A follow-up that repeats its request but for spacing, case and punctuation is a re-attempt without feedback by the
    guideline, at least as probably as that was so among real ones. So is a short one that asks for a property which
    code can check ("bullet points, please") feedback.

    Args:
        exchanges: The batch.
        scores: Shape (exchanges, 4 + 16): classes, then sub-types.
        decision: How.
    """
    probabilities = decision.probabilities(scores)
    for row, exchange in zip(probabilities, exchanges, strict=True):
        if repeats(exchange):
            _raise_to(row, CLASSES.index(FollowUpLabel.WITHOUT_FEEDBACK), _REPEATED)
        elif row[_WITH] < _OUTRIGHT and asks_outright(exchange):
            _raise_to(row, _WITH, _OUTRIGHT)
    labels = decision.labels(probabilities)
    return Verdicts(labels, probabilities, _subtypes(labels, scores[:, len(CLASSES) :]))


def _subtypes(labels: Sequence[FollowUpLabel], scores: Floats) -> list[FollowUpSubtype]:
    """Of the sub-types that go with each label the one with the highest score; of equal ones the last by name."""
    import numpy as np

    by_name = sorted(range(len(SUBTYPES)), key=lambda k: SUBTYPES[k], reverse=True)
    fits = np.array([[SUBTYPES[k] in GOES_WITH[label] for k in by_name] for label in CLASSES])
    rows = np.array([CLASSES.index(label) for label in labels], dtype=np.int64)
    best = np.where(fits[rows], scores[:, by_name], -np.inf).argmax(axis=1)
    return [SUBTYPES[by_name[k]] for k in best.tolist()]


def records(
    exchanges: Sequence[Exchange], said: Verdicts, evidence: Sequence[str | None], labeller: str
) -> list[FollowUp]:
    """Verdicts as records."""
    return [
        FollowUp(
            conversation_id=exchange.conversation_id,
            turn=exchange.turn,
            message_id=exchange.message_id,
            label=label,
            subtype=subtype,
            probabilities=dict(zip(CLASSES, map(float, row), strict=True)),
            evidence=quote,
            labeller=labeller,
        )
        for exchange, label, subtype, row, quote in zip(
            exchanges, said.labels, said.subtypes, said.probabilities, evidence, strict=True
        )
    ]


def _raise_to(row: Floats, place: int, least: float) -> None:
    """Give one class at least a probability, at the cost of the others in proportion."""
    if row[place] < least:
        row[:] = row * (1.0 - least) / (1.0 - row[place])
        row[place] = least


def asks_outright(exchange: Exchange) -> bool:
    """Whether a follow-up is short, begins no task, and asks for a property of `rlhi_plugin.checks`."""
    text = exchange.follow_up
    if len(text) > _SHORT_CHARS or len(text.split()) > _SHORT_WORDS:
        return False
    cues = follow_up_cues(text)
    return "property" in cues and "task" not in cues and bool(_reader().read(text))


@cache
def _reader() -> AskedFor:
    return AskedFor()


def repeats(exchange: Exchange) -> bool:
    """Whether follow-up and request are equal but for spacing, case and punctuation, and more than a word or two."""
    if abs(len(exchange.follow_up) - len(exchange.request)) > max(20, len(exchange.request) // 5):
        return False
    first, second = (_SPACE.sub(" ", text).strip().lower() for text in (exchange.follow_up, exchange.request))
    return first == second and len(first.split()) >= _LEAST_REPEATED
