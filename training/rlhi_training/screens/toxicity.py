"""Toxic conversations: what the log's own moderation flagged and, where the recipe wants it, a small classifier.

Users also reward unsafe answers, so what a user liked says nothing here (arXiv 2507.23158).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from rlhi_plugin.errors import ArtefactError, MissingExtraError
from rlhi_plugin.records import Conversation
from rlhi_training.screens.screen import Finding, quote, requests

PINNED = {
    "model.joblib": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
    "vectorizer.joblib": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
}
"""SHA-256 of the classifier's files in alt-profanity-check 1.9.1. They are pickles, which run code when loaded."""
_READ = 5000
"""Characters of a message that the classifier reads."""


class FlaggedToxic:
    """``toxic``: the log's own moderation says so. What it does not speak of stays."""

    name = "toxic"
    drops = True

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Read the flag."""
        return Finding("toxic", "flagged by the log's own moderation") if conversation.toxic else None


class ClassifiedToxic:
    """``toxic_words``: a user message that alt-profanity-check (a linear model over English words) calls offensive.

    Args:
        threshold: Probability in (0, 1] from which a message counts.

    Raises:
        MissingExtraError: the package is not installed. When the first conversation is looked at:
        ArtefactError: its files are not those that are pinned here.
    """

    name = "toxic_words"
    drops = True

    def __init__(self, threshold: float) -> None:
        if find_spec("profanity_check") is None:
            raise MissingExtraError("alt-profanity-check", "toxicity")
        self._threshold = threshold

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Classify each user message."""
        asked = requests(conversation)
        if not asked:
            return None
        odds = [float(p) for p in self._odds([message.content[:_READ] for message in asked])]
        worst = max(range(len(odds)), key=odds.__getitem__)
        if odds[worst] < self._threshold:
            return None
        return Finding("toxic_words", f"{odds[worst]:.2f}: {quote(asked[worst].content)}")

    @cached_property
    def _odds(self) -> Callable[[Sequence[str]], Sequence[float]]:
        spec = find_spec("profanity_check")
        (folder,) = (spec.submodule_search_locations or [""]) if spec else [""]
        for name, digest in PINNED.items():
            file = Path(folder) / "data" / name
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise ArtefactError(f"{file} is not the file of alt-profanity-check 1.9.1. Install that version.")
        from profanity_check import predict_prob

        found: Callable[[Sequence[str]], Sequence[float]] = predict_prob
        return found
