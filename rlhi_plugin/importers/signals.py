"""Scores of foreign logs as thumbs: only what a user gave, and only on scales that say which end is good."""

from __future__ import annotations

import re

from rlhi_plugin.records import FeedbackKind

_FROM_USERS = re.compile(r"user|thumb|human|like|rating|vote", re.IGNORECASE)
_UP = {"up", "thumbsup", "positive", "good", "like", "true", "yes", "1"}
_DOWN = {"down", "thumbsdown", "negative", "bad", "dislike", "false", "no", "0", "-1"}


def is_from_user(name: str) -> bool:
    """Whether a score of this name is a user's, as far as a name can say; scores of judges are not signals of users."""
    return _FROM_USERS.search(name) is not None


def thumb(value: object) -> FeedbackKind | None:
    """The thumb that a score stands for; None where it is in the middle.

    Args:
        value: True and False, a number from -1 to 1 (0 and below is down, above 0.5 up), or a word.

    Raises:
        ValueError: its scale is not known.
    """
    if isinstance(value, str):
        word = re.sub(r"[\s_-]+", "", value.lower()) if value != "-1" else value
        if word in _UP | _DOWN:
            return FeedbackKind.THUMBS_UP if word in _UP else FeedbackKind.THUMBS_DOWN
    if isinstance(value, bool | int | float) and -1 <= value <= 1:
        if value > 0.5:  # noqa: PLR2004 - the middle of 0 to 1
            return FeedbackKind.THUMBS_UP
        return FeedbackKind.THUMBS_DOWN if value < 0.5 else None  # noqa: PLR2004 - the middle of 0 to 1
    raise ValueError(f"the score {value!r} is on an unknown scale")
