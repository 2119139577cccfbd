"""Words of texts as numbers: how the screens that compare texts see them, for one text or for thousands at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ_WORDS = 2000
_FIRST_CHARS = 8 * READ_WORDS
"""Characters in which so many words nearly always are; reading on costs time."""
# Scripts that put no spaces between words count each character as a word.
_UNSPACED = "぀-ヿ㐀-鿿가-힯ก-๿"
_ALONE = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_]+")
_WIDTH = 3
"""Bytes that each character of these scripts has in UTF-8."""
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_BETWEEN = bytes(code if code > 127 or chr(code).isalnum() else 32 for code in range(256))  # noqa: PLR2004 - end of ASCII
"""By byte of UTF-8, what stands there when words are cut."""
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def words(text: str) -> list[str]:
    """The first `READ_WORDS` words, in lower case."""
    return list(map(bytes.decode, encoded_words(text)))


@lru_cache(maxsize=4)
def encoded_words(text: str) -> tuple[bytes, ...]:
    """`words` in UTF-8. Two screens ask for those of the first message, which in most conversations is the only one."""
    lowered = text.lower()
    found = _cut(lowered[:_FIRST_CHARS])
    if len(found) <= READ_WORDS and len(lowered) > _FIRST_CHARS:
        # Very long words, or few.
        found = _cut(lowered)
    return tuple(found[:READ_WORDS])


def _cut(lowered: str) -> list[bytes]:
    """What `_WORD` finds, characters of `_UNSPACED` apart; without such ones in a tenth of the time."""
    if not lowered.isascii():
        if _ALONE.search(lowered):
            return [word for found in _WORD.findall(lowered) for word in _apart(found)]
        for sign in set("".join(_FOREIGN.findall(lowered))):
            if not sign.isalnum():
                lowered = lowered.replace(sign, " ")
    return lowered.encode().translate(_BETWEEN).split()


def _apart(found: str) -> list[bytes]:
    raw = found.encode()
    # A run of letters takes in whatever comes after it.
    return [raw[at : at + _WIDTH] for at in range(0, len(raw), _WIDTH)] if _ALONE.match(found) else [raw]


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of texts, one text after the other.

    Attributes:
        digests: [words] 32 bits of each word, as 64-bit numbers.
        starts: Where each text begins, and where the last one ends.
    """

    digests: NDArray[np.uint64]
    starts: list[int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Wording:
        """Of each text the first `READ_WORDS` words."""
        import numpy as np

        tokens: list[bytes] = []
        starts = [0]
        for text in texts:
            tokens += encoded_words(text)
            starts.append(len(tokens))
        return cls(np.fromiter(map(crc32, tokens), dtype=np.uint64, count=len(tokens)), starts)

    def runs(self, size: int) -> NDArray[np.uint64]:
        """[words] A digest of the `size` words from each word on; the order of the words counts.

        The last ones of a text hold words of the next one: what begins later than `size` words before a text's end is
        none of its runs.
        """
        import numpy as np

        total = np.zeros(len(self.digests), dtype=np.uint64)
        for place in range(size):
            later = self.digests[place:]
            total[: len(later)] += later * np.uint64(pow(_GOLDEN, place + 1, 1 << 64))
        return total


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose bits all depend on all bits of the given ones (the last steps of SplitMix64)."""
    import numpy as np

    first, second = map(np.uint64, _MIX)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * first
    numbers = (numbers ^ (numbers >> np.uint64(27))) * second
    return numbers ^ (numbers >> np.uint64(31))
