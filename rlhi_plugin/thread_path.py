"""Which messages of a turn are new, and what each of them follows.

A thread's history comes whole with every turn. Looking at all of it each time would cost a thread of n turns n squared
steps, so it is read from its end, until `SETTLED` messages in a row are known. What is older has been looked at before:
an edit further back than that, with everything after it kept, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from langchain_core.messages import BaseMessage

from rlhi_plugin.message_text import digest_id, edited_id, is_injected, own_id, role_and_text
from rlhi_plugin.records import Role
from rlhi_plugin.turn import Turn

SETTLED = 64
"""Known messages in a row after which older ones are known too (ours)."""
COUNTED = 2000
"""Without stable ids, messages of a history in which repetitions are counted (ours). Beyond them a message is known by
its text and its place, so an app that resends ever more than these has them stored once only while it resends all."""
IDS_REMEMBERED = COUNTED + SETTLED
"""Ids of one thread that are kept in memory, the latest ones (ours)."""
Redact = Callable[[BaseMessage], BaseMessage]
"""A message without what is private. What cannot be redacted raises, and so is not stored."""
FOLLOWS_NOTHING = ""
"""`Message.parent_id` of an edited first message: a second beginning of the conversation."""


@dataclass(slots=True)
class Thread:
    """What this process knows of a conversation.

    Attributes:
        tail: Id of the message that was stored last; None where nothing is known to be stored.
        prints: Fingerprints of texts by message id, the latest last.
        told_apart: Whether some answers have ids that say what they follow; see `_tell_apart`.
    """

    tail: str | None = None
    prints: dict[str, int] = field(default_factory=dict)
    told_apart: bool = False

    def remember(self, said: Sequence[Said]) -> None:
        """Note what was stored."""
        for one in said:
            self.prints[one.id] = hash((one.role, one.text))
            # The system prompt is no turn: it stands before what follows, wherever it changes.
            if one.role != "system":
                self.tail = one.id
        while len(self.prints) > IDS_REMEMBERED:
            del self.prints[next(iter(self.prints))]


@dataclass(slots=True)
class Said:
    """One message of a thread.

    Attributes:
        id: Unique in the thread.
        role: As it is logged.
        text: As it is logged.
        message: LangChain's own.
        is_reply: Whether the model has just said it.
        known: Whether it is stored already.
        parent_id: What it follows, where that is not what was stored before it.
    """

    id: str
    role: Role
    text: str
    message: BaseMessage
    is_reply: bool
    known: bool = False
    parent_id: str | None = None


def new_in_thread(thread: Thread, turn: Turn, redact: Redact | None, *, root: str) -> list[Said]:
    """The messages of a turn that are not stored yet, in order, each with its parent where it begins a branch.

    Args:
        thread: What is known of it.
        turn: What the model was asked, and what it answered.
        redact: Takes out what is private of each message that is looked at; None for nothing.
        root: Parent of an edited first message: the id of the system prompt, or `FOLLOWS_NOTHING`.
    """
    path: list[Said] = []
    settled = 0
    for said in _backwards(turn, redact):
        if said.id in thread.prints:
            _recognise(thread, said)
        path.append(said)
        settled = settled + 1 if said.known else 0
        if settled == SETTLED:
            break
    path.reverse()
    if thread.told_apart or (not turn.stable_ids and path and path[-1].known and path[-1].is_reply):
        _tell_apart(thread, path)
    # A summary stands for what was said before, and a history without ids may be only the end of a longer one.
    whole = turn.stable_ids and not turn.first and settled < SETTLED
    if whole and turn.history and is_injected(turn.history[0]):
        whole = False
    _set_parents(thread, path, first_parent=root if whole else thread.tail)
    return [said for said in path if not said.known]


def _set_parents(thread: Thread, path: Sequence[Said], *, first_parent: str | None) -> None:
    """Name the parent of each new message that does not follow what was stored before it."""
    tail, sure = thread.tail, True
    if tail is not None and not thread.prints:
        # Another process wrote this thread. What stands before its end is stored; else any of it may be.
        # An answer of this moment may say what the stored one said, and is not it.
        ends = next((index for index, said in enumerate(path) if said.id == tail and not said.is_reply), None)
        sure = ends is not None or first_parent == tail
        stored = path[: 0 if ends is None else ends + 1]
        for said in stored:
            said.known = True
        thread.remember(stored[-IDS_REMEMBERED:])
    previous = None
    for said in path:
        if not said.known:
            follows = first_parent if previous is None else previous
            if tail is not None and follows != tail:
                said.parent_id = follows
            if sure:
                tail = said.id
        previous = said.id


def _tell_apart(thread: Thread, path: Sequence[Said]) -> None:
    """An answer to what is new is new, though an earlier one said the same that the app does not send any more."""
    for before, said in pairwise(path):
        is_new = said.is_reply and not before.known and (said.known or thread.told_apart)
        if not is_new and (said.is_reply or said.role == "user"):
            continue
        identity = digest_id(said.role, said.text, f"after {before.id}")
        # What was told apart is sent again as part of the history.
        if is_new or identity in thread.prints:
            said.id, said.known = identity, identity in thread.prints
            thread.told_apart = True


def _recognise(thread: Thread, said: Said) -> None:
    """Whether a message is stored whose id is; under an id of its own where its content is another."""
    said.known = thread.prints[said.id] == hash((said.role, said.text))
    if not said.known:
        said.id = edited_id(said.id, said.role, said.text)
        said.known = said.id in thread.prints


def _backwards(turn: Turn, redact: Redact | None) -> Iterator[Said]:
    history, reply, stable_ids = turn.history, turn.reply.messages, turn.stable_ids
    asked, total = len(history), len(history) + len(reply)
    counted = 0 if stable_ids else min(total, COUNTED)
    for position in range(total - 1, max(counted, turn.first) - 1, -1):
        message = history[position] if position < asked else reply[position - asked]
        if not is_injected(message):
            message = message if redact is None else redact(message)
            role, text = role_and_text(message)
            identity = (own_id(message) if stable_ids else None) or digest_id(role, text, _place(position, stable_ids))
            yield Said(identity, role, text, message, position >= asked)
    if counted:
        yield from reversed(_counted(turn, redact, counted))


def _counted(turn: Turn, redact: Redact | None, counted: int) -> list[Said]:
    """The first messages of a turn, each known by how often the same was said before."""
    history, reply = turn.history, turn.reply.messages
    path: list[Said] = []
    seen: dict[tuple[Role, str], int] = {}
    asked = len(history)
    for position in range(counted):
        message = history[position] if position < asked else reply[position - asked]
        if not is_injected(message):
            message = message if redact is None else redact(message)
            what = role, text = role_and_text(message)
            number = seen.get(what, 0)
            seen[what] = number + 1
            if position >= turn.first:
                path.append(Said(digest_id(role, text, number), role, text, message, position >= asked))
    return path


def _place(position: int, stable_ids: bool) -> int | str:
    # A saved state gives every message an id; should one lack it, its text alone tells.
    return 0 if stable_ids else f"at {position}"
