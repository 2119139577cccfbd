"""What a screen is, and how it quotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rlhi_plugin.records import Conversation, Message

_QUOTED = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """What a screen has against a conversation.

    Attributes:
        reason: Name that is counted, of the vocabulary of `rlhi_training.records.Dropped`.
        detail: What a reader needs to see that it is right: the passage, the number, the limit.
    """

    reason: str
    detail: str = ""


SeenPart = tuple[tuple[int, ...], str] | None
"""Numbers that stand for a conversation's text, and a passage of it."""


class Screen(Protocol):
    """One predicate over conversations, asked in the order of the log."""

    name: str
    drops: bool
    """Whether a finding keeps the conversation out; else it is counted, and the conversation stays."""

    def __call__(self, conversation: Conversation) -> Finding | None:
        """The finding, or None where there is nothing to say."""
        ...


class Seen(Protocol):
    """A screen that compares with what came before, in two steps.

    `read` looks at one conversation and can be done for many at once, in any process; `judge` compares what was read,
    in the order of the log, and remembers it. Calling the screen does both.
    """

    name: str
    drops: bool

    def read(self, conversation: Conversation) -> SeenPart:
        """What `judge` needs; None where the screen has nothing to say."""
        ...

    def judge(self, part: SeenPart, key: str) -> Finding | None:
        """Compare with all before, and remember.

        Args:
            part: What was read.
            key: Id of the conversation.
        """
        ...


def requests(conversation: Conversation) -> list[Message]:
    """User messages with text."""
    return [message for message in conversation.messages if message.role == "user" and message.content.strip()]


def answers(conversation: Conversation) -> list[Message]:
    """Assistant messages with text."""
    return [message for message in conversation.messages if message.role == "assistant" and message.content.strip()]


def quote(text: str, around: int = 0) -> str:
    """A short passage on one line.

    Args:
        text: Any length.
        around: Position that has to be in it.
    """
    start = max(0, around - _QUOTED // 3)
    passage = " ".join(text[start : start + _QUOTED].split())
    return f"{'…' if start else ''}{passage}{'…' if start + _QUOTED < len(text) else ''}"
