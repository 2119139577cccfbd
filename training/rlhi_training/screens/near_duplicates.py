"""Near-duplicates: MinHash signatures of what the user wrote, banded (LSH), the bands remembered in Bloom filters.

An LSH index that keeps its signatures takes about 1.3 KB a conversation; one Bloom filter per band (arXiv 2411.04257)
takes a few bytes, whatever the text, and is never larger than it was made. The price: which earlier conversation it was
is known only for the first ones, and nothing can be verified. So bands vote (ours): texts count as alike when as many
bands agree as would at the threshold, which cuts more sharply there than asking for a single one. rensa makes the
signatures, rbloom the filters; both are Rust.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from rlhi_plugin.errors import MissingExtraError
from rlhi_plugin.records import Conversation
from rlhi_training.screens.screen import Finding, SeenPart, quote, requests

MIN_WORDS = 20
"""Shorter texts are alike by accident: every "hello" would be a duplicate of the first (ours)."""
_SHINGLE = 3
_READ_WORDS = 2000
_FIRST_CHARS = 8 * _READ_WORDS
"""Characters in which so many words nearly always are; reading on costs time."""
_PERMUTATIONS = 128
_SEED = 1
_FALSE_ALARM = 1e-3
"""Chance per band, at the expected number of conversations, that an unseen one is taken for seen."""
_AGREEING = 1 / 3
"""About this share of the bands agrees at the threshold: many enough to count, few enough to tell."""
_NAMES_KEPT = 100_000
"""Bands whose conversation is remembered by name."""
# Scripts that put no spaces between words count each character as a word.
_BETWEEN = bytes(code if chr(code).isalnum() else 32 for code in range(128)).ljust(256)
"""By ASCII code, what stands there when words are cut."""
W = TypeVar("W", str, bytes)
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯ก-๿]|[^\W_]+")


class NearDuplicates:
    """``near_duplicate``: the user's side of the conversation resembles that of an earlier one.

    Texts resemble each other when the sets of their word trigrams do (Jaccard); at the threshold about half of the
    pairs are found, well above it nearly all. The bands may have been seen in several earlier conversations, so a text
    that is put together from others counts as well. With fewer than `MIN_WORDS` words of the user nothing is said.

    Args:
        threshold: Resemblance in (0, 1).
        expected: Conversations that the filters are made for; at 0.8 they need 45 bytes for each. Twice as many do no
            harm, since single bands that alarm falsely are outvoted.

    Raises:
        MissingExtraError: rensa or rbloom is not installed.
    """

    name = "near_duplicates"
    drops = True

    def __init__(self, threshold: float, expected: int) -> None:
        try:
            from rbloom import Bloom
            from rensa import RMinHash
        except ImportError as error:
            raise MissingExtraError(error.name or "rensa", "train") from error
        self._sketch = RMinHash
        self._bands, self._rows, self._votes = bands_for(threshold)
        self._filters: Callable[[], list[Any]] = lambda: [Bloom(expected, _FALSE_ALARM) for _ in range(self._bands)]
        self._names: dict[int, str] = {}

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Compare with all before it, and remember it."""
        return self.judge(self.read(conversation), conversation.conversation_id)

    def read(self, conversation: Conversation) -> SeenPart:
        """The keys of the bands."""
        text = "\n".join(message.content for message in requests(conversation))
        tokens = words(text)
        if len(tokens) < MIN_WORDS:
            return None
        return tuple(self._keys(shingles(tokens, _SHINGLE))), quote(text)

    def judge(self, part: SeenPart, key: str) -> Finding | None:
        """See `Seen.judge`."""
        if part is None:
            return None
        keys, passage = part
        found: list[int] = []
        for seen, band_key in zip(self._seen, keys, strict=True):
            if band_key in seen:
                found.append(band_key)
            else:
                seen.add(band_key)
                if len(self._names) < _NAMES_KEPT:
                    self._names[band_key] = key
        if len(found) < self._votes:
            return None
        twins = Counter(self._names[key] for key in found if key in self._names)
        twin = twins.most_common(1)[0][0] if twins else "an earlier conversation"
        return Finding("near_duplicate", f"like {twin} in {len(found)} of {self._bands} bands: {passage}")

    @cached_property
    def _seen(self) -> list[Any]:
        # A process that only reads needs no filters. The key is a hash already, and the same one in every process,
        # unlike that of a text.
        return self._filters()

    def _keys(self, pieces: Iterable[str]) -> list[int]:
        sketch = self._sketch(num_perm=_PERMUTATIONS, seed=_SEED)
        sketch.update(list(pieces))
        digest = sketch.digest()
        return [hash((band, *digest[band * self._rows : (band + 1) * self._rows])) for band in range(self._bands)]


def bands_for(threshold: float) -> tuple[int, int, int]:
    """Bands, rows in each, and how many bands must agree.

    Two sets of resemblance s agree in a band of r rows with probability s ** r; at the threshold that should be about
    `_AGREEING`, and the number expected then is what is asked for.
    """
    rows = max(1, round(math.log(_AGREEING) / math.log(threshold)))
    bands = max(1, _PERMUTATIONS // rows)
    return bands, rows, max(1, round(bands * threshold**rows))


def words(text: str) -> list[str]:
    """The first `_READ_WORDS` words, in lower case."""
    return list(map(bytes.decode, encoded_words(text)))


@lru_cache(maxsize=1)
def encoded_words(text: str) -> tuple[bytes, ...]:
    """`words` in UTF-8. Two screens ask for those of the first message, which in most conversations is the only one."""
    if text.isascii():
        # A tenth of the time that the expression takes.
        return tuple(_first(text.lower(), lambda part: part.encode("ascii").translate(_BETWEEN).split()))
    return tuple(map(str.encode, _first(text.lower(), _WORD.findall)))


def _first(lowered: str, cut: Callable[[str], list[W]]) -> list[W]:
    found = cut(lowered[:_FIRST_CHARS])
    if len(found) <= _READ_WORDS and len(lowered) > _FIRST_CHARS:
        # Very long words, or few.
        found = cut(lowered)
    return found[:_READ_WORDS]


def shingles(tokens: list[str], size: int) -> list[str]:
    """Every run of `size` words, in order; repeated ones too."""
    return list(map(" ".join, zip(*(tokens[place:] for place in range(size)), strict=False)))
