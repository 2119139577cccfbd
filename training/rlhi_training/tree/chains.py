"""A forest cut into chains: runs of tokens that descend from one another, each with the tokens above it.

The queries of a chain all see the same tokens before the chain, and inside the chain what comes before them. Attention
chain by chain therefore computes what the rule of `rlhi_training.tree.prefix_tree` allows and little else, while a
dense mask computes every pair of tokens of a line: on a conversation of eight turns three and a half times as many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhi_training.tree.prefix_tree import Forest, IntArray


@dataclass(frozen=True, slots=True)
class Chain:
    """Some tokens of one line, each but the first the child of the one before it."""

    line: int
    places: IntArray
    """[queries] places in the line, in order of depth."""
    above: IntArray
    """[ancestors] places in the line of all ancestors of the first token, in order of depth."""

    @property
    def keys(self) -> IntArray:
        """[ancestors + queries] places of what the chain's tokens may see."""
        return np.concatenate([self.above, self.places])

    def mask(self, window: int | None) -> npt.NDArray[np.bool_]:
        """[queries, keys]: whether a token may see another.

        Args:
            window: Tokens of its own row that a token sees, itself included; None is all of them.
        """
        ahead = np.arange(len(self.places))[:, None] + len(self.above) - np.arange(len(self.above) + len(self.places))
        seen = ahead >= 0
        return seen if window is None else seen & (ahead < window)

    def within(self, window: int) -> Chain:
        """The chain without the ancestors that no token of it sees."""
        return Chain(self.line, self.places, self.above[max(0, len(self.above) - window + 1) :])


@dataclass(slots=True)
class _Segment:
    """Tokens between two branchings: ``start`` to ``stop`` in a line."""

    start: int
    stop: int
    above: _Segment | None
    below: list[_Segment]
    height: int = 0
    """Tokens of the longest way down from its first token."""

    @property
    def places(self) -> IntArray:
        return np.arange(self.start, self.stop)


def chains(forest: Forest) -> list[Chain]:
    """Cut a forest into chains so that the longest way down each tree is one of them.

    Every token is in exactly one chain; padding is a chain of one token.
    """
    lines, width = forest.tokens.shape
    parents = forest.parent.reshape(lines, width) - np.arange(lines)[:, None] * width
    return [chain for line in range(lines) for chain in _of_line(line, parents[line])]


def _of_line(line: int, parent: IntArray) -> list[Chain]:
    roots = _segments(parent)
    found: list[Chain] = []
    left: list[tuple[_Segment, IntArray]] = [(root, np.empty(0, dtype=np.int64)) for root in roots]
    while left:
        segment, above = left.pop()
        own = [segment]
        while own[-1].below:
            own.append(max(own[-1].below, key=lambda other: other.height))
        places = np.concatenate([part.places for part in own])
        found.append(Chain(line, places, above))
        reached = 0
        for part, following in zip(own, [*own[1:], None], strict=True):
            reached += part.stop - part.start
            branches = [other for other in part.below if other is not following]
            left += [(other, np.concatenate([above, places[:reached]])) for other in branches]
    return found


def _segments(parent: IntArray) -> list[_Segment]:
    """The segments of a line; those without a parent are returned, with the others below them."""
    place = np.arange(len(parent))
    goes_on = (parent == place - 1) & (place > 0)
    branching = np.unique(parent[~goes_on & (parent != place)]) + 1
    starts = np.unique(np.concatenate([place[~goes_on], branching[branching < len(parent)]]))
    stops = np.append(starts[1:], len(parent))
    holding = np.searchsorted(starts, parent[starts], side="right") - 1
    made: list[_Segment] = []
    for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        above = None if parent[start] == start else made[int(holding[index])]
        made.append(_Segment(start, stop, above, []))
        if above is not None:
            above.below.append(made[-1])
    for segment in reversed(made):
        deepest = max((other.height for other in segment.below), default=0)
        segment.height = segment.stop - segment.start + deepest
    return [segment for segment in made if segment.above is None]
