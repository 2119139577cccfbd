"""Reads on the hot path from a store that may hang: nobody waits for one longer than the time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.errors import StoreTimeoutError
from rlhi_plugin.records import ConsentDecision, Persona, Purpose, Tombstone
from rlhi_plugin.stores import ConsentStore, ForgettingStore, PersonaStore
from rlhi_plugin.stores.shortcuts import reads_in_time, shortcut

PAUSE_S = 10.0
"""Seconds for which a store that hung is not asked again (ours)."""

_T = TypeVar("_T")


class _Patience:
    """Waits for a store, up to a limit; a store that hung is left alone for a while."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._threads = DeadlineThreads(name)
        self._asked_again_at = 0.0

    def wait_for(self, read: Callable[[], _T], *, in_time: bool = False) -> _T:
        """What a read gives; one that ends `in_time` by itself needs no thread."""
        if time.monotonic() < self._asked_again_at:
            raise StoreTimeoutError(f"the store hung within the last {PAUSE_S:g} s. See whether it is overloaded.")
        try:
            return read() if in_time else self._threads.call(read, self.timeout_s)
        except StoreTimeoutError:
            self._asked_again_at = time.monotonic() + PAUSE_S
            raise

    def close(self) -> None:
        self._threads.close()


class TimedPersonas:
    """A `PersonaStore` around another one.

    Args:
        store: Where personas are.
        timeout_s: Seconds for which a caller waits.
        may_hang: Whether to trust no store in the caller's thread, also one that says that it reads in time.
    """

    def __init__(self, store: PersonaStore, *, timeout_s: float, may_hang: bool = False) -> None:
        self._store = store
        self._patience = _Patience("rlhi-persona", timeout_s)
        self._within: Callable[[str, float], Persona | None] | None = None
        if not may_hang:
            self._within = shortcut(store, "get_persona", "get_persona_within")

    def get_persona(self, user_id: str) -> Persona | None:
        """See `PersonaStore.get_persona`.

        Raises:
            StoreTimeoutError: the store does not answer in time, or did not just now.
            StoreError: the store cannot be read.
        """
        if self._within is not None and reads_in_time(self._store):
            within = self._within
            return self._patience.wait_for(lambda: within(user_id, self._patience.timeout_s), in_time=True)
        return self._patience.wait_for(lambda: self._store.get_persona(user_id))

    def put_persona(self, persona: Persona) -> None:
        """See `PersonaStore.put_persona`."""
        self._store.put_persona(persona)

    def close(self) -> None:
        """Let idle threads end; may be asked again afterwards."""
        self._patience.close()


class TimedConsents:
    """A `ConsentStore` and `ForgettingStore` around a store; `forget` and `purge` are not for the hot path.

    Args:
        store: Where decisions are. One that forgets nobody has no tombstones.
        timeout_s: Seconds for which a caller waits.
        may_hang: See `TimedPersonas`.
    """

    def __init__(self, store: ConsentStore, *, timeout_s: float, may_hang: bool = False) -> None:
        self._store = store
        self._patience = _Patience("rlhi-consent", timeout_s)
        self._stone: Callable[[str], datetime | None] | None = shortcut(store, "tombstones", "forgotten_at")
        self._within: Callable[[str, float], Mapping[Purpose, ConsentDecision]] | None = None
        self._stone_within: Callable[[str, float], datetime | None] | None = None
        if not may_hang:
            self._within = shortcut(store, "consents", "consents_within")
            self._stone_within = shortcut(store, "tombstones", "forgotten_at_within")

    def put_consent(self, decision: ConsentDecision) -> None:
        """See `ConsentStore.put_consent`; waits as long as it takes."""
        self._store.put_consent(decision)

    def consents(self, user_id: str) -> Mapping[Purpose, ConsentDecision]:
        """See `ConsentStore.consents`.

        Raises:
            StoreTimeoutError: the store does not answer in time, or did not just now.
            StoreError: the store cannot be read.
        """
        if self._within is not None and reads_in_time(self._store):
            within = self._within
            return self._patience.wait_for(lambda: within(user_id, self._patience.timeout_s), in_time=True)
        return self._patience.wait_for(lambda: self._store.consents(user_id))

    def tombstones(self) -> list[Tombstone]:
        """See `ForgettingStore.tombstones`; errors as for `consents`."""
        store = self._store
        return self._patience.wait_for(store.tombstones) if isinstance(store, ForgettingStore) else []

    def forgotten_at(self, user_id: str) -> datetime | None:
        """When a user was forgotten last; None where they never were. Errors as for `consents`.

        A store that can only list all tombstones is asked for that.
        """
        if self._stone_within is not None and reads_in_time(self._store):
            within = self._stone_within
            return self._patience.wait_for(lambda: within(user_id, self._patience.timeout_s), in_time=True)
        if self._stone is not None:
            look = self._stone
            return self._patience.wait_for(lambda: look(user_id))
        return next((stone.forgotten_at for stone in self.tombstones() if stone.user_id == user_id), None)

    def close(self) -> None:
        """Let idle threads end; may be asked again afterwards."""
        self._patience.close()

    def forget(self, user_id: str) -> Any:
        """See `ForgettingStore.forget`."""
        return self._forgetting().forget(user_id)

    def purge(self, *, before: datetime, user_id: str | None = None) -> int:
        """See `ForgettingStore.purge`."""
        return self._forgetting().purge(before=before, user_id=user_id)

    def _forgetting(self) -> ForgettingStore:
        if not isinstance(self._store, ForgettingStore):
            raise TypeError(f"{type(self._store).__name__} forgets nobody. Use a ForgettingStore.")
        return self._store
