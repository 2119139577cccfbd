"""A set of names in 24 bytes each: digests in sorted arrays of numpy, merged as they grow."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.void]

_NEW = 20_000
"""Names that are kept in a dict before they are sorted into an array (ours)."""


class DigestSet:
    """Remembers names (by 128 bits of a digest: two of a billion names collide with a chance of 1e-21), with a number.

    Lookups are exact up to that; memory is 24 bytes a name, and some megabytes.
    """

    def __init__(self) -> None:
        self._new: dict[bytes, int] = {}
        self._runs: list[Table] = []

    def first(self, name: str, value: int) -> int | None:
        """The value that was given with the name before; None where it is new, and then it is remembered."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._new.get(digest)
        if known is None:
            known = self._found(digest)
        if known is None:
            self._new[digest] = value
            if len(self._new) >= _NEW:
                self._settle()
        return known

    def _found(self, digest: bytes) -> int | None:
        high, low = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
        for run in self._runs:
            place = int(run["high"].searchsorted(high))
            while place < len(run) and int(run["high"][place]) == high:
                if int(run["low"][place]) == low:
                    return int(run["value"][place])
                place += 1
        return None

    def _settle(self) -> None:
        import numpy as np

        rows = [(int.from_bytes(key[:8]), int.from_bytes(key[8:]), value) for key, value in self._new.items()]
        run = np.array(rows, dtype=[("high", "u8"), ("low", "u8"), ("value", "u8")])
        run.sort(order="high")
        self._new = {}
        # Runs of like size are merged, so that there are few and each name is moved seldom.
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(order="high")
        self._runs.append(run)
