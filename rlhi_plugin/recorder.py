"""From LangChain messages to records, and into the store; observing never breaks the observed.

A regenerated answer and an edited request are branches: they are stored after what is there, with the `parent_id` of
what they replace. So is other content under a known id, as ``update_state`` and a person's edit of a tool call make it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from langchain_core.messages import BaseMessage

from rlhi_plugin.durability import DurabilityStatus, DurableWriter, WriterOptions, journal_folder
from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.message_text import clean, digest_id, is_injected, role_and_text
from rlhi_plugin.places import Place, Places
from rlhi_plugin.privacy.messages import MessageRedactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.records import FeedbackEvent
from rlhi_plugin.stores import ConversationStore
from rlhi_plugin.stores.group_commit import GroupCommit
from rlhi_plugin.thread_path import FOLLOWS_NOTHING, Said, new_in_thread
from rlhi_plugin.turn import Reply, Turn
from rlhi_plugin.turn_records import records_of

__all__ = ["Recorder", "Reply", "Turn", "clean", "give_ids", "is_injected", "role_and_text"]

_log = logging.getLogger("rlhi.middleware")

_ANSWERS_REMEMBERED = 10_000
"""Answers whose stored id is not the one that the app knows them by, of which feedback may still come."""
_MESSAGES_PER_APPEND = 500
"""A long history is written in parts, each within the time limit of an append."""
_WORTH_A_THREAD = 2_000
"""Characters of a request from which it is redacted while the model answers: of shorter ones another thread, which
waits for the interpreter twice, would make more work than it saves (ours)."""


@dataclass(frozen=True, slots=True)
class _Preparation:
    """A turn whose answer is awaited."""

    conversation_id: str
    user_id: str | None
    asked: Sequence[BaseMessage]


class Recorder:
    """Writes turns to a store, else to a journal. `record` never raises: what is lost is logged and counted.

    Args:
        store: Where turns belong.
        options: See `WriterOptions`. Without: synchronous, with the journal where `journal_folder` says.
        redaction: Takes out what is private, before anything, ids included, is made of a message; None for nothing.

    Raises:
        ConfigError: an option cannot work.
    """

    def __init__(
        self,
        store: ConversationStore,
        options: WriterOptions | None = None,
        *,
        redaction: MessageRedactor | None = None,
    ) -> None:
        self._redaction = redaction
        self._writer = DurableWriter(store, options or WriterOptions(journal=journal_folder(store)))
        # One thread does for all what can be done while models answer.
        self._preparations: GroupCommit[_Preparation, None] = GroupCommit(self._prepare)
        self._places = Places()
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._failed = 0

    @property
    def dropped(self) -> int:
        """Number of messages and feedback events that could not be stored, nor journalled."""
        return self._failed + self._writer.status().dropped

    def status(self) -> DurabilityStatus:
        """How store, queue and journal stand."""
        return self._writer.status()

    def flush(self, timeout_s: float | None = None) -> bool:
        """See `DurableWriter.flush`."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        """See `DurableWriter.close`. The store stays open: it is the caller's."""
        self._writer.close()

    def prepare(
        self, conversation_id: str, user_id: str | None, asked: Sequence[BaseMessage], *, begins: bool = False
    ) -> None:
        """Do meanwhile what `record` would do after the model's answer: it then takes less of the user's time.

        Args:
            conversation_id: The thread.
            user_id: Pseudonym or None.
            asked: What is new in it.
            begins: Whether it is all that there is.
        """
        little = (begins and self._writer.may_begin) or self._places.is_looked_up(conversation_id, user_id)
        for one in asked if little and self._redaction is not None else ():
            text = one.content if isinstance(one, BaseMessage) else None
            if not isinstance(text, str) or len(text) >= _WORTH_A_THREAD:
                little = False
                break
        # A preparation that is no more work than handing it to another thread is none.
        if not little:
            with suppress(StoreTimeoutError):  # too much waits already; `record` does it all itself
                self._preparations.submit(_Preparation(conversation_id, user_id, asked))

    def knows(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether turns of this conversation were recorded here, and are remembered."""
        return self._places.knows(conversation_id, user_id)

    def record(self, describe: Callable[[], Turn], reviewed: Callable[[Turn], Turn] | None = None) -> None:
        """Write what is new in the turn that `describe` gives. On return it is on disk, or counted in `dropped`.

        Args:
            describe: Gives the turn: a function, so that a failure to describe it is caught here as well.
            reviewed: Gives what may be stored of it; all without.
        """
        try:
            turn = describe() if reviewed is None else reviewed(describe())
            place = self._places.enter(turn.conversation_id, turn.user_id)
            try:
                self._record(turn, place)
            finally:
                self._places.leave(turn.conversation_id, turn.user_id, place)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            with self._lock:
                self._failed += 1
            _log.exception("a turn could not be described, so that it is not logged")

    def record_feedback(self, event: FeedbackEvent) -> bool:
        """Write what a user did, without what is private; see `DurableWriter.write_feedback`. Never raises.

        Its message may be named as the app knows it: by LangChain's id or the provider's.
        """
        try:
            stored = self._answers.get(f"{event.conversation_id}\0{event.message_id or ''}")
            if stored is not None:
                event = event.model_copy(update={"message_id": stored})
            if event.value is not None and self._redaction is not None:
                value = self._redaction.text(event.value, Scope(event.conversation_id, event.user_id))
                event = event.model_copy(update={"value": value})
            return self._writer.write_feedback(event)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            with self._lock:
                self._failed += 1
            _log.exception("feedback could not be redacted, so that it is not stored")
            return False

    def _record(self, turn: Turn, place: Place) -> None:
        if turn.stable_ids:
            give_ids(turn.reply.messages)
        # What a thread begins with is written without a look at the store, which tells if it was there already.
        begins = not place.looked_up and len(turn.history) == 1 and self._writer.may_begin
        if not begins:
            self._look_up(place, turn.conversation_id, turn.user_id)
        said, started_at = self._said(turn, place), turn.started_at
        # A clock that was set back must not turn the order of a conversation around.
        if place.latest is not None and place.latest > started_at:
            started_at = place.latest
        place.latest = now = max(datetime.now(UTC), started_at)
        if begins:
            if self._writer.begin(
                turn.conversation_id, user_id=turn.user_id, messages=records_of(turn, said, started_at, now)
            ):
                place.looked_up = True
                self._remember(place, turn.conversation_id, said)
                return
            self._look_up(place, turn.conversation_id, turn.user_id)
            said = self._said(turn, place)
        for start in range(0, len(said), _MESSAGES_PER_APPEND):
            part = said[start : start + _MESSAGES_PER_APPEND]
            messages = records_of(turn, part, started_at, now)
            # What was dropped is not remembered, so that the next turn, which carries it in its history, offers it.
            if not self._writer.write(turn.conversation_id, user_id=turn.user_id, messages=messages):
                return
            self._remember(place, turn.conversation_id, part)

    def _remember(self, place: Place, conversation_id: str, said: Sequence[Said]) -> None:
        """Note what was stored, and under which id an answer that the app knows by another."""
        place.thread.remember(said)
        for one in reversed(said):
            if not one.is_reply:
                break
            for known_as in (one.message.id, one.message.response_metadata.get("id")):
                if not known_as or known_as == one.id or not isinstance(known_as, str):
                    continue
                key = f"{conversation_id}\0{known_as if known_as.isascii() else clean(known_as)}"
                # Several may share the provider's id: it means the first that answers, not one that calls a tool.
                if one.role == "assistant" or key not in self._answers:
                    self._answers[key] = one.id
        while len(self._answers) > _ANSWERS_REMEMBERED:
            with suppress(KeyError):  # another thread may be doing the same
                self._answers.popitem(last=False)

    def _said(self, turn: Turn, place: Place) -> list[Said]:
        """What is new in a turn."""
        redact = None
        if self._redaction is not None:
            redact = partial(self._redaction.message, scope=Scope(turn.conversation_id, turn.user_id))
        if not turn.system:
            return new_in_thread(place.thread, turn, redact, root=FOLLOWS_NOTHING)
        system = self._system(turn)
        said = new_in_thread(place.thread, turn, redact, root=system.id)
        return said if system.id in place.thread.prints else [system, *said]

    def _look_up(self, place: Place, conversation_id: str, user_id: str | None) -> None:
        if not place.looked_up:
            place.looked_up = True
            place.thread.tail = self._writer.last_message_id(conversation_id, user_id)

    def _prepare(self, wanted: Sequence[_Preparation]) -> list[None]:
        for one in wanted:
            with suppress(Exception):  # `record` meets the same, logs and counts it
                place = self._places.enter(one.conversation_id, one.user_id)
                try:
                    self._look_up(place, one.conversation_id, one.user_id)
                finally:
                    self._places.leave(one.conversation_id, one.user_id, place)
                if self._redaction is not None:
                    for message in one.asked:
                        self._redaction.message(message, Scope(one.conversation_id, one.user_id))
        return [None] * len(wanted)

    def _system(self, turn: Turn) -> Said:
        text = turn.system or ""
        if self._redaction is not None:
            text = self._redaction.text(text, Scope(turn.conversation_id, turn.user_id))
        text = clean(text)
        return Said(
            digest_id("system", text, 0), "system", text, BaseMessage(content="", type="system"), is_reply=False
        )


def give_ids(reply: Sequence[BaseMessage]) -> None:
    """Give the messages of a reply the ids that they would get when they are saved, or they would be stored twice."""
    for message in reply:
        if message.id is None:
            message.id = str(uuid.uuid4())
