"""Flaws of an answer that show without knowing what anybody asked for, each with a name for the drop."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from rlhi_plugin.chat import FinishReason
from rlhi_plugin.checks import repeated_share, word_count

_SENTENCE = re.compile(r"(?<=[.!?\u3002])\s+|\n+")
_MIN_SENTENCE_WORDS = 3
_MIN_LETTERS = 0.5
"""Share of letters among the characters that are not white space, outside code."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def flaw(text: str, finish_reason: FinishReason, *, min_words: int, max_repeated_share: float) -> str | None:
    """The first flaw of an answer, or None for a sound one.

    Returns:
        ``empty``, ``unfinished`` (cut at the token cap, or refused by the provider), ``too_short``, ``repetitive``
        (repeated 4-grams, or the same sentence twice) or ``not_language`` (mostly symbols).
    """
    if not text.strip():
        return "empty"
    if finish_reason != "stop":
        return "unfinished"
    looked = _look(text)
    if looked.words < min_words:
        return "too_short"
    if looked.repeated_share > max_repeated_share or looked.repeats_a_sentence:
        return "repetitive"
    return None if looked.is_language else "not_language"


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a text is like."""

    words: int
    repeated_share: float
    repeats_a_sentence: bool
    is_language: bool


@lru_cache(maxsize=1024)
def _look(text: str) -> _Looked:
    """Several stages ask about the same answer, each with limits of its own."""
    prose = _CODE.sub(" ", text) if "```" in text else text
    visible = "".join(prose.split())
    return _Looked(
        # Scripts without spaces: a character stands for about half a word.
        words=max(word_count(text), 0 if text.isascii() else len(_UNSPACED.findall(text)) // 2),
        repeated_share=repeated_share(prose),
        repeats_a_sentence=_repeats_a_sentence(prose),
        is_language=not visible or sum(map(str.isalpha, visible)) >= _MIN_LETTERS * len(visible),
    )


def _repeats_a_sentence(text: str) -> bool:
    sentences = Counter(s.strip().lower() for s in _SENTENCE.split(text) if len(s.split()) >= _MIN_SENTENCE_WORDS)
    return any(count > 1 for count in sentences.values())
