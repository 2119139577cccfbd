"""What the learning pass wrote, read back one conversation at a time."""

from __future__ import annotations

from typing import Any, Self

from rlhi_training.records import LabelledTurn
from rlhi_training.scale.layout import Layout
from rlhi_training.scale.learn import Learned
from rlhi_training.scale.room import Place


class Learnt:
    """Reads single conversations of the shards."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._open.values():
            stream.close()

    def read(self, place: Place) -> tuple[Learned, LabelledTurn]:
        """A conversation, and the turn that is asked about."""
        if place.shard not in self._open:
            self._open[place.shard] = self._layout.shard(place.shard, "learned.jsonl").open("rb", buffering=0)
        stream = self._open[place.shard]
        stream.seek(place.offset)
        one = Learned.model_validate_json(stream.read(place.length))
        return one, next(turn for turn in one.turns if turn.turn == place.turn)
