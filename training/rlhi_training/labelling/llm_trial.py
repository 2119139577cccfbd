"""A labeller that asks a language model, on a sample: what it says, what it cannot say, and what that costs.

A reply that cannot be read is counted, and the follow-up is in no figure.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from rlhi_plugin import terminal
from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.errors import InvalidReplyError
from rlhi_plugin.labelling import Exchange, Labeller
from rlhi_plugin.records import FollowUp, Record
from rlhi_training.labelling.cascade import ENCODER_KEEPS, FAST_KEEPS, confidence
from rlhi_training.labelling.decision import CLASSES
from rlhi_training.labelling.measuring import Quality, Said, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AT_ONCE = 8
"""Questions on their way at once: a model in this process answers them as one batch (ours)."""
_UNSURE = 0.65
"""Below it, a model has said that its confidence is low (`rlhi_plugin.labelling.llm` makes that 0.6)."""


class CascadePoint(Record):
    """One point of the curve of cost against accuracy."""

    tiers: str
    """Who decided, cheapest first."""
    passed_on: float = Field(ge=0.0, le=1.0)
    """Share that the last of them was asked about."""
    quality: Quality
    seconds_per_thousand: float = Field(ge=0.0)
    """Of all of them; embedded tiers in processor time, a language model by the clock."""


class LLMTrial(Record):
    """What a labeller that asks a model did on the sample."""

    labeller: str
    asked: int = Field(ge=0)
    per_class: dict[str, int]
    """Of the sample, by the readers."""
    unreadable: int = Field(ge=0)
    """Replies that were no label, twice; in no figure below."""
    abstained: int = Field(ge=0)
    """Labels of which it said itself that its confidence is low."""
    seconds_each: float = Field(ge=0.0)
    """By the clock, a follow-up."""
    quality: Quality
    """On the follow-ups that it answered."""
    beside: dict[str, Quality]
    """Candidates on the same follow-ups."""
    cascade: list[CascadePoint]


@dataclass(frozen=True)
class Asked:
    """Answers of a labeller.

    Attributes:
        found: One for each exchange; None where the reply could not be read.
        seconds: By the clock, for all.
    """

    found: list[FollowUp | None]
    seconds: float


def even_sample(truth: Sequence[int], count: int, seed: int) -> list[int]:
    """Places of about as many rows of each class, in order: classes that have fewer give what they have."""
    draw = random.Random(seed)
    waiting = [[i for i, k in enumerate(truth) if k == kind] for kind in range(len(CLASSES))]
    for places in waiting:
        draw.shuffle(places)
    found: list[int] = []
    while len(found) < count and any(waiting):
        for places in waiting:
            if places and len(found) < count:
                found.append(places.pop())
    return sorted(found)


async def ask_each(labeller: Labeller, exchanges: Sequence[Exchange]) -> Asked:
    """Ask about each follow-up on its own, so that an unreadable reply costs that one alone.

    Raises:
        ModelCallError: the model cannot be asked at all.
    """

    async def ask(exchange: Exchange) -> FollowUp | None:
        try:
            return (await labeller.label([exchange]))[0]
        except InvalidReplyError:
            return None

    started = time.monotonic()
    with terminal.progress(f"ask {labeller.name} (follow-ups)", len(exchanges)) as advance:

        async def count(exchange: Exchange) -> FollowUp | None:
            said = await ask(exchange)
            advance(1)
            return said

        found = await each(exchanges, count, at_once=_AT_ONCE)
    return Asked(found, time.monotonic() - started)


def trial(labeller: str, asked: Asked, tiers: dict[str, Said], costs: dict[str, float]) -> LLMTrial:
    """Measure the answers, alone and as the last tier of a cascade.

    Args:
        labeller: Its name.
        asked: Its answers.
        tiers: What the tiers before it say of the same follow-ups, by name, cheapest first; at most two are used in
            the cascade, at the thresholds of `CascadeLabeller`.
        costs: Their seconds for a thousand follow-ups.
    """
    import numpy as np

    first = next(iter(tiers.values()))
    answered = np.array([i for i, one in enumerate(asked.found) if one is not None], dtype=np.int64)
    own = _as_said(asked, first).part(answered)
    same = {name: said.part(answered) for name, said in tiers.items()}
    each_s = asked.seconds / max(1, len(asked.found))
    own_cost = {labeller: 1000 * each_s}
    return LLMTrial(
        labeller=labeller,
        asked=len(asked.found),
        per_class={name.value: int((first.truth == k).sum()) for k, name in enumerate(CLASSES)},
        unreadable=sum(one is None for one in asked.found),
        abstained=sum(one is not None and confidence(one) < _UNSURE for one in asked.found),
        seconds_each=each_s,
        quality=measure(own),
        beside={name: measure(said) for name, said in same.items()},
        cascade=_points({**same, labeller: own}, {**costs, **own_cost}),
    )


def _points(tiers: dict[str, Said], costs: dict[str, float]) -> list[CascadePoint]:
    """A cascade of the first tier, of the first two, and so on."""
    import numpy as np

    keeps = [FAST_KEEPS, ENCODER_KEEPS][: len(tiers) - 1]
    names = [*list(tiers)[: len(keeps)], list(tiers)[-1]]
    points = []
    for depth in range(1, len(names) + 1):
        chain, first = names[:depth], tiers[names[0]]
        labels, rows = first.labels.copy(), first.probabilities.copy()
        open_rows = np.ones(len(labels), dtype=np.bool_)
        cost, share = 0.0, 1.0
        for number, name in enumerate(chain):
            share = float(open_rows.mean()) if len(open_rows) else 0.0
            cost += share * costs[name]
            labels[open_rows], rows[open_rows] = tiers[name].labels[open_rows], tiers[name].probabilities[open_rows]
            if number < len(chain) - 1:
                open_rows &= tiers[name].probabilities.max(axis=1) < keeps[number]
        quality = measure(Said(first.truth, labels, rows, first.conversations))
        points.append(
            CascadePoint(tiers=" > ".join(chain), passed_on=share, quality=quality, seconds_per_thousand=cost)
        )
    return points


def _as_said(asked: Asked, like: Said) -> Said:
    """The answers as a table; an unreadable one is new request with certainty, and is not looked at."""
    labels, rows = _tables(asked.found)
    return Said(like.truth, labels, rows, like.conversations)


def _tables(found: Sequence[FollowUp | None]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    import numpy as np

    labels = np.zeros(len(found), dtype=np.int64)
    rows = np.tile(np.eye(len(CLASSES))[0], (len(found), 1))
    for i, one in enumerate(found):
        if one is not None:
            labels[i] = CLASSES.index(one.label)
            rows[i] = [one.probabilities.get(name, float(one.label is name)) for name in CLASSES]
    return labels, rows
