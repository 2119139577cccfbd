"""How much one user may contribute, and how a limit on all pairs is drawn evenly."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from rlhi_plugin.records import Persona
from rlhi_training.records import LabelledTurn, ProposedPair


class Counted(Protocol):
    """What caps count: pairs, or logged answers with their follow-ups."""

    @property
    def key(self) -> str:
        """Unique."""
        ...

    @property
    def source(self) -> str:
        """Which method it is for."""
        ...

    @property
    def persona(self) -> Persona | None:
        """Whose preference it states, where it says so."""
        ...


C = TypeVar("C", bound=Counted)


def owner(pair: ProposedPair, turns: Mapping[str, LabelledTurn]) -> str:
    """Whose preference a pair states: the persona's user, else the turn's user, else the anonymous conversation."""
    if pair.persona is not None:
        return pair.persona.user_id
    turn = turns[f"{pair.conversation_id}#{pair.turn}"]
    return turn.user_id or f"#{pair.conversation_id}"


def cap_users(
    pairs: Sequence[C], owners: Mapping[str, str], share: float, seed: int, *, most: int | None = None
) -> list[C]:
    """At most ``ceil(share * len(pairs))`` pairs per owner, and at most `most`, drawn at random; in the given order.

    Neutral pairs state nobody's preference and are not counted.
    """
    cap = math.ceil(share * len(pairs))
    cap = cap if most is None else min(cap, most)
    order = random.Random(seed)
    by_owner: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if not (pair.source == "contrast" and pair.persona is None):
            by_owner[owners[pair.key]].append(pair.key)
    out: set[str] = set()
    for _, keys in sorted(by_owner.items()):
        out |= set(order.sample(keys, len(keys))[cap:])
    return [pair for pair in pairs if pair.key not in out]


def draw_evenly(pairs: Sequence[C], owners: Mapping[str, str], limit: int | None, seed: int) -> list[C]:
    """At most `limit` pairs, taken in turn from each source and, within a source, from each owner."""
    if limit is None or len(pairs) <= limit:
        return list(pairs)
    order = random.Random(seed)
    piles: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for pair in order.sample(list(pairs), len(pairs)):
        piles[pair.source][owners[pair.key]].append(pair.key)
    rounds = {source: _in_turn(list(by_owner.values())) for source, by_owner in sorted(piles.items())}
    drawn = set(_in_turn(list(rounds.values()))[:limit])
    return [pair for pair in pairs if pair.key in drawn]


def _in_turn(piles: Sequence[Sequence[str]]) -> list[str]:
    """First of each pile, then second of each, and so on."""
    # Not round by round over all piles: one user with 50,000 pairs would make that many rounds over every user.
    placed = [(place, number, key) for number, pile in enumerate(piles) for place, key in enumerate(pile)]
    return [key for _, _, key in sorted(placed)]
