"""A conversation between the learning and the pairing pass, as a line in which each text stands once.

The context of a turn holds that of the turn before, so writing turns one by one would write a long conversation many
times over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import AwareDatetime

from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona, Record, Role, UserId
from rlhi_training.records import LabelledTurn
from rlhi_training.scale.lines import packed


class _Turn(NamedTuple):
    """A turn; texts and messages are numbers of those of the line."""

    turn: int
    context: tuple[int, ...]
    response: int
    follow_up: int | None
    label: FollowUpLabel | None
    request_id: str
    response_id: str
    follow_up_id: str | None


class _Line(Record):
    """What is written."""

    seq: int
    conversation_id: str
    user_id: UserId | None = None
    started_at: AwareDatetime | None = None
    language: str | None = None
    source: str
    persona: Persona | None = None
    texts: tuple[str, ...] = ()
    messages: tuple[tuple[Role, int], ...] = ()
    turns: tuple[_Turn, ...] = ()


_HEAD = ("seq", "conversation_id", "user_id", "started_at", "language", "source", "persona")
"""Fields that are written as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A conversation that trains, as the stages after label and personas need it.

    Attributes:
        seq: Its place in the log.
        conversation_id: Which.
        user_id: Whose.
        started_at: When it began.
        language: As the log names it.
        source: Format of the log.
        persona: As of before it.
        turns: Labelled.
    """

    seq: int
    conversation_id: str
    user_id: str | None
    started_at: AwareDatetime | None
    language: str | None
    source: str
    persona: Persona | None
    turns: tuple[LabelledTurn, ...]

    def to_line(self) -> bytes:
        """In UTF-8, without its end."""
        texts: dict[str, int] = {}
        messages: dict[tuple[Role, int], int] = {}

        def text(value: str) -> int:
            return texts.setdefault(value, len(texts))

        def message(value: ChatMessage) -> int:
            return messages.setdefault((value.role, text(value.content)), len(messages))

        # In the order of `_Turn`; labels as strings, since an enum is asked for its value.
        turns = [
            (
                turn.turn,
                tuple(map(message, turn.context)),
                text(turn.response),
                None if turn.follow_up is None else text(turn.follow_up),
                turn.label and str(turn.label),
                turn.request_id,
                turn.response_id,
                turn.follow_up_id,
            )
            for turn in self.turns
        ]
        head = {name: getattr(self, name) for name in _HEAD}
        return packed({**head, "texts": list(texts), "messages": list(messages), "turns": turns})

    @classmethod
    def from_line(cls, line: bytes) -> Learned:
        """What `to_line` wrote."""
        read = _Line.model_validate_json(line)
        messages = [ChatMessage(role=role, content=read.texts[place]) for role, place in read.messages]
        turns = tuple(
            LabelledTurn(
                conversation_id=read.conversation_id,
                user_id=read.user_id,
                turn=turn.turn,
                context=tuple(messages[place] for place in turn.context),
                response=read.texts[turn.response],
                follow_up=None if turn.follow_up is None else read.texts[turn.follow_up],
                label=turn.label,
                request_id=turn.request_id,
                response_id=turn.response_id,
                follow_up_id=turn.follow_up_id,
            )
            for turn in read.turns
        )
        return cls(**{name: getattr(read, name) for name in _HEAD}, turns=turns)
