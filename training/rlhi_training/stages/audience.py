"""Whose personas a request may be ranked under, as of the moment it was made. Used by persona contrast."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from rlhi_plugin.persona.gate import gate
from rlhi_plugin.persona.request_kinds import request_kinds
from rlhi_plugin.records import Conversation, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.draws import around, drawn
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import LabelledTurn, PersonaBefore

ROOM = 10_000
"""Users who may listen to others' requests, drawn by the seed: more add nothing that these lack (ours)."""
_HEARD = 256
"""Personas that are tried to find different ones: where all users want the same three things, there is no fourth."""
_LOOKED_AT = 64
"""Personas that are tried to find an irrelevant one: most requests leave room for most wishes."""


@dataclass(frozen=True)
class Listener:
    """A persona, and the checkable wishes in it that count for a request and that enough users share (sorted)."""

    persona: Persona
    asked: tuple[str, ...]


class Snapshots:
    """A user's different personas; of equal ones the one that covers least, for it was known first."""

    def __init__(self) -> None:
        self._known: dict[str, Persona] = {}

    def add(self, persona: Persona) -> None:
        """One more."""
        known = self._known.get(persona.digest)
        if known is None or _covers(persona) < _covers(known):
            self._known[persona.digest] = persona

    @property
    def personas(self) -> list[Persona]:
        """All of them, by what they cover."""
        return sorted(self._known.values(), key=lambda persona: (_covers(persona), persona.digest))


def _covers(persona: Persona) -> float:
    return persona.covers_until.timestamp() if persona.covers_until else float("inf")


@dataclass(frozen=True, slots=True)
class _Timeline:
    """A user's personas with a time, in its order.

    Attributes:
        times: Until when each covers.
        personas: The personas.
    """

    times: tuple[datetime, ...]
    personas: tuple[Persona, ...]

    @classmethod
    def of(cls, personas: Iterable[Persona]) -> _Timeline:
        """Of equal times the one with the larger digest is later."""
        dated = sorted(
            ((p.covers_until, p.digest, place), p) for place, p in enumerate(personas) if p.covers_until is not None
        )
        return cls(tuple(key[0] for key, _ in dated), tuple(persona for _, persona in dated))

    def before(self, moment: datetime) -> Persona | None:
        """The last that covers nothing at or after a moment."""
        place = bisect_left(self.times, moment)
        return self.personas[place - 1] if place else None


class Audience:
    """All personas of a run, by user and by time.

    Args:
        conversations: For the time at which each began.
        before: The persona before each conversation.
        latest: Each user's latest persona.
    """

    def __init__(
        self, conversations: Sequence[Conversation], before: Sequence[PersonaBefore], latest: Sequence[Persona]
    ) -> None:
        self._started: Mapping[str, datetime | None] = {c.conversation_id: c.started_at for c in conversations}
        self._own: Mapping[str, Persona | None] = {entry.conversation_id: entry.persona for entry in before}
        self.latest = {persona.user_id: persona for persona in latest}
        snapshots: dict[str, Snapshots] = defaultdict(Snapshots)
        for persona in [*(entry.persona for entry in before if entry.persona), *latest]:
            snapshots[persona.user_id].add(persona)
        self._snapshots = {user: known.personas for user, known in sorted(snapshots.items())}
        # Found once for all copies that `at` makes: a room of thousands is looked through for thousands of batches.
        self._circles: dict[tuple[frozenset[str] | None, int], list[str]] = {}
        self._timelines: dict[str, _Timeline] = {}

    def at(self, started: Mapping[str, datetime | None], own: Mapping[str, Persona | None]) -> Audience:
        """The same users, for these conversations: when each began, and their authors' personas before it."""
        here = copy(self)
        here._started = started  # noqa: SLF001 - a copy of this very object
        here._own = own  # noqa: SLF001
        return here

    def persona_of(self, user_id: str, moment: datetime | None) -> Persona | None:
        """A user's newest persona that covers nothing at or after `moment`; None where there is none, or no time."""
        if moment is None:
            return None
        timeline = self._timelines.get(user_id)
        if timeline is None:
            timeline = self._timelines[user_id] = _Timeline.of(self._snapshots.get(user_id, ()))
        return timeline.before(moment)

    def author_of(self, turn: LabelledTurn) -> Persona | None:
        """What was known, before the conversation, of whoever made this request."""
        return self._own.get(turn.conversation_id)

    def latest_of(self, user_id: str) -> Persona | None:
        """A user's latest persona; None where there is none."""
        return self.latest.get(user_id)

    def users_asking(self, wishes: frozenset[str] | None, asked_for: AskedFor) -> list[str]:
        """Users one of whose personas asks for any of `wishes`; None: all."""
        return [
            user
            for user, known in self._snapshots.items()
            if wishes is None or any(wishes.intersection(asked_for.of_persona(p)) for p in known)
        ]

    def listeners(
        self,
        turn: LabelledTurn,
        wishes: frozenset[str],
        asked_for: AskedFor,
        section: ContrastSection,
        *,
        seed: int,
    ) -> Iterator[Listener]:
        """Personas with different wishes to rank the answers to one request under, as they are found.

        The author's own comes first; then other users, in an order that the seed and the turn draw and nothing else, so
        that requests can be looked at in any order and apart. Where a reward model ranks, personas need not ask for
        anything checkable, only differ.
        """
        checks = section.rank_by == "checks"
        found: set[tuple[str, ...]] = set()
        candidates = self._candidates(turn, wishes if checks else None, asked_for, section, seed)
        for persona in islice(candidates, _HEARD):
            asked = _counting(persona, turn, wishes, asked_for, section)
            distinct = asked if checks else (persona.digest,)
            if (asked or not checks) and distinct not in found:
                found.add(distinct)
                yield Listener(persona, asked)
                if len(found) == section.personas_per_request:
                    return

    def irrelevant(
        self,
        turn: LabelledTurn,
        wishes: frozenset[str],
        asked_for: AskedFor,
        section: ContrastSection,
        *,
        seed: int,
    ) -> Listener | None:
        """A persona whose wishes have no room in this request; `asked` is those wishes. None where there is none."""
        if not request_kinds(turn.context[-1].content):
            return None
        candidates = self._candidates(turn, wishes, asked_for, section, seed)
        for persona in islice(candidates, _LOOKED_AT):
            asked = tuple(name for name in asked_for.of_persona(persona) if name in wishes)
            if asked and not gate(persona, turn.context[-1].content).statements:
                return Listener(persona, asked)
        return None

    def _candidates(
        self,
        turn: LabelledTurn,
        wishes: frozenset[str] | None,
        asked_for: AskedFor,
        section: ContrastSection,
        seed: int,
    ) -> Iterator[Persona]:
        """The author's persona, then other users', from a place of the circle that the turn draws."""
        own = self._own.get(turn.conversation_id)
        if own is not None:
            yield own
        circle = self._with_wishes(wishes, asked_for, seed)
        late, moment = section.other_personas == "latest", self._started.get(turn.conversation_id)
        for place in around(len(circle), drawn(seed, "listeners", turn.key)):
            user = circle[place]
            if user == turn.user_id:
                continue
            persona = self.latest_of(user) if late else self.persona_of(user, moment)
            if persona is not None:
                yield persona

    def _with_wishes(self, wishes: frozenset[str] | None, asked_for: AskedFor, seed: int) -> list[str]:
        """Users one of whose personas asks for any of `wishes` (None: all users), drawn; found once.

        They stand in the order of their draws, and behind `ROOM` of them nobody listens.
        """
        circle = self._circles.get((wishes, seed))
        if circle is None:
            users = sorted(self.users_asking(wishes, asked_for), key=lambda user: drawn(seed, "room", user))
            circle = self._circles[wishes, seed] = users[:ROOM]
        return circle


def _counting(
    persona: Persona, turn: LabelledTurn, wishes: frozenset[str], asked_for: AskedFor, section: ContrastSection
) -> tuple[str, ...]:
    """The wishes of a persona that count for a request."""
    heard = gate(persona, turn.context[-1].content) if section.gate else persona
    return tuple(name for name in asked_for.of_persona(heard) if name in wishes)


def wanted_by_many(audience: Audience, asked_for: AskedFor, min_users: int) -> frozenset[str]:
    """Properties that at least `min_users` users ask for: what fewer want could point to one person."""
    users = Counter(name for persona in audience.latest.values() for name in asked_for.of_persona(persona))
    return frozenset(name for name, count in users.items() if count >= min_users)
