"""The commands that a user may type into the chat, and the fixed sentences of our replies to them.

Both are texts of ours and never something that the user said about themselves, so whatever reads users' words knows
them from here: builders pass commands over, and the screen refuses what quotes a reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

CommandName = Literal["what-do-you-know", "why", "forget", "do-not-learn"]

KNOWN_HEAD = "What I keep about how you like to be answered:"
KNOWN_TAIL = "Say /forget and a number to remove one, or /do-not-learn to keep this conversation out."
WHY_HEAD = "These wishes of yours were in front of me in this conversation:"
NOTHING_KNOWN = "I keep nothing about how you like to be answered."
NOTHING_USED = "Nothing that you said earlier was in front of me in this conversation."
FORGOTTEN = "It is removed, and will not come back from what you said:"
WHICH = "I do not know which one you mean. Say /what-do-you-know to see them, then /forget and a number."
LOCKED = "It is locked. Unlock it first, where your personas are kept."
NOT_LEARNING = "Nothing is learned from this conversation, neither about you nor for training."
NO_THREAD = "Earlier turns of this chat are kept without its name, so that I cannot find them to keep them out."
FAILED = "That did not work just now, and nothing was changed. Try again in a moment."
UNKNOWN_USER = "I do not know who you are here, so I keep nothing about you."

REPLIES = (
    KNOWN_HEAD,
    KNOWN_TAIL,
    WHY_HEAD,
    NOTHING_KNOWN,
    NOTHING_USED,
    FORGOTTEN,
    WHICH,
    LOCKED,
    NOT_LEARNING,
    NO_THREAD,
    FAILED,
    UNKNOWN_USER,
)
"""Every sentence that a reply can begin or end with."""

_COMMAND = re.compile(
    r"\s*/(?:(?P<known>what-do-you-know)|(?P<why>why)(?:\s+(?P<of>\d{1,3}))?|(?P<forget>forget)\s+(?P<what>that|\d{1,3})"
    r"|(?P<learn>do-not-learn))\s*[.!?]?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as the user gave it.

    Attributes:
        name: Which.
        number: 1-based number of a statement; None is "that", or all.
    """

    name: CommandName
    number: int | None = None


def read_command(text: str) -> Command | None:
    """The command that `text` is, or None. The whole message has to be the command; a sentence about one is none."""
    match = _COMMAND.fullmatch(text)
    if match is None:
        return None
    if match["known"]:
        return Command("what-do-you-know")
    if match["why"]:
        return Command("why", int(match["of"]) if match["of"] else None)
    if match["forget"]:
        return Command("forget", None if match["what"].lower() == "that" else int(match["what"]))
    return Command("do-not-learn")


def is_command(text: str) -> bool:
    """Whether the whole of `text` is a command."""
    return _COMMAND.fullmatch(text) is not None
