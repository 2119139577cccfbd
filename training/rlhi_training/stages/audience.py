"""Whose personas a request may be ranked under, as of the moment it was made. Used by persona contrast."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlhi_plugin.records import Conversation, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import LabelledTurn, PersonaBefore


@dataclass(frozen=True)
class Listener:
    """A persona, and the checkable wishes in it that enough users share (sorted, not empty)."""

    persona: Persona
    asked: tuple[str, ...]


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
        self._started = {c.conversation_id: c.started_at for c in conversations}
        self._own: Mapping[str, Persona | None] = {entry.conversation_id: entry.persona for entry in before}
        self.latest = {persona.user_id: persona for persona in latest}
        snapshots: dict[str, dict[str, Persona]] = defaultdict(dict)
        for persona in [*(entry.persona for entry in before if entry.persona), *latest]:
            snapshots[persona.user_id][persona.digest] = persona
        self._snapshots = {user: list(known.values()) for user, known in sorted(snapshots.items())}

    def persona_of(self, user_id: str, moment: datetime | None) -> Persona | None:
        """A user's newest persona that covers nothing at or after `moment`; None where there is none, or no time."""
        if moment is None:
            return None
        known = [p for p in self._snapshots.get(user_id, []) if p.covers_until is not None and p.covers_until < moment]
        return max(known, key=lambda p: (p.covers_until, p.digest)) if known else None

    def listeners(
        self,
        turn: LabelledTurn,
        wishes: frozenset[str],
        asked_for: AskedFor,
        section: ContrastSection,
        *,
        order: random.Random,
        listened: Counter[str],
    ) -> list[Listener]:
        """Personas with different wishes to rank the answers to one request under.

        The author's own comes first; then users who have listened least so far, ties in random order.
        """
        own = self._own.get(turn.conversation_id)
        moment = self._started.get(turn.conversation_id)
        others = [user for user in self._snapshots if user != turn.user_id]
        order.shuffle(others)
        others.sort(key=lambda user: listened[user])
        late = section.other_personas == "latest"
        found: dict[tuple[str, ...], Listener] = {}
        for user in ["", *others]:
            persona = own if not user else self.latest.get(user) if late else self.persona_of(user, moment)
            asked = tuple(name for name in asked_for.of_persona(persona) if name in wishes)
            if persona is not None and asked and asked not in found:
                found[asked] = Listener(persona, asked)
            if len(found) == section.personas_per_request:
                break
        return list(found.values())


def wanted_by_many(audience: Audience, asked_for: AskedFor, min_users: int) -> frozenset[str]:
    """Properties that at least `min_users` users ask for: what fewer want could point to one person."""
    users = Counter(name for persona in audience.latest.values() for name in asked_for.of_persona(persona))
    return frozenset(name for name, count in users.items() if count >= min_users)
