"""Which pairs of a batch go through the model together, so that no forward pass takes more tokens than a budget.

Pairs whose rows share a tree stay together: each such part of the batch is one item, and parts are packed into passes
by first-fit-decreasing (`rlhi_training.tree.bins`). A part that is larger than the budget is cut, in depth-first order,
into as few runs of pairs as fit: what the runs have in common is then computed once a run. Trees of one pass lie end to
end under the one rule ``j <= i < end[j]``, so none sees another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_training.tree.bins import first_fit_decreasing
from rlhi_training.tree.prefix_tree import DENSE_LAYOUT, Layout, families, tree_tokens

Rows = Sequence[Sequence[int]]
"""Token ids: all chosen rows over all rejected ones, as TRL stacks them."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Pairs of one forward pass."""

    pairs: tuple[int, ...]
    """Their places in the batch."""
    together: tuple[tuple[int, ...], ...] | None
    """Rows of the pass, all chosen over all rejected, that may share a tree; None where nothing is shared."""
    tokens: int
    """What is computed for them, padding left out where prefixes are shared and counted where they are not."""


def pair_tokens(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], *, shared: bool) -> int:
    """Tokens that the smallest forward pass for one pair computes."""
    if shared:
        return tree_tokens([[*prompt, *chosen], [*prompt, *rejected]])
    return 2 * (len(prompt) + max(len(chosen), len(rejected)))


def plan_packs(
    rows: Rows, budget: int, layout: Layout = DENSE_LAYOUT, *, pairwise: bool = False
) -> tuple[list[Pack], int]:
    """Passes for a batch on prefix trees.

    Args:
        rows: See `Rows`; no pair alone larger than the budget.
        budget: Tokens of a pass.
        layout: What the attention asks for.
        pairwise: Whether only the two rows of a pair may share a tree.

    Returns:
        The passes, every pair in one of them, and how many trees were cut because they exceed the budget.

    Raises:
        ValueError: a pair alone exceeds the budget.
    """
    half = len(rows) // 2
    whole = [[pair] for pair in range(half)] if pairwise else _parts(rows, layout)
    parts: list[list[int]] = []
    cut = 0
    for part in whole:
        runs = _runs(part, rows, budget, layout)
        cut += len(runs) > 1
        parts += runs
    sizes = [_size(part, rows, layout) for part in parts]
    packs = []
    for items in first_fit_decreasing(sizes, budget):
        pairs = [pair for item in items for pair in parts[item]]
        places = {pair: place for place, pair in enumerate(pairs)}
        together = tuple(
            tuple(places[pair] + side for side in (0, len(pairs)) for pair in parts[item]) for item in items
        )
        packs.append(Pack(tuple(pairs), together, sum(sizes[item] for item in items)))
    return packs, cut


def plan_padded(lengths: Sequence[int], budget: int) -> list[Pack]:
    """Passes for a batch of padded rows, where prefixes are not shared.

    Args:
        lengths: The longer row of each pair.
        budget: Tokens of a pass, padding counted; a pair that exceeds it has a pass of its own.
    """
    packs: list[list[int]] = []
    for pair in sorted(range(len(lengths)), key=lambda pair: -lengths[pair]):
        if packs and 2 * (len(packs[-1]) + 1) * lengths[packs[-1][0]] <= budget:
            packs[-1].append(pair)
        else:
            packs.append([pair])
    return [Pack(tuple(pack), None, 2 * len(pack) * lengths[pack[0]]) for pack in packs]


def _parts(rows: Rows, layout: Layout) -> list[list[int]]:
    """Pairs that trees connect, each part in depth-first order of its rows."""
    half = len(rows) // 2
    part_of = list(range(half))
    order: list[int] = []
    for family in families(rows, layout):
        pairs = [row % half for row in family]
        order += pairs
        joined = {part_of[pair] for pair in pairs}
        part_of = [min(joined) if part in joined else part for part in part_of]
    parts: dict[int, list[int]] = {}
    for pair in dict.fromkeys(order):
        parts.setdefault(part_of[pair], []).append(pair)
    return list(parts.values())


def _runs(part: list[int], rows: Rows, budget: int, layout: Layout) -> list[list[int]]:
    if _size(part, rows, layout) <= budget:
        return [part]
    runs: list[list[int]] = []
    for pair in part:
        if runs and _size([*runs[-1], pair], rows, layout) <= budget:
            runs[-1].append(pair)
        else:
            runs.append([pair])
    return runs


def _size(pairs: list[int], rows: Rows, layout: Layout) -> int:
    half = len(rows) // 2
    return tree_tokens([rows[row] for side in (0, half) for row in (pair + side for pair in pairs)], layout)
