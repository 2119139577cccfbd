"""One round's part of a training that goes on over several rounds: the same optimiser, schedule and count of steps."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlhi_training.records import Dropped
from rlhi_training.tokenised_pairs import TokenisedPair

if TYPE_CHECKING:
    from transformers import TrainerCallback

T = TypeVar("T")


@dataclass(frozen=True)
class Segment:
    """Steps ``(number - 1) * steps + 1`` to ``number * steps`` of a training of ``of * steps``.

    To transformers' trainer each part is an epoch of exactly `steps` steps over this round's rows, so that it finds its
    place after a kill as in any other run.

    Attributes:
        number: 1-based.
        of: How many parts there are.
        steps: Optimiser steps of each.
        before: The state in which the part before this one ended; None for the first.
        came_from: Digest of the adapter that this part begins with; empty for the first.
    """

    number: int
    of: int
    steps: int
    before: Path | None = None
    came_from: str = ""

    @property
    def last_step(self) -> int:
        """The step after which this part is over."""
        return self.number * self.steps

    def rows(self, kept: Sequence[T], batch_size: int, seed: int) -> tuple[list[T], list[Dropped]]:
        """As many rows as the steps take: all pairs over and over, or so many drawn at random, the rest dropped.

        Copies of a pair count as pairs of another conversation, so that they do not meet in one batch.

        Drops: ``over_steps``.
        """
        wanted = self.steps * batch_size
        draw = random.Random(f"{seed}/{self.number}")
        rounds, rest = divmod(wanted, len(kept))
        drawn = set(draw.sample(range(len(kept)), rest))
        rows = [_copy(pair, copy) for copy in range(rounds) for pair in kept]
        rows += [_copy(pair, rounds) for place, pair in enumerate(kept) if place in drawn]
        if rounds:
            return rows, []
        return rows, [
            Dropped(stage="train", key=getattr(pair, "pair_id", str(place)), reason="over_steps")
            for place, pair in enumerate(kept)
            if place not in drawn
        ]

    def stop(self) -> TrainerCallback:
        """Ends training, and saves its state, after the last step of this part."""
        from rlhi_training.methods.watch import StopAfter

        return StopAfter(self.last_step)

    def keep(self, checkpoints: Path, target: Path) -> None:
        """Put the state after the last step where the next part looks for it."""
        shutil.rmtree(target, ignore_errors=True)
        (checkpoints / f"checkpoint-{self.last_step}").rename(target)


def _copy(pair: T, number: int) -> T:
    if number and isinstance(pair, TokenisedPair):
        return replace(pair, group=(f"{pair.group[0]}@{number}", pair.group[1]))
    return pair
