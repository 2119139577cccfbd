"""What a labeller has to beat: always the commonest class, a list of keywords, similarity to the request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.decision import CLASSES, repeats
from rlhi_training.labelling.features import relations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FEEDBACK = re.compile(
    r"\b(?:no|not|wrong|incorrect|instead|shorter|longer|rewrite|change|fix|error|again but|more detail|too|doesn't"
    r"|didn't|don't|mistake|sorry|i meant?|make it|add|remove|without|but|actually)\b"
)
_AGAIN = re.compile(r"^\W*(?:try again|again|regenerate|repeat|retry|once more)\W*$")
_THANKS = re.compile(r"^\W*(?:thanks?|thank you|thx|great|perfect|nice|cool|awesome|good)\b")
_FEW_WORDS = 6


def majority(exchanges: Sequence[Exchange]) -> Floats:
    """New request, always: shape (exchanges, 4)."""
    return _certain([0] * len(exchanges))


def keywords(exchanges: Sequence[Exchange]) -> Floats:
    """Twenty English words that a programmer would list."""
    found = []
    for exchange in exchanges:
        text = exchange.follow_up.lower()
        short = len(text.split()) <= _FEW_WORDS
        if repeats(exchange) or _AGAIN.match(text):
            found.append(2)
        elif short and _THANKS.match(text):
            found.append(3)
        else:
            found.append(1 if _FEEDBACK.search(text[:300]) else 0)
    return _certain(found)


def similarity(exchanges: Sequence[Exchange]) -> Floats:
    """The more of the request's words a follow-up has, the likelier it is another attempt."""
    import numpy as np

    rows = np.zeros((len(exchanges), len(CLASSES)))
    for row, exchange in zip(rows, exchanges, strict=True):
        same = relations(exchange)["same"]
        if repeats(exchange):
            row[2] = 1.0
        else:
            row[:2] = 1.0 - same, same
    return rows


def _certain(places: Sequence[int]) -> Floats:
    import numpy as np

    return np.eye(len(CLASSES))[list(places)]


BASELINES = {"majority": majority, "keywords": keywords, "similarity": similarity}
"""By name."""
