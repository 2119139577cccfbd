"""Personas on the hot path: read from memory, looked up rarely, and fixed for as long as a thread lives."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rlhi_plugin.persona.cohort import CohortPrior
from rlhi_plugin.persona.gate import GateMode, gate
from rlhi_plugin.persona.render import render_persona, render_prior
from rlhi_plugin.records import Persona, PersonaStatement
from rlhi_plugin.stores import PersonaStore

_log = logging.getLogger("rlhi.middleware")

USERS_REMEMBERED = 10_000
THREADS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class RenderedPersona:
    """A persona as it stands in a prompt.

    Attributes:
        text: What `render_persona` gives, or `render_prior` for a cohort prior; never empty.
        digest: `Persona.digest` of what was rendered, or `CohortPrior.digest`.
        statements: What was rendered, with its evidence; empty for a cohort prior.
    """

    text: str
    digest: str
    statements: tuple[PersonaStatement, ...] = ()


class PersonaCache:
    """Rendered personas by user, and by thread. Thread-safe; never raises.

    A prompt prefix that changes in the middle of a thread would invalidate the provider's prompt cache and surprise the
    user, so a thread keeps what it began with, also when that was nothing. The relevance gate decides at that moment
    too, by the request that it is given then. Only what the user does themselves changes a thread: see `drop`.

    Args:
        store: Where personas are.
        max_age_s: Seconds for which a user's persona is not read again.
        gate_mode: What the relevance gate may leave out (`rlhi_plugin.persona.gate`).
        prior: What users get of whom nothing is stored; nothing without it.
    """

    def __init__(
        self,
        store: PersonaStore,
        *,
        max_age_s: float = 60.0,
        gate_mode: GateMode = GateMode.OFF,
        prior: CohortPrior | None = None,
    ) -> None:
        self._store = store
        self._max_age_s = max_age_s
        self._gate_mode = gate_mode
        self._prior = _rendered_prior(prior)
        # The entries used last stand last.
        self._users: OrderedDict[str, tuple[float, Persona | None]] = OrderedDict()
        self._threads: OrderedDict[str, RenderedPersona | None] = OrderedDict()
        self._lock = threading.Lock()

    def is_ready(self, thread: str, user_id: str) -> bool:
        """Whether `get` would answer from memory."""
        with self._lock:
            return f"{thread}\0{user_id}" in self._threads or self._remembers(user_id)

    def get(
        self, thread: str, user_id: str, request: Callable[[], str | None] | str | None = None
    ) -> RenderedPersona | None:
        """The persona of this user in this thread; reads the store where it must. None when there is none.

        Args:
            thread: The conversation.
            user_id: Pseudonym.
            request: What the thread began with, for the relevance gate, or a function that tells when it is needed;
                without it nothing is left out. Give the thread's first user message at every call: a thread that was
                pushed out of memory, or goes on in another process, then gets the same persona again unless the stored
                one has changed.
        """
        key = f"{thread}\0{user_id}"
        with self._lock:
            if key in self._threads:
                self._threads.move_to_end(key)
                return self._threads[key]
        current = self._current(user_id, request)
        with self._lock:
            kept = self._threads.setdefault(key, current)
            if len(self._threads) > THREADS_REMEMBERED:
                self._threads.popitem(last=False)
            return kept

    def expire(self, user_id: str) -> None:
        """Read this user's persona anew where their next thread begins; running threads keep what they have."""
        with self._lock:
            self._users.pop(user_id, None)

    def drop(self, user_id: str) -> None:
        """Read this user's persona anew at the next call, in their running threads too: they changed it themselves."""
        with self._lock:
            self._users.pop(user_id, None)
            for key in [key for key in self._threads if key.endswith(f"\0{user_id}")]:
                self._threads.pop(key, None)

    def _current(self, user_id: str, request: Callable[[], str | None] | str | None) -> RenderedPersona | None:
        try:
            persona = self._persona(user_id)
            if persona is None:
                return self._prior
            if callable(request):
                request = None if self._gate_mode is GateMode.OFF else request()
            fitting = persona if request is None else gate(persona, request, self._gate_mode)
            text = render_persona(fitting)
        except Exception:  # noqa: BLE001 - any store may raise anything, and must not end the turn
            _log.exception("the persona of %s could not be read; this thread goes without", user_id)
            return None
        return RenderedPersona(text, fitting.digest, fitting.statements) if text else None

    def _persona(self, user_id: str) -> Persona | None:
        with self._lock:
            if self._remembers(user_id):
                self._users.move_to_end(user_id)
                return self._users[user_id][1]
        persona = self._store.get_persona(user_id)
        with self._lock:
            self._users[user_id] = (time.monotonic(), persona)
            self._users.move_to_end(user_id)
            if len(self._users) > USERS_REMEMBERED:
                self._users.popitem(last=False)
        return persona

    def _remembers(self, user_id: str) -> bool:
        known = self._users.get(user_id)
        return known is not None and time.monotonic() - known[0] < self._max_age_s


def _rendered_prior(prior: CohortPrior | None) -> RenderedPersona | None:
    if prior is None or not prior.sentences:
        return None
    return RenderedPersona(render_prior(prior.sentences), prior.digest)
