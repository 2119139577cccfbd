"""A conversation between the learning and the pairing pass, as a line in which each text stands once.

The context of a turn holds that of the turn before, so writing turns one by one would write a long conversation many
times over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """What is written; of our own texts and turns nothing is checked again."""

    seq: int
    conversation_id: str
    user_id: UserId | None = None
    started_at: AwareDatetime | None = None
    language: str | None = None
    source: str
    persona: Persona | None = None
    texts: Any = ()
    messages: Any = ()
    turns: Any = ()


_HEAD = ("seq", "conversation_id", "user_id", "started_at", "language", "source", "persona")
"""Fields that are written as they are."""
_LABELS = {label.value: label for label in FollowUpLabel}


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
        texts = read.texts
        messages = [ChatMessage.trusted(role=role, content=texts[place]) for role, place in read.messages]
        turns = []
        for turn, context, response, follow_up, label, *names in read.turns:
            request_id, response_id, follow_up_id = names
            turns.append(
                LabelledTurn.trusted(
                    conversation_id=read.conversation_id,
                    user_id=read.user_id,
                    turn=turn,
                    context=tuple([messages[place] for place in context]),
                    response=texts[response],
                    follow_up=None if follow_up is None else texts[follow_up],
                    label=None if label is None else _LABELS[label],
                    request_id=request_id,
                    response_id=response_id,
                    follow_up_id=follow_up_id,
                )
            )
        return cls(**{name: getattr(read, name) for name in _HEAD}, turns=tuple(turns))
