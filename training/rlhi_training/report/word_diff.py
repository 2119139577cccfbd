"""Two texts as what they share and what only one of them has, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Part = tuple[Literal["=", "-", "+"], str]
"""What both have, what only the first has, what only the second has."""

_MOST = 1500
"""Words of a text that are compared; the rest of a longer one is one part. The matcher's time grows with the square."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def word_diff(first: str, second: str) -> list[Part]:
    """Parts in reading order. Without the ``+`` parts they spell `first`, without the ``-`` parts `second`."""
    left, left_rest = _cut(first)
    right, right_rest = _cut(second)
    parts: list[Part] = []
    removed = added = ""
    for tag, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        mine, theirs = "".join(left[i:j]), "".join(right[k:m])
        if tag == "equal" and (any(map(str.isalnum, mine)) or not (removed or added)):
            parts += [("-", removed), ("+", added), ("=", mine)]
            removed = added = ""
        else:
            # A space that two changes have in common would only cut them into words.
            removed, added = removed + mine, added + theirs
    parts += [("-", removed + left_rest), ("+", added + right_rest)]
    return [part for part in parts if part[1]]


def _cut(text: str) -> tuple[list[str], str]:
    tokens = _WORDS.findall(text)
    return tokens[:_MOST], "".join(tokens[_MOST:])
