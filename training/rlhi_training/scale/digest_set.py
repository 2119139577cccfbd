"""A set of names in 24 bytes each: digests in sorted arrays of numpy, merged as they grow."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.uint64]

_NEW = 20_000
"""Names that are kept in a dict before they are sorted into arrays (ours)."""


class _Run(NamedTuple):
    """Digests and values, sorted by `high`.

    Three arrays and not one of three fields: numpy copies a field before it searches it, which takes the time of the
    whole run at each name.
    """

    high: Column
    low: Column
    value: Column

    def find(self, high: np.uint64, low: np.uint64) -> int | None:
        """The value of a digest; None where it is not in the run."""
        place = int(self.high.searchsorted(high))
        while place < len(self.high) and self.high[place] == high:
            if self.low[place] == low:
                return int(self.value[place])
            place += 1
        return None


class DigestSet:
    """Remembers names (by 128 bits of a digest: two of a billion names collide with a chance of 1e-21), with a number.

    Lookups are exact up to that; memory is 24 bytes a name, and some megabytes.
    """

    def __init__(self) -> None:
        self._new: dict[bytes, int] = {}
        self._runs: list[_Run] = []

    def first(self, name: str, value: int) -> int | None:
        """The value that was given with the name before; None where it is new, and then it is remembered.

        Args:
            name: Any text.
            value: In [0, 2^64).
        """
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
        if not self._runs:
            return None
        import numpy as np

        high, low = np.frombuffer(digest, dtype=np.uint64)
        return next((known for run in self._runs if (known := run.find(high, low)) is not None), None)

    def _settle(self) -> None:
        import numpy as np

        digests = np.frombuffer(b"".join(self._new), dtype=np.uint64).reshape(-1, 2)
        run = _sorted(_Run(digests[:, 0], digests[:, 1], np.array(list(self._new.values()), dtype=np.uint64)))
        self._new = {}
        # Runs of like size are merged, so that there are few and each name is moved seldom.
        while self._runs and len(self._runs[-1].high) <= 2 * len(run.high):
            both = zip(self._runs.pop(), run, strict=True)
            run = _sorted(_Run(*(np.concatenate(columns) for columns in both)))
        self._runs.append(run)


def _sorted(run: _Run) -> _Run:
    order = run.high.argsort(kind="stable")
    return _Run(*(column[order] for column in run))
