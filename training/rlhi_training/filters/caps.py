"""How much one user may contribute, and how a limit on all pairs is drawn evenly.

Both are decided on `Claim`s, which are small: all of a large run's fit into memory where its pairs do not.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rlhi_plugin.records import Persona
from rlhi_training.draws import drawn
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


@dataclass(frozen=True, slots=True)
class Claim:
    """What the caps know of a pair.

    Attributes:
        rank: Drawn for the pair; the smallest of an owner stay.
        owner: Drawn for the owner.
        source: The pair's.
        neutral: It states nobody's preference, and counts for no owner.
    """

    rank: int
    owner: int
    source: str
    neutral: bool


def owner(pair: ProposedPair, turns: Mapping[str, LabelledTurn]) -> str:
    """Whose preference a pair states: the persona's user, else the turn's user, else the anonymous conversation."""
    if pair.persona is not None:
        return pair.persona.user_id
    turn = turns[f"{pair.conversation_id}#{pair.turn}"]
    return turn.user_id or f"#{pair.conversation_id}"


def claim(pair: Counted, owner_name: str, seed: int) -> Claim:
    """A pair's claim."""
    neutral = pair.source == "contrast" and pair.persona is None
    return Claim(drawn(seed, "pair", pair.key), drawn(seed, "owner", owner_name), pair.source, neutral)


def within_cap(claims: Sequence[Claim], share: float, most: int | None = None) -> set[int]:
    """Places of at most ``ceil(share * len(claims))`` claims per owner, and at most `most`, and of all neutral ones."""
    cap = math.ceil(share * len(claims))
    cap = cap if most is None else min(cap, most)
    had: Counter[int] = Counter()
    kept: set[int] = set()
    for place in sorted(range(len(claims)), key=lambda place: claims[place].rank):
        one = claims[place]
        if not one.neutral:
            had[one.owner] += 1
        if one.neutral or had[one.owner] <= cap:
            kept.add(place)
    return kept


def evenly(claims: Sequence[Claim], among: Collection[int], limit: int | None) -> set[int]:
    """Of the places `among`, at most `limit`, taken in turn from each source and, within a source, from each owner."""
    if limit is None or len(among) <= limit:
        return set(among)
    number: Counter[tuple[str, int]] = Counter()
    by_source: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for place in sorted(among, key=lambda place: claims[place].rank):
        one = claims[place]
        by_source[one.source].append((number[one.source, one.owner], one.owner, place))
        number[one.source, one.owner] += 1
    rounds = sorted(
        (turn, source, place) for source, found in by_source.items() for turn, (_, _, place) in enumerate(sorted(found))
    )
    return {place for _, _, place in rounds[:limit]}


def cap_users(
    pairs: Sequence[C], owners: Mapping[str, str], share: float, seed: int, *, most: int | None = None
) -> list[C]:
    """`within_cap` of pairs, in the given order; `owners` are by pair key."""
    kept = within_cap([claim(pair, owners[pair.key], seed) for pair in pairs], share, most)
    return [pair for place, pair in enumerate(pairs) if place in kept]


def draw_evenly(pairs: Sequence[C], owners: Mapping[str, str], limit: int | None, seed: int) -> list[C]:
    """`evenly` of pairs, in the given order; `owners` are by pair key."""
    kept = evenly([claim(pair, owners[pair.key], seed) for pair in pairs], range(len(pairs)), limit)
    return [pair for place, pair in enumerate(pairs) if place in kept]
