"""Which of many short texts occur in each of many long ones, in one pass over all of them.

Looking for a hundred short texts in each message takes longer than everything else that a screen does. Here each is
known by its rarest three bytes: a table says at which places of all texts such three stand, and only there is the rest
compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COMMON = " etaoinsrhldcumfpgwybvkxjqz"
"""From the most to the least frequent in English; everything else is rarer."""
_GRAM = 3
_FACTORS = (0x9E37, 0x79B9, 0x7F4B)
"""Odd: three bytes, multiplied and added modulo 2^16, seldom collide."""


class Needles:
    """Looks for texts.

    Args:
        needles: Of at least three bytes each.
    """

    def __init__(self, needles: Iterable[str]) -> None:
        self._needles = [(needle, needle.encode()) for needle in dict.fromkeys(needles)]

    def in_each(self, texts: Sequence[str]) -> list[set[str]]:
        """For each text, which of the needles it holds; none of them may hold a zero character."""
        import numpy as np

        found: list[set[str]] = [set() for _ in texts]
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        body = b"\0".join(encoded)
        if len(body) < _GRAM:
            return found
        ends = np.cumsum([len(text) + 1 for text in encoded])
        places, codes = self._marked(np.frombuffer(body, dtype=np.uint8))
        for needle, raw, offset, first, last in self._grouped(codes):
            for place in places[first:last].tolist():
                start = place - offset
                if start >= 0 and body.startswith(raw, start):
                    found[int(ends.searchsorted(start, side="right"))].add(needle)
        return found

    def _marked(self, body: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Where the three bytes of some needle may stand, with their code, in the order of the codes."""
        import numpy as np

        codes = _codes(body)
        places = np.flatnonzero(self._table[codes])
        marked = codes[places]
        order = np.argsort(marked, kind="stable")
        return places[order], marked[order]

    def _grouped(self, codes: NDArray[np.uint16]) -> Iterable[tuple[str, bytes, int, int, int]]:
        firsts = codes.searchsorted(self._codes, side="left").tolist()
        lasts = codes.searchsorted(self._codes, side="right").tolist()
        for (needle, raw), offset, first, last in zip(self._needles, self._offsets, firsts, lasts, strict=True):
            if first < last:
                yield needle, raw, offset, first, last

    @cached_property
    def _offsets(self) -> list[int]:
        return [_rarest(raw) for _, raw in self._needles]

    @cached_property
    def _codes(self) -> NDArray[np.uint16]:
        import numpy as np

        grams = b"".join(raw[at : at + _GRAM] for (_, raw), at in zip(self._needles, self._offsets, strict=True))
        return _codes(np.frombuffer(grams, dtype=np.uint8))[::_GRAM]

    @cached_property
    def _table(self) -> NDArray[np.bool_]:
        import numpy as np

        table = np.zeros(1 << 16, dtype=np.bool_)
        table[self._codes] = True
        return table


def _codes(body: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[bytes - 2] A number for each three bytes."""
    import numpy as np

    wide = body.astype(np.uint16)
    first, second, third = map(np.uint16, _FACTORS)
    codes: NDArray[np.uint16] = wide[:-2] * first + wide[1:-1] * second + wide[2:] * third
    return codes


def _rarest(raw: bytes) -> int:
    """Where in a needle its rarest three bytes begin."""
    ranks = [_COMMON.find(chr(byte)) % (len(_COMMON) + 1) for byte in raw]
    return max(range(len(raw) - _GRAM + 1), key=lambda at: sum(ranks[at : at + _GRAM]))
