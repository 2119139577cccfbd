"""What the commands and caches of this package need of a store. Structural: any object with these methods is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from rlhi_plugin.records import Conversation, FeedbackEvent, Persona
from rlhi_plugin.stores import ConsentStore, ForgettingStore


@runtime_checkable
class UserStore(Protocol):
    """Tells what it holds of a user."""

    def conversations(self, *, user_id: str | None = None) -> Iterator[Conversation]:
        """Those of one user, or all."""
        ...

    def user_ids(self) -> list[str]:
        """Pseudonyms of all users with a conversation."""
        ...

    def get_persona(self, user_id: str) -> Persona | None:
        """The current one, or None."""
        ...

    def feedback(self, *, user_id: str | None = None) -> Iterator[FeedbackEvent]:
        """Events of one user, or all."""
        ...


@runtime_checkable
class PrivacyStore(ConsentStore, ForgettingStore, UserStore, Protocol):
    """All of it, as the SQL store does."""
