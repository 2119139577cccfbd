"""One text as the embedded labellers look at it: beginning and end, words, script. Each text is looked at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from operator import add
from typing import TYPE_CHECKING, Any

from rlhi_training.labelling.cues import CUES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAD, TAIL = 240, 100
"""Characters of a text that are looked at: what a message is for shows where it begins and where it ends."""
_WIDE = 800
"""Characters of a text that overlaps are computed on."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_FOREIGN, _CHEROKEE, _FIRST_RUN = 0x400, 0x13A0, 0x3040
"""Codes: up to the first all is Latin, and from the last on are scripts that run their words together."""
_BITS, _SPREAD, _BREAK = 21, 40_503, ord("\n")
_BETWEEN = bytes(code if chr(code).isalnum() or chr(code) in "_'" else 32 for code in range(256))
"""By code of Latin-1, what stands there when words are cut: what no word holds is a space."""
_SCRIPTS = ((0x0401, 0x052F, "cyrillic"), (0x0600, 0x06FF, "arabic"), (0x3040, 0x30FF, "kana"), (0x4E00, 0x9FFF, "han"))
_TELLING = re.compile(f"[{''.join(f'{chr(low)}-{chr(high)}' for low, high, _ in _SCRIPTS)}]")
_CODE = re.compile(r"```|[{};]\s*\n|</\w+>|\bdef \w+\(|#include|\bimport \w+")
_CODE_NEEDS = ("```", "{", "}", ";", "</", "def ", "#include", "import ")
"""Of which one is in every text that `_CODE` matches: looking for them takes a tenth of the time."""
_FOUR, _CAPITALS = re.compile(r"[A-Z]{4}"), re.compile(r"\b[A-Z]{4,}\b")
_ITEM = r"\s*(?:[-*\u2022]|\d+[.)])\s"
_FIRST_ITEM, _NEXT_ITEM = re.compile(_ITEM), re.compile(rf"\n{_ITEM}")


@dataclass(slots=True, eq=False)
class LookedAt:
    """One text, looked at once."""

    raw: str
    shown: str
    """Lower-case beginning and end."""
    words: list[str]
    """Words of `shown`."""
    wide: frozenset[str | int]
    """Distinct words of its first `_WIDE` characters; runs of ideographs as pairs, see `_distinct`."""
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
    highest = _highest(raw)
    spaced = highest < _FIRST_RUN
    if len(raw) <= HEAD + TAIL:
        shown = read = raw.lower().strip()
        words = wide = words_of(shown)
    else:
        shown, read = f"{raw[:HEAD]} \n {raw[-TAIL:]}".lower().strip(), raw[:_WIDE].lower()
        words, wide = words_of(shown), words_of(read)
    # Capital letters of Cherokee have small ones beyond the first script that runs its words together.
    plain = spaced and (highest < _CHEROKEE or _highest(read) < _FIRST_RUN)
    distinct = frozenset(wide) if plain else _distinct(wide, spaced=spaced)
    return LookedAt(raw, shown, words, distinct, _script(shown) if highest > _FOREIGN else "latin", spaced)


look = lru_cache(maxsize=64)(_look)
"""A conversation's texts come up in several of its exchanges."""


def words_of(text: str) -> list[str]:
    """The words of a text in its order; an apostrophe within a word belongs to it."""
    # Cutting at spaces is five times as fast as the expression, which is still asked about what an apostrophe is in.
    try:
        words = text.encode("latin-1").translate(_BETWEEN).decode("latin-1").split()
        apostrophes = "'" in text
    except UnicodeEncodeError:
        cut = _cut(text)
        if cut is None:
            return _WORD.findall(text)
        words = cut.split()
        apostrophes = "'" in text or "\u2019" in text
    if not apostrophes:
        return words
    return [part for word in words for part in (_WORD.findall(word) if "'" in word or "\u2019" in word else (word,))]


def _cut(text: str) -> str | None:
    """The text with a space for all that no word holds; None beyond the first 65,536 characters of Unicode."""
    codes = _codes(text)
    return _between().take(codes).tobytes().decode("utf-16-le") if len(codes) == len(text) else None


def _codes(text: str) -> NDArray[np.uint16]:
    """In UTF-16: what is beyond the first 65,536 characters is two numbers from 0xD800 on."""
    import numpy as np

    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")


def _highest(text: str) -> int:
    """The largest of `_codes`; 0 in ASCII."""
    if text.isascii():
        return 0
    import numpy as np

    return int(np.maximum.reduce(_codes(text)))


@cache
def _between() -> NDArray[np.uint16]:
    """`_BETWEEN` for the first 65,536 characters of Unicode."""
    import numpy as np

    codes = np.arange(1 << 16, dtype="<u2")
    # Half a character is in no word.
    inside = [(char := chr(code)).isalnum() or char in "_'\u2019" for code in range(1 << 16)]
    return np.where(inside, codes, 32).astype("<u2")


def is_spaced(text: str) -> bool:
    """Whether no script of this text runs its words together."""
    return _highest(text) < _FIRST_RUN


def split_runs(words: Sequence[str], *, spaced: bool) -> Sequence[str]:
    """Words, with runs of ideographs as overlapping pairs."""
    return words if spaced else [part for word in words for part in _parts(word, word)]


def first_of(text: LookedAt, count: int) -> Sequence[str]:
    """The first ones of `split_runs` of what is shown."""
    words = text.words[:count]
    return words if text.spaced else [part for word in words for part in _parts(word, word[: count + 1])][:count]


def last_of(text: LookedAt, count: int) -> Sequence[str]:
    """The last ones."""
    words = text.words[-count:]
    return words if text.spaced else [part for word in words for part in _parts(word, word[-count - 1 :])][-count:]


def _parts(word: str, read: str) -> Iterable[str]:
    """The pairs of what is read of a word, where it is a run of ideographs."""
    return map(add, read, read[1:]) if _is_run(word) else (word,)


def _is_run(word: str) -> bool:
    return len(word) > 1 and ord(word[0]) >= _FIRST_RUN


def _distinct(words: Sequence[str], *, spaced: bool) -> frozenset[str | int]:
    """The different ones of `split_runs`.

    A pair with an ideograph in it is a number: there are hundreds in a text, and strings take several times as long.
    """
    import numpy as np

    runs = [] if spaced else [word for word in words if _is_run(word)]
    whole = [word for word in words if not _is_run(word)] if runs else words
    found: list[str | int] = [_pair(word) if len(word) == 2 else word for word in whole]  # noqa: PLR2004 - a pair
    if runs:
        codes = np.frombuffer("\n".join(runs).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
        first, second = codes[:-1], codes[1:]
        inside = np.minimum(first, second) != _BREAK
        ideographs = np.maximum(first, second) >= _FIRST_RUN
        found += _number(first, second)[inside & ideographs].tolist()
        found += [chr(first[k]) + chr(second[k]) for k in np.flatnonzero(inside & ~ideographs).tolist()]
    return frozenset(found)


def _pair(word: str) -> str | int:
    first, second = map(ord, word)
    return _number(first, second) if max(first, second) >= _FIRST_RUN else word


def _number(first: Any, second: Any) -> Any:
    """A number for two codes, or for many; both are in its lower bits, by which a set finds it."""
    return first << _BITS | (second ^ (first * _SPREAD & (1 << _BITS) - 1))


def _script(text: str) -> str:
    found = _TELLING.search(text[:60])
    return "latin" if found is None else next(name for low, high, name in _SCRIPTS if low <= ord(found[0]) <= high)


def script_of(text: str) -> str:
    """``latin``, ``cyrillic``, ``arabic``, ``kana`` or ``han``, by the first letter that tells."""
    return _script(text.lower())


def has_code(text: str) -> bool:
    """Whether a text holds signs of a program."""
    for need in _CODE_NEEDS:
        if need in text:
            return _CODE.search(text) is not None
    return False


def has_capitals(text: str) -> bool:
    """Whether a text holds a word of four capital letters or more."""
    # An expression that begins with a border of words is tried at each letter.
    return _FOUR.search(text) is not None and _CAPITALS.search(text) is not None


def has_quote(text: str) -> bool:
    """Whether something in a text is quoted."""
    return '"' in text or "\u201c" in text or "\u300c" in text or "\u00ab" in text


def has_item(text: str) -> bool:
    """Whether a line of a text is an item of a list."""
    return _FIRST_ITEM.match(text) is not None or _NEXT_ITEM.search(text) is not None
