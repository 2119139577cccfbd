"""Whether an answer repeats what a user wrote elsewhere: such an answer never crosses to another user.

An answer that our model wrote for A's request may be ranked under B's persona. It may hold anything that the request
itself holds, and nothing that A, or any persona in the room, said elsewhere: five consecutive words are a quotation.
Where a script puts no spaces between words, each character is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlhi_plugin.words import words_of

QUOTED_WORDS = 5
"""Consecutive words that make a quotation; a shorter text is quoted when it occurs whole (ours)."""
_MIN_WORDS = 3
"""A shorter text ("shorter please") cannot be quoted: it is in everybody's answers."""

Gram = tuple[str, ...]


def private_grams(texts: Iterable[str], known: Iterable[str]) -> frozenset[Gram]:
    """What would be a quotation of `texts`, leaving out what `known` texts (the request and its context) hold too."""
    allowed = {
        gram
        for words in map(_words, known)
        for size in range(_MIN_WORDS, QUOTED_WORDS + 1)
        for gram in _grams(words, size)
    }
    grams: set[Gram] = set()
    for words in map(_words, texts):
        size = min(QUOTED_WORDS, len(words))
        if size >= _MIN_WORDS:
            grams.update(_grams(words, size))
    return frozenset(grams - allowed)


def quotes(text: str, private: frozenset[Gram]) -> bool:
    """Whether a text holds any of these sequences of words."""
    if not private:
        return False
    words = _words(text)
    return any(not private.isdisjoint(_grams(words, size)) for size in {len(gram) for gram in private})


def _words(text: str) -> list[str]:
    return words_of(text.casefold())


def _grams(words: Sequence[str], size: int) -> Iterable[Gram]:
    return zip(*(words[start:] for start in range(size)), strict=False)
