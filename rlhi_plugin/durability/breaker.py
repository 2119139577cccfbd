"""Whether a store takes turns: after a failure it is left alone, until a replay, or one turn in a while, succeeds."""

from __future__ import annotations

import logging
import threading
import time

from rlhi_plugin.durability.seldom import SeldomLog

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0
"""The pause between two tries doubles from the first to the last (ours)."""

_log = logging.getLogger("rlhi.middleware")


class Breaker:
    """Open while the store takes nothing. Usable from any thread.

    Attributes:
        is_open: Whether the store failed last.
        last_error: What went wrong last, whatever came after it, or None.
    """

    def __init__(self, seldom: SeldomLog, last_error: str | None = None) -> None:
        self.is_open = False
        self.last_error = last_error
        self._seldom = seldom
        self._lock = threading.Lock()
        self._took = False
        self._retry_at = 0.0
        self._retry_s = FIRST_RETRY_S

    def failed(self, error: Exception) -> None:
        """The store raised, or was too slow."""
        with self._lock:
            self.note(error)
            if self.is_open:
                self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
            self.is_open = True
            self._retry_at = time.monotonic() + self._retry_s
        self._seldom.log(logging.ERROR, "the store does not take turns: %s", error, error=error)

    def succeeded(self) -> None:
        """The store took something."""
        self._took = True
        if not self.is_open:
            return
        with self._lock:
            self.is_open, self._retry_s = False, FIRST_RETRY_S
        _log.warning("the store takes turns again")

    def note(self, error: Exception) -> None:
        """Something went wrong that says nothing about what the store takes."""
        self.last_error = f"{type(error).__name__}: {error}"

    def may_try(self) -> bool:
        """Whether an open one lets this turn through, to find out: one in a while."""
        with self._lock:
            if time.monotonic() < self._retry_at:
                return False
            self._retry_at = time.monotonic() + self._retry_s
            return True

    def took_since(self) -> bool:
        """Whether the store took something since this was asked last."""
        took, self._took = self._took, False
        return took
