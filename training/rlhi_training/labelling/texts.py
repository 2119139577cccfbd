"""One text as the embedded labellers look at it: beginning and end, words, script. Each text is looked at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add

from rlhi_training.labelling.cues import CUES

HEAD, TAIL = 240, 100
"""Characters of a text that are looked at: what a message is for shows where it begins and where it ends."""
_WIDE = 800
"""Characters of a text that overlaps are computed on."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_RUNS = re.compile("[\u3040-\U0010ffff]")
_BETWEEN = bytes(code if chr(code).isalnum() or chr(code) in "_'" else 32 for code in range(128)).ljust(256)
"""By ASCII code, what stands there when words are cut: what no word holds is a space."""
_SCRIPTS = ((0x0400, 0x052F, "cyrillic"), (0x0600, 0x06FF, "arabic"), (0x3040, 0x30FF, "kana"), (0x4E00, 0x9FFF, "han"))
_CODE = re.compile(r"```|[{};]\s*\n|</\w+>|\bdef \w+\(|#include|\bimport \w+")
_CODE_NEEDS = ("```", "{", "}", ";", "</", "def ", "#include", "import ")
"""Of which one is in every text that `_CODE` matches: looking for them takes a tenth of the time."""
_ITEM = r"\s*(?:[-*\u2022]|\d+[.)])\s"
_FIRST_ITEM, _NEXT_ITEM = re.compile(_ITEM), re.compile(rf"\n{_ITEM}")


@dataclass(frozen=True, slots=True)
class LookedAt:
    """One text, looked at once."""

    raw: str
    shown: str
    """Lower-case beginning and end."""
    words: tuple[str, ...]
    """Words of `shown`."""
    wide: frozenset[str]
    """Distinct words of its first `_WIDE` characters; runs of ideographs as pairs."""
    script: str
    spaced: bool
    """Whether no script of this text runs its words together."""
    cues: dict[str, set[str]] = field(default_factory=dict)
    """Cues that were heard in it, by the group that was listened for."""

    def heard(self, group: str) -> set[str]:
        """Names of the cues of a group."""
        found = self.cues.get(group)
        if found is None:
            found = self.cues[group] = CUES[group].heard(self.shown, self.words)
        return found


def _look(raw: str) -> LookedAt:
    plain = raw.isascii()
    if len(raw) <= HEAD + TAIL:
        shown = raw.lower().strip()
        words = wide = words_of(shown)
    else:
        shown = f"{raw[:HEAD]} \n {raw[-TAIL:]}".lower().strip()
        words, wide = words_of(shown), words_of(raw[:_WIDE].lower())
    script = "latin" if plain else _script(shown)
    spaced = plain or is_spaced(raw)
    return LookedAt(raw, shown, tuple(words), frozenset(split_runs(wide, spaced=spaced)), script, spaced)


look = lru_cache(maxsize=256)(_look)
"""A conversation's texts come up in several of its exchanges."""


def words_of(text: str) -> list[str]:
    """The words of a text in its order; an apostrophe within a word belongs to it."""
    if not text.isascii():
        return _WORD.findall(text)
    # Five times as fast as the expression, which is still asked about what an apostrophe is in.
    words = text.encode("ascii").translate(_BETWEEN).decode("ascii").split()
    if "'" not in text:
        return words
    return [part for word in words for part in (_WORD.findall(word) if "'" in word else (word,))]


def is_spaced(text: str) -> bool:
    """Whether no script of this text runs its words together."""
    return text.isascii() or not _RUNS.search(text)


def split_runs(words: Sequence[str], *, spaced: bool) -> Iterable[str]:
    """Words, with runs of ideographs as overlapping pairs."""
    return words if spaced else _pairs(words)


def _pairs(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if len(word) > 1 and word[0] >= "\u3040":
            yield from map(add, word, word[1:])
        else:
            yield word


def _script(text: str) -> str:
    for char in text[:60]:
        if char > "\u0400":
            code = ord(char)
            for low, high, name in _SCRIPTS:
                if low <= code <= high:
                    return name
    return "latin"


def script_of(text: str) -> str:
    """``latin``, ``cyrillic``, ``arabic``, ``kana`` or ``han``, by the first letter that tells."""
    return _script(text.lower())


def has_code(text: str) -> bool:
    """Whether a text holds signs of a program."""
    for need in _CODE_NEEDS:
        if need in text:
            return _CODE.search(text) is not None
    return False


def has_item(text: str) -> bool:
    """Whether a line of a text is an item of a list."""
    return _FIRST_ITEM.match(text) is not None or _NEXT_ITEM.search(text) is not None
