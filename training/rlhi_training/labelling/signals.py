"""Signals without words, as labels: thumbs, copies, edits, regenerated answers, threads that were left.

They are about an answer, not about a message of the user, so they are records of their own and say where they come
from. A signal that fits none of the four classes of follow-ups has a polarity and no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, FollowUpLabel, Record

Origin = Literal["event", "branch", "thread"]
Polarity = Literal["positive", "negative", "unclear"]

_MEANING: dict[FeedbackKind, tuple[FollowUpLabel | None, Polarity]] = {
    FeedbackKind.THUMBS_UP: (FollowUpLabel.POSITIVE_FEEDBACK, "positive"),
    FeedbackKind.COPY: (FollowUpLabel.POSITIVE_FEEDBACK, "positive"),
    # A rewritten answer says how to do better, as a follow-up with feedback does.
    FeedbackKind.EDIT: (FollowUpLabel.WITH_FEEDBACK, "negative"),
    FeedbackKind.REGENERATE: (FollowUpLabel.WITHOUT_FEEDBACK, "negative"),
    # Bad, but neither another attempt nor a word about what is wrong.
    FeedbackKind.THUMBS_DOWN: (None, "negative"),
    # Satisfied or fed up: nobody can tell.
    FeedbackKind.ABANDON: (None, "unclear"),
}


class Signal(Record):
    """What a user did about an answer without a word."""

    conversation_id: str
    message_id: str | None
    """The answer; None is the whole thread."""
    kind: FeedbackKind
    label: FollowUpLabel | None
    """The class of follow-ups that it stands for, where one fits."""
    polarity: Polarity
    origin: Origin
    """``event``: the log says so. ``branch``: the answer was made again or its request edited. ``thread``: nobody
    answered the assistant's question."""


def signal_of_event(event: FeedbackEvent) -> Signal:
    """A logged event as a signal; `FeedbackKind.DO_NOT_LEARN` is none."""
    label, polarity = _MEANING[event.kind]
    return Signal(
        conversation_id=event.conversation_id,
        message_id=event.message_id,
        kind=event.kind,
        label=label,
        polarity=polarity,
        origin="event",
    )


def signals_in(conversation: Conversation) -> Iterator[Signal]:
    """Signals in the shape of a conversation.

    An answer whose request got another answer was regenerated (of all but the last one); a thread that ends with an
    answer which asks the user something was left.
    """
    yield from _regenerated(conversation)
    last = conversation.messages[-1] if conversation.messages else None
    if last is not None and last.role == "assistant" and last.content.rstrip().endswith(("?", "\uff1f")):
        yield _signal(conversation, last.id, FeedbackKind.ABANDON, "thread")


def signals(records: Iterable[Conversation | FeedbackEvent]) -> Iterator[Signal]:
    """All signals of a log, in its order."""
    for record in records:
        if isinstance(record, FeedbackEvent):
            # "Do not learn" is a refusal, and says nothing about an answer.
            if record.kind is not FeedbackKind.DO_NOT_LEARN:
                yield signal_of_event(record)
        else:
            yield from signals_in(record)


def _regenerated(conversation: Conversation) -> Iterator[Signal]:
    """Answers of one parent, but for the last one of each: somebody asked for another."""
    answers: dict[str, list[str]] = {}
    before = ""
    for message in conversation.messages:
        if message.role == "assistant":
            answers.setdefault(before if message.parent_id is None else message.parent_id, []).append(message.id)
        before = message.id
    for same in answers.values():
        for name in same[:-1]:
            yield _signal(conversation, name, FeedbackKind.REGENERATE, "branch")


def _signal(conversation: Conversation, message: str, kind: FeedbackKind, origin: Origin) -> Signal:
    label, polarity = _MEANING[kind]
    return Signal(
        conversation_id=conversation.conversation_id,
        message_id=message,
        kind=kind,
        label=label,
        polarity=polarity,
        origin=origin,
    )
