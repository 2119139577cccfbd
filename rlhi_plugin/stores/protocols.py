"""What a store must be able to do. Structural: any object with these methods is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from rlhi_plugin.records import (
    ConsentDecision,
    Conversation,
    FeedbackEvent,
    Message,
    Persona,
    Purpose,
    Tombstone,
)


@runtime_checkable
class ConversationStore(Protocol):
    """Keeps conversations, message by message. Every method may be called from any thread."""

    def append(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> int:
        """Add messages at the end of a conversation, which the first call creates.

        A message whose id the conversation already holds is left as it is, so the same history may be sent again and
        again. When the call returns, the messages are on disk; when it raises, none of them is.

        What a user said up to the moment at which they were forgotten (see `ForgettingStore`) is passed over and not
        counted as new, wherever it comes from: an import, a replayed journal, a request that was still under way. A
        message without a time counts with the beginning of its conversation, and is passed over where that is unknown.

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


class Submitted(Protocol):
    """An append that was submitted."""

    def result(self, timeout_s: float | None = None) -> int:
        """Have it done, and wait for it; returns and raises what `ConversationStore.append` does. To be called once.

        Args:
            timeout_s: Seconds after which to stop waiting; None waits as long as it takes.

        Raises:
            StoreTimeoutError: it took longer. It may still be written.
        """
        ...


@runtime_checkable
class SubmittingStore(Protocol):
    """A store whose callers can stop waiting: it writes in a thread of its own, or into a file of this machine.

    Turns come by `submit` alone, so a class that adds something to `append` adds it here.
    """

    def submit(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> Submitted:
        """Submit what `ConversationStore.append` does; parts that were submitted first are written first.

        Raises:
            StoreError: the store cannot even take it.
        """
        ...


@runtime_checkable
class BeginningStore(SubmittingStore, Protocol):
    """One that finds out while it writes whether a conversation begins: nobody has to ask it before."""

    def submit_new(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> Submitted:
        """Submit what begins a conversation; its result is 0 where nothing was written, since there may be one already.

        Raises:
            StoreError: the store cannot even take it.
        """
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


@runtime_checkable
class FeedbackStore(Protocol):
    """Keeps what users did with answers. Every method may be called from any thread."""

    def record_feedback(self, event: FeedbackEvent) -> bool:
        """Keep one event. The conversation that it names need not be stored.

        Returns:
            Whether it was new: False where the conversation has an event of this id already, which is left as it is,
            and for what a user did up to the moment at which they were forgotten.

        Raises:
            StoreError: the store cannot be written.
        """
        ...

    def feedback(self, *, user_id: str | None = None) -> Iterator[FeedbackEvent]:
        """Events in the order in which they were recorded.

        Args:
            user_id: Only this user's; None gives everybody's, anonymous ones included.

        Raises:
            StoreError: the store cannot be read.
        """
        ...


@runtime_checkable
class ConsentStore(Protocol):
    """Keeps what users allowed. Every method may be called from any thread."""

    def put_consent(self, decision: ConsentDecision) -> None:
        """Keep a decision, beside all earlier ones.

        Raises:
            StoreError: the store cannot be written.
        """
        ...

    def consents(self, user_id: str) -> Mapping[Purpose, ConsentDecision]:
        """The decision of a user that counts for each purpose: the latest by `decided_at`, of equals the last put.

        A purpose that the user never decided about is absent.

        Raises:
            StoreError: the store cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `ForgettingStore.forget` deleted.

    Attributes:
        tombstone: Who was forgotten and when.
        conversations: How many of theirs were deleted.
        messages: In those conversations, of every role.
        feedback: Events by this user, or about those conversations.
        personas: Versions of their persona.
        consents: Decisions about consent.
        erased: Whether no byte of it is left in the store's files. False where SQLite's files could not be rewritten
            because another process was using them (calling `forget` again does it), and for a database server, which
            frees deleted rows at its own time and keeps logs of its own.
    """

    tombstone: Tombstone
    conversations: int
    messages: int
    feedback: int
    personas: int
    consents: int
    erased: bool


@runtime_checkable
class ForgettingStore(Protocol):
    """Deletes for good. Every method may be called from any thread."""

    def forget(self, user_id: str) -> Forgotten:
        """Delete everything of one user, and leave a tombstone that keeps it from coming back.

        What the user says, does and decides afterwards is kept as anybody's. A user of whom nothing is stored is
        forgotten all the same: what is imported later may hold something.

        Raises:
            StoreError: the store cannot be written; nothing was deleted.
        """
        ...

    def tombstones(self) -> list[Tombstone]:
        """All of them, each user once with the latest time, the earliest first.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def purge(self, *, before: datetime, user_id: str | None = None) -> int:
        """Delete the messages and feedback from before a time, and the personas that were replaced before it.

        Feedback of the kind ``do_not_learn`` stays, as decisions about consent do.

        A message without a time counts with the beginning of its conversation; where that is unknown too, it stays.
        Conversations without messages go as well. The current persona of a user stays, to be built anew afterwards;
        that of a user of whom no conversation is left goes, when it is from before the time.

        Args:
            before: An aware time; what is of exactly this time stays.
            user_id: Only this user's; None deletes everybody's, anonymous ones included.

        Returns:
            How many messages were deleted.

        Raises:
            ConfigError: `before` has no time zone.
            StoreError: the store cannot be written; nothing was deleted.
        """
        ...
