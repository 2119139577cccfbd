"""What the learning pass wrote, read back one conversation at a time."""

from __future__ import annotations

from typing import Self

from rlhi_training.records import LabelledTurn
from rlhi_training.scale.layout import Layout
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.lines import Passages
from rlhi_training.scale.room import Place


class Learnt:
    """Reads single conversations of the shards."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._passages = Passages()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._passages.close()

    def read(self, place: Place) -> tuple[Learned, LabelledTurn]:
        """A conversation, and the turn that is asked about."""
        path = self._layout.shard(place.shard, "learned.jsonl")
        one = Learned.from_line(self._passages.read(path, place.offset, place.length))
        return one, next(turn for turn in one.turns if turn.turn == place.turn)
