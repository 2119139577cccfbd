"""What a store must be able to do. Structural: any object with these methods is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from rlhi_plugin.records import Conversation, Message, Persona


@runtime_checkable
class ConversationStore(Protocol):
    """Keeps conversations, message by message. Every method may be called from any thread."""

    def append(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> int:
        """Add messages at the end of a conversation, which the first call creates.

        A message whose id the conversation already holds is left as it is, so the same history may be sent again and
        again. When the call returns, the messages are on disk; when it raises, none of them is.

        Args:
            conversation_id: Names the conversation in this store.
            user_id: The user's pseudonym, or None for an anonymous conversation. A conversation keeps the owner it
                was created with: anonymous turns are never attributed afterwards.
            messages: In the order in which they were said. Empty does nothing.

        Returns:
            How many of them were new.

        Raises:
            OwnerMismatchError: the conversation belongs to somebody else.
            StoreError: the store cannot be written.
        """
        ...

    def conversations(self, *, user_id: str | None = None) -> Iterator[Conversation]:
        """Conversations in the order in which they began to be logged, each with its messages in order.

        Args:
            user_id: Only this user's; None gives everybody's, anonymous ones included.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def close(self) -> None:
        """Release connections. May be called twice."""
        ...


@runtime_checkable
class PersonaStore(Protocol):
    """Keeps the current persona of each user. Every method may be called from any thread."""

    def get_persona(self, user_id: str) -> Persona | None:
        """The persona that was put last, or None.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def put_persona(self, persona: Persona) -> None:
        """Make `persona` its user's current one.

        Raises:
            StoreError: the store cannot be written.
        """
        ...
