"""What a screen is, and how it quotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rlhi_plugin.records import Conversation, Message

if TYPE_CHECKING:
    from rlhi_training.screens.batch import Batch

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


@runtime_checkable
class Several(Protocol):
    """A screen that takes less time for many conversations at once."""

    def screen(self, batch: Batch) -> Sequence[Finding | None]:
        """For each conversation what calling the screen says."""
        ...


@runtime_checkable
class Seen(Protocol):
    """A screen that compares with what came before, in two steps.

    `read` looks at conversations apart from each other, in any process; `judge` compares what was read, in the order of
    the log, and remembers it. Calling the screen does both.
    """

    name: str
    drops: bool

    def read(self, batch: Batch) -> Sequence[SeenPart]:
        """For each conversation what `judge` needs; None where the screen has nothing to say."""
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
