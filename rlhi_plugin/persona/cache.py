"""Personas on the hot path: read from memory, looked up rarely, and fixed for as long as a thread lives."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from rlhi_plugin.persona.render import render_persona
from rlhi_plugin.stores import PersonaStore

_log = logging.getLogger("rlhi.middleware")

USERS_REMEMBERED = 10_000
THREADS_REMEMBERED = 10_000

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class RenderedPersona:
    """A persona as it stands in a prompt.

    Attributes:
        text: What `render_persona` gives; never empty.
        digest: `Persona.digest` of what was rendered.
    """

    text: str
    digest: str


class PersonaCache:
    """Rendered personas by user, and by thread. Thread-safe; never raises.

    A prompt prefix that changes in the middle of a thread would invalidate the provider's prompt cache and surprise the
    user, so a thread keeps what it began with, also when that was nothing.
    """

    def __init__(self, store: PersonaStore, *, max_age_s: float = 60.0) -> None:
        self._store = store
        self._max_age_s = max_age_s
        self._users: _Recent[tuple[float, RenderedPersona | None]] = _Recent(USERS_REMEMBERED)
        self._threads: _Recent[RenderedPersona | None] = _Recent(THREADS_REMEMBERED)
        self._lock = threading.Lock()

    def is_ready(self, thread: str, user_id: str) -> bool:
        """Whether `get` would answer from memory."""
        with self._lock:
            return f"{thread}\0{user_id}" in self._threads

    def get(self, thread: str, user_id: str) -> RenderedPersona | None:
        """The persona of this user in this thread; reads the store where it must. None when there is none."""
        key = f"{thread}\0{user_id}"
        with self._lock:
            if key in self._threads:
                return self._threads.get(key)
        current = self._current(user_id)
        with self._lock:
            if key not in self._threads:
                self._threads.put(key, current)
            return self._threads.get(key)

    def _current(self, user_id: str) -> RenderedPersona | None:
        with self._lock:
            if user_id in self._users:
                read_at, rendered = self._users.get(user_id)
                if time.monotonic() - read_at < self._max_age_s:
                    return rendered
        try:
            persona = self._store.get_persona(user_id)
            text = render_persona(persona)
        except Exception:  # noqa: BLE001 - any store may raise anything, and must not end the turn
            _log.exception("the persona of %s could not be read; this thread goes without", user_id)
            return None
        fresh = RenderedPersona(text, persona.digest) if persona and text else None
        with self._lock:
            self._users.put(user_id, (time.monotonic(), fresh))
        return fresh


class _Recent(Generic[_V]):
    """The entries used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, _V] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> _V:
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, value: _V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
