"""Rows of tokens become prefix trees, laid out so that one rule says what each token may attend to.

Rows that start alike share those tokens. The tokens of a tree are in depth-first order; ``end[j]`` is the place after
the last token of j's subtree. Token i may attend to token j exactly when ``j <= i < end[j]``: then j is i itself or one
of its ancestors, that is, an earlier token of i's own row. Positions are depths. Several trees laid end to end obey the
same rule, so a batch is a few lines of equal length. This is our own step past the field (no paper); the closest is
prefix sharing within one pair (arXiv 2410.20305).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhi_training.tree.bins import first_fit_decreasing

IntArray = npt.NDArray[np.int64]

LINEAR_COST = 1000
"""Cost of one token in everything but attention, in units of one attention score (ours, measured on CPU)."""
_LENGTHS = 8
"""How many lengths of line there are under a budget in blocks (ours): padding is at most an eighth of the budget."""
_WORTH_SHARING = 8
"""Where attention is sparse, rows share when they have an eighth as many tokens in common as the second has fresh ones
(ours): less saves little, and conversations that only a greeting connects could not be packed one by one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an attention takes a forest.

    Attributes:
        sparse: Whether tokens that another does not see cost it nothing. Trees then lie in one line, without padding
            but for the block's, and share what is worth it; else lines are short, and shared tokens must outweigh the
            longer attention.
        block: Lines are padded to a multiple of so many tokens.
        linear_cost: See `LINEAR_COST`; 0 never shares more than attention gains from it.
    """

    sparse: bool = False
    block: int = 1
    linear_cost: int = LINEAR_COST


DENSE_LAYOUT = Layout()


@dataclass(frozen=True, slots=True)
class Forest:
    """All rows of a batch as prefix trees, laid out in lines of equal length. Padding attends to itself alone."""

    tokens: IntArray
    """[lines, width] token ids; padding is 0."""
    depth: IntArray
    """[lines, width] 0-based position of the token in its row."""
    end: IntArray
    """[lines, width] place in the line after the last token of the subtree."""
    parent: IntArray
    """[lines * width] flat place of the token before it in its row; a first token is its own parent."""
    rows: tuple[IntArray, ...]
    """For each row, in the caller's order, the flat places of its tokens."""
    nodes: int
    """Tokens to compute, padding left out; at most the sum of the rows' lengths."""

    def mask(self, window: int | None = None) -> npt.NDArray[np.bool_]:
        """[lines, width, width]: whether token i (second axis) may attend to token j (third).

        Args:
            window: Tokens of its own row that a token sees, itself included; None is all of them.
        """
        place = np.arange(self.tokens.shape[1])
        i, j = place[None, :, None], place[None, None, :]
        seen = (j <= i) & (i < self.end[:, None, :])
        if window is not None:
            seen &= self.depth[:, :, None] - self.depth[:, None, :] < window
        return np.asarray(seen)


@dataclass(slots=True)
class _Tree:
    tokens: IntArray
    depth: IntArray
    end: IntArray
    parent: IntArray
    rows: dict[int, IntArray]


def plant(
    rows: Sequence[Sequence[int]],
    layout: Layout = DENSE_LAYOUT,
    *,
    together: Sequence[Sequence[int]] | None = None,
    budget: int | None = None,
) -> Forest:
    """Build the forest of a batch in O(n log n) of its tokens.

    Two neighbours in sorted order share a tree when that pays; the result is the same either way.

    Args:
        rows: Token ids, no row empty.
        layout: What the attention asks for.
        together: Which rows may share a tree, by their indices; each row once. None: all of them.
        budget: Tokens that the lines may hold together, padding included but for what fills the last block; not less
            than the trees have. In blocks, trees then lie in one line of one of eight lengths, so that a kernel is
            compiled for few shapes. None: lines of a dense attention are as long as the longest tree.

    Raises:
        ValueError: there is no row, or an empty one.
    """
    if not rows or not all(map(len, rows)):
        raise ValueError("a forest needs rows, and tokens in each")
    groups = [tree for some in together or [range(len(rows))] for tree in _group(rows, some, layout)]
    trees = [_grow(rows, group) for group in groups]
    width, lines = _shape([len(tree.tokens) for tree in trees], layout, budget)
    return _lay_out([[trees[i] for i in line] for line in lines], width, len(rows))


def families(rows: Sequence[Sequence[int]], layout: Layout = DENSE_LAYOUT) -> list[list[int]]:
    """Which rows `plant` would put into one tree, by their indices in depth-first order."""
    return [[row for row, _ in group] for group in _group(rows, range(len(rows)), layout)]


def tree_tokens(rows: Sequence[Sequence[int]], layout: Layout = DENSE_LAYOUT) -> int:
    """How many tokens the trees have that `plant` would make of these rows."""
    groups = _group(rows, range(len(rows)), layout)
    return sum(len(rows[row]) - shared for group in groups for row, shared in group)


def _group(rows: Sequence[Sequence[int]], some: Sequence[int], layout: Layout) -> list[list[tuple[int, int]]]:
    """Split some rows, sorted, into trees: for each, (row, tokens shared with the row before it) in order."""
    lists = {index: list(rows[index]) for index in some}
    order = sorted(some, key=lambda index: lists[index])
    groups: list[list[tuple[int, int]]] = []
    size = 0
    for position, index in enumerate(order):
        length = len(lists[index])
        shared = _common_prefix(lists[order[position - 1]], lists[index]) if position else 0
        fresh = length - shared
        saved = layout.linear_cost * shared + length**2
        worth = layout.sparse and _WORTH_SHARING * shared >= fresh
        if shared and (worth or saved >= 2 * size * fresh + fresh**2):
            groups[-1].append((index, shared))
            size += fresh
        else:
            groups.append([(index, 0)])
            size = length
    return groups


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    width = min(len(a), len(b))
    different = np.asarray(a[:width]) != np.asarray(b[:width])
    return int(different.argmax()) if different.any() else width


def _grow(rows: Sequence[Sequence[int]], group: list[tuple[int, int]]) -> _Tree:
    """Lay one tree's sorted rows out depth first."""
    size = sum(len(rows[index]) - shared for index, shared in group)
    tokens, depth, end = (np.empty(size, dtype=np.int64) for _ in range(3))
    parent = np.empty(size, dtype=np.int64)
    paths: dict[int, IntArray] = {}
    path = np.empty(0, dtype=np.int64)
    filled = 0
    for index, shared in group:
        # What the row before does not share with this one has no more descendants.
        end[path[shared:]] = filled
        fresh = np.arange(filled, filled + len(rows[index]) - shared)
        tokens[fresh] = np.asarray(rows[index][shared:], dtype=np.int64)
        depth[fresh] = np.arange(shared, len(rows[index]))
        if len(fresh):
            parent[fresh] = fresh - 1
            parent[fresh[0]] = path[shared - 1] if shared else fresh[0]
        path = np.concatenate([path[:shared], fresh])
        paths[index] = path
        filled += len(fresh)
    end[path] = filled
    return _Tree(tokens, depth, end, parent, paths)


def _shape(sizes: Sequence[int], layout: Layout, budget: int | None) -> tuple[int, list[list[int]]]:
    """Length of the lines, in whole blocks, and which trees lie in each."""
    total = sum(sizes)
    if layout.sparse:
        least, most = _whole(total, layout.block), _whole(budget or 0, layout.block)
        if layout.block > 1 and least < most:
            step = _whole(-(-most // _LENGTHS), layout.block)
            least = min(_whole(total, step), most)
        return least, [list(range(len(sizes)))]
    if budget is None:
        width = _whole(max(sizes), layout.block)
        return width, first_fit_decreasing(sizes, width)
    # Short lines save attention, long ones padding; a single line is always within the budget.
    widths = {max(*sizes, -(-total // lines)) for lines in range(1, len(sizes) + 1)}
    options = [(width, first_fit_decreasing(sizes, width)) for width in sorted(widths | {total})]
    within = [(width, lines) for width, lines in options if len(lines) * width <= max(budget, total)]
    return min(within, key=lambda option: len(option[1]) * option[0] * (LINEAR_COST + option[0]))


def _whole(tokens: int, block: int) -> int:
    return -(-tokens // block) * block


def _lay_out(lines: list[list[_Tree]], width: int, n_rows: int) -> Forest:
    """Put trees end to end into lines of equal length."""
    place = np.tile(np.arange(width), (len(lines), 1))
    tokens, depth, end = np.zeros_like(place), np.zeros_like(place), place + 1
    parent = np.arange(len(lines) * width)
    rows: list[IntArray] = [np.empty(0, dtype=np.int64)] * n_rows
    for number, line_trees in enumerate(lines):
        start = 0
        for tree in line_trees:
            stop = start + len(tree.tokens)
            tokens[number, start:stop] = tree.tokens
            depth[number, start:stop] = tree.depth
            end[number, start:stop] = tree.end + start
            offset = number * width + start
            parent[offset : offset + len(tree.tokens)] = tree.parent + offset
            for index, path in tree.rows.items():
                rows[index] = path + offset
            start = stop
    return Forest(tokens, depth, end, parent, tuple(rows), sum(len(tree.tokens) for line in lines for tree in line))
