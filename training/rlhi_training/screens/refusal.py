"""Refusals: answers that decline to do what was asked.

Users punish refusals, right ones too (arXiv 2507.23158, 2602.08829). So a refusal is no reason to leave a conversation
out, and no reason to prefer another answer either: `declines` also tells the last stage which pairs would train against
a refusal (`ScreensSection.train_against_refusals`).
"""

from __future__ import annotations

import re

from rlhi_plugin.records import Conversation
from rlhi_training.screens.patterns import plain_quotes, signs
from rlhi_training.screens.screen import Finding, answers, quote

_TAGS = re.compile(r"<[^>]{1,40}>|\\(?=')")
_OPENING = 320
"""Characters of an answer in which it declines, if it does; later it only remarks on an answer that was given."""


def declines(text: str) -> str | None:
    """The passage in which an answer declines, or None.

    Only the opening is read. Not being able to browse, feel or remember is a limit, no refusal, and so is asking back.
    """
    opening = plain_quotes(text[: 2 * _OPENING])
    if "<" in opening or "\\" in opening:
        opening = _TAGS.sub("", opening)
    opening = opening.lstrip()[:_OPENING]
    lowered = opening.lower()
    for sign in signs("refusal.toml"):
        found = sign.search(opening, lowered)
        if found:
            return quote(opening, found.start())
    return None


class Refusal:
    """``refusal``: one of the answers declines. Counted; dropped only where the recipe says so."""

    name = "refusals"

    def __init__(self, *, drops: bool) -> None:
        self.drops = drops

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Look at every answer."""
        for message in answers(conversation):
            passage = declines(message.content)
            if passage:
                return Finding("refusal", f"message {message.id}: {passage}")
        return None
