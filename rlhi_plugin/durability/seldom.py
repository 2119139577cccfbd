"""Log lines that an outage would repeat thousands of times: one in a while, with the number of those left out."""

from __future__ import annotations

import logging
import threading
import time

EVERY_S = 10.0
"""Seconds between two lines of the same kind (ours)."""


class SeldomLog:
    """Writes at most one line of each kind every `every_s` seconds. Usable from any thread."""

    def __init__(self, logger: logging.Logger, *, every_s: float = EVERY_S) -> None:
        self._logger = logger
        self._every_s = every_s
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def log(self, level: int, kind: str, *arguments: object, error: BaseException | None = None) -> None:
        """Log `kind`, a format of `logging` that is also its key, unless it was logged just now."""
        now = time.monotonic()
        with self._lock:
            last, left_out = self._kinds.get(kind, (-self._every_s, 0))
            if now - last < self._every_s:
                self._kinds[kind] = (last, left_out + 1)
                return
            self._kinds[kind] = (now, 0)
        note = f" ({left_out} more of these since the last one)" if left_out else ""
        self._logger.log(level, "%s%s", kind % arguments, note, exc_info=error)
