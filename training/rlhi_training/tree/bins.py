"""Bin packing of whole numbers: first fit, longest first.

Never more than 11/9 of the fewest possible bins, plus 6/9 of one (Dósa, ESCAPE 2007). The packages that pack bins
(``binpacking``) promise no bound, and this is shorter than calling them.
"""

from __future__ import annotations

from collections.abc import Sequence


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into as few bins as first-fit-decreasing finds; the same bins for the same sizes.

    Args:
        sizes: Of the items, none above `capacity`.
        capacity: Of a bin.

    Returns:
        For each bin, the places in `sizes` of its items, longest first.

    Raises:
        ValueError: an item is larger than a bin.
    """
    if sizes and max(sizes) > capacity:
        raise ValueError(f"an item of {max(sizes)} fits no bin of {capacity}")
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        place = next((i for i, left in enumerate(room) if left >= sizes[item]), None)
        if place is None:
            bins.append([])
            room.append(capacity)
            place = len(bins) - 1
        bins[place].append(item)
        room[place] -= sizes[item]
    return bins
