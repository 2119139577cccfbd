"""Appending under a name that nobody else has: two users of one thread name are two conversations."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from rlhi_plugin.durability.appends import TimedAppends
from rlhi_plugin.durability.turn_file import JournalledTurn, Key, Write
from rlhi_plugin.errors import OwnerMismatchError, StoreError
from rlhi_plugin.records import FeedbackEvent, Message
from rlhi_plugin.stores import ConversationStore, FeedbackStore, SubmittingStore
from rlhi_plugin.stores.protocols import Submitted

_REMEMBERED = 10_000


class OwnedAppends:
    """Puts turns into a store. A conversation of somebody else (or of a visitor who logged in) is never merged with.

    Usable from any thread.
    """

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._submits = store if isinstance(store, SubmittingStore) else None
        self._names: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, turn: JournalledTurn | Write, appends: TimedAppends | None = None, timeout_s: float = 0.0) -> bool:
        """Append the turn to its conversation, or to the user's own one where that name is taken.

        Args:
            turn: What was said.
            appends: Appends to the same store within a time limit; without it this takes as long as the store does.
            timeout_s: That limit.

        Returns:
            Whether it was taken: False only for feedback that the store knows already.

        Raises:
            OwnerMismatchError: both names belong to somebody else.
            StoreTimeoutError: the store took longer; the turn may still be appended.
            StoreError: it is feedback, and the store keeps none.
            Exception: whatever else the store raises.
        """
        if turn.feedback is not None:
            event = turn.feedback
            if appends is None:
                return self._put_feedback(event)
            return appends.call(lambda: self._put_feedback(event), timeout_s)
        name = self._names.get((turn.conversation_id, turn.user_id))
        if name is None:
            try:
                self._append(turn.conversation_id, turn, appends, timeout_s)
            except OwnerMismatchError:
                name = f"{turn.conversation_id}@{turn.user_id or 'anonymous'}"
            else:
                return True
        self._append(name, turn, appends, timeout_s)
        with self._lock:
            self._names[turn.conversation_id, turn.user_id] = name
            if len(self._names) > _REMEMBERED:
                self._names.popitem(last=False)
        return True

    @property
    def together(self) -> bool:
        """Whether the store can write several appends in one transaction."""
        return self._submits is not None

    def put_together(self, turns: Sequence[JournalledTurn]) -> list[Exception | None]:
        """Append several turns, where `together`; as many in one transaction as the store makes of them.

        The turns of a conversation are one append: all of them are stored, or none.

        Args:
            turns: Without feedback. Of the messages of one conversation all have times, or none has.

        Returns:
            For each None, or what the store raised about it, a name that is taken among that.
        """
        said: dict[Key, list[Message]] = {}
        for turn in turns:
            said.setdefault((turn.conversation_id, turn.user_id), []).extend(turn.messages)
        submitted = {key: self._submit(key, messages) for key, messages in said.items()}
        problems = {key: _problem_of(part) for key, part in submitted.items()}
        return [problems[turn.conversation_id, turn.user_id] for turn in turns]

    def _submit(self, key: Key, messages: Sequence[Message]) -> Submitted | Exception:
        assert self._submits is not None  # noqa: S101 - see `together`
        conversation_id, user_id = key
        try:
            return self._submits.submit(self._names.get(key, conversation_id), user_id=user_id, messages=messages)
        except Exception as error:  # noqa: BLE001 - a store may raise anything; it is said for this part
            return error

    def has_other_name(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether the conversation is known to be the user's own one, since its name was taken."""
        return (conversation_id, user_id) in self._names

    def _put_feedback(self, event: FeedbackEvent) -> bool:
        if not isinstance(self._store, FeedbackStore):
            raise StoreError(f"{type(self._store).__name__} keeps no feedback. Give it the method record_feedback.")
        return self._store.record_feedback(event)

    def _append(self, name: str, turn: JournalledTurn | Write, appends: TimedAppends | None, timeout_s: float) -> None:
        if appends is None:
            self._store.append(name, user_id=turn.user_id, messages=turn.messages)
        else:
            appends.append(name, turn.user_id, turn.messages, timeout_s)

    def last_message_id(self, conversation_id: str, user_id: str | None, within_s: float | None = None) -> str | None:
        """Id of the message that the store holds last, where the store can say so.

        `last_message_id(conversation_id)` is not part of `ConversationStore`: a store may have it. So is
        `last_message_id_within(conversation_id, seconds)`, which a store has that says ``reads_in_time``.

        Args:
            conversation_id: The thread.
            user_id: Pseudonym or None.
            within_s: Seconds to which such a store is to keep; None for any other.
        """
        name = self._names.get((conversation_id, user_id), conversation_id)
        if within_s is not None:
            found = getattr(self._store, "last_message_id_within")(name, within_s)  # noqa: B009 - see above
        else:
            look = getattr(self._store, "last_message_id", None)
            found = None if look is None else look(name)
        return None if found is None else str(found)


def _problem_of(part: Submitted | Exception) -> Exception | None:
    if isinstance(part, Exception):
        return part
    try:
        part.result()
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None
