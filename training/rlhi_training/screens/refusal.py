"""Refusals: answers that decline to do what was asked.

Users punish refusals, right ones too (arXiv 2507.23158, 2602.08829). So a refusal is no reason to leave a conversation
out, and no reason to prefer another answer either: `declines` also tells the last stage which pairs would train against
a refusal (`ScreensSection.train_against_refusals`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhi_plugin.records import Conversation, Message
from rlhi_training.screens.batch import Batch
from rlhi_training.screens.patterns import Sign, plain_quotes, signs
from rlhi_training.screens.screen import Finding, answers, quote

_TAGS = re.compile(r"<[^>]{1,40}>|\\(?=')")
_OPENING = 320
"""Characters of an answer in which it declines, if it does; later it only remarks on an answer that was given."""


def declines(text: str) -> str | None:
    """The passage in which an answer declines, or None.

    Only the opening is read. Not being able to browse, feel or remember is a limit, no refusal, and so is asking back.
    """
    (passage,) = each_declines([text])
    return passage


def each_declines(texts: Sequence[str]) -> list[str | None]:
    """`declines` of many answers."""
    openings = list(map(_opening, texts))
    possible = signs("refusal.toml").possible([opening.lower() for opening in openings])
    return [_passage(opening, some) for opening, some in zip(openings, possible, strict=True)]


def _opening(text: str) -> str:
    opening = plain_quotes(text[: 2 * _OPENING])
    if "<" in opening or "\\" in opening:
        opening = _TAGS.sub("", opening)
    return opening.lstrip()[:_OPENING]


def _passage(opening: str, possible: Sequence[Sign]) -> str | None:
    for sign in possible:
        found = sign.search(opening)
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
        (finding,) = self.screen(Batch([conversation]))
        return finding

    def screen(self, batch: Batch) -> list[Finding | None]:
        """The same of many conversations."""
        given = [answers(conversation) for conversation in batch.conversations]
        passages = iter(each_declines([message.content for some in given for message in some]))
        return [_finding(list(zip(some, passages, strict=False))) for some in given]


def _finding(given: Sequence[tuple[Message, str | None]]) -> Finding | None:
    for message, passage in given:
        if passage:
            return Finding("refusal", f"message {message.id}: {passage}")
    return None
