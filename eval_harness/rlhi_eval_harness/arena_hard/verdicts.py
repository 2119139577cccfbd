"""From a judge's text to a verdict, and from two games to wins with weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LABELS = {
    "A>>B": (1.0, 3),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B=A": (0.5, 1),
    "B>A": (0.0, 1),
    "A<B": (0.0, 1),
    "B>>A": (0.0, 3),
    "A<<B": (0.0, 3),
    "B<A": (1.0, 1),
    "B<<A": (1.0, 3),
}
"""For each verdict: what answer A gets (1 win, 0.5 tie, 0 loss), as how many battles it counts: clear ones three."""

Version = Literal["v0.1", "v2.0"]

_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")


@dataclass(frozen=True)
class Game:
    """One judged comparison, seen from the model's side.

    Attributes:
        uid: Of the question.
        model_first: Whether the model's answer was shown as A; in the first game of a pair it is B.
        win: 1 the model won, 0.5 tie, 0 it lost; None is unscored.
        weight: How many battles it counts as, 1 or 3; 0 where unscored.
        unscored: Why there is no verdict.
    """

    uid: str
    model_first: bool
    win: float | None
    weight: int
    unscored: str | None = None


def read_verdict(text: str, version: Version) -> tuple[str | None, str | None]:
    """The verdict in a judge's text, or the reason why there is none.

    v0.1 takes ``[[A>B]]`` and wants all that it finds to be the same; v2.0 takes the last, and ``[A>B]`` where no
    double brackets stand.

    Returns:
        Label and None, or None and the reason.
    """
    if not text.strip():
        return None, "the judge said nothing"
    if version == "v0.1":
        found = _DOUBLE.findall(text)
        if len(set(found)) > 1:
            return None, "the judge gave several verdicts"
    else:
        found = _DOUBLE.findall(text.upper()) or _SINGLE.findall(text.upper())
    if not found:
        return None, "no verdict in the judge's text"
    return known_label(found[-1])


def known_label(label: object) -> tuple[str | None, str | None]:
    """A label that means something, with or without its brackets, or the reason why it does not."""
    if label is None:
        return None, "no verdict was stored"
    text = str(label).strip().strip("[]")
    return (text, None) if text in LABELS else (None, f"the verdict {text[:20]!r} is none of the five")


def games_of(uid: str, labels: Sequence[tuple[str | None, str | None]]) -> tuple[Game, ...]:
    """The games of one question: the model's answer is B in the first and A in the second.

    Args:
        uid: Of the question.
        labels: For each game, its label and None, or None and the reason.
    """
    games = []
    for number, (label, reason) in enumerate(labels):
        model_first = number % 2 == 1
        if label is None:
            games.append(Game(uid, model_first, None, 0, reason or "no verdict was stored"))
            continue
        for_a, weight = LABELS[label]
        games.append(Game(uid, model_first, for_a if model_first else 1 - for_a, weight))
    return tuple(games)
