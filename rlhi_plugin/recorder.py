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
from dataclasses import dataclass, field
from datetime import UTC, datetime

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage

from rlhi_plugin.durability import DurabilityStatus, DurableWriter, WriterOptions, journal_folder
from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.message_text import clean, digest_id, is_injected, role_and_text, structured_answer
from rlhi_plugin.privacy.messages import MessageRedactor, RedactedMessages
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.records import FeedbackEvent, Finish, Message
from rlhi_plugin.shown import shown
from rlhi_plugin.stores import ConversationStore
from rlhi_plugin.stores.group_commit import GroupCommit
from rlhi_plugin.thread_path import FOLLOWS_NOTHING, Said, Thread, new_in_thread

__all__ = ["Recorder", "Reply", "Turn", "clean", "is_injected", "role_and_text"]

_log = logging.getLogger("rlhi.middleware")

_THREADS_REMEMBERED = 4096
_IDS_REMEMBERED = 200_000
"""Threads, and ids of all of them together, that are kept in memory, so that a turn writes only what is new."""
_MESSAGES_PER_APPEND = 500
"""A long history is written in parts, each within the time limit of an append."""
_WORTH_A_THREAD = 2_000
"""Characters of a request from which it is redacted while the model answers: of shorter ones another thread, which
waits for the interpreter twice, would make more work than it saves (ours)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What answered one model call.

    Attributes:
        messages: What came back; empty when the call failed or was abandoned.
        model: Name of the model.
        adapter: Id of the adapter that was active.
        persona_digest: Digest of the persona that was in the prompt.
        latency_s: Seconds from the call to its whole answer.
        structured: Whether the answer is the call of a tool that stands for a schema.
        finish: Why the answer is only a part of one; None where it is whole.
    """

    messages: Sequence[BaseMessage] = ()
    model: str | None = None
    adapter: str | None = None
    persona_digest: str | None = None
    latency_s: float | None = None
    structured: bool = False
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call as it is to be logged.

    Attributes:
        conversation_id: The thread.
        user_id: Pseudonym or None.
        system: The app's own system prompt, without any persona.
        history: The thread up to and including what the model was asked.
        reply: What it answered.
        stable_ids: Whether the ids of LangChain's messages may be used; else ids are digests.
        started_at: When the model was called.
        first: Index in `history` of the first message that may be stored; what stands before it only tells the ids of
            those apart that say the same.
    """

    conversation_id: str
    user_id: str | None
    system: str | None
    history: Sequence[AnyMessage]
    reply: Reply
    stable_ids: bool
    started_at: datetime
    first: int = 0


@dataclass(slots=True)
class _Place:
    """A thread, its turns one at a time, and the time of the latest."""

    thread: Thread = field(default_factory=Thread)
    lock: threading.Lock = field(default_factory=threading.Lock)
    looked_up: bool = False
    latest: datetime | None = None


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
        self._places: OrderedDict[tuple[str, str | None], _Place] = OrderedDict()
        self._ids = 0
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
        if self._is_little(conversation_id, user_id, asked, begins=begins):
            return
        with suppress(StoreTimeoutError):  # too much waits already; `record` does it all itself
            self._preparations.submit(_Preparation(conversation_id, user_id, asked))

    def knows(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether turns of this conversation were recorded here, and are remembered."""
        with self._lock:
            place = self._places.get((conversation_id, user_id))
        # A place may be there already because its turn was prepared.
        return place is not None and bool(place.thread.prints)

    def record(self, describe: Callable[[], Turn]) -> None:
        """Write what is new in the turn that `describe` gives. On return it is on disk, or counted in `dropped`.

        The turn comes as a function, so that a failure to describe it is caught here as well.
        """
        try:
            turn = describe()
            place = self._place(turn.conversation_id, turn.user_id)
            with place.lock:
                before = len(place.thread.prints)
                self._record(turn, place)
                with self._lock:
                    self._ids += len(place.thread.prints) - before
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            with self._lock:
                self._failed += 1
            _log.exception("a turn could not be described, so that it is not logged")

    def record_feedback(self, event: FeedbackEvent) -> bool:
        """Write what a user did, without what is private; see `DurableWriter.write_feedback`. Never raises."""
        try:
            if event.value is not None and self._redaction is not None:
                value = self._redaction.text(event.value, Scope(event.conversation_id, event.user_id))
                event = event.model_copy(update={"value": value})
            return self._writer.write_feedback(event)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            with self._lock:
                self._failed += 1
            _log.exception("feedback could not be redacted, so that it is not stored")
            return False

    def _record(self, turn: Turn, place: _Place) -> None:
        if turn.stable_ids:
            _give_ids(turn.reply.messages)
        # What a thread begins with is written without a look at the store, which tells if it was there already.
        if not place.looked_up and len(turn.history) == 1 and self._writer.may_begin and self._begin(turn, place):
            return
        self._look_up(place, turn.conversation_id, turn.user_id)
        said = self._said(turn, place)
        started_at, now = _times(turn, place)
        for start in range(0, len(said), _MESSAGES_PER_APPEND):
            part = said[start : start + _MESSAGES_PER_APPEND]
            messages = [_message(turn.reply, one, now if one.is_reply else started_at) for one in part]
            # What was dropped is not remembered, so that the next turn, which carries it in its history, offers it.
            if not self._writer.write(turn.conversation_id, user_id=turn.user_id, messages=messages):
                return
            place.thread.remember(part)

    def _begin(self, turn: Turn, place: _Place) -> bool:
        """Write a turn as the first of its thread; False where nothing was written, and the store has to be asked."""
        said = self._said(turn, place)
        started_at, now = _times(turn, place)
        messages = [_message(turn.reply, one, now if one.is_reply else started_at) for one in said]
        if not self._writer.begin(turn.conversation_id, user_id=turn.user_id, messages=messages):
            return False
        place.looked_up = True
        place.thread.remember(said)
        return True

    def _said(self, turn: Turn, place: _Place) -> list[Said]:
        """What is new in a turn."""
        system = self._system(turn)
        root = FOLLOWS_NOTHING if system is None else system.id
        said = new_in_thread(
            place.thread,
            self._redacted(turn.history, turn),
            self._redacted(turn.reply.messages, turn),
            stable_ids=turn.stable_ids,
            root=root,
            first=turn.first,
        )
        if system is not None and system.id not in place.thread.prints:
            said.insert(0, system)
        return said

    def _is_little(
        self, conversation_id: str, user_id: str | None, asked: Sequence[BaseMessage], *, begins: bool
    ) -> bool:
        """Whether a preparation would be no more work than handing it to another thread."""
        if not (begins and self._writer.may_begin):
            with self._lock:
                place = self._places.get((conversation_id, user_id))
            if place is None or not place.looked_up:
                return False
        if self._redaction is None:
            return True
        texts = [one.content if isinstance(one, BaseMessage) else None for one in asked]
        return all(isinstance(text, str) and len(text) < _WORTH_A_THREAD for text in texts)

    def _look_up(self, place: _Place, conversation_id: str, user_id: str | None) -> None:
        if not place.looked_up:
            place.looked_up = True
            place.thread.tail = self._writer.last_message_id(conversation_id, user_id)

    def _prepare(self, wanted: Sequence[_Preparation]) -> list[None]:
        for one in wanted:
            with suppress(Exception):  # `record` meets the same, logs and counts it
                place = self._place(one.conversation_id, one.user_id)
                with place.lock:
                    self._look_up(place, one.conversation_id, one.user_id)
                if self._redaction is not None:
                    for message in one.asked:
                        self._redaction.message(message, Scope(one.conversation_id, one.user_id))
        return [None] * len(wanted)

    def _redacted(self, messages: Sequence[BaseMessage], turn: Turn) -> Sequence[BaseMessage]:
        """Messages of a turn without what is private. What cannot be redacted raises, and so is not stored."""
        if self._redaction is None:
            return messages
        return RedactedMessages(messages, self._redaction, Scope(turn.conversation_id, turn.user_id))

    def _system(self, turn: Turn) -> Said | None:
        if not turn.system:
            return None
        text = turn.system
        if self._redaction is not None:
            text = self._redaction.text(text, Scope(turn.conversation_id, turn.user_id))
        text = clean(text)
        return Said(
            digest_id("system", text, 0), "system", text, BaseMessage(content="", type="system"), is_reply=False
        )

    def _place(self, conversation_id: str, user_id: str | None) -> _Place:
        key = (conversation_id, user_id)
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            while len(self._places) > _THREADS_REMEMBERED or (self._ids > _IDS_REMEMBERED and len(self._places) > 1):
                _, oldest = self._places.popitem(last=False)
                self._ids -= len(oldest.thread.prints)
            return place


def _times(turn: Turn, place: _Place) -> tuple[datetime, datetime]:
    """When a turn began and ended. A clock that was set back must not turn the order of a conversation around."""
    started_at = max(turn.started_at, place.latest or turn.started_at)
    place.latest = now = max(datetime.now(UTC), started_at)
    return started_at, now


def _give_ids(reply: Sequence[BaseMessage]) -> None:
    """Give the messages of a reply the ids that they would get when they are saved, or they would be stored twice."""
    for message in reply:
        if message.id is None:
            message.id = str(uuid.uuid4())


def _message(reply: Reply, said: Said, at: datetime) -> Message:
    answers = said.is_reply and isinstance(said.message, AIMessage)
    answer = structured_answer(said.message) if answers and reply.structured else None
    role, content = (said.role, said.text) if answer is None else ("assistant", answer)
    is_answer = said.is_reply and role == "assistant"
    usage = said.message.usage_metadata if answers and isinstance(said.message, AIMessage) else None
    return Message(
        id=said.id,
        role=role,
        content=content,
        created_at=at,
        model=_name(reply.model) if is_answer else None,
        adapter=_name(reply.adapter) if is_answer else None,
        persona_digest=reply.persona_digest if is_answer else None,
        parent_id=said.parent_id,
        latency_s=reply.latency_s if answers else None,
        input_tokens=_count(usage["input_tokens"]) if usage else None,
        output_tokens=_count(usage["output_tokens"]) if usage else None,
        finish=reply.finish if said.is_reply else None,
    )


def _name(given: object) -> str | None:
    return None if given is None else clean(shown(given))


def _count(given: object) -> int | None:
    """A number of tokens; None for what a provider said that cannot be one, which must not cost the turn."""
    return given if isinstance(given, int) and 0 <= given < 2**63 else None
