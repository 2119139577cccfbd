"""Personas from a store that may hang: nobody waits for one longer than the time limit."""

from __future__ import annotations

import time

from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.records import Persona
from rlhi_plugin.stores import PersonaStore

PAUSE_S = 10.0
"""Seconds for which a store that hung is not asked again (ours)."""


class TimedPersonas:
    """A `PersonaStore` around another one.

    Args:
        store: Where personas are.
        timeout_s: Seconds for which a caller waits.
    """

    def __init__(self, store: PersonaStore, *, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._threads = DeadlineThreads("rlhi-persona")
        self._asked_again_at = 0.0

    def get_persona(self, user_id: str) -> Persona | None:
        """See `PersonaStore.get_persona`.

        Raises:
            StoreTimeoutError: the store does not answer in time, or did not just now.
            StoreError: the store cannot be read.
        """
        if time.monotonic() < self._asked_again_at:
            raise StoreTimeoutError(f"the store hung within the last {PAUSE_S:g} s. See whether it is overloaded.")
        try:
            return self._threads.call(lambda: self._store.get_persona(user_id), self._timeout_s)
        except StoreTimeoutError:
            self._asked_again_at = time.monotonic() + PAUSE_S
            raise

    def put_persona(self, persona: Persona) -> None:
        """See `PersonaStore.put_persona`."""
        self._store.put_persona(persona)
