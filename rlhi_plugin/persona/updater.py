"""The next persona from the current one and what was said since: only new turns are labelled and read.

For a builder that folds (`ExtractivePersonaBuilder`), updating any number of times gives exactly what building from
scratch gives, in every field but `version`, as long as turns arrive in the order of their times and the user has
decided nothing. After edits, locks and removals both ways agree on those: what is locked is there unchanged, what was
removed is not. For a builder that asks a model, every statement rests on the user's words, and the same decisions hold.

Where the past has changed (an import of older turns, a forgotten or excluded conversation, another builder) the persona
is built again from all turns, and only the user's decisions are carried over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rlhi_plugin.labelling import Labeller, exchanges
from rlhi_plugin.persona.builder import (
    LONG_AGO,
    IncrementalBuilder,
    PersonaBuilder,
    UserTurn,
    covers_until,
    empty_persona,
    user_turns,
)
from rlhi_plugin.persona.edits import excluded_names
from rlhi_plugin.persona.memory import is_own_wording
from rlhi_plugin.persona.removals import is_removed
from rlhi_plugin.records import Conversation, FollowUp, Persona


class PersonaUpdater:
    """Keeps personas up to date.

    Args:
        labeller: Labels the follow-ups among the new turns.
        builder: Reads the labelled turns. One that is no `IncrementalBuilder` reads all of them each time.
    """

    def __init__(self, *, labeller: Labeller, builder: PersonaBuilder) -> None:
        self._labeller = labeller
        self._builder = builder

    async def update(self, user_id: str, current: Persona | None, conversations: Sequence[Conversation]) -> Persona:
        """The persona after everything in `conversations`.

        Args:
            user_id: The pseudonym.
            current: What is stored, or None.
            conversations: All of this user's.

        Returns:
            `current` itself when there is nothing new.

        Raises:
            ModelCallError: a labeller or builder that asks a model could not.
        """
        allowed = _allowed(current, conversations)
        turns = user_turns(allowed, [])
        fresh = self._unread(current, turns)
        if current is None or fresh is None or not isinstance(self._builder, IncrementalBuilder):
            if current is not None and fresh == []:
                return current
            return await self._rebuild(user_id, current, allowed)
        if not fresh:
            return current
        new_ids = {(turn.conversation_id, turn.message_id) for turn in fresh}
        labels = await self._label(allowed, new_ids)
        labelled = [turn for turn in user_turns(allowed, labels) if (turn.conversation_id, turn.message_id) in new_ids]
        updated = await self._builder.extend(current, labelled)
        return _counted(updated, current, turns)

    async def rebuild(self, user_id: str, current: Persona | None, conversations: Sequence[Conversation]) -> Persona:
        """The persona from all turns; of `current` only what the user decided is kept.

        Raises:
            ModelCallError: a labeller or builder that asks a model could not.
        """
        return await self._rebuild(user_id, current, _allowed(current, conversations))

    async def _rebuild(self, user_id: str, current: Persona | None, allowed: Sequence[Conversation]) -> Persona:
        labels = await self._label(allowed, None)
        if isinstance(self._builder, IncrementalBuilder):
            begin = decisions_of(current) if current is not None else empty_persona(user_id, self._builder.name)
            built = await self._builder.extend(begin, user_turns(allowed, labels))
        else:
            built = await self._builder.build(user_id, allowed, labels)
            if current is not None:
                built = with_decisions(built, current)
        return _counted(built, current, user_turns(allowed, []))

    async def _label(self, conversations: Sequence[Conversation], only: set[tuple[str, str]] | None) -> list[FollowUp]:
        found = [
            exchange
            for conversation in conversations
            for exchange in exchanges(conversation)
            if only is None or (exchange.conversation_id, exchange.message_id) in only
        ]
        return await self._labeller.label(found) if found else []

    def _unread(self, current: Persona | None, turns: Sequence[UserTurn]) -> list[UserTurn] | None:
        """The turns that `current` has not read, or None where it does not fit this history."""
        if current is None or current.builder != self._builder.name:
            return None
        until, edge = current.covers_until or LONG_AGO, frozenset(current.edge)
        fresh = [t for t in turns if (t.said_at or LONG_AGO) > until or (_at(t, until) and _key(t) not in edge)]
        return fresh if len(turns) - len(fresh) == current.turns_read else None


def _allowed(current: Persona | None, conversations: Sequence[Conversation]) -> list[Conversation]:
    """The conversations that the user did not exclude, under their thread's name or that of their branch of it."""
    if current is None or not current.excluded:
        return list(conversations)
    excluded = excluded_names(current)
    return [c for c in conversations if c.conversation_id not in excluded]


def decisions_of(persona: Persona) -> Persona:
    """A persona that holds nothing but what its user decided: what they locked, wrote, removed, excluded."""
    known = (*persona.statements, *persona.reserve)
    return Persona(
        user_id=persona.user_id,
        statements=tuple(s for s in known if s.locked or is_own_wording(s)),
        builder=persona.builder,
        version=persona.version,
        removed=persona.removed,
        excluded=persona.excluded,
    )


def with_decisions(built: Persona, decided: Persona) -> Persona:
    """What a builder that knows nothing of decisions built, put right: removed statements out, kept ones first."""
    kept = decisions_of(decided)
    texts = {statement.text for statement in kept.statements}
    rest = (s for s in built.statements if s.text not in texts and not is_removed(s, kept.removed))
    return built.model_copy(
        update={
            "statements": (*kept.statements, *rest),
            "version": kept.version,
            "removed": kept.removed,
            "excluded": kept.excluded,
        }
    )


def _counted(persona: Persona, before: Persona | None, turns: Sequence[UserTurn]) -> Persona:
    """The persona with the account of what was read, and the next version where something about the user changed."""
    until = covers_until(turns)
    edge = tuple(sorted(_key(turn) for turn in turns if _at(turn, until or LONG_AGO)))
    changed = before is None or _content(persona) != _content(before)
    version = (0 if before is None else before.version) + changed
    return persona.model_copy(
        update={"covers_until": until, "turns_read": len(turns), "edge": edge, "version": version}
    )


def _content(persona: Persona) -> tuple[object, ...]:
    return persona.statements, persona.reserve, persona.removed, persona.excluded


def _at(turn: UserTurn, moment: datetime) -> bool:
    return (turn.said_at or LONG_AGO) == moment


def _key(turn: UserTurn) -> str:
    return f"{turn.conversation_id}/{turn.message_id}"
