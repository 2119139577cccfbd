"""Changing a stored persona without losing what somebody else changed meanwhile.

Building takes seconds, and a user may remove a statement in just these. Within one process, reading and writing happen
under one lock for each store. Between processes the persona is read again right before it is written; what is left is
the moment between the two.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime

from rlhi_plugin.persona.builder import empty_persona
from rlhi_plugin.persona.edits import PersonaEdit, apply_edit
from rlhi_plugin.persona.memory import EDIT
from rlhi_plugin.privacy.messages import MessageRedactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.records import Persona
from rlhi_plugin.stores import PersonaStore

_locks: weakref.WeakKeyDictionary[PersonaStore, threading.Lock] = weakref.WeakKeyDictionary()
_guard = threading.Lock()
_shared = threading.Lock()


def change_persona(store: PersonaStore, user_id: str, change: Callable[[Persona], Persona]) -> Persona:
    """Read a user's persona, change it, and write it where that made a difference.

    Args:
        store: Where it is.
        user_id: The pseudonym.
        change: From the persona to the next one; given an empty one where there is none. What it raises is raised.

    Returns:
        The persona as it now is.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with _lock(store):
        before = store.get_persona(user_id)
        given = before if before is not None else empty_persona(user_id, "none")
        after = change(given)
        if after is not given:
            store.put_persona(after)
        return after


def edit_stored(store: PersonaStore, user_id: str, edit: PersonaEdit, redaction: MessageRedactor | None) -> Persona:
    """Change a user's persona as they say; what is private in their wording is taken out before it is stored.

    Raises:
        ConfigError: no such statement, or the wording cannot be kept.
        StoreError: the store cannot be read or written.
    """
    if redaction is not None and edit.text is not None:
        edit = edit.model_copy(update={"text": redaction.text(edit.text, Scope(EDIT, user_id))})
    return change_persona(store, user_id, lambda persona: apply_edit(persona, edit, datetime.now(UTC)))


def put_unless_changed(store: PersonaStore, before: Persona | None, after: Persona) -> bool:
    """Write a persona that was made from `before`, unless the store now holds another one.

    Returns:
        Whether it was written.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with _lock(store):
        if store.get_persona(after.user_id) != before:
            return False
        store.put_persona(after)
        return True


def _lock(store: PersonaStore) -> threading.Lock:
    with _guard:
        try:
            return _locks.setdefault(store, threading.Lock())
        except TypeError:  # a store that cannot be hashed or weakly referenced shares one lock with its like
            return _shared
