"""Jailbreaks: requests that are built to make a model break its rules.

The paper names them among the signals that "require careful handling" (arXiv 2509.25137). Patterns and structure find
the kinds that people pass on to each other; a new or a subtle one is not found (the training README has the figures).
"""

from __future__ import annotations

from rlhi_plugin.records import Conversation
from rlhi_training.screens.patterns import plain_quotes, signs
from rlhi_training.screens.screen import Finding, quote, requests

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
        for message in requests(conversation):
            found = signs_in(message.content)
            if sum(found.values()) >= ENOUGH:
                return Finding("jailbreak", f"{', '.join(found)} in message {message.id}: {quote(message.content)}")
        return None


def signs_in(text: str) -> dict[str, float]:
    """The signs that a message shows, with their weights; none where they cannot add up to `ENOUGH`."""
    read = plain_quotes(text[:_READ])
    lowered = read.lower()
    possible = [sign for sign in signs("jailbreak.toml") if sign.possible(lowered)]
    left = sum(sign.weight for sign in possible)
    found: set[str] = set()
    # The heaviest first: without them the others need not be looked for.
    for sign in sorted(possible, key=lambda sign: -sign.weight):
        if left < ENOUGH:
            break
        if sign.pattern.search(read):
            found.add(sign.name)
        else:
            left -= sign.weight
    return {sign.name: sign.weight for sign in possible if sign.name in found} if left >= ENOUGH else {}
