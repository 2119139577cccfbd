"""From LangChain messages to records, and into the store; observing never breaks the observed."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Message, Role
from rlhi_plugin.stores import ConversationStore

_log = logging.getLogger("rlhi.middleware")

_THREADS_REMEMBERED = 4096
"""Threads whose stored ids are kept in memory, so that a turn writes only what is new."""


_MAX_ID = 256
"""Characters of `Message.id`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What answered one model call.

    Attributes:
        messages: What came back; empty when the call failed or was abandoned.
        model: Name of the model.
        adapter: Id of the adapter that was active.
        persona_digest: Digest of the persona that was in the prompt.
    """

    messages: Sequence[BaseMessage] = ()
    model: str | None = None
    adapter: str | None = None
    persona_digest: str | None = None


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
    """

    conversation_id: str
    user_id: str | None
    system: str | None
    history: Sequence[AnyMessage]
    reply: Reply
    stable_ids: bool
    started_at: datetime


@dataclass(slots=True)
class _Thread:
    """What is known of a thread's place in the store."""

    conversation_id: str
    stored: set[str] = field(default_factory=set)


class Recorder:
    """Writes turns to a store. Never raises: what could not be written is logged as an error and counted."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._threads: OrderedDict[tuple[str, str | None], _Thread] = OrderedDict()
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Number of messages that could not be stored."""
        return self._dropped

    def record(self, describe: Callable[[], Turn]) -> None:
        """Store what is new in the turn that `describe` gives. On return it is on disk, or counted in `dropped`.

        The turn comes as a function, so that a failure to describe it is caught here as well.
        """
        fresh: list[Message] = []
        try:
            turn = describe()
            thread = self._thread(turn)
            fresh = [message for message in _turn_to_messages(turn) if message.id not in thread.stored]
            if fresh:
                self._append(thread, turn.user_id, fresh)
                thread.stored.update(message.id for message in fresh)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            # One message at least was lost when even the conversion failed.
            lost = max(1, len(fresh))
            with self._lock:
                self._dropped += lost
            _log.exception("%d message(s) of a turn could not be stored", lost)

    def _append(self, thread: _Thread, user_id: str | None, fresh: Sequence[Message]) -> None:
        try:
            self._store.append(thread.conversation_id, user_id=user_id, messages=fresh)
        except OwnerMismatchError:
            # Two users of one thread name (or a visitor who logged in) are two conversations, never merged.
            thread.conversation_id = f"{thread.conversation_id}@{user_id or 'anonymous'}"
            self._store.append(thread.conversation_id, user_id=user_id, messages=fresh)

    def _thread(self, turn: Turn) -> _Thread:
        key = (turn.conversation_id, turn.user_id)
        with self._lock:
            thread = self._threads.setdefault(key, _Thread(turn.conversation_id))
            self._threads.move_to_end(key)
            if len(self._threads) > _THREADS_REMEMBERED:
                self._threads.popitem(last=False)
            return thread


def _turn_to_messages(turn: Turn) -> list[Message]:
    """Records of the system prompt, the history and the reply, in this order, each with its id."""
    now = datetime.now(UTC)
    seen: Counter[tuple[Role, str]] = Counter()
    records = []
    if turn.system:
        system = clean(turn.system)
        records.append(Message(id=_digest("system", system, 0), role="system", content=system))
    for message, is_reply in [*((m, False) for m in turn.history), *((m, True) for m in turn.reply.messages)]:
        if is_injected(message):
            continue
        role, content = role_and_text(message)
        occurrence = seen[role, content]
        seen[role, content] += 1
        records.append(
            Message(
                id=(_own_id(message) if turn.stable_ids else None) or _digest(role, content, occurrence),
                role=role,
                content=content,
                created_at=now if is_reply else turn.started_at,
                model=turn.reply.model if is_reply and role == "assistant" else None,
                adapter=turn.reply.adapter if is_reply and role == "assistant" else None,
                persona_digest=turn.reply.persona_digest if is_reply and role == "assistant" else None,
            )
        )
    return records


def _own_id(message: BaseMessage) -> str | None:
    """LangChain's id of the message, unless it is too long for a record."""
    return clean(message.id) if message.id and len(message.id) <= _MAX_ID else None


def is_injected(message: BaseMessage) -> bool:
    """Whether a program wrote this message in somebody's name, as LangChain's summarization does in the user's."""
    return "lc_source" in message.additional_kwargs


def role_and_text(message: BaseMessage) -> tuple[Role, str]:
    """Role and text under which a LangChain message is logged; tool traffic, calls and results alike, is ``tool``."""
    text = _text(message.content)
    match message:
        case AIMessage(tool_calls=[_, *_] as calls):
            body = {"calls": [{"name": call["name"], "args": call["args"]} for call in calls], "text": text}
            return "tool", clean(json.dumps(body, ensure_ascii=False, sort_keys=True, default=str))
        case AIMessage():
            return "assistant", text
        case HumanMessage():
            return "user", text
        case SystemMessage():
            return "system", text
        case ToolMessage():
            return "tool", text
    # A role of the app's own invention is not something that the user said.
    return "tool", text


def _text(content: str | Iterable[str | dict[str, object]]) -> str:
    """The text of a message's content; blocks that are not text are named, as ``[image]``."""
    if isinstance(content, str):
        return clean(content)
    parts = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") not in ("reasoning", "thinking", "tool_use", "tool_call", "function_call"):
            parts.append(f"[{block.get('type', 'block')}]")
    return clean("\n".join(part for part in parts if part))


def clean(text: str) -> str:
    """The text without lone surrogates, which no database and no JSON reader accepts; each becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _digest(role: Role, content: str, occurrence: int) -> str:
    """An id for a message that has none of its own: the n-th time that this role says this text in this thread.

    Unlike its position, that does not change when an app sends only the last messages of a long thread.
    """
    body = f"{role}\0{occurrence}\0{content}".encode()
    return f"{role}-{hashlib.sha256(body).hexdigest()[:24]}"
