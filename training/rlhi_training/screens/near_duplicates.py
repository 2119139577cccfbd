"""Near-duplicates: MinHash signatures of what the user wrote, banded (LSH), the bands remembered in Bloom filters.

An LSH index that keeps its signatures takes about 1.3 KB a conversation; one Bloom filter per band (arXiv 2411.04257)
takes a few bytes, whatever the text, and is never larger than it was made. The price: which earlier conversation it was
is known only for the first ones, and nothing can be verified. So bands vote (ours): texts count as alike when as many
bands agree as would at the threshold, which cuts more sharply there than asking for a single one. rensa makes the
signatures, rbloom the filters; both are Rust.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import MissingExtraError
from rlhi_plugin.records import Conversation
from rlhi_training.screens.batch import Batch
from rlhi_training.screens.screen import Finding, SeenPart, quote
from rlhi_training.screens.wording import READ_WORDS, mixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_WORDS = 20
"""Shorter texts are alike by accident: every "hello" would be a duplicate of the first (ours)."""
_SHINGLE = 3
_PERMUTATIONS = 128
_SEED = 1
_FALSE_ALARM = 1e-3
"""Chance per band, at the expected number of conversations, that an unseen one is taken for seen."""
_AGREEING = 1 / 3
"""About this share of the bands agrees at the threshold: many enough to count, few enough to tell."""
_NAMES_KEPT = 100_000
"""Bands whose conversation is remembered by name."""


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
        (part,) = self.read(Batch([conversation]))
        return self.judge(part, conversation.conversation_id)

    def read(self, batch: Batch) -> list[SeenPart]:
        """Of each conversation the keys of the bands."""
        spans = [(start, min(end, start + READ_WORDS)) for start, _, end in batch.first_words]
        long = [number for number, (start, end) in enumerate(spans) if end - start >= MIN_WORDS]
        found: list[SeenPart] = [None] * len(spans)
        if long:
            keys = self._keys(batch, [spans[number] for number in long])
            for number, row in zip(long, keys, strict=True):
                text = "\n".join(message.content for message in batch.requests[number])
                found[number] = tuple(row), quote(text)
        return found

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

    def _keys(self, batch: Batch, spans: list[tuple[int, int]]) -> list[list[int]]:
        """[spans, bands] For these words of the batch."""
        import numpy as np

        runs = mixed(batch.wording.runs(_SHINGLE))
        pieces = [runs[start : end - _SHINGLE + 1] for start, end in spans]
        ends = np.cumsum([0, *map(len, pieces)]).astype(np.uint64)
        sketches = self._sketch.digest_matrix_from_flat_token_hashes(
            np.concatenate(pieces), ends, num_perm=_PERMUTATIONS, seed=_SEED
        )
        return self._banded(np.array(sketches.to_rows(), dtype=np.uint64))

    def _banded(self, sketches: NDArray[np.uint64]) -> list[list[int]]:
        """[texts, bands] A number for what stands in each band of a signature, and for which band it is."""
        import numpy as np

        rows = sketches[:, : self._bands * self._rows].reshape(len(sketches), self._bands, self._rows)
        keys = np.tile(np.arange(self._bands, dtype=np.uint64), (len(sketches), 1))
        for place in range(self._rows):
            keys = mixed(keys + rows[:, :, place])
        # Below 2^63, as hashes in Python are.
        found: list[list[int]] = (keys >> np.uint64(1)).tolist()
        return found


def bands_for(threshold: float) -> tuple[int, int, int]:
    """Bands, rows in each, and how many bands must agree.

    Two sets of resemblance s agree in a band of r rows with probability s ** r; at the threshold that should be about
    `_AGREEING`, and the number expected then is what is asked for.
    """
    rows = max(1, round(math.log(_AGREEING) / math.log(threshold)))
    bands = max(1, _PERMUTATIONS // rows)
    return bands, rows, max(1, round(bands * threshold**rows))
