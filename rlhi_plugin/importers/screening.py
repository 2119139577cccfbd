"""What of a foreign log may be stored: without what is private, and nothing of whom the store must not log."""

from __future__ import annotations

from collections.abc import Mapping

from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.messages import MessageRedactor, RedactOption, open_redactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.privacy.tombstones import by_user, remembered
from rlhi_plugin.records import Conversation, FeedbackEvent, Purpose, Tombstone
from rlhi_plugin.stores import ConsentStore, ForgettingStore


class Screening:
    """Screens records one by one, and counts what it takes out.

    A user is known to the store where the log names the same pseudonym: in our own exports. Other logs have users of
    their own.

    Args:
        store: Is asked for consent and tombstones where it keeps them.
        redact: What is taken out; see `rlhi_plugin.privacy.messages.open_redactor`.

    Raises:
        ConfigError: `redact` is no option.
        StoreError: the store cannot be read.

    Attributes:
        refused: Conversations and events of users who allow no log.
        forgotten: Messages and events from before their user was forgotten.
    """

    def __init__(self, store: object, redact: RedactOption) -> None:
        redactor = open_redactor(redact)
        self._redaction = None if redactor is None else MessageRedactor(redactor)
        self._consent = ConsentCache(store if isinstance(store, ConsentStore) else None, quiet=True)
        self._stones: Mapping[str, Tombstone] = by_user(
            store.tombstones() if isinstance(store, ForgettingStore) else ()
        )
        self.refused = self.forgotten = 0

    @property
    def redacted(self) -> Mapping[str, int] | None:
        """How many spans were replaced, by kind; None where nothing was looked for."""
        return None if self._redaction is None else self._redaction.counts

    def conversation(self, conversation: Conversation) -> Conversation | None:
        """What may be stored of a conversation; None for nothing."""
        if not self._consent.allows(conversation.user_id, Purpose.LOG):
            self.refused += 1
            return None
        kept = remembered(conversation, self._stones)
        self.forgotten += len(conversation.messages) - (0 if kept is None else len(kept.messages))
        return kept if kept is None or self._redaction is None else self._redaction.conversation(kept)

    def feedback(self, event: FeedbackEvent) -> FeedbackEvent | None:
        """What may be stored of an event; None for nothing."""
        if not self._consent.allows(event.user_id, Purpose.LOG):
            self.refused += 1
            return None
        stone = None if event.user_id is None else self._stones.get(event.user_id)
        if stone is not None and (event.created_at is None or event.created_at <= stone.forgotten_at):
            self.forgotten += 1
            return None
        if event.value is None or self._redaction is None:
            return event
        value = self._redaction.text(event.value, Scope(event.conversation_id, event.user_id))
        return event.model_copy(update={"value": value})
