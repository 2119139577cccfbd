"""What a persona builder is, and how builders look up the user's turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from rlhi_plugin.persona.phrases import is_command
from rlhi_plugin.records import Conversation, Evidence, FollowUp, Persona

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Stands for a time that nobody wrote down."""


@runtime_checkable
class PersonaBuilder(Protocol):
    """Turns one user's history into a persona. Reads only what the user said."""

    @property
    def name(self) -> str:
        """Name and version; recorded in what it builds."""
        ...

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """Build the persona of one user.

        Args:
            user_id: The pseudonym.
            conversations: This user's, all of which the persona may draw on.
            follow_ups: Labels of their follow-ups; those of other conversations are ignored.

        Returns:
            The persona, without statements when nothing is known.

        Raises:
            ModelCallError: a builder that asks a model could not.
        """
        ...


@runtime_checkable
class IncrementalBuilder(PersonaBuilder, Protocol):
    """A builder that can go on from a persona, given only what was said since."""

    async def extend(self, persona: Persona, turns: Sequence[UserTurn]) -> Persona:
        """The persona after some more turns.

        What the user locked, wrote or removed stays so. `rlhi_plugin.persona.updater` keeps the count of turns and the
        version.

        Args:
            persona: As it is; without statements for a new user.
            turns: Oldest first, all said after those that `persona` was built from.

        Raises:
            ModelCallError: a builder that asks a model could not.
        """
        ...


@dataclass(frozen=True, slots=True)
class UserTurn:
    """Something the user said.

    Attributes:
        conversation_id: Where.
        message_id: Which message.
        text: The whole message, verbatim.
        said_at: Its time, else that of its conversation; None when neither is known.
        follow_up: Its label, where it has one.
    """

    conversation_id: str
    message_id: str
    text: str
    said_at: datetime | None
    follow_up: FollowUp | None

    def quote(self, words: str) -> Evidence:
        """Cite this turn."""
        return Evidence(
            conversation_id=self.conversation_id, message_id=self.message_id, quote=words, said_at=self.said_at
        )


def user_turns(conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]) -> list[UserTurn]:
    """Everything the user said, oldest first; what has no time counts as oldest, in the order given.

    Commands (`rlhi_plugin.persona.phrases`) are not something said to the assistant, and are left out.
    """
    labels = {(f.conversation_id, f.message_id): f for f in follow_ups}
    turns = [
        UserTurn(
            c.conversation_id, m.id, m.content, m.created_at or c.started_at, labels.get((c.conversation_id, m.id))
        )
        for c in conversations
        for m in c.messages
        if m.role == "user" and not is_command(m.content)
    ]
    return sorted(turns, key=lambda turn: turn.said_at or LONG_AGO)


def covers_until(turns: Sequence[UserTurn]) -> datetime | None:
    """Time of the newest turn that was read."""
    return max((turn.said_at for turn in turns if turn.said_at is not None), default=None)


def empty_persona(user_id: str, builder: str) -> Persona:
    """What is known of a user of whom nothing is known."""
    return Persona(user_id=user_id, statements=(), builder=builder)
