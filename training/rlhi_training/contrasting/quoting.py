"""Whether an answer repeats what a user wrote elsewhere: such an answer never crosses to another user.

An answer that our model wrote for A's request may be ranked under B's persona. It may hold anything that the request
itself holds, and nothing that A, or any persona in the room, said elsewhere: five consecutive words are a quotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

QUOTED_WORDS = 5
"""Consecutive words that make a quotation; a shorter text is quoted when it occurs whole (ours)."""
_MIN_WORDS = 3
"""A shorter text ("shorter please") cannot be quoted: it is in everybody's answers."""
_WORD = re.compile(r"\w+")

Gram = tuple[str, ...]


def private_grams(texts: Iterable[str], known: Iterable[str]) -> frozenset[Gram]:
    """What would be a quotation of `texts`, leaving out what `known` texts (the request and its context) hold too."""
    allowed = {gram for text in known for size in range(_MIN_WORDS, QUOTED_WORDS + 1) for gram in _grams(text, size)}
    grams: set[Gram] = set()
    for text in texts:
        size = min(QUOTED_WORDS, len(_WORD.findall(text)))
        if size >= _MIN_WORDS:
            grams.update(_grams(text, size))
    return frozenset(grams - allowed)


def quotes(text: str, private: frozenset[Gram]) -> bool:
    """Whether a text holds any of these sequences of words."""
    if not private:
        return False
    return any(gram in private for size in {len(gram) for gram in private} for gram in _grams(text, size))


def _grams(text: str, size: int) -> Iterable[Gram]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return (tuple(words[i : i + size]) for i in range(len(words) - size + 1))
