"""One text as the embedded labellers look at it: beginning and end, words, script. Each text is looked at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from operator import add
from typing import TYPE_CHECKING

from rlhi_training.labelling.cues import CUES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAD, TAIL = 240, 100
"""Characters of a text that are looked at: what a message is for shows where it begins and where it ends."""
_WIDE = 800
"""Characters of a text that overlaps are computed on."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_FIRST_RUN = "\u3040"
"""From here on, scripts that run their words together."""
_RUNS = re.compile(f"[{_FIRST_RUN}-\U0010ffff]")
_BITS, _BREAK = 21, ord("\n")
_BETWEEN = bytes(code if chr(code).isalnum() or chr(code) in "_'" else 32 for code in range(128)).ljust(256)
"""By ASCII code, what stands there when words are cut: what no word holds is a space."""
_SCRIPTS = ((0x0400, 0x052F, "cyrillic"), (0x0600, 0x06FF, "arabic"), (0x3040, 0x30FF, "kana"), (0x4E00, 0x9FFF, "han"))
_CODE = re.compile(r"```|[{};]\s*\n|</\w+>|\bdef \w+\(|#include|\bimport \w+")
_CODE_NEEDS = ("```", "{", "}", ";", "</", "def ", "#include", "import ")
"""Of which one is in every text that `_CODE` matches: looking for them takes a tenth of the time."""
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
    plain = raw.isascii()
    spaced = plain or is_spaced(raw)
    if len(raw) <= HEAD + TAIL:
        shown = read = raw.lower().strip()
        words = wide = words_of(shown)
    else:
        shown, read = f"{raw[:HEAD]} \n {raw[-TAIL:]}".lower().strip(), raw[:_WIDE].lower()
        words, wide = words_of(shown), words_of(read)
    distinct = frozenset(wide) if plain else _distinct(wide, read, spaced=spaced)
    return LookedAt(raw, shown, words, distinct, "latin" if plain else _script(shown), spaced)


look = lru_cache(maxsize=256)(_look)
"""A conversation's texts come up in several of its exchanges."""


def words_of(text: str) -> list[str]:
    """The words of a text in its order; an apostrophe within a word belongs to it."""
    # Cutting at spaces is five times as fast as the expression, which is still asked about what an apostrophe is in.
    if text.isascii():
        words = text.encode("ascii").translate(_BETWEEN).decode("ascii").split()
        apostrophes = "'" in text
    else:
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
    import numpy as np

    try:
        codes = np.frombuffer(text.encode("utf-16-le"), dtype="<u2")
    except UnicodeEncodeError:
        return None
    return _between()[codes].tobytes().decode("utf-16-le") if len(codes) == len(text) else None


@cache
def _between() -> NDArray[np.uint16]:
    """`_BETWEEN` for the first 65,536 characters of Unicode."""
    import numpy as np

    codes = np.arange(1 << 16, dtype="<u2")
    inside = [(char := chr(code)).isalnum() or char in "_'\u2019" for code in range(1 << 16)]
    return np.where(inside, codes, 32).astype("<u2")


def is_spaced(text: str) -> bool:
    """Whether no script of this text runs its words together."""
    return text.isascii() or not _RUNS.search(text)


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
    return map(add, read, read[1:]) if len(word) > 1 and word[0] >= _FIRST_RUN else (word,)


def _distinct(words: Sequence[str], text: str, *, spaced: bool) -> frozenset[str | int]:
    """The different ones of `split_runs`.

    A pair with an ideograph in it is a number: there are hundreds in a text, and strings take several times as long.
    """
    if is_spaced(text):
        return frozenset(words)
    import numpy as np

    runs = [] if spaced else [word for word in words if len(word) > 1 and word[0] >= _FIRST_RUN]
    whole = words if spaced else [word for word in words if len(word) == 1 or word[0] < _FIRST_RUN]
    found: set[str | int] = {_pair(word) if len(word) == 2 else word for word in whole}  # noqa: PLR2004 - a pair
    if runs:
        codes = np.frombuffer("\n".join(runs).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
        first, second = codes[:-1], codes[1:]
        inside = (first != _BREAK) & (second != _BREAK)
        ideographs = np.maximum(first, second) >= ord(_FIRST_RUN)
        found.update((first << _BITS | second)[inside & ideographs].tolist())
        plain = np.flatnonzero(inside & ~ideographs)
        found.update(chr(first[k]) + chr(second[k]) for k in plain.tolist())
    return frozenset(found)


def _pair(word: str) -> str | int:
    first, second = word
    return ord(first) << _BITS | ord(second) if max(first, second) >= _FIRST_RUN else word


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
