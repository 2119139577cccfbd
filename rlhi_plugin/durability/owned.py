"""Appending under a name that nobody else has: two users of one thread name are two conversations."""

from __future__ import annotations

import threading
from collections import OrderedDict

from rlhi_plugin.durability.journal import Key
from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.errors import OwnerMismatchError, StoreError
from rlhi_plugin.records import FeedbackEvent
from rlhi_plugin.stores import ConversationStore, FeedbackStore

_REMEMBERED = 10_000


class OwnedAppends:
    """Puts turns into a store. A conversation of somebody else (or of a visitor who logged in) is never merged with.

    Usable from any thread.
    """

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._names: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, turn: JournalledTurn) -> bool:
        """Append the turn to its conversation, or to the user's own one where that name is taken.

        Returns:
            Whether it was taken: False only for feedback that the store knows already.

        Raises:
            OwnerMismatchError: both names belong to somebody else.
            StoreError: it is feedback, and the store keeps none.
            Exception: whatever else the store raises.
        """
        if turn.feedback is not None:
            return self._put_feedback(turn.feedback)
        name = self._names.get((turn.conversation_id, turn.user_id))
        if name is None:
            try:
                self._store.append(turn.conversation_id, user_id=turn.user_id, messages=turn.messages)
            except OwnerMismatchError:
                name = f"{turn.conversation_id}@{turn.user_id or 'anonymous'}"
            else:
                return True
        self._store.append(name, user_id=turn.user_id, messages=turn.messages)
        with self._lock:
            self._names[turn.conversation_id, turn.user_id] = name
            if len(self._names) > _REMEMBERED:
                self._names.popitem(last=False)
        return True

    def _put_feedback(self, event: FeedbackEvent) -> bool:
        if not isinstance(self._store, FeedbackStore):
            raise StoreError(f"{type(self._store).__name__} keeps no feedback. Give it the method record_feedback.")
        return self._store.record_feedback(event)

    def last_message_id(self, conversation_id: str, user_id: str | None) -> str | None:
        """Id of the message that the store holds last, where the store can say so.

        `last_message_id(conversation_id)` is not part of `ConversationStore`: a store may have it.
        """
        look = getattr(self._store, "last_message_id", None)
        if look is None:
            return None
        found = look(self._names.get((conversation_id, user_id), conversation_id))
        return None if found is None else str(found)
