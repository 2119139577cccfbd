"""One user's history, read once: the persona before each conversation is the one before, and what was said since.

Threads overlap. What a user said in one thread is known to another that begins later, as far as everything before it in
its thread was said by then; so each message has a moment from which on it is known, and is read in that order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import datetime

from rlhi_plugin.persona.builder import LONG_AGO, IncrementalBuilder, UserTurn, empty_persona, user_turns
from rlhi_plugin.records import Conversation, FollowUp, Persona
from rlhi_training.records import PersonaBefore


def begun(conversation: Conversation) -> tuple[bool, datetime, str]:
    """Sort key of the order in which a history is read; what has no time comes last."""
    start = conversation.started_at
    return start is None, start or LONG_AGO, conversation.conversation_id


def as_used(persona: Persona) -> Persona:
    """Without what is held in reserve for later turns: training reads what a prompt shows, and keeps it many times."""
    return persona.model_copy(update={"reserve": ()}) if persona.reserve else persona


class History:
    """What is known of one user so far. Memory holds what was said but is not known yet, not what was read.

    Args:
        user_id: Whose.
        builder: Builds without failing.
    """

    def __init__(self, user_id: str, builder: IncrementalBuilder) -> None:
        self._builder = builder
        self._empty = empty_persona(user_id, builder.name)
        self._persona = self._empty
        self._shown = self._empty
        self._told = False
        self._first: datetime | None = None
        self._waiting: list[tuple[datetime, int, UserTurn]] = []
        self._undated: list[UserTurn] = []
        self._count = 0

    async def before(self, conversation: Conversation, follow_ups: Sequence[FollowUp]) -> PersonaBefore:
        """The persona as of the beginning of a conversation, which is then part of the history.

        Args:
            conversation: In the order of `begun`.
            follow_ups: The labels of its messages.
        """
        start = conversation.started_at
        why, persona = None, None
        if start is None:
            why = "time_unknown"
        else:
            await self._read_until(start)
            persona = self._known()
            if persona is None:
                why = "nothing_said" if self._first is not None and self._first < start else "no_earlier_history"
        self._add(conversation, follow_ups)
        return PersonaBefore(
            conversation_id=conversation.conversation_id,
            user_id=conversation.user_id,
            persona=persona,
            why_none=why,
        )

    async def latest(self) -> Persona | None:
        """The persona after everything; what has no time is read last, for nobody knows that it came before."""
        await self._read_until(None)
        await self._extend(self._undated)
        self._undated = []
        return self._known()

    def _known(self) -> Persona | None:
        return self._shown if self._told and self._shown.statements else None

    def _add(self, conversation: Conversation, follow_ups: Sequence[FollowUp]) -> None:
        turns = user_turns([conversation], follow_ups)
        start = conversation.started_at
        if start is None:
            self._undated += turns
            return
        self._first = start if self._first is None else min(self._first, start)
        known_from: dict[str, datetime] = {}
        moment = start
        for message in conversation.messages:
            moment = max(moment, message.created_at or start)
            known_from[message.id] = moment
        for turn in turns:
            self._count += 1
            heapq.heappush(self._waiting, (known_from[turn.message_id], self._count, turn))

    async def _read_until(self, start: datetime | None) -> None:
        ready: list[UserTurn] = []
        while self._waiting and (start is None or self._waiting[0][0] < start):
            ready.append(heapq.heappop(self._waiting)[2])
        await self._extend(ready)

    async def _extend(self, turns: Sequence[UserTurn]) -> None:
        if turns:
            self._told = self._told or any(turn.follow_up is not None for turn in turns)
            self._persona = await self._builder.extend(self._persona, turns)
            self._shown = as_used(self._persona)
