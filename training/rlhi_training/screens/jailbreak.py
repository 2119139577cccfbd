"""Jailbreaks: requests that are built to make a model break its rules.

The paper names them among the signals that "require careful handling" (arXiv 2509.25137). Patterns and structure find
the kinds that people pass on to each other; a new or a subtle one is not found (the training README has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.records import Conversation, Message
from rlhi_training.screens.batch import Batch
from rlhi_training.screens.patterns import Sign, plain_quotes, signs
from rlhi_training.screens.screen import Finding, quote

ENOUGH = 2.0
"""Score from which a message counts: one sign that says it all, or two that each could be innocent (ours)."""
_READ = 20_000


class Jailbreak:
    """``jailbreak``: a user message in which the signs of ``jailbreak.toml`` add up to `ENOUGH`."""

    name = "jailbreak"

    def __init__(self, *, drops: bool) -> None:
        self.drops = drops

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Look at every user message."""
        (finding,) = self.screen(Batch([conversation]))
        return finding

    def screen(self, batch: Batch) -> list[Finding | None]:
        """The same of many conversations."""
        found = iter(signs_in_each([message.content for asked in batch.requests for message in asked]))
        return [_finding(list(zip(asked, found, strict=False))) for asked in batch.requests]


def _finding(asked: Sequence[tuple[Message, dict[str, float]]]) -> Finding | None:
    for message, found in asked:
        if sum(found.values()) >= ENOUGH:
            return Finding("jailbreak", f"{', '.join(found)} in message {message.id}: {quote(message.content)}")
    return None


def signs_in_each(texts: Sequence[str]) -> list[dict[str, float]]:
    """The signs that each message shows, with their weights; none where they cannot add up to `ENOUGH`."""
    read = [plain_quotes(text[:_READ]) for text in texts]
    possible = signs("jailbreak.toml").possible([text.lower() for text in read])
    return [_found(text, some) if some else {} for text, some in zip(read, possible, strict=True)]


def _found(read: str, possible: Sequence[Sign]) -> dict[str, float]:
    left = sum(sign.weight for sign in possible)
    found: set[str] = set()
    # The heaviest first: without them the others need not be looked for.
    for sign in sorted(possible, key=lambda sign: -sign.weight):
        if left < ENOUGH:
            break
        if sign.search(read):
            found.add(sign.name)
        else:
            left -= sign.weight
    return {sign.name: sign.weight for sign in possible if sign.name in found} if left >= ENOUGH else {}
