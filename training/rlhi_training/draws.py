"""Chance that depends on names and a seed alone, and on no order: so a part can be drawn without the rest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

_BYTES = 8


def drawn(seed: int, *names: str) -> int:
    """A number in [0, 2**63) for these names; smaller ones are drawn first."""
    text = "\0".join([str(seed), *names]).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_BYTES).digest()) >> 1


def around(count: int, place: int) -> Iterator[int]:
    """All of `range(count)` once, in an order that `place` decides: a start and a step around the circle."""
    if count == 0:
        return
    start, step = place % count, place // count % count or 1
    # A step without a common divisor comes past everybody (the next number that has none is near).
    while math.gcd(step, count) > 1:
        step = step % count + 1
    for number in range(count):
        yield (start + number * step) % count
