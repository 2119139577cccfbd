"""What the commands and caches of this package need of a store. Structural: any object with these methods is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from rlhi_plugin.records import ConsentDecision, Conversation, FeedbackEvent, Persona, Purpose, Tombstone


@runtime_checkable
class ConsentStore(Protocol):
    """Keeps what users allowed."""

    def put_consent(self, decision: ConsentDecision) -> None:
        """Keep a decision, beside all earlier ones."""
        ...

    def consents(self, user_id: str) -> Mapping[Purpose, ConsentDecision]:
        """The newest decision of a user about each purpose that they decided about."""
        ...


@runtime_checkable
class ForgettingStore(Protocol):
    """Deletes for good."""

    def forget(self, user_id: str) -> Any:
        """Delete everything of one user, leave a tombstone, and say how much it was, as a dataclass of counts."""
        ...

    def tombstones(self) -> list[Tombstone]:
        """Of every user who was forgotten, with the latest time."""
        ...

    def purge(self, *, before: datetime, user_id: str | None = None) -> int:
        """Delete what is from before a time, of one user or of all; how many messages that were."""
        ...


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
