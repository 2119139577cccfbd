"""What a user removed from their persona, and how it is known again without keeping its words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

from rlhi_plugin.persona.wishes import read_wishes
from rlhi_plugin.records import PersonaStatement, Removal

_SAME = 0.6
"""Share of common words (Jaccard) from which a wording counts as the removed one (ours)."""
_WORD = re.compile(r"\w+")


def removal_of(statement: PersonaStatement, at: datetime) -> Removal:
    """Remember a statement and its quotations by digests of their words, and by what it asked for."""
    wordings = dict.fromkeys(_fingerprint(text) for text in _wordings(statement))
    return Removal(fingerprints=tuple(wordings), wishes=tuple(sorted(read_wishes(statement.text))), removed_at=at)


def is_removed(statement: PersonaStatement, removed: Sequence[Removal]) -> bool:
    """Whether a statement is one of the removed, or comes from what they came from.

    Its wording is a removed one's, or asks for all that a removed one asked for and nothing else, or it quotes what a
    removed one quoted. Quoting the same is no reason where both wishes are known and differ: "shorter, and no emojis"
    may be forgotten for its length alone.
    """
    if not removed:
        return False
    wishes = frozenset(read_wishes(statement.text))
    mine = [_fingerprint(text) for text in _wordings(statement)]
    for removal in removed:
        theirs = frozenset(removal.wishes)
        if wishes and theirs:
            if wishes == theirs:
                return True
            if not wishes & theirs:
                continue
        if any(_similar(one, other) for one in mine for other in removal.fingerprints):
            return True
    return False


def _wordings(statement: PersonaStatement) -> list[str]:
    return [statement.text, *(cited.quote for cited in statement.evidence)]


def _fingerprint(text: str) -> tuple[str, ...]:
    """8 hex digits for each different word, sorted: it hides words from readers, not from whoever guesses them."""
    words = {word.casefold() for word in _WORD.findall(text)} or {text}
    return tuple(sorted({hashlib.sha256(word.encode()).hexdigest()[:8] for word in words}))


def _similar(one: Sequence[str], other: Sequence[str]) -> bool:
    a, b = set(one), set(other)
    return len(a & b) / len(a | b) >= _SAME
