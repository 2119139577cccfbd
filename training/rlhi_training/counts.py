"""Counts of a part of a run, which add up to those of the run; some are counts of counts, told apart by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

COUNTS = "counts"
"""Note of a stage on a part of a run: what its notes on the whole are made of."""
MODEL = "model"
"""Prefix of what a reward model has counted."""


def prefixed(prefix: str, counts: Mapping[str, int]) -> Counter[str]:
    """The counts, for a place among others."""
    return Counter({f"{prefix}:{name}": count for name, count in counts.items()})


def under(prefix: str, counts: Mapping[str, int]) -> Counter[str]:
    """What `prefixed` put there."""
    start = f"{prefix}:"
    return Counter({name.removeprefix(start): count for name, count in counts.items() if name.startswith(start)})
